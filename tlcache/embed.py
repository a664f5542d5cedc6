"""The extraction loop: one thread per core, each reading, decoding and running the network for batches of its own.

Decoding, resizing and the network all release Python's lock, so the threads need no queues between them.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from tlcache.datasets import Dataset
from tlcache.errors import CacheError, DataError, ModelError, first_line
from tlcache.files import check_room, read_regular
from tlcache.images import BadImageError, OneTorchThread, Stored, prepare
from tlcache.journal import Journal
from tlcache.machine import available_cpus
from tlcache.models import Model
from tlcache.parts import Part, write_part
from tlcache.progress import Advance, image_bar
from tlcache.runtime import Session, open_session
from tlcache.worker import DECODER_HANGS, decode_limit_s

__all__ = ["Bad", "Harvest", "Job", "check_bad", "embed"]

PART_SECONDS = 1.5  # what a killed run loses at most,
PART_SHARE = 0.1  # but no more than this share of what it has done,
LEAST_PART_SECONDS = 0.1  # or this: writing a part takes some milliseconds


@dataclass(frozen=True)
class Bad:
    """Why an image cannot be used: one word for counting, a message for people."""

    code: str
    message: str


@dataclass(frozen=True)
class Job:
    """What to embed, and what is there already.

    Parameters
    ----------
    dataset, model
        The images and the network.
    known
        Hashes of images whose embeddings are there.
    known_bad
        Hashes of images that are known to be unusable, and why.
    workspace
        Folder for the parts.
    device, engine, batch_size
        As for `tlcache.runtime.open_session`; images per call of the network.
    max_bad
        Largest share of unusable images to go on with.
    journal
        Where to note what is being decoded, so that a decoder that dies or hangs is found; None: nowhere.
    """

    dataset: Dataset
    model: Model
    known: Collection[str]
    known_bad: Mapping[str, Bad]
    workspace: Path
    device: str
    engine: str
    batch_size: int
    max_bad: float
    journal: Journal | None = None


@dataclass
class Harvest:
    """What one pass over a dataset found.

    Parameters
    ----------
    sha256
        Per image: hash of the bytes that were read; empty when they could not be read.
    bad
        Unusable images by their hash.
    unreadable
        Files that could not be read, by their number in the dataset.
    embedded
        Images that went through the network in this pass.
    seconds
        float64 (4,), as in `tlcache.parts.Part`: decoding, network and writing in thread seconds, and wall time. Parts
        are written beside the rest; what the last one cost, no part can say.
    provider
        The execution provider; None when nothing had to be embedded.
    """

    sha256: list[str]
    bad: dict[str, Bad] = field(default_factory=dict)
    unreadable: dict[int, Bad] = field(default_factory=dict)
    embedded: int = 0
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))
    provider: str | None = None


def embed(job: Job) -> Harvest:
    """Embed every image whose hash is not known, each distinct content once, into parts.

    Raises
    ------
    DataError
        More than the share `max_bad` of the images is unusable.
    ModelError, DeviceError
        The network cannot be run.
    KeyboardInterrupt
        Ctrl-C; finished rows are in parts, and the exception says how many images were done.
    """
    total, threads = len(job.dataset), available_cpus()
    run = _Pass(job, threads)
    with (
        image_bar(f"{job.dataset.name}: {job.model.name}", total) as advance,
        run.writer,
        ThreadPoolExecutor(threads) as pool,
    ):
        try:
            workers = [pool.submit(run.work, advance, slot) for slot in range(threads)]
            _join(workers, job.journal)
        except _DecoderHangsError as hanging:
            run.stop.set()
            _leave(workers, hanging.count)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped at {run.done:,} of {total:,} images") from None
        finally:
            run.stop.set()
            run.torch.stop()
    return run.harvest


def check_bad(count: int, total: int, max_bad: float, example: str) -> None:
    """Raise DataError when more than the share `max_bad` of `total` images is unusable."""
    if count > max_bad * total:
        raise DataError(
            f"{count:,} of {total:,} images are unusable, more than --max-bad {max_bad:g} allows; "
            f"the last one: {example}. Check the data, or allow more with --max-bad."
        )


class _DecoderHangsError(Exception):
    def __init__(self, count: int) -> None:
        self.count = count


def _join(workers: list[Future[None]], journal: Journal | None) -> None:
    """Wait for all workers or the first error, waking often enough to notice Ctrl-C and decoders that hang."""
    pending, limit_s = set(workers), decode_limit_s()
    while pending:
        done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
        for worker in done:
            worker.result()
        if journal and (hanging := sum(entry.age_s > limit_s for entry in journal.entries())):
            raise _DecoderHangsError(hanging)


def _leave(workers: list[Future[None]], hanging: int, patience_s: float = 60) -> NoReturn:
    """End this process, whose hanging threads nothing can stop, once the others have their rows in parts."""
    until = time.monotonic() + patience_s
    while sum(not worker.done() for worker in workers) > hanging and time.monotonic() < until:
        time.sleep(0.05)
    os._exit(DECODER_HANGS)


class _Pass:
    """One pass over a dataset: `work` is the body of every thread, the rest is what they share."""

    def __init__(self, job: Job, threads: int) -> None:
        self.job, self.threads, self.stop = job, threads, threading.Event()
        self.done = self.bad = 0
        self._root = str(job.dataset.root)
        self._began = time.perf_counter()
        self.harvest = Harvest([""] * len(job.dataset))
        self._lock, self._session_lock = threading.Lock(), threading.Lock()
        self._claimed: set[str] = set()
        self._session: Session | None = None
        self.torch = OneTorchThread()
        self.writer = ThreadPoolExecutor(1)  # waits for the disk, so that no core does
        self._batches = iter(range(0, len(job.dataset), job.batch_size))

    def work(self, advance: Advance, slot: int) -> None:
        """Take batches until none is left, keeping the finished rows in parts; `slot` is the thread's own number."""
        pending = _Pending(self.job.workspace, slot, self.writer)
        try:
            for batch in self._next_batches():
                times = [time.perf_counter()]
                images = [image for number in batch if (image := self._read(number, pending)) is not None]
                times.append(time.perf_counter())
                if images:
                    network = self._network()
                    started_s = time.perf_counter() - times[-1]  # the session's start is no part of what images cost
                    times = [moment + started_s for moment in times]
                    pending.rows += self._infer(network, images, pending)
                times.append(time.perf_counter())
                self._count(len(batch), len(images), times, pending)
                pending.flush(self.harvest.provider, after_s=self._part_seconds())
                advance(len(batch))
        except BaseException:
            self.stop.set()
            raise
        finally:
            pending.flush(self.harvest.provider)
            pending.settle()
            with self._lock:
                self.harvest.seconds[2] += pending.write_s

    def _part_seconds(self) -> float:
        return min(PART_SECONDS, max(LEAST_PART_SECONDS, PART_SHARE * (time.perf_counter() - self._began)))

    def _next_batches(self) -> Iterator[range]:
        size, total = self.job.batch_size, len(self.job.dataset)
        while not self.stop.is_set():
            with self._lock:
                start = next(self._batches, None)
            if start is None:
                return
            yield range(start, min(start + size, total))

    def _read(self, number: int, pending: _Pending) -> _Image | None:
        """Read and hash one image; decode it when nobody has its embedding or is making it."""
        path = os.path.join(self._root, self.job.dataset.paths[number])  # noqa: PTH118  a Path costs 10 times as much
        try:
            data = read_regular(path)
        except OSError as error:
            bad = Bad("unreadable", error.strerror or str(error))
            self._reject(number, bad)
            return None
        sha256 = self.harvest.sha256[number] = hashlib.sha256(data).hexdigest()
        if sha256 in self.job.known_bad:
            self._reject(number, self.job.known_bad[sha256])
        if sha256 in self.job.known or sha256 in self.job.known_bad or not self._claim(sha256):
            return None
        self.torch.start()
        try:
            with self._noted(path, pending.slot):
                return _Image(number, sha256, *prepare(data, self.job.model.preprocess))
        except BadImageError as error:
            bad = pending.bad[sha256] = Bad(error.code, str(error))
        self._reject(number, bad)
        return None

    def _noted(self, path: str, slot: int) -> AbstractContextManager[None]:
        if self.job.journal is None:
            return nullcontext()
        return self.job.journal.decoding(slot, path, self.job.model.preprocess.at_least)

    def _infer(self, network: Session, images: list[_Image], pending: _Pending) -> list[_Row]:
        """Run the network and return the finite rows; an embedding that is not finite is never kept."""
        try:
            features = network(np.stack([image.pixels for image in images]))
        except (RuntimeError, MemoryError) as error:
            raise ModelError(
                f"The network failed on a batch of {len(images)} ({first_line(error)}). "
                "If memory ran out, try a smaller --batch-size. Finished images are kept."
            ) from error
        rows = []
        for image, row in zip(images, features, strict=True):
            if np.isfinite(row).all():
                rows.append(_Row(image.sha256, row, image.stored))
            else:
                hint = "; try --precision fp32" if self.job.model.precision == "fp16" else ""
                why = f"the network gives numbers that are not finite{hint}"
                pending.bad[image.sha256] = Bad("non-finite", why)
                self._reject(image.number, pending.bad[image.sha256])
        return rows

    def _network(self) -> Session:
        """Return the session, made by the first thread that needs one."""
        with self._session_lock:
            job = self.job
            if self._session is None:
                self._session = open_session(
                    job.model.onnx(),
                    job.device,
                    engine=job.engine,
                    precision=job.model.precision,
                    batch=job.batch_size,
                )
                missing = max(0, len(job.dataset) - len(job.known))  # as parts, then all rows as a file
                check_room(job.workspace, 4 * self._session.dim * (missing + len(job.dataset)))
                self.harvest.provider = self._session.provider
        return self._session

    def _claim(self, sha256: str) -> bool:
        with self._lock:
            fresh = sha256 not in self._claimed
            self._claimed.add(sha256)
        return fresh

    def _reject(self, number: int, bad: Bad) -> None:
        """Note an unusable image; past the allowed share, stop the pass."""
        sha256 = self.harvest.sha256[number]
        with self._lock:
            if sha256:
                self.harvest.bad[sha256] = bad
            else:
                self.harvest.unreadable[number] = bad
            self.bad += 1
        example = f"{self.job.dataset.paths[number]!r}, {bad.message}"
        check_bad(self.bad, len(self.job.dataset), self.job.max_bad, example)

    def _count(self, images: int, embedded: int, times: list[float], pending: _Pending) -> None:
        decode_s, infer_s = np.diff(times)
        write_s, pending.write_s = pending.write_s, 0.0
        spent = np.array([decode_s, infer_s, write_s, (decode_s + infer_s) / self.threads])
        pending.seconds += spent
        with self._lock:
            self.done += images
            self.harvest.embedded += embedded
            self.harvest.seconds += spent


@dataclass(frozen=True)
class _Image:
    number: int
    sha256: str
    pixels: NDArray[np.uint8]
    stored: Stored


@dataclass(frozen=True)
class _Row:
    sha256: str
    features: NDArray[np.float32]
    stored: Stored


class _Pending:
    """Rows of one thread that are not on disk yet; `write_s` are the seconds of writes not accounted for yet."""

    def __init__(self, workspace: Path, slot: int, writer: ThreadPoolExecutor) -> None:
        self._workspace, self._writer = workspace, writer
        self._write: Future[float] | None = None
        self.slot, self.write_s = slot, 0.0
        self.rows: list[_Row] = []
        self.bad: dict[str, Bad] = {}
        self.seconds = np.zeros(4)
        self._since = time.perf_counter()

    def flush(self, provider: str | None, after_s: float = 0.0) -> None:
        """Begin to write a part when the last one is at least `after_s` seconds old and there is something to write."""
        now = time.perf_counter()
        if now - self._since < after_s or not (self.rows or self.bad):
            return
        part = Part(
            np.array([row.sha256 for row in self.rows], "S64"),
            np.stack([row.features for row in self.rows]) if self.rows else np.empty((0, 0), np.float32),
            np.array([row.stored for row in self.rows], np.int32).reshape(-1, 3),
            [(sha256, bad.code, bad.message) for sha256, bad in self.bad.items()],
            self.seconds,
            provider or "",
        )
        self.settle()
        self._write = self._writer.submit(_write, self._workspace, part)
        self.rows, self.bad, self.seconds, self._since = [], {}, np.zeros(4), now

    def settle(self) -> None:
        """Wait until the part that is being written is on disk; raises CacheError when it cannot be written."""
        if self._write is not None:
            self.write_s += self._write.result()
            self._write = None


def _write(workspace: Path, part: Part) -> float:
    """Write a part and return the seconds that took."""
    began = time.perf_counter()
    try:
        write_part(workspace, part)
    except OSError as error:
        raise CacheError(
            f"Cannot write to '{workspace}': {error.strerror}. What is finished is kept; "
            "mend that and run the same command again."
        ) from None
    return time.perf_counter() - began
