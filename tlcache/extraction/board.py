"""What the workers of a pass over images share, be they threads or forked processes."""

from __future__ import annotations

import mmap
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from tlcache.datasets.hashes import Hashes

__all__ = ["Board", "Section"]

_NEXT, _DONE, _STOP, _BAD = range(4)
_DIGEST_BYTES = 32


class Board:
    """Which images are taken, what they hash to, how many are done, and whether to stop.

    All of it lies in memory that a forked process shares.

    Parameters
    ----------
    images
        How many there are.
    workers
        How many share them.
    lock
        A lock between the workers.
    sinks
        How many kinds of embeddings they make of the images.
    """

    def __init__(self, images: int, workers: int, lock: AbstractContextManager[Any], sinks: int = 1) -> None:
        self._images, self._workers, self._lock = images, workers, lock
        self._counts = _shared(_BAD + sinks)
        self._digests = mmap.mmap(-1, max(1, images) * _DIGEST_BYTES)
        self._claims = _shared(2 * images + 1)  # by hash, 1 + the image that was first to have it

    def take(self, size: int, batches: int = 1) -> range:
        """Return the next images: as many batches of `size`, or fewer near the end, so that all workers end together.

        There are none when none is left, or it is time to stop.
        """
        with self._lock:
            start = self._images if self.stopped else self._counts[_NEXT]
            share = (self._images - start) // (2 * self._workers)
            size *= max(1, min(batches, share // size))
            self._counts[_NEXT] = start + size
        return range(start, min(start + size, self._images))

    def claim(self, number: int) -> bool:
        """Return whether image `number`, which has been hashed, is the first of its content."""
        digest = self.digest(number)
        at = int.from_bytes(digest[:8], "big") % len(self._claims)
        with self._lock:
            while (first := self._claims[at]) and self.digest(first - 1) != digest:
                at = (at + 1) % len(self._claims)
            if first:
                return False
            self._claims[at] = number + 1
            return True

    def hashed(self, number: int, digest: bytes) -> None:
        """Note the sha256 of an image."""
        self._digests[number * _DIGEST_BYTES : (number + 1) * _DIGEST_BYTES] = digest

    def hashes(self) -> Hashes:
        """Return what `hashed` was told of each image, in hex; empty where it was told nothing."""
        return Hashes(np.frombuffer(self._digests, np.uint8).reshape(-1, _DIGEST_BYTES)[: self._images])

    def hash_of(self, number: int) -> str:
        """Return what `hashed` was told of an image, in hex; empty where it was told nothing."""
        digest = self.digest(number)
        return digest.hex() if any(digest) else ""

    def digest(self, number: int) -> bytes:
        """Return what `hashed` was told of an image; zeros where it was told nothing."""
        return self._digests[number * _DIGEST_BYTES : (number + 1) * _DIGEST_BYTES]

    def count(self, done: int) -> None:
        """Count images as done with."""
        with self._lock:
            self._counts[_DONE] += done

    def reject(self, sink: int = 0) -> int:
        """Count an image that cannot be used for a sink, and return how many there are."""
        with self._lock:
            self._counts[_BAD + sink] += 1
            return self._counts[_BAD + sink]

    def stop(self) -> None:
        """Let nobody take more images."""
        self._counts[_STOP] = 1

    @property
    def stopped(self) -> bool:
        """Whether somebody said so."""
        return bool(self._counts[_STOP])

    @property
    def done(self) -> int:
        """Images that are done with."""
        return self._counts[_DONE]


class Section:
    """Images of a board that one worker has to itself; what all workers count and note is the board's.

    Parameters
    ----------
    board
        Where the images are.
    images
        Their numbers there.
    """

    def __init__(self, board: Board, images: range) -> None:
        self._board, self._left = board, images
        self._seen = set[bytes]()
        self.hashed, self.count, self.reject, self.stop = board.hashed, board.count, board.reject, board.stop

    def take(self, size: int, batches: int = 1) -> range:
        """Return the next images, as many batches of `size`; none when none is left, or it is time to stop."""
        taken, self._left = self._left[: size * batches], self._left[size * batches :]
        return range(0) if self._board.stopped else taken

    def claim(self, number: int) -> bool:
        """Return whether image `number`, which has been hashed, is the first of its content among these."""
        digest = self._board.digest(number)
        first = digest not in self._seen
        self._seen.add(digest)
        return first


def _shared(length: int) -> memoryview[int]:
    """Return zeros of 64 bits that a forked process shares."""
    return memoryview(mmap.mmap(-1, 8 * length)).cast("q")
