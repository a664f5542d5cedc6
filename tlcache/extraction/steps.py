"""The steps of an extraction: find what is there, embed what is missing, put the rows in order, publish."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import Timeout

from tlcache.backbones.engines import default_batch, find_device
from tlcache.backbones.load import load_again
from tlcache.backbones.model import Model
from tlcache.cache.feature_file import STAGES, FeatureFile
from tlcache.cache.index import Index
from tlcache.cache.publish import Plan, publish
from tlcache.cache.shards import Rejected, find_shards
from tlcache.datasets.dataset import Dataset, load_dataset, reopen
from tlcache.datasets.layout import Layout
from tlcache.datasets.overview import Overview
from tlcache.datasets.splits import check_splits
from tlcache.errors import CacheError, DataError
from tlcache.extraction.forks import can_fork
from tlcache.extraction.inflight import InFlight
from tlcache.extraction.job import Extraction, Job, check_rejected
from tlcache.extraction.local import run_workers
from tlcache.extraction.rows import Rows, assemble
from tlcache.files import check_room, write_whole
from tlcache.images import REVISION
from tlcache.keys import canonical_json
from tlcache.locks import Lock
from tlcache.machine import hardware, now, peak_rss_bytes, versions
from tlcache.progress import say

__all__ = ["extract_here", "lock_of"]

_GRACE_S = 0.5  # a holder that has just begun has then said who it is; one that is ending has ended


def extract_here(
    *,
    features: str,
    device: str,
    batch_size: int | None,
    max_bad: float,
    wait: bool,
    rejected: Mapping[str, Sequence[str]] | None = None,
    in_flight: InFlight | None = None,
    labelled: bool = False,
    **request: Any,
) -> Extraction:
    """Do what `tlcache.extraction.extract.extract` says, in this process.

    Parameters
    ----------
    rejected
        Content hash -> code and message of images that are not to be decoded.
    in_flight
        Where to note which images are being decoded; None where this process is not the extraction's own.
    features, device, batch_size, max_bad, wait, labelled, **request
        As for `tlcache.extraction.extract.extract`, all of them given.
    """
    started = time.perf_counter()
    dataset = load_dataset(request["data"], request["name"], Layout.of(request))
    overview = Overview.expected(dataset)
    say(f"{dataset.name}: {overview}")
    found = find_device(device, request["engine"], request["precision"])
    if labelled:
        dataset.check_labelled()
    if dataset.classes:
        check_splits(dataset.labels, dataset.splits, dataset.classes, dataset.groups)
    network = load_again(request)
    batch_size = batch_size or default_batch(request["engine"], found, network.preprocess.crop)
    root = Path(features)
    target = root / dataset.name / f"{network.file_stem}.h5"
    workspace = target.with_name(f".{target.stem}.parts")
    _check_folder(target.parent, dataset)
    arguments = _anywhere(request, network, dataset, max_bad)
    note = {"arguments": arguments, "images": len(dataset)}
    note |= {"identity": network.identity, "weights": network.weights}
    with _claimed(workspace, note, wait):
        _sweep(target)
        index = Index(network.key)
        index.bad |= {sha256: Rejected(*reason) for sha256, reason in (rejected or {}).items()}
        index.add_target(target)
        index.add_others(root, target.stem)
        index.add_shards(workspace)
        before = len(index.sources)
        job = Job(
            dataset=dataset,
            model=network,
            known=index.rows,
            known_bad=index.bad,
            outdated=index.outdated,
            workspace=workspace,
            device=device,
            engine=request["engine"],
            batch_size=batch_size,
            max_bad=max_bad,
            in_flight=in_flight,
            may_fork=in_flight is not None and can_fork() and found == "cpu",
        )
        result = run_workers(job)
        peak = peak_rss_bytes() + result.forked_bytes  # children that have ended by the time the file is written
        index.add_shards(workspace)
        table = assemble(dataset, result, index, request["seed"], windowed=network.preprocess.window is not None)
        if table.quarantine:
            path, _, _, message = table.quarantine[-1]
            check_rejected(len(table.quarantine), len(dataset), max_bad, f"{path!r}, {message}")
        embedded_s = time.perf_counter()
        up_to_date = not result.embedded and not index.dropped and table.is_in(target, dataset.source)
        if not up_to_date:
            check_room(target.parent, 4 * index.dim * len(table))
            publish(
                Plan(target, index.dim, table.columns, index.sources, _attributes(dataset, network, table, index, note))
            )
        for part in find_shards(workspace):
            part.unlink()
    if table.overview != overview:
        say(f"{dataset.name}: in the end {table.overview}")
    ended = time.perf_counter()
    seconds = dict(zip(STAGES, result.seconds.tolist(), strict=True)) | {"wall_s": ended - started}
    seconds["write_s"] += ended - embedded_s
    return Extraction(
        path=target,
        dataset=dataset.name,
        backbone=network.name,
        rows=len(table),
        embedded=result.embedded,
        reused=int((table.columns["source"] < before).sum()),
        quarantined=len(table.quarantine),
        up_to_date=up_to_date,
        seconds=seconds,
        images_per_s=result.embedded / seconds["wall_s"],
        peak_rss_bytes=max(peak, peak_rss_bytes()),
        provider=index.provider,
        overview=table.overview,
        warnings=(*table.warnings, *index.warnings(), *_told_of(target)),
    )


def _told_of(target: Path) -> list[str]:
    with FeatureFile(target) as file:
        return ["All embeddings are equal, whatever the image. Is the network trained?"] if file.is_constant() else []


def lock_of(workspace: Path) -> Lock:
    """Return the lock of a folder of parts."""
    return Lock(workspace.with_suffix(".lock"))


def _anywhere(request: Mapping[str, Any], network: Model, dataset: Dataset, max_bad: float) -> dict[str, Any]:
    """Return the arguments that repeat this extraction from any folder, whatever the default weights are then."""
    place = {"data": dataset.data, "name": dataset.name}
    if request.get("images"):
        place["images"] = dataset.source
    return {**request, **network.arguments, **place, "max_bad": max_bad}


def _check_folder(folder: Path, dataset: Dataset) -> None:
    """Raise when another dataset, one that still exists, has its feature files under this name."""
    for path in folder.glob("*.h5"):
        with suppress(CacheError), FeatureFile(path) as file:
            source = str(file.attrs["source"])
            if source != dataset.source and reopen(source).exists():
                raise DataError(
                    f"'{folder}' holds features of the dataset in '{source}'; asked: '{dataset.source}'. "
                    "Give this one another name with --name."
                )


@contextmanager
def _claimed(workspace: Path, note: Mapping[str, Any], wait: bool) -> Iterator[None]:
    """Make the workspace, hold its lock, and leave word of who works in it and on what."""
    run = workspace / "run.json"
    try:
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
        if workspace.is_symlink():
            raise CacheError(f"'{workspace}' is a symbolic link; nothing is written through it. Remove it.")
        workspace.mkdir(exist_ok=True)
        who = {"process": os.getpid(), "host": platform.node()}
        write_whole(run, json.dumps({**who, **note}).encode())
    except OSError as error:
        raise CacheError(
            f"Cannot write to '{workspace.parent}': {error.strerror}. Give another folder with --features."
        ) from None
    try:
        yield
    finally:
        if not find_shards(workspace):
            shutil.rmtree(workspace, ignore_errors=True)
        lock.release()


def _holder(run: Path) -> str:
    try:
        note = json.loads(run.read_bytes())
        return f"process {note['process']} on {note['host']}"
    except (OSError, ValueError, KeyError):  # between taking the lock and writing this
        return "another process"


def _sweep(target: Path) -> None:
    """Remove what a process left that was killed while it published; the lock is ours, so nobody works on it."""
    for path in target.parent.glob(f".{target.name}-*.tmp"):
        path.unlink(missing_ok=True)


def _attributes(dataset: Dataset, network: Model, table: Rows, index: Index, note: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "key": network.key,
        "key_json": canonical_json(network.identity),
        "dataset": dataset.name,
        "dataset_digest": table.digest,
        "source": dataset.source,
        "arguments": canonical_json(note["arguments"]),
        "backbone": network.name,
        "weights": network.weights,
        "preprocess": canonical_json(network.preprocess.as_json()),
        "decoder": REVISION,
        "provider": index.provider,
        **table.overview.attributes,
        "created": now(),
        "generated_by": canonical_json({**versions(), **hardware()}),
        **dict(zip(STAGES, index.seconds(table.columns["source"]).tolist(), strict=True)),
    }
