"""Which images are being decoded right now, in memory shared by two processes: what a dead decoder leaves behind."""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tlcache.threads import available_cpus

__all__ = ["DECODER_HANGS", "Decoding", "InFlight", "decode_limit_s"]

_BEGUN = struct.Struct("dI")  # when it began, `at_least`
_LENGTH = struct.Struct("I")  # of a text; without it, or the time, there is no entry
_TEXT_BYTES = 4096
_LENGTH_AT = _BEGUN.size
_PATH_AT = _LENGTH_AT + _LENGTH.size
_SLOT_BYTES = _PATH_AT + _TEXT_BYTES


@dataclass(frozen=True)
class Decoding:
    """One image that is being decoded: its path, the least size asked of the decoder (0: none), seconds so far."""

    path: str
    at_least: int
    age_s: float


class InFlight:
    """Where the images are, and a slot for each thread that decodes.

    Writing one costs about a microsecond, and what is written outlives the process that wrote it. The length of the
    path is written last, cleared first and read first, so that nobody sees an entry that is half there; and no number
    is ever zeroed on its way, as `struct.pack_into` would do.

    Parameters
    ----------
    descriptor
        A file open for reading and writing, shared by the processes.
    slots
        How many threads, the same for all who share it; None: one for each CPU, as an extraction has.
    """

    def __init__(self, descriptor: int, slots: int | None = None) -> None:
        self._source_at = (slots or available_cpus()) * _SLOT_BYTES
        self._starts = range(0, self._source_at, _SLOT_BYTES)
        size = self._source_at + _LENGTH.size + _TEXT_BYTES
        os.ftruncate(descriptor, size)
        self._map = mmap.mmap(descriptor, size)

    @property
    def source(self) -> str:
        """What `tlcache.datasets.dataset.reopen` finds the images by; empty while nobody said."""
        (length,) = _LENGTH.unpack_from(self._map, self._source_at)
        start = self._source_at + _LENGTH.size
        return os.fsdecode(self._map[start : start + length])

    @source.setter
    def source(self, source: str) -> None:
        text = os.fsencode(source)[:_TEXT_BYTES]
        self._map[self._source_at : self._source_at + _LENGTH.size + len(text)] = _LENGTH.pack(len(text)) + text

    @contextmanager
    def decoding(self, slot: int, path: str, at_least: int | None) -> Iterator[None]:
        """Note that a thread is decoding an image while the context lasts."""
        name = os.fsencode(path)[:_TEXT_BYTES]
        start = self._starts[slot % len(self._starts)]
        self._map[start + _PATH_AT : start + _PATH_AT + len(name)] = name
        self._map[start : start + _LENGTH_AT] = _BEGUN.pack(time.monotonic(), at_least or 0)
        self._set_length(start, len(name))
        try:
            yield
        finally:
            self._set_length(start, 0)

    def entries(self) -> list[Decoding]:
        """Return what is being decoded."""
        found = []
        for start in self._starts:
            (length,) = _LENGTH.unpack_from(self._map, start + _LENGTH_AT)
            began, at_least = _BEGUN.unpack_from(self._map, start)
            if length and began:
                name = self._map[start + _PATH_AT : start + _PATH_AT + length]
                found.append(Decoding(os.fsdecode(name), at_least, time.monotonic() - began))
        return found

    def take(self) -> list[Decoding]:
        """Return what was being decoded and forget it; for when the process that wrote it has ended."""
        found = self.entries()
        for start in self._starts:
            self._set_length(start, 0)
        return found

    def _set_length(self, start: int, length: int) -> None:
        self._map[start + _LENGTH_AT : start + _PATH_AT] = _LENGTH.pack(length)


DECODER_HANGS = 75  # exit status of a worker that gives up on a decoder


def decode_limit_s() -> float:
    """Return how long decoding one image may take, in seconds: `TLCACHE_DECODE_LIMIT_S`, default 30."""
    return float(os.environ.get("TLCACHE_DECODE_LIMIT_S") or 30)
