"""Finished batches on disk, before they are published: what a killed run resumes from.

A part is one `.npz` file named by the sha256 of its bytes, written whole or not at all; nothing is parsed before the
hash is right. Parts of one feature file lie in one folder; each names its rows by the sha256 of the image's bytes, so
any number of workers may add parts and none needs to know of the others.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlcache.files import write_whole

__all__ = ["Part", "read_part", "write_part"]


@dataclass(frozen=True)
class Part:
    """Embeddings of some images, and the images that could not be embedded.

    Parameters
    ----------
    sha256
        (n,) of `S64`: hash of the bytes that were embedded.
    features
        float32 (n, dim).
    stored
        int32 (n, 3): width and height in pixels, frames.
    bad
        (m, 3) of `U`: hash, code, message.
    seconds
        float64 (4,): decoding, network, writing (thread seconds) and wall time that these rows cost.
    provider
        () of `U`: the execution provider that computed them.
    """

    sha256: NDArray[np.bytes_]
    features: NDArray[np.float32]
    stored: NDArray[np.int32]
    bad: NDArray[np.str_]
    seconds: NDArray[np.float64]
    provider: NDArray[np.str_]


def write_part(folder: Path, part: Part) -> Path:
    """Write a part and return its path."""
    buffer = io.BytesIO()
    np.savez(buffer, **vars(part))
    path = folder / f"{hashlib.sha256(buffer.getbuffer()).hexdigest()}.npz"
    write_whole(path, buffer.getbuffer())
    return path


def read_part(path: Path) -> Part | None:
    """Return a part, or None when it is damaged in any way; its rows are then simply computed again."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest() != path.stem:
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return Part(**{field.name: arrays[field.name] for field in fields(Part)})
