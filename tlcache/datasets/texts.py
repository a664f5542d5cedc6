"""Texts of many rows, such as their paths: kept as bytes, and a `str` each only while somebody looks at it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["Texts", "filled", "numbers", "picked"]

_BLOCK = 8192  # texts at a time


class Texts(Sequence[str]):
    """Texts by their numbers: a row costs the bytes of the longest, and no object of Python's.

    Parameters
    ----------
    stored
        (N,) bytes, as `os.fsencode` makes them.

    Examples
    --------
    >>> paths = Texts.of(["a.png", "ä.png"])
    >>> paths[1], paths[np.array([1, 0])] == ["ä.png", "a.png"], paths.stored.dtype.itemsize
    ('ä.png', True, 6)
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, stored: NDArray[np.bytes_]) -> None:
        self.stored = stored.view(f"S{stored.dtype.itemsize}")  # without what h5py notes in its types

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Return texts of any kind."""
        if isinstance(texts, cls):
            return texts
        longest = max((len(os.fsencode(text)) for text in texts), default=0)
        stored = np.empty(len(texts), f"S{max(1, longest)}")
        for start in range(0, len(texts), _BLOCK):
            stored[start : start + _BLOCK] = [os.fsencode(text) for text in texts[start : start + _BLOCK]]
        return cls(stored)

    @classmethod
    def joined(cls, parts: Iterable[Sequence[str]]) -> Texts:
        """Return the texts of one part or more after each other."""
        return cls(np.concatenate([cls.of(part).stored for part in parts]))

    def __len__(self) -> int:
        return len(self.stored)

    @overload
    def __getitem__(self, row: int | np.integer[Any]) -> str: ...
    @overload
    def __getitem__(self, row: slice | NDArray[Any]) -> Texts: ...
    def __getitem__(self, row: int | np.integer[Any] | slice | NDArray[Any]) -> str | Texts:
        found = self.stored[row]
        return Texts(found) if isinstance(found, np.ndarray) else os.fsdecode(bytes(found))

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):
            yield from map(os.fsdecode, self.stored[start : start + _BLOCK].tolist())

    def __add__(self, other: Sequence[str]) -> Texts:
        return Texts.joined([self, other])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Texts):
            return np.array_equal(self.stored, other.stored)
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    def __repr__(self) -> str:
        return repr(tuple(self))


def filled(column: list[str], count: int) -> list[str]:
    """Return a column with at least as many cells, those that are lacking empty."""
    column += [""] * (count - len(column))
    return column


def picked(texts: Sequence[str], rows: NDArray[np.int64]) -> Sequence[str]:
    """Return some of the texts, by their numbers: of arrays an array, else a tuple."""
    if isinstance(texts, list | tuple):
        return tuple(texts[row] for row in numbers(rows))
    chosen: Any = texts
    found: Sequence[str] = chosen[rows]
    return found


def numbers(values: NDArray[Any]) -> Iterator[Any]:
    """Yield the numbers of an array (n,) as Python's, a block of which are there at a time."""
    for start in range(0, len(values), _BLOCK):
        yield from values[start : start + _BLOCK].tolist()
