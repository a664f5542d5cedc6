"""A shard as a task of a cluster: what a worker is sent, what it does, and what it answers."""

from __future__ import annotations

import functools
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlcache.cache.shards import Rejected
from tlcache.datasets.dataset import reopen
from tlcache.datasets.source import ImageList, Images
from tlcache.errors import DataError, DeviceError
from tlcache.extraction.inflight import InFlight
from tlcache.extraction.job import Job, Opened, Sink
from tlcache.extraction.local import side_by_side
from tlcache.extraction.outside import unpack_sources
from tlcache.extraction.shares import do_shard
from tlcache.extraction.suspects import find_guilty
from tlcache.files import write_whole
from tlcache.version import __version__

__all__ = ["Setup", "Told", "do_task"]

_IN_FLIGHT = "in-flight"  # beside the ledger of a shard: the image that is being decoded


@dataclass(frozen=True)
class Setup:
    """What every task needs, in the cluster's store once."""

    version: str
    sources: str
    name: str
    source: str
    sinks: tuple[Sink, ...]
    device: str
    engine: str
    batch_size: int
    max_bad: float
    total: int


@dataclass(frozen=True)
class Told:
    """What a task says of its shard: counts for each sink, an unusable image, and who did it in which time."""

    host: str
    process: int
    embedded: tuple[int, ...]
    seconds: tuple[Sequence[float], ...]
    bad: int
    example: str
    took_s: float


def do_task(boxed: Sequence[Any], ledgers: Sequence[Path], paths: Sequence[str]) -> Told:
    """Do a shard, the images of these paths, unless it is done; `boxed` is where the setup is in the store."""
    began = time.perf_counter()
    setup, opened = _setup_here(boxed[0])
    ledgers[0].parent.mkdir(parents=True, exist_ok=True)
    images = reopen(setup.source)
    rejected = _rejected(ledgers[0].parent, setup, images)
    job = Job(
        dataset=ImageList(setup.name, images, paths),
        sinks=tuple(replace(sink, known_bad={**sink.known_bad, **rejected}) for sink in setup.sinks),
        device=setup.device,
        engine=setup.engine,
        batch_size=setup.batch_size,
        max_bad=setup.max_bad,
        opened=opened,
        part_of=setup.total,
        threads=1,
        in_flight=_in_flight(ledgers[0].parent),
    )
    found = side_by_side(job, lambda run, slot: do_shard(run, slot, ledgers, range(len(paths))), lambda _: None)
    bad = [*found[0].bad.values(), *found[0].unreadable.values()]
    return Told(
        platform.node(),
        os.getpid(),
        tuple(each.embedded for each in found),
        tuple(each.seconds.tolist() for each in found),
        len(bad),
        bad[-1].message if bad else "",
        time.perf_counter() - began,
    )


@functools.lru_cache(maxsize=1)
def _setup_here(ref: Any) -> tuple[Setup, Opened]:
    """Return what all tasks of a run need, and the networks of this process."""
    import ray

    setup: Setup = ray.get(ref)
    if setup.version != __version__:
        raise DeviceError(
            f"{platform.node()} has tlcache {__version__}, and {setup.version} deals out the work. Install the same."
        )
    unpack_sources(setup.sources)
    _check_sees(reopen(setup.source), setup.source)
    return setup, Opened()


def _check_sees(images: Images, source: str) -> None:
    """Raise DataError where this node does not see the images, lest each of them is taken for unreadable."""
    if not images.far and not images.exists():
        raise DataError(
            f"{platform.node()} does not see the images in '{source}'. Let it find them at that path, as this machine "
            "does, and run the same command again: what is finished is kept."
        )


def _rejected(folder: Path, setup: Setup, images: Images) -> dict[str, Rejected]:
    """Return which images of a shard kill or hang their decoder; a task that died was decoding one, or was killed."""
    kept = folder / "rejected"
    found = json.loads(kept.read_bytes()) if kept.exists() else {}
    if guilty := find_guilty(_in_flight(folder).take(), images, setup.sinks[0].model.preprocess.max_pixels):
        found |= guilty
        write_whole(kept, json.dumps(found).encode())
    return {sha256: Rejected(*why) for sha256, why in found.items()}


def _in_flight(folder: Path) -> InFlight:
    """Return what the tasks of a shard share, one after the other, or two where one is slow: it is never cut short."""
    with (folder / _IN_FLIGHT).open("ab+") as shared:
        return InFlight(shared.fileno(), slots=1)
