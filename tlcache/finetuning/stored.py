"""Arrays that are computed once: rows on disk, memory-mapped, each checked when it is read."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.errors import CacheError
from tlcache.files import check_room, whole, write_whole

__all__ = ["StoredArray"]


class StoredArray:
    """The rows of an array in a `.npy` file, with a crc32 for each in a file beside it.

    Parameters
    ----------
    path
        The file, named after what decides its content: one that is there is whole and right.
    shape, dtype
        Of the array, (N, ...).
    fill
        Called with the array when there is no such file, to compute all rows. A run that is killed meanwhile leaves
        nothing under this name.

    Attributes
    ----------
    seconds
        What computing it took, whenever that was; 0 where that is not known.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], dtype: type[np.generic], fill: Callable[[NDArray[Any]], None]
    ) -> None:
        self.path, sums = path, path.with_suffix(".crc32")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            check_room(path.parent, int(np.prod(shape)) * np.dtype(dtype).itemsize)
            self._make(sums, shape, dtype, fill)
        took = self._took()
        self.seconds = float(took.read_text()) if took.exists() else 0.0
        self.rows: NDArray[Any] = np.load(path, "r")
        self._checksums = np.frombuffer(sums.read_bytes(), np.uint32)

    def __getitem__(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Return some rows.

        Raises
        ------
        CacheError
            They are not what was written.
        """
        found: NDArray[Any] = self.rows[numbers]
        for number, row in zip(numbers.tolist(), found, strict=True):
            if zlib.crc32(row) != self._checksums[number]:
                raise CacheError(f"'{self.path}' is damaged. Remove it and run the same command: it is made again.")
        return found

    def _took(self) -> Path:
        return self.path.with_suffix(".seconds")

    def _make(
        self, sums: Path, shape: tuple[int, ...], dtype: type[np.generic], fill: Callable[[NDArray[Any]], None]
    ) -> None:
        with whole(self.path) as unfinished:
            array = np.lib.format.open_memmap(unfinished, "w+", dtype, shape)
            began = time.perf_counter()
            fill(array)
            array.flush()
            write_whole(self._took(), f"{time.perf_counter() - began:.3f}".encode())
            write_whole(sums, np.array([zlib.crc32(row) for row in array], np.uint32).data)
