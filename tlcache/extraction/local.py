"""Run the workers of a pass on this machine: forked processes where it can be, else threads."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext, suppress
from functools import partial
from typing import NoReturn

from tlcache.backbones.engines import ENGINES
from tlcache.errors import ImageReadError
from tlcache.extraction.forks import DiedError, forked, own_bytes
from tlcache.extraction.inflight import DECODER_HANGS, decode_limit_s
from tlcache.extraction.job import EmbedResult, Job
from tlcache.extraction.worker import Pass, Worker
from tlcache.machine import loading
from tlcache.progress import Advance, image_bar, logger
from tlcache.threads import available_cpus

__all__ = ["run_workers", "side_by_side"]


_LOOKED_AT = 16  # images, to see whether most of them are known


def run_workers(job: Job, advance: Advance | None = None) -> list[EmbedResult]:
    """Embed every image whose hash is not known, each distinct content once, into parts; return what each sink got.

    `advance` is told of images that are done with; without it a bar is shown.

    Raises
    ------
    DataError
        More than the share `max_bad` of the images is unusable.
    ModelError, DeviceError
        The network cannot be run.
    KeyboardInterrupt
        Ctrl-C; finished rows are in parts, and the exception says how many images were done.
    """

    def work(run: Pass, slot: int) -> list[EmbedResult]:
        if not slot:
            run.expect(range(len(job.dataset)))
        return Worker(run, slot).work()

    results = side_by_side(job, work, advance)
    job.dataset.images.remember(job.dataset.paths, results[0].sha256)
    return results


def side_by_side(
    job: Job, work: Callable[[Pass, int], list[EmbedResult]], advance: Advance | None = None
) -> list[EmbedResult]:
    """Let a worker for each CPU do its share of a pass; return what all of them found, for each sink.

    `work` is called with the pass and the number of the worker, each in a thread or a child process of its own; all
    else is as for `run_workers`.
    """
    total, threads = len(job.dataset), job.threads or available_cpus()
    if job.in_flight:
        job.in_flight.source = job.dataset.source
    survives = ENGINES[job.engine].survives_fork
    may_fork = job.may_fork and threads > 1 and (survives or not job.opened.networks) and not job.dataset.images.far
    new = _mostly_new(job) if may_fork else ()
    run = Pass(job, threads, fork=bool(new))
    works: list[Callable[[], list[EmbedResult]]] = [partial(work, run, slot) for slot in range(threads)]
    try:
        if new:
            with loading():
                run.resizing.start()
                if survives:
                    run.open_all([new])
                else:
                    run.export(new)
            works = [forked(partial(_in_child, each, slot)) for slot, each in enumerate(works)]
        bar = nullcontext(advance) if advance else image_bar(job.title, total)
        with bar as tell, ThreadPoolExecutor(threads) as pool:
            try:
                workers = [pool.submit(each) for each in works]
                _join(workers, run, tell)
            except _DecoderHangsError as hanging:
                run.board.stop()
                _leave(workers, hanging.count, DECODER_HANGS)
            except DiedError as died:
                run.board.stop()
                _leave(workers, 0, died.status if died.status >= 0 else 128 - died.status)
            finally:
                run.board.stop()
    except KeyboardInterrupt:  # once the workers have done what they began
        raise KeyboardInterrupt(f"stopped at {run.board.done:,} of {total:,} images") from None
    finally:
        run.resizing.stop()
    hashes = run.board.hashes()
    results = [EmbedResult(hashes) for _ in job.sinks]
    for worker in workers:
        for result, found in zip(results, worker.result(), strict=True):
            result.add(found)
    return results


def _mostly_new(job: Job) -> tuple[int, ...]:
    """Return the numbers of the sinks that are likely to want most of the images, by a look at some of them."""
    some = range(0, len(job.dataset), max(1, len(job.dataset) // _LOOKED_AT))
    known = [0 for _ in job.sinks]
    for row in some:
        with suppress(ImageReadError):
            sha256 = hashlib.sha256(job.dataset.read(row)).hexdigest()
            for place, sink in enumerate(job.sinks):
                known[place] += sha256 in sink.known or sha256 in sink.known_bad
    return tuple(place for place, count in enumerate(known) if count < len(some) / 2)


def _in_child(work: Callable[[], list[EmbedResult]], slot: int) -> list[EmbedResult]:
    """Do the work of a worker that has this process to itself; what all of them have to tell, one tells."""
    if slot:
        logger.setLevel(logging.WARNING)
    results = work()
    results[0].forked_bytes = own_bytes()
    return results


class _DecoderHangsError(Exception):
    def __init__(self, count: int) -> None:
        self.count = count


def _join(workers: list[Future[list[EmbedResult]]], run: Pass, advance: Advance) -> None:
    """Wait for all workers or the first error, waking now and then to tell how far they are and see one that hangs."""
    pending, in_flight, limit_s, shown = set(workers), run.job.in_flight, decode_limit_s(), 0
    while pending:
        done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
        for worker in done:
            worker.result()
        before, shown = shown, run.board.done
        advance(shown - before)
        if in_flight and (hanging := sum(entry.age_s > limit_s for entry in in_flight.entries())):
            raise _DecoderHangsError(hanging)


def _leave(workers: list[Future[list[EmbedResult]]], lost: int, status: int, patience_s: float = 60) -> NoReturn:
    """End this process, some of whose workers nothing can stop or wake, once the others have their rows in parts."""
    until = time.monotonic() + patience_s
    while sum(not worker.done() for worker in workers) > lost and time.monotonic() < until:
        time.sleep(0.05)
    os._exit(status)
