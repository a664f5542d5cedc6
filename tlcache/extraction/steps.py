"""The steps of an extraction: find what is there, embed what is missing, put the rows in order, publish."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tlcache.backbones.engines import default_batch, find_device
from tlcache.backbones.load import load_again, load_layers
from tlcache.cache.feature_file import FeatureFile
from tlcache.datasets.dataset import Dataset, load_dataset, reopen
from tlcache.datasets.layout import Layout
from tlcache.datasets.overview import Overview
from tlcache.errors import CacheError, DataError
from tlcache.extraction.forks import can_fork
from tlcache.extraction.inflight import InFlight
from tlcache.extraction.job import Extraction, Job
from tlcache.extraction.local import run_workers
from tlcache.extraction.target import Target
from tlcache.machine import peak_rss_bytes
from tlcache.progress import say

__all__ = ["check_name", "extract_here", "layers_here"]


def extract_here(**request: Any) -> Extraction:
    """Do what `tlcache.extraction.extract.extract` says, in this process; arguments are those of `_extract`."""
    (done,) = _extract([(request["output"], request["pool"])], **request)
    return done


def layers_here(layers: Sequence[str | None], pools: Sequence[str | None], **request: Any) -> list[Extraction]:
    """Do what `tlcache.extraction.extract.extract_layers` says, in this process."""
    return _extract(load_layers(request, layers, pools), **request)


def _extract(
    outputs: Sequence[tuple[str | None, str | None]],
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
) -> list[Extraction]:
    """Make the feature files of layers with poolings in one pass.

    Parameters
    ----------
    outputs
        A feature file each, all of images that are read and decoded once.
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
    dataset.check_splits()
    folder = Path(features) / dataset.name
    wanted = [{**request, "output": output, "pool": pool, "max_bad": max_bad} for output, pool in outputs]
    targets = [Target.of(folder, dataset, load_again(each), each) for each in wanted]
    check_name(folder, dataset)
    with ExitStack() as claims:
        for target in sorted(targets, key=lambda target: target.path):  # so that no two processes wait for each other
            claims.enter_context(target.claimed(wait))
        for target in targets:
            target.look_around(rejected or {})
        crop = targets[0].network.preprocess.crop
        job = Job(
            dataset=dataset,
            sinks=tuple(target.sink for target in targets),
            device=device,
            engine=request["engine"],
            batch_size=batch_size or default_batch(request["engine"], found, crop),
            max_bad=max_bad,
            in_flight=in_flight,
            may_fork=in_flight is not None and can_fork() and found == "cpu",
        )
        results = run_workers(job)
        peak = peak_rss_bytes() + results[0].forked_bytes  # children that have ended by the time a file is written
        done = [
            target.published(result, request["seed"], max_bad, started, peak)
            for target, result in zip(targets, results, strict=True)
        ]
    if done[0].overview != overview:
        say(f"{dataset.name}: in the end {done[0].overview}")
    return done


def check_name(folder: Path, dataset: Dataset, advice: str = "Give this one another name with --name.") -> None:
    """Raise when another dataset, one that still exists, has its feature files under this name."""
    for path in folder.glob("*.h5"):
        with suppress(CacheError), FeatureFile(path) as file:
            source = str(file.attrs["source"])
            if source != dataset.source and reopen(source).exists():
                raise DataError(
                    f"'{folder}' holds features of the dataset in '{source}'; asked: '{dataset.source}'. {advice}"
                )
