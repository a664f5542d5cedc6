"""Arrays with a row for every image: in memory, or beyond a budget in files that go when nobody needs them."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.errors import CacheError
from tlcache.files import cache_folder, reserve
from tlcache.machine import free_memory_bytes

__all__ = ["empty", "within"]

_AT_ONCE = 4  # such arrays that a fit needs at a time: rows and their coordinates, of two splits
_SHARE = 0.5  # of what is free, where nobody says
_budget: int | None = None


@contextmanager
def within(budget: int | None) -> Iterator[None]:
    """Let large arrays take no more than so many bytes of memory together; None: half of what is free."""
    global _budget
    before, _budget = _budget, budget
    try:
        yield
    finally:
        _budget = before


def empty(shape: tuple[int, int], dtype: type[np.generic] = np.float32) -> NDArray[Any]:
    """Return rows to be written: an array, which lies in a file where a budget has no room for it.

    The file has no name and goes with the array. The system keeps as much of it in memory as is free.

    Raises
    ------
    CacheError
        The disk has no room for it.
    """
    size = np.dtype(dtype).itemsize * math.prod(shape)
    budget = _SHARE * free_memory_bytes() if _budget is None else _budget
    return np.empty(shape, dtype) if size <= budget / _AT_ONCE else _on_disk(shape, dtype, size)


def _on_disk(shape: tuple[int, int], dtype: type[np.generic], size: int) -> NDArray[Any]:
    folder = cache_folder() / "large"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            reserve(file.fileno(), size)
            return np.asarray(np.memmap(file, dtype, "r+", shape=shape))
    except OSError as error:
        raise CacheError(
            f"{size / 1e9:.1f} GB of embeddings are more than --memory allows, and '{folder}' has no room for them "
            f"({error.strerror}). Make room, let TLCACHE_CACHE name another folder, or allow more with --memory."
        ) from None
