"""Hashes of many images and where their rows are, by 32 bytes each and not by texts."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from operator import xor
from struct import Struct
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from tlcache.datasets.texts import Texts

__all__ = ["Hashes", "Places"]

_BLOCK = 4096  # hashes at a time
_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_VALUES = np.full(256, 255, np.uint8)
_VALUES[_DIGITS] = np.arange(16)
_WORDS = Struct("<4Q")


class Hashes(Sequence[str]):
    """The sha256 of images, in hex, by their numbers; empty where there is none.

    Parameters
    ----------
    digests
        uint8 (N, 32), zeros where there is none.

    Examples
    --------
    >>> hashes = Hashes.of(["0f" * 32, ""])
    >>> hashes[0][:4], hashes[1], hashes.digests[:, 0].tolist()
    ('0f0f', '', [15, 0])
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, digests: NDArray[np.uint8]) -> None:
        self.digests = digests

    @classmethod
    def of(cls, texts: Sequence[str] | NDArray[np.bytes_]) -> Hashes:
        """Return hashes that are given as texts; one that is no sha256 in hex counts as its own hash."""
        if isinstance(texts, cls):
            return texts
        stored = texts if isinstance(texts, np.ndarray) else Texts.of(texts).stored
        digests = np.empty((len(stored), 32), np.uint8)
        for start in range(0, len(stored), _BLOCK):
            digests[start : start + _BLOCK] = _digests(stored[start : start + _BLOCK])
        return cls(digests)

    @property
    def stored(self) -> NDArray[np.bytes_]:
        """The hashes as feature files hold them: (N,) of `S64`."""
        digits = np.empty((len(self), 32, 2), np.uint8)
        digits[:, :, 0], digits[:, :, 1] = _DIGITS[self.digests >> 4], _DIGITS[self.digests & 15]
        digits[~self.digests.any(axis=1)] = 0
        return digits.reshape(-1, 64).view("S64").reshape(-1)

    def __len__(self) -> int:
        return len(self.digests)

    @overload
    def __getitem__(self, row: int | np.integer[Any]) -> str: ...
    @overload
    def __getitem__(self, row: slice | NDArray[Any]) -> Hashes: ...
    def __getitem__(self, row: int | np.integer[Any] | slice | NDArray[Any]) -> str | Hashes:
        found = self.digests[row]
        return Hashes(found) if found.ndim == 2 else found.tobytes().hex() if found.any() else ""

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):
            yield from map(bytes.decode, self[start : start + _BLOCK].stored.tolist())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Hashes):
            return np.array_equal(self.digests, other.digests)
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    def __repr__(self) -> str:
        return repr(list(self))


class Places(Mapping[str, tuple[int, int]]):
    """Hash of an image -> number of the source that has its row, and the row in it. What was added first holds."""

    def __init__(self) -> None:
        self._sorted = _Sorted(np.empty(0, np.uint64), np.empty((0, 32), np.uint8), np.empty((0, 2), np.int32))
        self._added: list[tuple[NDArray[np.uint8], NDArray[np.int32]]] = []

    def add(self, hashes: Hashes, source: int, rows: NDArray[np.int64]) -> None:
        """Add images (n,), whose rows are these ones (n,) of a source."""
        where = np.full((len(rows), 2), source, np.int32)
        where[:, 1] = rows
        self._added.append((hashes.digests, where))

    def drop(self, sha256: Iterable[str]) -> None:
        """Forget some images that are there."""
        known, gone = self._known(), Hashes.of(list(sha256))
        while (found := known.find(gone)).max(initial=-1) >= 0:
            known = known.of(np.setdiff1d(np.arange(len(known.where)), found))
        self._sorted = known

    def of(self, hashes: Sequence[str]) -> NDArray[np.int32]:
        """Return where some images are: int32 (n, 2), -1 of those that are not there."""
        known, places = self._known(), np.full((len(hashes), 2), -1, np.int32)
        for start in range(0, len(hashes), _BLOCK):
            found = known.find(Hashes.of(hashes[start : start + _BLOCK]))
            places[start : start + _BLOCK][found >= 0] = known.where[found[found >= 0]]
        return places

    def __getitem__(self, sha256: str) -> tuple[int, int]:
        known = self._known()
        place = known.place(sha256)
        if place < 0:
            raise KeyError(sha256)
        source, row = known.where[place].tolist()
        return source, row

    def __contains__(self, sha256: object) -> bool:
        return isinstance(sha256, str) and self._known().place(sha256) >= 0

    def __iter__(self) -> Iterator[str]:
        return iter(Hashes(self._known().digests))

    def __len__(self) -> int:
        return len(self._known().where)

    def _known(self) -> _Sorted:
        """Return what is there, once what was added is in order; threads that do that at once come to the same."""
        if added := self._added:
            self._sorted = self._sorted.with_added(added)
            self._added = []
        return self._sorted


class _Sorted(NamedTuple):
    """Images in the order of 64 bits of their hashes: these, the hashes, and their places."""

    starts: NDArray[np.uint64]
    digests: NDArray[np.uint8]
    where: NDArray[np.int32]

    def of(self, rows: NDArray[np.int64]) -> _Sorted:
        return _Sorted(self.starts[rows], self.digests[rows], self.where[rows])

    def with_added(self, added: Sequence[tuple[NDArray[np.uint8], NDArray[np.int32]]]) -> _Sorted:
        digests, where = map(np.concatenate, zip((self.digests, self.where), *added, strict=True))
        starts = _starts(digests)
        order = np.argsort(starts, kind="stable")
        starts, digests, where = starts[order], digests[order], where[order]
        alike = np.flatnonzero(starts[1:] == starts[:-1])
        again = alike[(digests[alike] == digests[alike + 1]).all(axis=1)] + 1
        whole = _Sorted(starts, digests, where)
        return whole.of(np.delete(np.arange(len(starts)), again)) if len(again) else whole

    def place(self, sha256: str) -> int:
        """Return where a hash is among these; -1 where it is not."""
        digest = _digest(sha256)
        start = reduce(xor, _WORDS.unpack(digest))
        place = bisect_left(self.starts, start)
        while place < len(self.starts) and self.starts[place] == start:
            if self.digests[place].tobytes() == digest:
                return place
            place += 1
        return -1

    def find(self, hashes: Hashes) -> NDArray[np.int64]:
        """Return what `place` does, of many."""
        starts = _starts(hashes.digests)
        places, left = np.searchsorted(self.starts, starts), np.arange(len(hashes))
        found = np.full(len(hashes), -1)
        while len(left):
            left = left[places[left] < len(self.starts)]
            left = left[self.starts[places[left]] == starts[left]]
            same = (self.digests[places[left]] == hashes.digests[left]).all(axis=1)
            found[left[same]] = places[left[same]]
            left = left[~same]
            places[left] += 1
        return found


def _starts(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return 64 bits of each hash, to which all of it adds: some hashes are made, and begin with zeros."""
    words: NDArray[np.uint64] = np.ascontiguousarray(digests).view("<u8")
    found: NDArray[np.uint64] = words[:, 0] ^ words[:, 1] ^ words[:, 2] ^ words[:, 3]
    return found


def _digest(sha256: str) -> bytes:
    """Return a hash as bytes; without arrays, for which threads would wait for each other."""
    with suppress(ValueError):
        digest = bytes.fromhex(sha256)
        if len(digest) == 32 and digest.hex() == sha256:
            return digest
    return hashlib.sha256(os.fsencode(sha256)).digest() if sha256 else bytes(32)


def _digests(stored: NDArray[np.bytes_]) -> NDArray[np.uint8]:
    """Return the hashes of some images as bytes (n, 32), of texts (n,)."""
    digits = _VALUES[stored.astype("S64").view(np.uint8).reshape(-1, 32, 2)]
    found = digits[:, :, 0] * np.uint8(16) + digits[:, :, 1]
    other = (digits > 15).any(axis=(1, 2))
    if stored.dtype.itemsize > 64:
        other |= np.char.str_len(stored) > 64
    for row in np.flatnonzero(other).tolist():
        found[row] = np.frombuffer(_digest(os.fsdecode(bytes(stored[row]))), np.uint8)
    return found
