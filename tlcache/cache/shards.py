"""Finished batches on disk, before they are published: what a killed run resumes from.

A part is one `.safetensors` file named by the sha256 of its bytes, written whole or not at all; nothing is parsed
before the hash is right. Parts of one feature file lie in one folder; each names its rows by the sha256 of the image's
bytes, so any number of workers may add parts and none needs to know of the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from tlcache.files import write_whole
from tlcache.images import REVISION

__all__ = ["SHARD_FOLDERS", "Rejected", "Shard", "find_shards", "read_shard", "write_shard"]

SHARD_FOLDERS = "shard-*"  # of the parts of one shard of a dataset each, where several processes share it
_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Shard:
    """Embeddings of some images, and the images that could not be embedded.

    Parameters
    ----------
    sha256
        (n,) of `S64`: hash of the bytes that were embedded.
    features
        (n, dim), float32, or float16 where these are kept.
    stored
        int32 (n, 3): width and height in pixels, frames.
    bad
        (hash, code, message) of each.
    seconds
        float64 (4,): decoding, network, writing (thread seconds) and wall time that these rows cost.
    provider
        The execution provider that computed them; empty when there are none.
    decoder
        Revision of the decoder that they were made by (`tlcache.images.REVISION`).
    notes
        What a user should know of the images: words of `tlcache.images.notes`, and the hashes of which each is true.
    """

    sha256: NDArray[np.bytes_]
    features: NDArray[Any]
    stored: NDArray[np.int32]
    bad: Sequence[tuple[str, str, str]]
    seconds: NDArray[np.float64]
    provider: str
    decoder: int = REVISION
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def write_shard(folder: Path, part: Shard) -> Path:
    """Write a part and return its path."""
    about = {"bad": part.bad, "provider": part.provider, "decoder": part.decoder, "notes": part.notes}
    text = json.dumps(about).encode()
    data = save(
        {
            "sha256": part.sha256.view(np.uint8).reshape(-1, 64),
            "features": part.features,
            "stored": part.stored,
            "seconds": part.seconds,
            "text": np.frombuffer(text, np.uint8),
        }
    )
    path = folder / f"{hashlib.sha256(data).hexdigest()}{_SUFFIX}"
    write_whole(path, data)
    return path


def find_shards(folder: Path) -> list[Path]:
    """Return the parts in a folder and in those of its shards, sorted by name; they may be damaged."""
    found = (folder.glob(f"{place}*{_SUFFIX}") for place in ("", f"{SHARD_FOLDERS}/"))
    return sorted(chain.from_iterable(found), key=lambda path: path.name)


def read_shard(path: Path) -> Shard | None:
    """Return a part, or None when it is damaged in any way; its rows are then simply computed again."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest() != path.stem:
        return None
    arrays = load(data)
    text = json.loads(arrays["text"].tobytes())
    return Shard(
        arrays["sha256"].view("S64").reshape(-1),
        arrays["features"],
        arrays["stored"],
        [tuple(row) for row in text["bad"]],
        arrays["seconds"],
        text["provider"],
        text.get("decoder", 1),
        text.get("notes", {}),
    )


@dataclass(frozen=True)
class Rejected:
    """Why an image cannot be used: one word for counting, a message for people."""

    code: str
    message: str
