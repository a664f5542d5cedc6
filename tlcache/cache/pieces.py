"""A feature file of several files: which of them have which rows, and what to call each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ATTRIBUTE", "ENDING", "NAME", "SUFFIX", "Pieces", "is_piece", "piece_name", "pieces_folder", "stale_pieces"]

NAME = "file"  # attribute of each of the files: its name
ATTRIBUTE = "files"  # of a feature file: JSON, the path and the number of rows of each, beside it
SUFFIX = ".rows"  # of their folder
ENDING = ".hdf5"  # of theirs, as they are no feature files to be used for themselves

Read = Callable[[str, slice], NDArray[Any]]


class Pieces:
    """The rows of several files as those of one.

    Parameters
    ----------
    rows
        How many each has.
    readers
        Of each: the name of a dataset and a slice of the rows in it -> these.
    """

    def __init__(self, rows: Sequence[int], readers: Sequence[Read]) -> None:
        self._bounds = list(pairwise(accumulate(rows, initial=0)))
        self._readers = readers

    def __len__(self) -> int:
        return self._bounds[-1][1]

    def read(self, name: str, block: slice) -> NDArray[Any]:
        """Return some rows of a dataset."""
        found = [
            read(name, slice(max(block.start - start, 0), min(block.stop, stop) - start))
            for read, (start, stop) in zip(self._readers, self._bounds, strict=True)
            if start < block.stop and block.start < stop
        ]
        return np.concatenate(found or [self._readers[0](name, slice(0, 0))])


def pieces_folder(path: Path) -> Path:
    """Return the folder of the files that a feature file has beside it."""
    return path.with_suffix(SUFFIX)


def piece_name(number: int, key: str, columns: Mapping[str, NDArray[Any]]) -> str:
    """Return what to call a file: by the network's key and what is known of its rows, which decide what it holds."""
    digest = hashlib.sha256(key.encode())
    for name, values in sorted(columns.items()):
        digest.update(f"{name} {values.dtype.str} {len(values)} ".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return f"{number:05d}-{digest.hexdigest()[:16]}{ENDING}"


def is_piece(place: str) -> bool:
    """Return whether a feature file may name this as one of its files: one in a folder beside it."""
    parts = PurePosixPath(place).parts
    return len(parts) == 2 and parts[0].endswith(SUFFIX) and parts[1].endswith(ENDING) and not place.startswith(".")


def stale_pieces(path: Path, used: Iterable[Path]) -> list[Path]:
    """Return what lies in the folder of the files of a feature file, and is none of those that it uses."""
    folder = pieces_folder(path)
    return sorted({*folder.iterdir()}.difference(used)) if folder.is_dir() else []
