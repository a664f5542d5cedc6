"""What columns of a table tell of the labels beside what images do: a head by either and by both, on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.cache.columns import digest_of
from tlcache.cache.feature_file import FeatureFile, Split
from tlcache.cache.resplit import FeatureSet, split_fields
from tlcache.errors import CacheError, UnknownNameError, closest
from tlcache.evaluation.baseline import Baseline
from tlcache.evaluation.significance import Difference, clustered_interval, compare_paired, unit_numbers
from tlcache.heads.rows import Array, Indices
from tlcache.heads.table import HeadRow
from tlcache.keys import hash_json, slug
from tlcache.machine import provenance
from tlcache.probing.data import Data
from tlcache.probing.protocol import SearchProtocol
from tlcache.probing.run import fit_file, refit
from tlcache.probing.search import Fold, choose, search
from tlcache.probing.session import Session
from tlcache.probing.tabular import Columns, Prepared, rows_of
from tlcache.progress import warn
from tlcache.records import Form, as_json
from tlcache.runs.frozen import FrozenRun

__all__ = ["ALL", "ColumnComparison", "Reached", "compare_columns", "read_column_comparisons"]

ALL = ""  # names all columns together, which none is called


@dataclass(frozen=True)
class Reached:
    """A test accuracy and its 95 % interval."""

    accuracy: float
    low: float
    high: float

    @classmethod
    def of(cls, right: NDArray[np.bool_], units: NDArray[np.int64] | None) -> Reached:
        """Return that of test images of which each was classified rightly or not (n,)."""
        return cls(float(right.mean()), *clustered_interval(right, units))


@dataclass(frozen=True)
class ColumnComparison:
    """One head by the images alone, by columns of their table alone, and by both.

    Parameters
    ----------
    dataset, digest, backbone, head
        As of a run.
    columns
        Column -> hash of its values.
    n, baseline
        Test images; what always giving one answer reaches on them.
    image, alone, both
        What the head reaches by the embeddings, by all columns, and by both.
    over_baseline
        Column -> how much more it reaches alone than the constant answer; `ALL` of them likewise.
    alone_over_image, both_over_image
        How much more the columns reach than the images, and both than the images.
    run, record
        The record of the run on the images alone, and of this.
    """

    dataset: str
    digest: str
    backbone: str
    head: str
    columns: Mapping[str, str]
    n: int
    baseline: Baseline
    image: Reached
    alone: Reached
    both: Reached
    over_baseline: Mapping[str, Difference]
    alone_over_image: Difference
    both_over_image: Difference
    run: str
    record: Path

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        return dict(as_json(self))


COLUMNS: Form[ColumnComparison] = Form(
    "tlcache-columns", 1, "the record of a comparison with columns", ColumnComparison, places=("run",)
)


def read_column_comparisons(folder: Path, on_warning: Callable[[str], None] = warn) -> list[ColumnComparison]:
    """Return all that are recorded under a folder of runs; `on_warning` is called for each that cannot be read."""
    return COLUMNS.read_all(folder.glob("*/columns/*.json"), on_warning)


def compare_columns(
    file: FeatureSet, rows: Sequence[HeadRow], session: Session, table: Path, columns: Sequence[str]
) -> list[ColumnComparison]:
    """Return a comparison for each of these heads, whose runs on the images alone are made or read first.

    Parameters
    ----------
    file, rows, session
        As for `tlcache.probing.run.fit_file`.
    table
        A feature file that has the columns of the same images.
    columns
        Their names.

    Raises
    ------
    CacheError, UnknownNameError
        It has no columns, or none of that name.
    """
    read = _Table.of(table, columns)
    runs = {run.head: run for run in fit_file(file, rows, session)}
    data: Data | None = None
    found = []
    for row in rows:
        session.advance(1)
        if row.name not in runs:  # which was told
            continue
        path = _path(runs[row.name], row, columns, session.protocol)
        known = None if session.force else _recorded(path, read.hashes)
        if known:
            found.append(known)
            continue
        data = data or Data.of(file)
        with session.leaving_out(file.attrs["dataset"], "with columns"):
            found.append(_compared(file, data, read, row, session.protocol, runs[row.name], path))
            COLUMNS.write(path, {**split_fields(file.attrs), **found[-1].as_json()}, **provenance())
    return found


@dataclass(frozen=True)
class _Table:
    """Columns of all rows of a feature file, and which row an image has, by its path."""

    columns: Columns
    places: Mapping[str, int]

    @classmethod
    def of(cls, path: Path, names: Sequence[str]) -> _Table:
        with FeatureFile(path) as file:
            if not file.columns:
                raise CacheError(
                    f"'{path}' has no columns beside its embeddings. They are those of a table that lists the images "
                    "(--data photos.csv); where it has some now, extract again: nothing is embedded for that."
                )
            for name in names:
                if name not in file.columns:
                    raise UnknownNameError(closest("column", name, file.columns))
            places = {each: row for row, each in enumerate(file.paths())}
            return cls({name: file.column(name) for name in names}, places)

    @property
    def hashes(self) -> dict[str, str]:
        return {name: digest_of(values) for name, values in self.columns.items()}

    def of_images(self, images: Split) -> Columns:
        return rows_of(self.columns, np.array([self.places[path] for path in images.paths], np.int64))


def _path(run: FrozenRun, row: HeadRow, columns: Sequence[str], protocol: SearchProtocol) -> Path:
    asked = {"run": run.path.stem, "columns": list(columns), "arguments": protocol.arguments()}
    return run.path.parent / "columns" / slug(f"{run.backbone}-{row.name}", f"-{hash_json(asked)[:12]}.json")


def _recorded(path: Path, hashes: Mapping[str, str]) -> ColumnComparison | None:
    """Return what is recorded, if the columns are what they were then."""
    with suppress(CacheError):
        found = COLUMNS.read(path)
        return found if found.columns == hashes else None
    return None


def _compared(
    file: FeatureSet, data: Data, table: _Table, row: HeadRow, protocol: SearchProtocol, run: FrozenRun, path: Path
) -> ColumnComparison:
    fitting, test = (_Rows(part.features, table.of_images(part)) for part in (data.fitting, data.test))
    folds = [_parts(fold, len(data.fitting)) for fold in data.folds(protocol)]

    def right(of: Callable[[_Rows], _Rows]) -> NDArray[np.bool_]:
        return _right(file, data, of(fitting), of(test), folds, row, replace(protocol, repeats=1))

    alone = {name: right(partial(_Rows.without_images, names=[name])) for name in table.columns}
    every = right(partial(_Rows.without_images, names=[*table.columns])) if len(alone) > 1 else [*alone.values()][0]
    both = right(lambda rows: rows)
    image, units = _by_images(run, data.test), unit_numbers(data.test.groups)
    constant = data.test.labels == np.bincount(data.test.labels).argmax()
    return ColumnComparison(
        dataset=run.dataset,
        digest=run.dataset_digest,
        backbone=run.backbone,
        head=row.name,
        columns=table.hashes,
        n=len(data.test),
        baseline=Baseline.of(data.test.labels, file.classes),
        image=Reached.of(image, units),
        alone=Reached.of(every, units),
        both=Reached.of(both, units),
        over_baseline={name: compare_paired(each, constant, units) for name, each in {**alone, ALL: every}.items()},
        alone_over_image=compare_paired(every, image, units),
        both_over_image=compare_paired(both, image, units),
        run=str(run.path),
        record=path,
    )


@dataclass(frozen=True)
class _Rows:
    """Embeddings (n, dim) and columns (n,) of some images."""

    features: Array
    columns: Columns

    def of(self, rows: Indices) -> tuple[Array, Columns]:
        return self.features[rows], rows_of(self.columns, rows)

    def without_images(self, names: Sequence[str]) -> _Rows:
        return _Rows(self.features[:, :0], {name: self.columns[name] for name in names})


def _parts(fold: Fold, rows: int) -> tuple[Indices, Indices]:
    """Return the rows that a fold fits on, and those that it judges by."""
    held = np.arange(rows) if fold.held is None else fold.held
    return np.setdiff1d(np.arange(rows), held), held


def _right(
    file: FeatureSet,
    data: Data,
    fitting: _Rows,
    test: _Rows,
    folds: Sequence[tuple[Indices, Indices]],
    row: HeadRow,
    protocol: SearchProtocol,
) -> NDArray[np.bool_]:
    """Return whether a head gives each test image its label (n,): settings are chosen as always, on these rows."""
    labels, ready = data.fitting.labels, list[Fold]()
    for fit, held in folds:
        prepared = Prepared.of(row, *fitting.of(fit))
        X, X_val = (prepared(*fitting.of(part)) for part in (fit, held))
        ready.append(Fold(X, labels[fit], X_val, labels[held], held))
    prepared = Prepared.of(row, fitting.features, fitting.columns)
    settings = [{**each, **prepared.params} for each in protocol.settings(row)]
    best = choose(
        search(prepared.row, settings, ready, data.classes, protocol.budget_s, protocol.metric),
        protocol.metric,
        protocol.one_se,
    )
    view = prepared(fitting.features, fitting.columns)
    rows = replace(data.fitting, features=view.features, widths=view.widths)
    (head,) = refit(prepared.row, file, rows, best, protocol)
    answers = head.predict_proba(prepared(test.features, test.columns).features).argmax(axis=1)
    return np.asarray(answers == data.test.labels)


def _by_images(run: FrozenRun, test: Split) -> NDArray[np.bool_]:
    """Return what the run on images alone got right, in the order of the test images."""
    found = run.predictions().top()
    by_path = dict(zip(found.paths, found.right.tolist(), strict=True))
    return np.array([by_path[path] for path in test.paths])
