"""Run a pass on a Ray cluster: a task is a shard, and all that is done is on disk, whoever dies.

Tasks write parts and ledgers into the folder of features, which all nodes share; this process deals out the shards that
have no ledger, again where a worker or a node died, and a second time those that take far longer than others.
"""

from __future__ import annotations

import socket
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any

from tlcache.backbones.model import Onnx
from tlcache.cache.feature_file import stage_seconds
from tlcache.errors import CacheError, DeviceError, TlcacheError, first_line
from tlcache.extraction.job import EmbedResult, Job, check_rejected
from tlcache.extraction.ledgers import Ledgers
from tlcache.extraction.outside import pack_sources
from tlcache.extraction.task import Setup, Told, do_task
from tlcache.extras import extra
from tlcache.progress import image_bar, say
from tlcache.threads import available_cpus
from tlcache.version import __version__

__all__ = ["run_on_ray"]

_AHEAD = 2  # times as many tasks as run at once, so that no worker waits for its next
_LISTENS_S = 10  # in which a cluster has to take a connection
_ATTEMPTS = 10  # of a shard whose worker dies each time
_SLOW, _SLOW_S = 3.0, 10.0  # so many times as long as half of the shards took, and longer by this: done once more


@dataclass
class _Deal:
    """The shards that are to be done, those that tasks are at, and what came of the others."""

    waiting: deque[int]
    running: dict[Any, tuple[int, float]] = field(default_factory=dict)
    told: dict[int, Told] = field(default_factory=dict)
    deaths: Counter[int] = field(default_factory=Counter)
    twice: set[int] = field(default_factory=set)

    def slow(self, idle: int) -> list[int]:
        """Return shards to be done a second time, by as many tasks as could run at once."""
        if self.waiting or idle <= 0 or not self.told:
            return []
        limit = _SLOW * median(told.took_s for told in self.told.values()) + _SLOW_S
        late = {shard for shard, began in self.running.values() if time.monotonic() - began > limit}
        return sorted(late - self.twice)[:idle]


def run_on_ray(job: Job, address: str) -> list[EmbedResult]:
    """Do what `tlcache.extraction.local.run_workers` does, by the workers of a Ray cluster.

    Parameters
    ----------
    job
        What to embed. The folders of its sinks, and the images, are seen by all nodes at the same paths.
    address
        Of the cluster, as `ray.init` takes it; `local`: one of this machine, which ends with this.

    Raises
    ------
    OptionError
        Ray is not installed.
    DeviceError
        There is no cluster, or another tlcache on its nodes.
    CacheError
        The workers of a shard die whatever is done.
    TlcacheError, KeyboardInterrupt
        As `run_workers`.
    """
    ray = extra("ray", "Ray", "'tlcache[ray]'")
    sinks = [replace(sink, workspace=sink.workspace.absolute()) for sink in job.sinks]  # workers are in other folders
    job = replace(job, sinks=tuple(sinks))
    paths = job.dataset.paths
    books = [Ledgers(sink.workspace, sink.model.key, paths) for sink in job.sinks]
    for book, sink in zip(books, job.sinks, strict=True):
        book.drop_broken(sink.known)
        book.leave_list()
    missing = sorted({number for book in books for number in book.missing()})
    deal = _Deal(deque(missing))
    if missing:
        with _connected(ray, address), image_bar(job.title, len(paths)) as advance:
            advance(len(paths) - sum(len(books[0].shards[shard]) for shard in missing))
            try:
                for shard in _done(ray, job, books, deal):
                    advance(len(books[0].shards[shard]))
            except KeyboardInterrupt:
                done = len(paths) - sum(len(books[0].shards[each]) for each in missing if each not in deal.told)
                raise KeyboardInterrupt(f"stopped at {done:,} of {len(paths):,} images") from None
        for line in _by_host(deal.told.values(), [len(books[0].shards[shard]) for shard in deal.told]):
            say(line)
    results = [
        _result(book, [(told.embedded[place], told.seconds[place]) for told in deal.told.values()])
        for place, book in enumerate(books)
    ]
    job.dataset.images.remember(paths, results[0].sha256)  # once, and not by every task
    return results


def _done(ray: Any, job: Job, books: Sequence[Ledgers], deal: _Deal) -> Iterator[int]:
    """Let tasks do all shards, and yield each that is done."""
    boxed = [ray.put(_setup_of(job))]
    gpus = {"num_gpus": 1} if job.device == "cuda" else {}
    task = ray.remote(num_cpus=1, max_retries=0, **gpus)(do_task)
    total = len(deal.waiting)
    while len(deal.told) < total:
        slots = _slots(ray.cluster_resources(), job.device)
        again = deal.slow(slots - len(deal.running))
        deal.twice |= {*again}
        while again or (deal.waiting and len(deal.running) < _AHEAD * slots):
            shard = again.pop() if again else deal.waiting.popleft()
            own = [job.dataset.paths[number] for number in books[0].shards[shard]]
            ref = task.remote(boxed, [book.path(shard) for book in books], own)
            deal.running[ref] = shard, time.monotonic()
        for ref in ray.wait([*deal.running], timeout=1.0)[0]:
            shard, _ = deal.running.pop(ref)
            told = _answer(ray, ref, shard, deal)
            if told and shard not in deal.told:
                deal.told[shard] = told
                bad = sum(each.bad for each in deal.told.values())
                check_rejected(bad, len(job.dataset), job.max_bad, told.example)
                yield shard


def _slots(have: Mapping[str, float], device: str) -> int:
    """Return how many tasks run at once on a cluster that has this: each takes a CPU, and perhaps a GPU."""
    kinds = ("CPU", "GPU") if device == "cuda" else ("CPU",)
    return max(1, min(int(have.get(kind, 0)) for kind in kinds))


def _answer(ray: Any, ref: Any, shard: int, deal: _Deal) -> Told | None:
    """Return what a task says; None where its worker or node died, and its shard waits for another."""
    try:
        told: Told = ray.get(ref)
        return told
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, TlcacheError | OSError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        if shard in deal.told:
            return None
        deal.deaths[shard] += 1
        if deal.deaths[shard] >= _ATTEMPTS:
            raise CacheError(
                f"The worker of a shard died {_ATTEMPTS} times, the last time so: {first_line(error)}. Finished images "
                "are kept: run the same command again."
            ) from None
        deal.waiting.appendleft(shard)
        return None


def _setup_of(job: Job) -> Setup:
    sinks = [replace(sink, model=replace(sink.model, onnx=partial(_same, sink.model.onnx()))) for sink in job.sinks]
    return Setup(
        __version__,
        pack_sources(),
        job.dataset.name,
        job.dataset.source,
        tuple(sinks),
        job.device,
        job.engine,
        job.batch_size,
        job.max_bad,
        len(job.dataset),
    )


def _same(onnx: Onnx) -> Onnx:
    return onnx


def _result(book: Ledgers, done: Sequence[tuple[int, Sequence[float]]]) -> EmbedResult:
    """Return what all ledgers say, with what tasks of this run cost."""
    result = book.result()
    if result is None:
        raise CacheError("A ledger was damaged or removed while this run went on. Run the same command again.")
    embedded, seconds = 0, stage_seconds()
    for count, took in done:
        embedded, seconds = embedded + count, seconds + took
    return replace(result, embedded=embedded, seconds=seconds)


def _by_host(told: Any, images: Sequence[int]) -> list[str]:
    """Return a line for each host: its workers, and how fast they were."""
    rates: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
    for each, count in zip(told, images, strict=True):
        worker = rates[each.host][each.process]
        worker[0], worker[1] = worker[0] + count, worker[1] + each.took_s
    return [
        f"{host}: {len(workers)} workers, "
        + ", ".join(f"{count / max(took_s, 1e-9):,.0f} images/s" for count, took_s in workers.values())
        for host, workers in rates.items()
    ]


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    own = {"num_cpus": available_cpus(), "include_dashboard": False} if address == "local" else {}
    try:
        _check_listens(address)
        ray.init(address=address, log_to_driver=False, logging_level="error", **own)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise DeviceError(f"No Ray cluster at '{address}' ({first_line(error)}). Is it up? See: ray status") from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_listens(address: str) -> None:
    """Raise ConnectionError where nobody listens at `host:port`, which Ray itself tries again for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host:
            socket.create_connection((host.strip("[]"), int(port)), _LISTENS_S).close()
    except (OSError, ValueError) as error:
        raise ConnectionError(getattr(error, "strerror", None) or str(error)) from None
