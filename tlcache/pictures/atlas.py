"""All images of a dataset in a plane, and what is known of each: what a map is drawn of."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlcache.auditing.findings import Audit, audit_of
from tlcache.auditing.records import read_audits
from tlcache.cache.feature_file import FeatureFile
from tlcache.cache.groups import groups_path, read_groups
from tlcache.datasets.dataset import reopen
from tlcache.datasets.source import Images
from tlcache.datasets.splits import SPLITS
from tlcache.deploying.best import best_run
from tlcache.deploying.saved import find_saved
from tlcache.errors import CacheError, OptionError, UnknownNameError
from tlcache.pictures.projection import Projection, components, pca, tsne
from tlcache.progress import say
from tlcache.runs.record import Run
from tlcache.tasks import REGRESSION

__all__ = ["Atlas", "Column", "make_atlas"]

_LABELS = 40  # of several of an image, each of which is a column


@dataclass(frozen=True)
class Column:
    """What is known of each image, which points are coloured by: texts, or numbers; empty or NaN where nothing is."""

    name: str
    values: Sequence[str] | NDArray[np.float64]


@dataclass(frozen=True)
class Atlas:
    """Images as points.

    Parameters
    ----------
    dataset, backbone
        Which images, and what embedded them.
    paths, hashes
        (n,) of the images, and the sha256 of each.
    images
        Where their bytes are.
    projections
        Where they lie.
    columns
        What is known of them.
    run
        What predicted labels are by; empty without one.
    """

    dataset: str
    backbone: str
    paths: Sequence[str]
    hashes: Sequence[str]
    images: Images
    projections: Sequence[Projection]
    columns: Sequence[Column]
    run: str


def make_atlas(path: Path, run: str | Path | None, runs: Path, with_tsne: bool) -> Atlas:
    """Return the atlas of a feature file; see `tlcache.write_map`, whose errors these are."""
    with FeatureFile(path) as file:
        rows, hashes = file.split(*SPLITS), file.hashes().astype(str).tolist()
        if not np.isfinite(rows.features).all():
            raise CacheError(f"'{path}' holds features that are not finite. Extract again.")
        dataset, digest = str(file.attrs["dataset"]), str(file.attrs["dataset_digest"])
        chosen = _run(run, dataset, runs)
        columns = [
            *_labels(file, rows.labels),
            Column("split", [SPLITS[number] for number in file.split_numbers().tolist()]),
            *(_predicted(chosen, rows.paths) if chosen else ()),
            *_audited(dataset, hashes, rows.paths, audit_of(read_audits(runs), digest), runs),
            Column("group", rows.groups),
            *(Column(name, _texts(file.column(name))) for name in file.columns),
        ]
        parts = components(rows.features)
        projections = [pca(*parts)]
        if with_tsne:
            projections = [*_tsne(*parts[:2]), *projections]
        return Atlas(
            dataset,
            str(file.attrs["backbone"]),
            rows.paths,
            hashes,
            reopen(file.attrs["source"]),
            projections,
            [each for each in columns if _says_something(each)],
            chosen.path.stem if chosen else "",
        )


def _tsne(*parts: NDArray[np.float32]) -> Iterator[Projection]:
    try:
        if found := tsne(*parts):
            yield found
    except OptionError as error:
        say(f"{error} --no-tsne leaves it out without a word.")


def _labels(file: FeatureFile, labels: NDArray[np.int64]) -> Iterator[Column]:
    """Yield the label of each image, or its number; of several labels also each by itself, if they are not too many."""
    targets = file.targets
    if targets is not None and targets.task == REGRESSION:
        yield Column("label", targets.values[labels, 0])
        return
    yield Column("label", [file.classes[label] for label in labels.tolist()] if file.classes else [])
    if targets is not None and len(targets.names) <= _LABELS:
        for name, has in zip(targets.names, targets.values[labels].T.tolist(), strict=True):
            yield Column(f"label {name}", ["yes" if each else "no" for each in has])


def _texts(values: NDArray[np.float64] | NDArray[np.bytes_]) -> Sequence[str] | NDArray[np.float64]:
    return np.array(values) if values.dtype.kind == "f" else [os.fsdecode(value) for value in values.tolist()]


def _says_something(column: Column) -> bool:
    values = column.values
    return not np.isnan(values).all() if isinstance(values, np.ndarray) else any(values)


def _run(run: str | Path | None, dataset: str, runs: Path) -> Run | None:
    """Return the run that is named, else the best of the dataset; None without any."""
    if run is not None:
        found = find_saved(run, runs).run
        if found is None:
            raise OptionError(f"'{run}' has no record beside it, which says what it predicts.")
        if found.dataset != dataset:
            raise OptionError(f"'{run}' is of '{found.dataset}', and the map of '{dataset}'. Give one of that.")
        return found
    with suppress(CacheError, OptionError):
        return best_run(dataset, runs)[0].run
    return None


def _predicted(run: Run, paths: Sequence[str]) -> Iterator[Column]:
    """Yield what a run says of the test images: class, whether that is right, and how sure it is."""
    top = run.predictions().top()
    tested = {path: row for row, path in enumerate(top.paths)}
    rows = [tested.get(path, -1) for path in paths]
    names = [run.classes[number] for number in top.predicted.tolist()]
    right = ["right" if each else "mistake" for each in top.right.tolist()]
    yield Column("predicted", [names[row] if row >= 0 else "" for row in rows])
    yield Column("mistake", [right[row] if row >= 0 else "" for row in rows])
    yield Column("confidence", np.append(top.confidence, np.nan)[rows].astype(np.float64))


def _audited(
    dataset: str, hashes: Sequence[str], paths: Sequence[str], audit: Audit | None, runs: Path
) -> Iterator[Column]:
    """Yield the groups of near-duplicates, those of one image left out, and what else an audit found."""
    with suppress(CacheError, UnknownNameError):
        groups = read_groups(groups_path(runs, dataset), dataset).groups
        sizes = Counter(groups.get(each, "") for each in hashes)
        yield Column("duplicate group", [name if sizes[name := groups.get(each, "")] > 1 else "" for each in hashes])
    if audit:
        found: dict[str, str] = dict.fromkeys(audit.outliers, "outlier")
        found |= {each.path: "odd image" for each in audit.odd or ()}
        pairs = [pair for pair in (*audit.exact, *audit.near) if pair.across]
        found |= {end.path: "duplicate in another split" for pair in pairs for end in pair.ends}
        found |= {each.path: "label issue" for each in audit.label_issues}
        yield Column("audit", [found.get(path, "") for path in paths])
