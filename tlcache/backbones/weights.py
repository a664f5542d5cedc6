"""From `--weights` to a file on disk and its sha256: published, given, or random; and the tensors in it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from tlcache.backbones.backbone import Backbone, Weights
from tlcache.errors import UnknownNameError, WeightsError, closest
from tlcache.files import cache_folder, hash_file, write_whole
from tlcache.keys import slug

__all__ = ["HEAD_PREFIX", "checked", "is_here", "load_state", "resolve", "stated_hash"]

HEAD_PREFIX = "tlcache.head."  # of a fine-tuned network's own head, beside the names of the network's source


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
    sha256, prefix = hash_file(path), stated_hash(path)
    if not sha256.startswith(prefix):
        raise WeightsError(f"'{path}' is damaged: its sha256 should start with {prefix}, found {sha256}. {remedy}")
    return Weights(name, path, sha256)


def stated_hash(path: Path) -> str:
    """Return the first digits of the sha256 of published weights, which the name of their file ends with."""
    return path.stem.rpartition("-")[2]


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
