"""Which images are being decoded right now, in memory shared by two processes: what a dead decoder leaves behind."""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tlcache.machine import available_cpus

__all__ = ["Decoding", "Journal"]

_HEAD = struct.Struct("dIH")  # when it began, `at_least`, length of the path
_SLOT_BYTES = 4096 + _HEAD.size


@dataclass(frozen=True)
class Decoding:
    """One image that is being decoded: its file, the least size asked of the decoder (0: none), seconds so far."""

    path: str
    at_least: int
    age_s: float


class Journal:
    """One slot for each CPU, as extraction has a thread for each.

    Writing one costs under a microsecond, and what is written outlives the process that wrote it.

    Parameters
    ----------
    descriptor
        A file open for reading and writing, shared by the processes.
    """

    def __init__(self, descriptor: int) -> None:
        self._starts = range(0, available_cpus() * _SLOT_BYTES, _SLOT_BYTES)
        os.ftruncate(descriptor, len(self._starts) * _SLOT_BYTES)
        self._map = mmap.mmap(descriptor, len(self._starts) * _SLOT_BYTES)

    @contextmanager
    def decoding(self, slot: int, path: str, at_least: int | None) -> Iterator[None]:
        """Note that a thread is decoding a file while the context lasts."""
        name = os.fsencode(path)[:4096]
        start = self._starts[slot % len(self._starts)]
        self._map[start + _HEAD.size : start + _HEAD.size + len(name)] = name
        self._map[start : start + _HEAD.size] = _HEAD.pack(time.monotonic(), at_least or 0, len(name))
        try:
            yield
        finally:
            self._map[start : start + _HEAD.size] = bytes(_HEAD.size)

    def entries(self) -> list[Decoding]:
        """Return what is being decoded."""
        found = []
        for start in self._starts:
            began, at_least, length = _HEAD.unpack_from(self._map, start)
            if length:
                name = self._map[start + _HEAD.size : start + _HEAD.size + length]
                found.append(Decoding(os.fsdecode(name), at_least, time.monotonic() - began))
        return found

    def take(self) -> list[Decoding]:
        """Return what was being decoded and forget it; for when the process that wrote it has ended."""
        found = self.entries()
        for start in self._starts:
            self._map[start : start + _HEAD.size] = bytes(_HEAD.size)
        return found
