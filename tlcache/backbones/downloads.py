"""Published weights that are downloaded when they are first asked for."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tlcache.backbones.backbone import Backbone, Weights
from tlcache.backbones.weights import checked, stated_hash
from tlcache.errors import WeightsError
from tlcache.files import whole
from tlcache.progress import byte_bar

__all__ = ["download", "published"]

TIMEOUT_S = 20


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
        return Weights(name, path, download(address(), path, stated_hash(path)))
    except WeightsError as error:
        raise WeightsError(
            f"{error}\n{backbone.name} needs its {name} weights. Put the file at {path} by hand, "
            "or pass --weights FILE (a state dict), or --weights random (untrained: a control). To try things out, "
            "--model resnet20_cifar needs no download."
        ) from None


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
