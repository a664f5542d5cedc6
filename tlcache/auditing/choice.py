"""Which feature file of a dataset is looked at: of several backbones, the one whose altered copies stand out most."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlcache.auditing.calibration import (
    Calibration,
    calibrate,
    calibration_path,
    read_calibration,
    write_calibration,
)
from tlcache.auditing.neighbours import Array, Space, fit_space, nearest_impostors
from tlcache.cache.feature_file import FeatureFile, Split
from tlcache.cache.find import named
from tlcache.datasets.splits import SPLITS
from tlcache.datasets.tasks import task_of
from tlcache.errors import CacheError
from tlcache.tasks import REGRESSION

__all__ = ["Choice", "Projected", "calibrated", "choose_files", "project"]


class Choice(NamedTuple):
    """A feature file, and why that one; empty where there was no choice."""

    path: Path
    why: str


class Projected(NamedTuple):
    """Rows of a feature file (train, val, test), the space they are compared in, and them there: float32 (n, k)."""

    rows: Split
    space: Space
    embeddings: Array


class _Known(NamedTuple):
    backbone: str
    path: Path
    label: str


def choose_files(found: Sequence[Path], model: str | None, runs: Path) -> list[Choice]:
    """Return one feature file of each dataset, by name: of several, the one whose altered copies stand out most.

    Raises
    ------
    CacheError
        No features of that backbone, or some that are not finite.
    """
    by_dataset: dict[str, list[_Known]] = defaultdict(list)
    for path in found:
        with FeatureFile(path) as file:
            by_dataset[file.attrs["dataset"]].append(_Known(file.attrs["backbone"], path, file.label))
    chosen = []
    for name in sorted(by_dataset):
        wanted = named(model, {each.path: each.backbone for each in by_dataset[name]})
        fitting = sorted(each for each in by_dataset[name] if each.path in wanted)
        if not fitting:
            there = ", ".join(sorted({each.backbone for each in by_dataset[name]}))
            raise CacheError(f"No features of '{name}' by '{model}'; there are some by: {there}.")
        chosen.append(_best(fitting, runs))
    return chosen


def _best(fitting: Sequence[_Known], runs: Path) -> Choice:
    if len(fitting) == 1:
        return Choice(fitting[0].path, "")
    margins = [_margin(each.path, runs) for each in fitting]
    order = sorted(range(len(fitting)), key=lambda at: (margins[at] is None, -(margins[at] or 0), at))
    best, margin = fitting[order[0]], margins[order[0]]
    names = [name for each in fitting for name in {each.backbone, each.label}]
    if margin is None:
        return Choice(best.path, "the first by name, as no copies could be made to compare with")
    called = [
        next((name for name in (each.backbone, each.label) if names.count(name) == 1), each.path.stem)
        for each in fitting
    ]
    listed = "; ".join(
        f"{called[at]} {'unknown' if (value := margins[at]) is None else f'{value:.2f}'}" for at in order[1:]
    )
    own = f"{called[order[0]]} {margin:.2f}".removeprefix(f"{best.backbone} ")
    why = f"which tells altered copies of an image from other images best ({own}; {listed})"
    return Choice(best.path, why)


def _margin(path: Path, runs: Path) -> float | None:
    with FeatureFile(path) as file:
        return calibrated(file, lambda: project(file), runs).margin


def project(file: FeatureFile) -> Projected:
    """Read a feature file, and put its rows where they are compared."""
    rows = file.split(*SPLITS)
    if not np.isfinite(rows.features).all():
        raise CacheError(f"'{file.path}' holds features that are not finite. Extract again.")
    space = fit_space(rows.features)
    return Projected(rows, space, space(rows.features))


def calibrated(file: FeatureFile, make: Callable[[], Projected], runs: Path) -> Calibration:
    """Return the calibration of a feature file: the one that is kept, or a new one of what `make` returns."""
    path = calibration_path(runs, file.attrs)
    if kept := read_calibration(path):
        return kept
    own = make()
    certain = bool(file.classes) and task_of(file.attrs) != REGRESSION  # another number may be that of a copy
    labels = own.rows.labels if certain else np.arange(len(own.rows))  # without any, all others are impostors
    impostors = nearest_impostors(own.embeddings, labels)
    found = calibrate(file, own.space, own.embeddings, impostors, certain=certain)
    write_calibration(path, found)
    return found
