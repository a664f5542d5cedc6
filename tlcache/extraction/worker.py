"""The extraction loop: one worker per core, each reading, decoding and running the network for batches of its own.

There are no queues between them. Where it can be, a worker is a forked process, which waits for nobody else's Python
and shares the network's weights; elsewhere, with a GPU, and where little is new, it is a thread. A worker reads a
stretch of several batches, decodes it, and then runs the network on each: after a change the processor's caches fill
anew, which costs the next few images 1.5 ms between them.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.backbones.engines import open_network
from tlcache.backbones.network import Network, NotFiniteError
from tlcache.cache.feature_file import stage_seconds
from tlcache.cache.shards import Rejected, Shard, write_shard
from tlcache.errors import CacheError, ImageReadError, ModelError, UnreachableError
from tlcache.extraction.board import Board
from tlcache.extraction.forks import shared_lock
from tlcache.extraction.job import EmbedResult, Job, check_rejected
from tlcache.files import check_room
from tlcache.images import BadImageError, OneTorchThread, Stored, changed, prepare

__all__ = ["Pass", "Worker"]

SHARD_SECONDS = 1.5  # what a killed run loses at most,
SHARD_SHARE = 0.1  # but no more than this share of what it has done,
LEAST_SHARD_SECONDS = 0.1  # or this: writing a part takes some milliseconds
STRETCH_SHARE = 0.5  # of how old rows may become before they are in a part: how long a stretch may take, about,
STRETCH_IMAGES, STRETCH_BATCHES = 128, 16  # and the most that it has, if it is not a single batch
READ_BYTES = 4 << 20  # about how much is read and hashed in a row, and then decoded


class Worker:
    """One of those that share a pass: a thread, or a child process; `slot` is its number."""

    def __init__(self, run: Pass, slot: int) -> None:
        self.run, self.job, self.board, self.slot = run, run.job, run.board, slot
        self.result = EmbedResult()
        self._batches = 1  # in the next stretch
        most = min(max(self.job.batch_size, STRETCH_IMAGES), len(self.job.dataset))
        try:
            self._pixels = np.empty((most, 3, *self.job.model.preprocess.size), np.uint8)  # of one stretch
        except MemoryError:
            raise ModelError(f"No memory for {most:,} images at a time. Try a smaller --batch-size.") from None
        self._bytes_of = self.job.dataset.read

    def work(self) -> EmbedResult:
        """Take batches until none is left, keeping the finished rows in parts."""
        with ThreadPoolExecutor(1) as writer:  # waits for the disk, so that no core does
            self._pending = _Pending(self.job.workspace, writer)
            try:
                while stretch := self.board.take(self.job.batch_size, self._batches):
                    self._do(stretch)
                    self._pending.flush(self.run.provider, after_s=self.run.shard_seconds)
                    self.board.count(len(stretch))
            except BaseException:
                self.board.stop()
                raise
            finally:
                self._pending.flush(self.run.provider)
                self._pending.settle()
                self.result.seconds += stage_seconds(write_s=self._pending.write_s)
        return self.result

    def _do(self, stretch: range) -> None:
        times, size = [time.perf_counter()], self.job.batch_size
        images = list[_Image]()
        for found in self._read(stretch):
            for encoded in found:
                if image := self._decode(encoded, self._pixels[len(images)]):
                    images.append(image)
        times.append(time.perf_counter())
        if images:
            network = self.run.network()
            started_s = time.perf_counter() - times[-1]  # opening the network is no part of what images cost
            times = [moment + started_s for moment in times]
            for start in range(0, len(images), size):
                some = slice(start, min(start + size, len(images)))
                self._pending.rows += self._embed(network, images[some], self._pixels[some])
        times.append(time.perf_counter())
        self._count(len(images), times)
        # images that were known say nothing of the time that others will take
        fitting = int(len(images) / size * STRETCH_SHARE * self.run.shard_seconds / (times[-1] - times[0]))
        self._batches = max(1, min(2 * self._batches, fitting, STRETCH_BATCHES, STRETCH_IMAGES // size))

    def _read(self, stretch: range) -> Iterator[list[_Encoded]]:
        """Read and hash images, many in a row; yield those whose embedding nobody has or is making."""
        found, size = list[_Encoded](), 0
        for number in stretch:
            if encoded := self._read_one(number):
                found.append(encoded)
                size += len(encoded.data)
            if size > READ_BYTES:
                yield found
                found, size = [], 0
        yield found

    def _read_one(self, number: int) -> _Encoded | None:
        if sha256 := self.run.told.get(number):
            self.board.hashed(number, bytes.fromhex(sha256))
            if sha256 in self.job.known_bad:
                self._reject_content(number, sha256, self.job.known_bad[sha256])
            return None
        try:
            data = self._bytes_of(number)
        except UnreachableError:
            raise
        except ImageReadError as error:
            self.result.unreadable[number] = Rejected("unreadable", error.reason)
            self._reject(number, self.result.unreadable[number])
            return None
        digest = hashlib.sha256(data)
        self.board.hashed(number, digest.digest())
        sha256 = digest.hexdigest()
        if sha256 in self.job.known_bad:
            self._reject_content(number, sha256, self.job.known_bad[sha256])
            return None
        is_known = sha256 in self.job.known and not (sha256 in self.job.outdated and changed(data))
        if is_known or not self.board.claim(number):
            return None
        return _Encoded(number, sha256, data)

    def _decode(self, encoded: _Encoded, pixels: NDArray[np.uint8]) -> _Image | None:
        self.run.torch.start()
        number, sha256 = encoded.number, encoded.sha256
        try:
            notes = set[str]()
            with self._noted(number):
                stored = prepare(encoded.data, self.job.model.preprocess, pixels, notes)[1]
            for word in notes:
                self._pending.notes.setdefault(word, []).append(sha256)
            return _Image(number, sha256, stored)
        except BadImageError as error:
            bad = self._pending.bad[sha256] = Rejected(error.code, str(error))
        self._reject_content(number, sha256, bad)
        return None

    def _noted(self, number: int) -> AbstractContextManager[None]:
        if self.job.in_flight is None:
            return nullcontext()
        return self.job.in_flight.decoding(
            self.slot, self.job.dataset.paths[number], self.job.model.preprocess.at_least
        )

    def _embed(self, network: Network, images: list[_Image], pixels: NDArray[np.uint8]) -> list[_Row]:
        """Run the network and return the finite rows; an embedding that is not finite is never kept."""
        try:
            features = network.embed(pixels)
        except NotFiniteError as error:
            for number in np.flatnonzero(~error.finite):
                image = images[number]
                bad = self._pending.bad[image.sha256] = Rejected("non-finite", error.reason)
                self._reject_content(image.number, image.sha256, bad)
            features, images = error.rows[error.finite], list(compress(images, error.finite))
        return [_Row(image.sha256, row, image.stored) for image, row in zip(images, features, strict=True)]

    def _reject_content(self, number: int, sha256: str, bad: Rejected) -> None:
        self.result.bad[sha256] = bad
        self._reject(number, bad)

    def _reject(self, number: int, bad: Rejected) -> None:
        """Count an unusable image; past the allowed share, stop the pass."""
        example = f"{self.job.dataset.paths[number]!r}, {bad.message}"
        check_rejected(self.board.reject(), len(self.job.dataset), self.job.max_bad, example)

    def _count(self, embedded: int, times: list[float]) -> None:
        decode_s, infer_s = np.diff(times)
        write_s, self._pending.write_s = self._pending.write_s, 0.0
        wall_s = (decode_s + infer_s) / self.run.threads
        spent = stage_seconds(decode_s=decode_s, infer_s=infer_s, write_s=write_s, wall_s=wall_s)
        self._pending.seconds += spent
        self.result.embedded += embedded
        self.result.seconds += spent


class _Encoded(NamedTuple):
    number: int
    sha256: str
    data: bytes


class _Image(NamedTuple):
    number: int
    sha256: str
    stored: Stored


class _Row(NamedTuple):
    sha256: str
    features: NDArray[np.float32]
    stored: Stored


class _Pending:
    """Rows of one worker that are not on disk yet; `write_s` are the seconds of writes not accounted for yet."""

    def __init__(self, workspace: Path, writer: ThreadPoolExecutor) -> None:
        self._workspace, self._writer = workspace, writer
        self._write: Future[float] | None = None
        self.write_s = 0.0
        self.rows: list[_Row] = []
        self.bad: dict[str, Rejected] = {}
        self.notes: dict[str, list[str]] = {}
        self.seconds = stage_seconds()
        self._since = time.perf_counter()

    def flush(self, provider: str, after_s: float = 0.0) -> None:
        """Begin to write a part when the last one is at least `after_s` seconds old and there is something to write."""
        now = time.perf_counter()
        if now - self._since < after_s or not (self.rows or self.bad):
            return
        part = Shard(
            np.array([row.sha256 for row in self.rows], "S64"),
            np.stack([row.features for row in self.rows]) if self.rows else np.empty((0, 0), np.float32),
            np.array([row.stored for row in self.rows], np.int32).reshape(-1, 3),
            [(sha256, bad.code, bad.message) for sha256, bad in self.bad.items()],
            self.seconds,
            provider,
            notes=self.notes,
        )
        self.settle()
        self._write = self._writer.submit(_write, self._workspace, part)
        self.rows, self.bad, self.notes, self.seconds, self._since = [], {}, {}, stage_seconds(), now

    def settle(self) -> None:
        """Wait until the part that is being written is on disk; raises CacheError when it cannot be written."""
        if self._write is not None:
            self.write_s += self._write.result()
            self._write = None


def _write(workspace: Path, part: Shard) -> float:
    """Write a part and return the seconds that took."""
    began = time.perf_counter()
    try:
        write_shard(workspace, part)
    except OSError as error:
        raise CacheError(
            f"Cannot write to '{workspace}': {error.strerror}. What is finished is kept; "
            "mend that and run the same command again."
        ) from None
    return time.perf_counter() - began


class Pass:
    """What all workers of one pass over a dataset share."""

    def __init__(self, job: Job, threads: int, fork: bool) -> None:
        self.job, self.threads = job, threads
        self.board = Board(len(job.dataset), threads, shared_lock() if fork else threading.Lock())
        self._callers = 1 if fork else threads
        self.torch = OneTorchThread()
        self.told = self._told()  # number -> hash of the images that need not be read
        self._began = time.perf_counter()

    def _told(self) -> dict[int, str]:
        job, told = self.job, self.job.dataset.images.told()
        hashes = ((number, told.get(path, "")) for number, path in enumerate(job.dataset.paths)) if told else ()
        done = {*job.known} - {*job.outdated} | {*job.known_bad} if told else ()
        return {number: sha256 for number, sha256 in hashes if sha256 in done}

    def export(self) -> None:
        """Make the ONNX file of the network, for processes that open it each for itself."""
        self.job.opened.onnx = self.job.opened.onnx or self.job.model.onnx()

    def network(self) -> Network:
        """Return the network of this process, opened by the first thread that needs one."""
        job = self.job
        with job.opened.lock:
            if job.opened.network is None:
                onnx, job.opened.onnx = job.opened.onnx or job.model.onnx(), None
                job.opened.network = open_network(
                    onnx,
                    job.device,
                    engine=job.engine,
                    precision=job.model.precision,
                    batch=job.batch_size,
                    callers=self._callers,
                )
                missing = max(0, len(job.dataset) - len(job.known))  # as parts, then all rows as a file
                check_room(job.workspace, 4 * job.opened.network.dim * (missing + len(job.dataset)))
            return job.opened.network

    @property
    def provider(self) -> str:
        """What runs the network; empty while nothing does."""
        return self.job.opened.network.provider if self.job.opened.network else ""

    @property
    def shard_seconds(self) -> float:
        """How old a worker's rows may become before they are written."""
        return min(SHARD_SECONDS, max(LEAST_SHARD_SECONDS, SHARD_SHARE * (time.perf_counter() - self._began)))
