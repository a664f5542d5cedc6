"""A feature file in the making: claimed, looked up in all caches, filled by a pass over the images, published."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from filelock import Timeout

from tlcache.backbones.model import Model
from tlcache.cache.feature_file import STAGES, FeatureFile
from tlcache.cache.index import Index
from tlcache.cache.plan import Plan
from tlcache.cache.publish import publish
from tlcache.cache.shards import Rejected, find_shards
from tlcache.datasets.dataset import Dataset
from tlcache.errors import CacheError
from tlcache.extraction.job import EmbedResult, Extraction, Sink, check_rejected
from tlcache.extraction.ledgers import Ledgers, is_worked_on
from tlcache.extraction.rows import Rows, assemble
from tlcache.files import check_room, write_whole, writing_to
from tlcache.locks import Lock
from tlcache.machine import peak_rss_bytes
from tlcache.progress import say

__all__ = ["Target", "lock_of", "named_seconds"]

_GRACE_S = 0.5  # a holder that has just begun has then said who it is; one that is ending has ended


@dataclass
class Target:
    """A feature file that is being made.

    Parameters
    ----------
    path
        Where it is published.
    dataset, network
        What it is of.
    note
        What is left in the folder of parts: arguments, number of images, and what the network is.

    Attributes
    ----------
    index
        Where rows are that are there already.
    before
        How many sources there were before the pass.
    """

    path: Path
    dataset: Dataset
    network: Model
    note: Mapping[str, Any]
    index: Index = field(init=False)
    before: int = 0

    @classmethod
    def of(cls, folder: Path, dataset: Dataset, network: Model, request: Mapping[str, Any]) -> Self:
        """Return the feature file of a network in the folder of a dataset."""
        note = {"arguments": _anywhere(request, network, dataset), "images": len(dataset)}
        note |= {"identity": network.identity, "weights": network.weights}
        return cls(folder / f"{network.file_stem}.h5", dataset, network, note)

    @property
    def workspace(self) -> Path:
        """Folder of its parts."""
        return self.path.with_name(f".{self.path.stem}.parts")

    @property
    def sink(self) -> Sink:
        """Where a pass leaves its rows."""
        index = self.index
        return Sink(self.network, index.rows, index.bad, self.workspace, index.outdated)

    @cached_property
    def ledgers(self) -> Ledgers:
        """What came of each shard of the images."""
        return Ledgers(self.workspace, self.network.key, self.dataset.paths)

    def look_around(self, rejected: Mapping[str, Sequence[str]], parts: bool = True) -> None:
        """Find out which rows are there; `rejected` are images that are not to be decoded, by their hash.

        Without `parts`, what lies in the workspace is left to whoever does its shard.
        """
        unrounded = self.network.unrounded
        self.index = index = Index(self.network.key, unrounded.key)
        index.bad |= {sha256: Rejected(*reason) for sha256, reason in rejected.items()}
        index.add_target(self.path)
        for stem in dict.fromkeys((self.path.stem, unrounded.file_stem)):
            index.add_others(self.path.parent.parent, stem)
        if parts:
            index.add_shards(self.workspace)
        self.before = len(index.sources)

    def published(self, result: EmbedResult, seed: int, max_bad: float, started: float, peak: int) -> Extraction:
        """Put the rows in order and publish them, unless the file has them already; its parts are removed.

        Parameters
        ----------
        result
            What a pass found.
        seed, max_bad
            Of splits that are drawn; largest share of unusable images.
        started, peak
            When the work began, by `time.perf_counter`; the largest memory since, in bytes.
        """
        dataset, index, embedded_s = self.dataset, self.index, time.perf_counter()
        index.add_shards(self.workspace)
        table = assemble(dataset, result, index, seed, windowed=self.network.preprocess.window is not None)
        if table.quarantine:
            path, _, _, message = table.quarantine[-1]
            check_rejected(len(table.quarantine), len(dataset), max_bad, f"{path!r}, {message}")
        up_to_date = not result.embedded and not index.dropped and table.is_in(self.path, dataset.source)
        if not up_to_date:
            attributes, dtype = self._attributes(table), self.network.dtype
            size = self.note["arguments"].get("file_size")
            plan = Plan(self.path, index.dim, table.columns, index.sources, attributes, dtype, size)
            check_room(self.path.parent, plan.row_bytes * len(table))
            publish(plan)
        for part in find_shards(self.workspace):
            part.unlink()
        ended = time.perf_counter()
        seconds = named_seconds(result, ended - started)
        seconds["write_s"] += ended - embedded_s
        arguments = self.note["arguments"]
        return Extraction(
            path=self.path,
            dataset=dataset.name,
            backbone=self.network.name,
            rows=len(table),
            embedded=result.embedded,
            reused=int((table.columns["source"] < self.before).sum()),
            quarantined=len(table.quarantine),
            up_to_date=up_to_date,
            seconds=seconds,
            images_per_s=result.embedded / seconds["wall_s"],
            peak_rss_bytes=max(peak, peak_rss_bytes()),
            provider=index.provider,
            overview=table.overview,
            warnings=(*table.warnings, *index.warnings(), *_told_of(self.path)),
            output=arguments["output"],
            pool=arguments["pool"],
        )

    def begin(self) -> None:
        """Make the workspace, and leave word of who works in it and on what.

        Raises
        ------
        CacheError
            It cannot be made, or is a symbolic link.
        """
        with self._writing():
            if self.workspace.is_symlink():
                raise CacheError(f"'{self.workspace}' is a symbolic link; nothing is written through it. Remove it.")
            self.workspace.mkdir(parents=True, exist_ok=True)
            who = {"process": os.getpid(), "host": platform.node()}
            write_whole(self._run, json.dumps({**who, **self.note}).encode())

    @contextmanager
    def claimed(self, wait: bool) -> Iterator[None]:
        """Hold the lock of the workspace, begin, and remove it in the end if no part is left in it."""
        workspace, run = self.workspace, self._run
        with self._writing():
            workspace.parent.mkdir(parents=True, exist_ok=True)
            lock = lock_of(workspace)
            try:
                lock.acquire(_GRACE_S)
            except Timeout:
                if not wait:
                    raise CacheError(
                        f"{_holder(run).capitalize()} extracts the same features. Wait for it, or leave --no-wait out."
                        f"{lock.advice}"
                    ) from None
                say(f"Waiting for {_holder(run)}, which extracts the same features ...{lock.advice}")
                lock.acquire()
        try:
            self.begin()
            for path in self.path.parent.glob(f".{self.path.name}-*.tmp"):  # a process left it that was killed
                path.unlink(missing_ok=True)  # while it published; the lock is ours, so nobody works on it
            yield
        finally:
            if not find_shards(workspace) and not is_worked_on(workspace):
                shutil.rmtree(workspace, ignore_errors=True)
            lock.release()

    @property
    def _run(self) -> Path:
        return self.workspace / "run.json"

    def _writing(self) -> AbstractContextManager[None]:
        return writing_to(self.workspace.parent, "Give another folder with --features.")

    def _attributes(self, table: Rows) -> dict[str, Any]:
        network, index = self.network, self.index
        seconds = index.seconds(table.columns["source"]).tolist()
        return table.attributes(
            self.dataset,
            network.key,
            network.identity,
            self.note["arguments"],
            backbone=network.name,
            weights=network.weights,
            licence=network.licence,
            provider=index.provider,
            **dict(zip(STAGES, seconds, strict=True)),
        )


def lock_of(workspace: Path) -> Lock:
    """Return the lock of a folder of parts."""
    return Lock(workspace.with_suffix(".lock"))


def named_seconds(result: EmbedResult, wall_s: float) -> dict[str, float]:
    """Return what a pass cost, by the names of `STAGES`, and the time on the clock."""
    return dict(zip(STAGES, result.seconds.tolist(), strict=True)) | {"wall_s": wall_s}


def _told_of(target: Path) -> list[str]:
    with FeatureFile(target) as file:
        return ["All embeddings are equal, whatever the image. Is the network trained?"] if file.is_constant() else []


def _anywhere(request: Mapping[str, Any], network: Model, dataset: Dataset) -> dict[str, Any]:
    """Return the arguments that repeat this extraction from any folder, whatever the default weights are then."""
    place = {"data": dataset.data, "name": dataset.name}
    if request.get("images"):
        place["images"] = dataset.source
    return {**request, **network.arguments, **place}


def _holder(run: Path) -> str:
    try:
        note = json.loads(run.read_bytes())
        return f"process {note['process']} on {note['host']}"
    except (OSError, ValueError, KeyError):  # between taking the lock and writing this
        return "another process"
