"""The steps of an extraction: find what is there, embed what is missing, put the rows in order, publish."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from tlcache.backbones.engines import default_batch, find_device
from tlcache.backbones.load import load_again, load_layers
from tlcache.backbones.paces import AUTO, fastest_engine
from tlcache.cache.feature_file import FeatureFile
from tlcache.datasets.dataset import Dataset, load_dataset, reopen
from tlcache.datasets.layout import Layout
from tlcache.datasets.overview import Overview
from tlcache.errors import CacheError, DataError
from tlcache.extraction.forks import can_fork
from tlcache.extraction.inflight import InFlight
from tlcache.extraction.job import EmbedResult, Extraction, Job
from tlcache.extraction.ledgers import has_ledgers
from tlcache.extraction.local import run_workers
from tlcache.extraction.merging import merged
from tlcache.extraction.shares import Share, do_share
from tlcache.extraction.target import Target
from tlcache.images import Preprocess
from tlcache.machine import peak_rss_bytes
from tlcache.progress import say
from tlcache.text import counted

__all__ = ["check_name", "extract_here", "layers_here", "merge_here"]


def extract_here(**request: Any) -> Extraction:
    """Do what `tlcache.extraction.extract.extract` says, in this process; arguments are those of `_extract`."""
    (done,) = _extract([{}], **request)
    return done


def layers_here(
    networks: Sequence[Mapping[str, Any]], layers: Sequence[str | None], pools: Sequence[str | None], **request: Any
) -> list[Extraction]:
    """Do what `tlcache.extraction.extract.extract_layers` says, in this process; of networks, `model` and `weights`."""
    wanted = [
        {**network, "output": output, "pool": pool}
        for network in networks
        for output, pool in load_layers({**request, **network}, layers, pools)
    ]
    return _extract(wanted, **request)


def _extract(
    wanted: Sequence[Mapping[str, Any]],
    *,
    features: str,
    device: str,
    batch_size: int | None,
    max_bad: float,
    wait: bool,
    rejected: Mapping[str, Sequence[str]] | None = None,
    in_flight: InFlight | None = None,
    labelled: bool = False,
    shard: str | None = None,
    claim: bool = False,
    ray: str | None = None,
    **request: Any,
) -> list[Extraction]:
    """Make the feature files of networks, their layers and poolings, in one pass for each kind of pixels.

    Parameters
    ----------
    wanted
        Arguments that each feature file has of its own.
    rejected
        Content hash -> code and message of images that are not to be decoded.
    in_flight
        Where to note which images are being decoded; None where this process is not the extraction's own.
    features, device, batch_size, max_bad, wait, labelled, shard, claim, ray, **request
        As for `tlcache.extraction.extract.extract`, all of them given.
    """
    started = time.perf_counter()
    dataset = load_dataset(request["data"], request["name"], Layout.of(request))
    overview = Overview.expected(dataset)
    say(f"{dataset.name}: {overview}")
    if request["engine"] == AUTO:
        request["engine"] = fastest_engine(load_again({**request, **wanted[0]}), device)
    found = find_device(device, request["engine"], request["precision"])
    if labelled:
        dataset.check_labelled()
    dataset.check_splits()
    files = _targets(features, dataset, {**request, "max_bad": max_bad}, wanted)
    share = Share(shard, claim) if shard or claim else None

    def job(targets: Sequence[Target]) -> Job:
        for target in targets:
            target.look_around(rejected or {}, parts=share is None)
        return Job(
            dataset=dataset,
            sinks=tuple(target.sink for target in targets),
            device=device,
            engine=request["engine"],
            batch_size=batch_size or default_batch(request["engine"], found, targets[0].network.preprocess.crop),
            max_bad=max_bad,
            in_flight=in_flight,
            may_fork=in_flight is not None and can_fork() and found == "cpu",
        )

    done = dict[Path, Extraction]()
    for targets in _by_pixels(files):
        make = partial(job, targets)
        how = {"wait": wait, "seed": request["seed"], "max_bad": max_bad, "started": started}
        made = _shared(targets, make, share, overview, **how) if share else _alone(targets, make, _runner(ray), **how)
        done |= {target.path: each for target, each in zip(targets, made, strict=True)}
        started = time.perf_counter()
    first = done[files[0].path]
    if first.shards is None and first.overview != overview:
        say(f"{dataset.name}: in the end {first.overview}")
    return [done[file.path] for file in files]


def _targets(
    features: str, dataset: Dataset, request: Mapping[str, Any], wanted: Sequence[Mapping[str, Any]]
) -> list[Target]:
    folder = Path(features) / dataset.name
    targets = [Target.of(folder, dataset, load_again(each), each) for each in ({**request, **own} for own in wanted)]
    check_name(folder, dataset)
    return targets


def _by_pixels(files: Sequence[Target]) -> list[list[Target]]:
    """Return feature files, each once, apart by the pixels that their networks take."""
    found = dict[Preprocess, dict[Path, Target]]()
    for file in files:
        found.setdefault(file.network.preprocess.pixels, {})[file.path] = file
    return [list(each.values()) for each in found.values()]


def _runner(ray: str | None) -> Callable[[Job], list[EmbedResult]]:
    if ray is None:
        return run_workers
    from tlcache.extraction.onray import run_on_ray

    return partial(run_on_ray, address=ray)


def _alone(
    targets: Sequence[Target],
    job: Callable[[], Job],
    run: Callable[[Job], list[EmbedResult]],
    wait: bool,
    **publish: Any,
) -> list[Extraction]:
    """Embed all images that have no row yet, and publish the files."""
    with ExitStack() as claims:
        for target in sorted(targets, key=lambda target: target.path):  # so that no two processes wait for each other
            claims.enter_context(target.claimed(wait))
        results = run(job())
        peak = peak_rss_bytes() + results[0].forked_bytes  # children that have ended by the time a file is written
        pairs = zip(targets, results, strict=True)
        return [target.published(result, **publish, peak=peak) for target, result in pairs]


def _shared(
    targets: Sequence[Target], job: Callable[[], Job], share: Share, overview: Overview, **how: Any
) -> list[Extraction]:
    """Do a share of the images, and publish the files if all shards are done then."""
    books = [target.ledgers for target in targets]
    own = share.of(range(len(books[0].shards)), under_way=False)
    for book in books:
        book.drop_mended(own, targets[0].dataset)
    missing = sorted({number for book in books for number in book.missing()})
    under_way = any(has_ledgers(target.workspace) or not target.path.exists() for target in targets)
    todo = share.of(missing, under_way)
    if not todo:
        say(f"{targets[0].dataset.name}: nothing to do of {counted(len(books[0].shards), 'shard')}")
        results = [EmbedResult() for _ in targets]
    else:
        for target in targets:
            target.begin()
            target.ledgers.leave_list(share.place[1])
        results = do_share(job(), books, todo, share.claimant)
    looked_at = sorted({*own, *todo})
    pairs = zip(targets, results, strict=True)
    return [merged(target, result, looked_at, overview, **how) for target, result in pairs]


def merge_here(
    *,
    features: str,
    max_bad: float,
    rejected: object = None,
    in_flight: object = None,
    **request: Any,
) -> Extraction:
    """Publish a file whose shards are all done, without reading an image; arguments are those of `_extract`."""
    started = time.perf_counter()
    del rejected, in_flight
    dataset = load_dataset(request["data"], request["name"], Layout.of(request))
    (target,) = _targets(features, dataset, {**request, "max_bad": max_bad}, [{}])
    how = {"wait": True, "seed": request["seed"], "max_bad": max_bad, "started": started}
    return merged(target, EmbedResult(), range(len(target.ledgers.shards)), Overview.expected(dataset), **how)


def check_name(folder: Path, dataset: Dataset, advice: str = "Give this one another name with --name.") -> None:
    """Raise when another dataset, one that still exists, has its feature files under this name."""
    for path in folder.glob("*.h5"):
        with suppress(CacheError), FeatureFile(path) as file:
            source = str(file.attrs["source"])
            if source != dataset.source and reopen(source).exists():
                raise DataError(
                    f"'{folder}' holds features of the dataset in '{source}'; asked: '{dataset.source}'. {advice}"
                )
