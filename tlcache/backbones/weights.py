"""From `--weights` to a file on disk and its sha256: embedded, downloaded, given, or random."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tlcache.backbones.backbone import Backbone, Weights
from tlcache.errors import UnknownNameError, WeightsError, closest
from tlcache.files import cache_folder, hash_file, whole, write_whole
from tlcache.keys import slug
from tlcache.progress import byte_bar

__all__ = ["HEAD_PREFIX", "checked", "download", "is_here", "load_state", "published", "resolve"]

HEAD_PREFIX = "tlcache.head."  # of a fine-tuned network's own head, beside the names of the network's source
TIMEOUT_S = 20


def is_here(backbone: Backbone, weights: str | None = None) -> bool:
    """Return whether `resolve` of the same arguments downloads nothing."""
    wanted = weights or backbone.default_weights
    return wanted not in backbone.checkpoints or wanted in backbone.at_hand


def resolve(backbone: Backbone, weights: str | None = None) -> Weights:
    """Find, download or make the weights of `backbone`.

    Parameters
    ----------
    backbone
        As `tlcache.backbones.sources.find` returns it.
    weights
        A short name of `backbone.checkpoints`, `random`, or the path of a state dict; default: the first short name.

    Raises
    ------
    WeightsError
        The file is missing or has the wrong hash, or the download failed.
    UnknownNameError
        Neither a file nor a known name.
    """
    weights = weights or backbone.default_weights
    if weights is None:
        raise WeightsError(
            f"Of {backbone.name} no weights are published that could be downloaded. Pass --weights FILE (a state "
            "dict), or --weights random (untrained: a control)."
        )
    if weights == "random":
        path = _random_state(backbone)
        return Weights("random", path, hash_file(path))
    if weights in backbone.checkpoints:
        return backbone.source.weights(backbone, weights)
    path = Path(weights).expanduser()
    if path.is_file():
        return Weights(f"file:{path.name}", path, hash_file(path))
    known = ", ".join([*backbone.checkpoints, "random"])
    if path.suffix or os.sep in weights:
        raise WeightsError(f"No weights at '{weights}'. Give the path of a state dict, or one of: {known}.")
    raise UnknownNameError(closest(f"weights for {backbone.name}", weights, [*backbone.checkpoints, "FILE", "random"]))


def load_state(weights: Weights) -> dict[str, Any]:
    """Return the tensors in a file; code inside is never run. Of a fine-tuned network, the head is left out.

    Raises
    ------
    WeightsError
        As `tlcache.backbones.state_dicts.read_tensors`.
    """
    from tlcache.backbones.state_dicts import read_tensors

    return {name: each for name, each in read_tensors(weights.path).items() if not name.startswith(HEAD_PREFIX)}


def checked(name: str, path: Path, remedy: str) -> Weights:
    """Return the published weights at `path`, whose name ends with the first digits of the sha256 of its bytes.

    Raises
    ------
    WeightsError
        The hash is another; `remedy` is what the message tells people to do.
    """
    sha256, prefix = hash_file(path), _prefix(path)
    if not sha256.startswith(prefix):
        raise WeightsError(f"'{path}' is damaged: its sha256 should start with {prefix}, found {sha256}. {remedy}")
    return Weights(name, path, sha256)


def published(backbone: Backbone, name: str, path: Path, address: Callable[[], str]) -> Weights:
    """Return the published weights at `path` as `checked` does, downloaded first where they are not there.

    `address` is called for where to download them from.

    Raises
    ------
    WeightsError
        The file has the wrong hash, or the download failed.
    """
    if path.is_file():
        return checked(name, path, "Delete it and try again.")
    try:
        return Weights(name, path, download(address(), path, _prefix(path)))
    except WeightsError as error:
        raise WeightsError(
            f"{error}\n{backbone.name} needs its {name} weights. Put the file at {path} by hand, "
            "or pass --weights FILE (a state dict), or --weights random (untrained: a control). To try things out, "
            "--model resnet20_cifar needs no download."
        ) from None


def _prefix(path: Path) -> str:
    return path.stem.rpartition("-")[2]


def download(url: str, path: Path, sha256_prefix: str) -> str:
    """Download `url` to `path` through a temporary file beside it, and return the sha256 of the bytes.

    Raises
    ------
    WeightsError
        No connection, a transfer that was cut, or a hash that does not begin with `sha256_prefix`.
        Nothing is left behind.
    """
    digest, received = hashlib.sha256(), 0
    try:
        with whole(path) as unfinished:
            with unfinished.open("wb") as out, urllib.request.urlopen(url, timeout=TIMEOUT_S) as reply:
                expected = int(reply.headers.get("Content-Length") or 0)
                with byte_bar(path.name, expected) as advance:
                    while block := _read(reply):
                        out.write(block)
                        digest.update(block)
                        received += len(block)
                        advance(len(block))
            if received < expected:
                raise WeightsError(
                    f"The transfer of {url} was cut: expected {expected:,} bytes, received {received:,}."
                )
            if not digest.hexdigest().startswith(sha256_prefix):
                raise WeightsError(
                    f"{url} has the wrong content: expected a sha256 that starts with {sha256_prefix}, "
                    f"received {digest.hexdigest()}. Nothing was kept."
                )
    except OSError as error:  # urllib's errors are among them
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise WeightsError(f"Could not download {url}: {getattr(error, 'reason', error)}.") from None
    return digest.hexdigest()


def _read(reply: http.client.HTTPResponse) -> bytes:
    """Read a block; what arrived of a transfer that was cut counts like an end."""
    try:
        return reply.read(1 << 20)
    except http.client.IncompleteRead as cut:
        return cut.partial


def _random_state(backbone: Backbone) -> Path:
    """Return a state dict of fresh weights, made once from seed 0 and then kept, so that its key stays the same."""
    import torch

    from tlcache.backbones.torch_network import untrained

    release = torch.__version__.partition("+")[0]
    name = slug("-".join(backbone.origin.values()))
    path = cache_folder() / "random" / f"{name}-seed0-torch{release}.pth"
    if not path.is_file():
        buffer = io.BytesIO()
        torch.save(untrained(backbone, seed=0).module.state_dict(), buffer)
        write_whole(path, buffer.getbuffer())
    return path
