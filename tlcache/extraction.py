"""Dataset + backbone -> feature file: what is there is reused, what is missing is embedded, the rest is bookkeeping."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tlcache.datasets import Dataset, load_dataset
from tlcache.embed import Job, check_bad, embed
from tlcache.errors import CacheError, DataError
from tlcache.index import Index
from tlcache.keys import canonical_json, slug
from tlcache.machine import hardware, peak_rss_bytes, versions
from tlcache.models import Model, load_model
from tlcache.progress import say
from tlcache.runtime import find_device
from tlcache.splits import check_splits
from tlcache.store import STAGES, FeatureFile, Plan, publish
from tlcache.table import Table, assemble

__all__ = ["Extraction", "extract", "features_folder"]


@dataclass(frozen=True)
class Extraction:
    """What `extract` did; `as_json` gives the contract of `--json`.

    Parameters
    ----------
    path
        The feature file.
    dataset, backbone, rows
        What it holds.
    embedded, reused, quarantined
        Images that went through the network now, whose embedding was there, and that could not be used.
    up_to_date
        Nothing had to be written.
    seconds
        `decode_s`, `infer_s`, `write_s` summed over threads, and `wall_s`.
    images_per_s
        Embedded images per second of wall time; 0 when there were none.
    peak_rss_bytes
        Largest memory of this process so far.
    provider
        ONNX Runtime's execution provider that computed the newest rows.
    warnings
        What a user should know: leaks between splits, unusable images, empty classes.
    """

    path: Path
    dataset: str
    backbone: str
    rows: int
    embedded: int
    reused: int
    quarantined: int
    up_to_date: bool
    seconds: Mapping[str, float]
    images_per_s: float
    peak_rss_bytes: int
    provider: str
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**vars(self), "path": str(self.path), "seconds": dict(self.seconds), "warnings": list(self.warnings)}


def features_folder(features: str | Path | None = None) -> Path:
    """Return the folder of feature files: the argument, else `TLCACHE_FEATURES`, else `features`."""
    return Path(features or os.environ.get("TLCACHE_FEATURES") or "features").expanduser()


def extract(
    data: str | Path = "digits",
    model: str = "mobilenetv3_large",
    weights: str = "imagenet",
    *,
    pool: str | None = None,
    output: str | None = None,
    crop_borders: bool = False,
    resize: int | None = None,
    crop: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    device: str = "auto",
    features: str | Path | None = None,
    name: str | None = None,
    seed: int = 0,
    batch_size: int = 32,
    max_bad: float = 0.05,
) -> Extraction:
    """Run a backbone once over a dataset and keep the embeddings in a feature file.

    Images whose embeddings are there already, under whatever name or folder, are not embedded again. A run that is
    stopped or killed continues where it was.

    Parameters
    ----------
    data, name
        A dataset as for `tlcache.datasets.load_dataset`, and a name for it.
    model, weights, pool, output, crop_borders, resize, crop, mean, std
        The backbone as for `tlcache.models.load_model`.
    device
        `auto`, `cpu` or `cuda`.
    features
        Folder of feature files; default `TLCACHE_FEATURES` or `features`.
    seed
        Of the splits that have to be drawn.
    batch_size
        Images per call of the network.
    max_bad
        Largest share of unusable images to go on with.

    Raises
    ------
    TlcacheError
        One of its kinds, for everything that the caller can mend.

    Examples
    --------
    >>> done = extract(photos, tiny_model, features=folder)
    >>> done.rows, done.embedded, done.quarantined
    (24, 24, 0)
    >>> extract(photos, tiny_model, features=folder).up_to_date
    True
    """
    started = time.perf_counter()
    dataset = load_dataset(data, name)
    if device != "auto":
        find_device(device)
    check_splits(dataset.labels, dataset.splits, dataset.classes)
    network = load_model(
        model,
        weights,
        pool=pool,
        output=output,
        crop_borders=crop_borders or None,
        resize=resize,
        crop=crop,
        mean=mean,
        std=std,
    )
    root = features_folder(features)
    target = root / dataset.name / f"{slug(network.name)}-{network.key[:12]}.h5"
    workspace = target.with_name(f".{target.stem}.parts")
    _check_folder(target.parent, dataset)
    with _alone(workspace):
        index = Index(network.key)
        if target.exists():
            index.dropped += index.add_file(target)
        index.add_others(root, target.name)
        index.add_parts(workspace)
        before = len(index.sources)
        harvest = embed(Job(dataset, network, index.rows, index.bad, workspace, device, batch_size, max_bad))
        index.add_parts(workspace)
        table = assemble(dataset, harvest, index, seed)
        if table.quarantine:
            path, _, _, message = table.quarantine[-1]
            check_bad(len(table.quarantine), len(dataset), max_bad, f"{path!r}, {message}")
        embedded_s = time.perf_counter()
        up_to_date = not harvest.embedded and not index.dropped and table.is_in(target, dataset.root)
        if not up_to_date:
            attrs = _attributes(dataset, network, table, index)
            publish(Plan(target, index.dim, table.columns, index.sources, attrs), workspace)
        shutil.rmtree(workspace)
    warnings = list(table.warnings)
    if index.dropped:
        warnings.append(f"{index.dropped} damaged parts or rows were found in the cache and computed again.")
    ended = time.perf_counter()
    seconds = dict(zip(STAGES, harvest.seconds.tolist(), strict=True)) | {"wall_s": ended - started}
    seconds["write_s"] += ended - embedded_s
    return Extraction(
        path=target,
        dataset=dataset.name,
        backbone=network.name,
        rows=len(table),
        embedded=harvest.embedded,
        reused=int((table.columns["source"] < before).sum()),
        quarantined=len(table.quarantine),
        up_to_date=up_to_date,
        seconds=seconds,
        images_per_s=harvest.embedded / seconds["wall_s"],
        peak_rss_bytes=peak_rss_bytes(),
        provider=index.provider,
        warnings=tuple(warnings),
    )


def _check_folder(folder: Path, dataset: Dataset) -> None:
    """Raise when another dataset, one that still exists, has its feature files under this name."""
    for path in folder.glob("*.h5"):
        with suppress(CacheError), FeatureFile(path) as file:
            source = str(file.attrs["source"])
            if source != str(dataset.root) and Path(source).exists():
                raise DataError(
                    f"'{folder}' holds features of the dataset in '{source}'; asked: '{dataset.root}'. "
                    "Give this one another name with --name."
                )


@contextmanager
def _alone(workspace: Path) -> Iterator[None]:
    """Make the workspace and hold its lock, which the kernel frees when a process dies; wait for another holder."""
    owner = workspace / "owner"
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        lock = FileLock(workspace.with_suffix(".lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            say(f"Waiting for {_holder(owner)}, which extracts the same features ...")
            lock.acquire()
        workspace.mkdir(parents=True, exist_ok=True)
        owner.write_text(f"process {os.getpid()} on {platform.node()}")
    except OSError as error:
        raise CacheError(
            f"Cannot write to '{workspace.parent}': {error.strerror}. Give another folder with --features."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _holder(owner: Path) -> str:
    try:
        return owner.read_text()
    except OSError:  # between taking the lock and writing this
        return "another process"


def _attributes(dataset: Dataset, network: Model, table: Table, index: Index) -> dict[str, Any]:
    return {
        "key": network.key,
        "key_json": canonical_json(network.identity),
        "dataset": dataset.name,
        "dataset_digest": table.digest,
        "source": str(dataset.root),
        "backbone": network.name,
        "weights": network.weights,
        "preprocess": canonical_json(network.preprocess.as_json()),
        "provider": index.provider,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "generated_by": canonical_json({**versions(), **hardware()}),
        **dict(zip(STAGES, index.seconds(table.columns["source"]).tolist(), strict=True)),
    }
