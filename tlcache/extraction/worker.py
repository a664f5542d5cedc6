"""The extraction loop: one worker per core, each reading, decoding and running the network for batches of its own.

There are no queues between them. Where it can be, a worker is a forked process, which waits for nobody else's Python
and shares the network's weights; elsewhere, with a GPU, and where little is new, it is a thread. A worker reads a
stretch of several batches, decodes it, and then runs the network on each: after a change the processor's caches fill
anew, which costs the next few images 1.5 ms between them.
"""

from __future__ import annotations

import copy
import hashlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.backbones.engines import open_networks
from tlcache.backbones.network import NotFiniteError
from tlcache.backbones.several import Several
from tlcache.cache.feature_file import stage_seconds
from tlcache.cache.rounding import rounded
from tlcache.cache.shards import Rejected, Shard, write_shard
from tlcache.errors import ModelError
from tlcache.extraction.board import Board, Section
from tlcache.extraction.forks import shared_lock
from tlcache.extraction.job import EmbedResult, Job, Sink, check_rejected
from tlcache.files import check_room, writing_to
from tlcache.images import BadImageError, Resizing, Stored, prepare

__all__ = ["Pass", "Worker"]

SHARD_SECONDS = 1.5  # what a killed run loses at most,
SHARD_SHARE = 0.1  # but no more than this share of what it has done,
LEAST_SHARD_SECONDS = 0.1  # or this: writing a part takes some milliseconds
STRETCH_SHARE = 0.5  # of how old rows may become before they are in a part: how long a stretch may take, about,
STRETCH_IMAGES, STRETCH_BATCHES = 128, 16  # and the most that it has, if it is not a single batch
READ_BYTES = 4 << 20  # about how much is read and hashed in a row, and then decoded


class Worker:
    """One of those that share a pass: a thread, or a child process.

    Parameters
    ----------
    run, slot
        The pass, and the number of the worker.
    board
        What deals out the images; None: the board of the pass.
    """

    def __init__(self, run: Pass, slot: int, board: Board | Section | None = None) -> None:
        self.run, self.job, self.slot = run, run.job, slot
        self.board = board or run.board
        self.results = [EmbedResult() for _ in run.job.sinks]
        self._batches = 1  # in the next stretch
        most = min(max(self.job.batch_size, STRETCH_IMAGES), len(self.job.dataset))
        try:
            self._pixels = np.empty((most, 3, *self.job.preprocess.size), np.uint8)  # of one stretch
        except MemoryError:
            raise ModelError(f"No memory for {most:,} images at a time. Try a smaller --batch-size.") from None

    def work(self) -> list[EmbedResult]:
        """Take batches until none is left, keeping the finished rows in parts; return what was found for each sink."""
        with ThreadPoolExecutor(1) as writer:  # waits for the disk, so that no core does
            self._pending = [_Pending(sink.workspace, writer) for sink in self.job.sinks]
            try:
                while stretch := self.board.take(self.job.batch_size, self._batches):
                    self._do(stretch)
                    for pending in self._pending:
                        pending.flush(self.run.provider, after_s=self.run.shard_seconds)
                    self.board.count(len(stretch))
            except BaseException:
                self.board.stop()
                raise
            finally:
                for pending, result in zip(self._pending, self.results, strict=True):
                    pending.flush(self.run.provider)
                    pending.settle()
                    result.seconds += stage_seconds(write_s=pending.write_s)
        return self.results

    def _do(self, stretch: range) -> None:
        times, size = [time.perf_counter()], self.job.batch_size
        images = list[_Image]()
        for found in self._read(stretch):
            for encoded in found:
                if image := self._decode(encoded, self._pixels[len(images)]):
                    images.append(image)
        times.append(time.perf_counter())
        groups = dict.fromkeys(image.wanted for image in images)  # one, unless some sinks have some of them already
        started_s = self.run.open_all(groups)  # is no part of what images cost
        decode_s, infer_s = times[1] - times[0], np.zeros(len(self.results))
        for wanted in groups:
            rows = [row for row, image in enumerate(images) if image.wanted == wanted]
            own = [images[row] for row in rows]
            pixels = self._pixels[rows] if len(groups) > 1 else self._pixels
            for network in self.run.by_network(wanted):
                began = time.perf_counter()
                for start in range(0, len(own), size):
                    some = slice(start, min(start + size, len(own)))
                    self._embed(network, own[some], pixels[some])
                infer_s[list(network)] += time.perf_counter() - began
        took_s = time.perf_counter() - times[0] - started_s
        self._count(images, decode_s, infer_s)
        # images that were known say nothing of the time that others will take
        fitting = int(len(images) / size * STRETCH_SHARE * self.run.shard_seconds / took_s)
        self._batches = max(1, min(2 * self._batches, fitting, STRETCH_BATCHES, STRETCH_IMAGES // size))

    def _read(self, stretch: range) -> Iterator[list[_Encoded]]:
        """Read and hash images, many in a row; yield those whose embedding nobody has or is making."""
        found, size = list[_Encoded](), 0
        for number, data in self._bytes_of(stretch):
            if encoded := self._hashed(number, data):
                found.append(encoded)
                size += len(encoded.data)
            if size > READ_BYTES:
                yield found
                found, size = [], 0
        yield found

    def _bytes_of(self, stretch: range) -> Iterator[tuple[int, bytes]]:
        """Yield the bytes of the images that have to be read, and can be."""
        unknown = []
        for number in stretch:
            if sha256 := self.run.told(number):
                self.board.hashed(number, bytes.fromhex(sha256))
                self._reject_known(number, sha256)
            else:
                unknown.append(number)
        images, paths = self.job.dataset.images, self.job.dataset.paths
        found = images.read_several([paths[number] for number in unknown])
        for number, data in zip(unknown, found, strict=True):
            if isinstance(data, bytes):
                yield number, data
                continue
            bad = Rejected("unreadable", data.reason)
            for place, result in enumerate(self.results):
                result.unreadable[number] = bad
                self._reject(place, number, bad)

    def _hashed(self, number: int, data: bytes) -> _Encoded | None:
        """Return an image whose embedding nobody has or is making."""
        digest = hashlib.sha256(data)
        self.board.hashed(number, digest.digest())
        sha256 = digest.hexdigest()
        self._reject_known(number, sha256)
        wanted = tuple(place for place, sink in enumerate(self.job.sinks) if sink.wants(sha256, data))
        if not wanted or not self.board.claim(number):
            return None
        return _Encoded(number, sha256, data, wanted)

    def _decode(self, encoded: _Encoded, pixels: NDArray[np.uint8]) -> _Image | None:
        number, sha256, data, wanted = encoded
        try:
            notes = set[str]()
            with self._noted(number):
                stored = prepare(data, self.job.preprocess, pixels, notes, self.run.resizing.start())[1]
        except BadImageError as error:
            for place in wanted:
                self._spoil(place, number, sha256, Rejected(error.code, str(error)))
            return None
        for place in wanted:
            for word in notes:
                self._pending[place].notes.setdefault(word, []).append(sha256)
        return _Image(number, sha256, stored, wanted)

    def _noted(self, number: int) -> AbstractContextManager[None]:
        if self.job.in_flight is None:
            return nullcontext()
        return self.job.in_flight.decoding(self.slot, self.job.dataset.paths[number], self.job.preprocess.at_least)

    def _embed(self, wanted: tuple[int, ...], images: Sequence[_Image], pixels: NDArray[np.uint8]) -> None:
        """Run the network and take the finite rows; an embedding that is not finite is never kept."""
        several, reason = self.run.networks(wanted), ""
        try:
            rows = several.network.embed(pixels)
        except NotFiniteError as error:
            rows, reason = error.rows, error.reason
        for place, columns in zip(wanted, several.columns, strict=True):
            own = rows[:, columns]
            finite = np.logical_and.reduce(np.isfinite(own), axis=1) if reason else np.ones(len(own), bool)
            kept = iter(rounded(own[finite], self.job.sinks[place].model.dtype))
            for image, usable in zip(images, finite.tolist(), strict=True):
                if usable:
                    self._pending[place].rows.append(_Row(image.sha256, next(kept), image.stored))
                else:
                    self._spoil(place, image.number, image.sha256, Rejected("non-finite", reason))

    def _spoil(self, place: int, number: int, sha256: str, bad: Rejected) -> None:
        """Keep what was found out about an image that a sink cannot use."""
        self._pending[place].bad[sha256] = bad
        self._reject_content(place, number, sha256, bad)

    def _reject_known(self, number: int, sha256: str) -> None:
        """Reject an image for the sinks that are known not to be able to use it."""
        for place, sink in enumerate(self.job.sinks):
            if sha256 in sink.known_bad:
                self._reject_content(place, number, sha256, sink.known_bad[sha256])

    def _reject_content(self, place: int, number: int, sha256: str, bad: Rejected) -> None:
        self.results[place].bad[sha256] = bad
        self._reject(place, number, bad)

    def _reject(self, place: int, number: int, bad: Rejected) -> None:
        """Count an image that a sink cannot use; past the allowed share, stop the pass."""
        example = f"{self.job.dataset.paths[number]!r}, {bad.message}"
        check_rejected(self.board.reject(place), self.job.total, self.job.max_bad, example)

    def _count(self, images: Sequence[_Image], decode_s: float, infer_s: NDArray[np.float64]) -> None:
        """Count for each sink what its images took: all of decoding, and its own network."""
        for place, (pending, result) in enumerate(zip(self._pending, self.results, strict=True)):
            embedded = sum(place in image.wanted for image in images)
            write_s, pending.write_s = pending.write_s, 0.0
            own_s = float(infer_s[place])
            took = stage_seconds(decode_s=decode_s, infer_s=own_s, wall_s=(decode_s + own_s) / self.run.threads)
            took *= bool(embedded or not images)
            spent = took + stage_seconds(write_s=write_s)
            pending.seconds += spent
            result.embedded += embedded
            result.seconds += spent


class _Encoded(NamedTuple):
    number: int
    sha256: str
    data: bytes
    wanted: tuple[int, ...]  # the numbers of the sinks that lack it


class _Image(NamedTuple):
    number: int
    sha256: str
    stored: Stored
    wanted: tuple[int, ...]


class _Row(NamedTuple):
    sha256: str
    features: NDArray[Any]
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
    with writing_to(workspace):
        write_shard(workspace, part)
    return time.perf_counter() - began


class Pass:
    """What all workers of one pass over a dataset share."""

    def __init__(self, job: Job, threads: int, fork: bool) -> None:
        self.job, self.threads = job, threads
        self.board = Board(len(job.dataset), threads, shared_lock() if fork else threading.Lock(), len(job.sinks))
        self._callers = 1 if fork else threads
        self.resizing = Resizing(len(job.dataset))
        self._told = job.dataset.images.told()
        self._began = time.perf_counter()

    def into(self, sinks: tuple[Sink, ...]) -> Pass:
        """Return this pass, with its networks, into other sinks."""
        other = copy.copy(self)
        other.job = replace(self.job, sinks=sinks)
        return other

    def told(self, number: int) -> str:
        """Return the hash of an image that need not be read; empty where it has to be."""
        sha256 = self._told.get(self.job.dataset.paths[number], "")
        return sha256 if sha256 and all(sink.has(sha256) for sink in self.job.sinks) else ""

    def expect(self, numbers: Iterable[int]) -> None:
        """Let images be fetched that will be read in about this order."""
        paths = self.job.dataset.paths
        self.job.dataset.images.expect(paths[number] for number in numbers if not self.told(number))

    def export(self, wanted: tuple[int, ...]) -> None:
        """Make the ONNX files of some sinks' networks, for processes that open them each for itself."""
        for place in wanted:
            if place not in self.job.opened.onnx:
                self.job.opened.onnx[place] = self.job.sinks[place].model.onnx()

    def by_network(self, wanted: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the numbers of some sinks, apart by network: what one has in common is computed once."""
        found = dict[tuple[Any, ...], list[int]]()
        for place in wanted:
            found.setdefault(tuple(sorted(self.job.sinks[place].model.arguments.items())), []).append(place)
        return [tuple(each) for each in found.values()]

    def open_all(self, groups: Iterable[tuple[int, ...]]) -> float:
        """Open the networks for some groups of sinks; return the seconds that took."""
        began = time.perf_counter()
        for wanted in groups:
            for network in self.by_network(wanted):
                self.networks(network)
        return time.perf_counter() - began

    def networks(self, wanted: tuple[int, ...]) -> Several:
        """Return what some sinks take of one network in this process, opened by the first thread that needs it."""
        job = self.job
        with job.opened.lock:
            if wanted not in job.opened.networks:
                job.opened.networks[wanted] = self._opened(wanted)
            return job.opened.networks[wanted]

    def _opened(self, wanted: tuple[int, ...]) -> Several:
        job, sinks = self.job, [self.job.sinks[place] for place in wanted]
        self.export(wanted)
        models = [job.opened.onnx.pop(place) for place in wanted]
        several = open_networks(
            models,
            job.device,
            engine=job.engine,
            precision=sinks[0].model.precision,
            batch=job.batch_size,
            callers=self._callers,
        )
        for sink, columns in zip(sinks, several.columns, strict=True):
            missing = max(0, len(job.dataset) - len(sink.known))  # as parts, then all rows as a file
            row_bytes = sink.model.dtype.itemsize * (columns.stop - columns.start)
            check_room(sink.workspace, row_bytes * (missing + len(job.dataset)))
        return several

    @property
    def provider(self) -> str:
        """What runs the network; empty while nothing does."""
        return next((each.network.provider for each in self.job.opened.networks.values()), "")

    @property
    def shard_seconds(self) -> float:
        """How old a worker's rows may become before they are written."""
        return min(SHARD_SECONDS, max(LEAST_SHARD_SECONDS, SHARD_SHARE * (time.perf_counter() - self._began)))
