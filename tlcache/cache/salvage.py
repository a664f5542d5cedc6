"""What can still be read of a damaged feature file."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Padded", "salvaged"]


class Padded(io.FileIO):
    """A file read as if zeros followed its end, up to the length that its HDF5 superblock states."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._length = max(path.stat().st_size, int.from_bytes(self.read(36)[28:], "little"))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to an offset; the end is where the superblock has it."""
        return super().seek(self._length + offset) if whence == os.SEEK_END else super().seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer, with zeros past the end."""
        view = memoryview(buffer).cast("B")
        found = super().readinto(view)
        view[found:] = bytes(len(view) - found)
        return len(view)


def salvaged(dataset: Any, block: slice) -> NDArray[Any]:
    """Read rows past their chunks' checksums; what cannot be had is zeros, which the rows' own crc32 then tells."""
    values = np.zeros((block.stop - block.start, *dataset.shape[1:]), dataset.dtype)
    size, rest = dataset.chunks[0], dataset.shape[1:]
    for start in range(block.start // size * size, block.stop, size):
        with suppress(OSError, RuntimeError, ValueError):
            _, raw = dataset.id.read_direct_chunk((start, *(0 for _ in rest)))
            chunk = np.frombuffer(raw[:-4], dataset.dtype).reshape(size, *rest)  # fletcher32 is the last four bytes
            first, last = max(start, block.start), min(start + size, block.stop)
            values[first - block.start : last - block.start] = chunk[first - start : last - start]
    return values
