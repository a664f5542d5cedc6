"""Folds for cross-validation, and small samples: stratified, and never tearing a group or a duplicate apart."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tlcache.cache.feature_file import Split
from tlcache.datasets.drawing import together
from tlcache.datasets.stratified import deal
from tlcache.errors import DataError
from tlcache.heads.rows import Indices
from tlcache.probing.protocol import FEW, FOLDS
from tlcache.probing.search import Fold

__all__ = ["choosing_folds", "draw_shots", "fold_count", "group_numbers", "inner_folds", "inner_parts", "split_folds"]


def choosing_folds(rows: Split, train_rows: int, folds: int | None, seed: int) -> list[Fold]:
    """Return the folds that settings are chosen by: a single one, judged on validation, or several of all rows.

    There are several where `folds` says so, where it says nothing and validation rows are few, where there are none,
    and where these are of classes that train lacks: how well such a class is recognised shows only in heads that were
    fitted on some of its rows.

    Parameters
    ----------
    rows, train_rows
        Train and then validation, and how many are train.
    folds, seed
        As in `tlcache.probing.protocol.SearchProtocol`.
    """
    train, val = rows.part(slice(train_rows)), rows.part(slice(train_rows, None))
    few = folds is None and len(val) < FEW and _divisible(rows)
    if not (folds or few) and len(val) and (rows.targets or np.isin(val.labels, train.labels).all()):
        return [Fold(train.view(), train.wanted, val.view(), val.wanted, np.arange(train_rows, len(rows)))]
    return [Fold.of(rows, *parts) for parts in split_folds(rows, fold_count(rows, folds), seed)]


def _divisible(rows: Split) -> bool:
    """Return whether there are two folds to make: a class, and groups, of two or more."""
    return _largest(rows) > 1 and int(group_numbers(rows).max()) > 0


def _largest(rows: Split) -> int:
    """Return how many rows the largest class has; all of them where labels are no classes."""
    return len(rows) if rows.targets else int(np.bincount(rows.labels).max())


def inner_folds(rows: Split, fit: Indices, folds: int | None, seed: int) -> list[Fold]:
    """Return the folds that settings are chosen by among some rows, by their numbers: as many as `folds` says.

    Where it says none, a single one of five; where that has few images, all five.
    """
    parts = inner_parts(rows, fit, folds, seed)
    if not folds and len(parts[0][1]) >= FEW:
        parts = parts[:1]
    return [Fold.of(rows, *part) for part in parts]


def inner_parts(rows: Split, fit: Indices, folds: int | None, seed: int) -> list[tuple[Indices, Indices]]:
    """Return what is fitted on and what is chosen by in each fold of some rows, all by their numbers."""
    among = rows.of(fit)
    return [(fit[inner], fit[held]) for inner, held in split_folds(among, fold_count(among, folds), seed)]


def fold_count(rows: Split, folds: int | None = None) -> int:
    """Return the number of folds: as it was asked for, else five, or as many as groups or as the largest class has."""
    return folds or max(2, min(FOLDS, int(group_numbers(rows).max()) + 1, _largest(rows)))


def split_folds(rows: Split, folds: int, seed: int) -> Iterator[tuple[Indices, Indices]]:
    """Yield the numbers of rows to fit on and of rows to judge by, for each fold.

    Raises
    ------
    DataError
        There are fewer groups of images than folds, or no class has as many images.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # who reads what an audit found needs none

    groups = group_numbers(rows)
    if groups.max() + 1 < folds:
        raise DataError(f"{folds} folds need as many images or groups of images; found {groups.max() + 1}.")
    if (largest := _largest(rows)) < folds:
        raise DataError(f"{folds} folds need a class with as many images; the largest has {largest}.")
    if (strata := rows.strata).ndim == 2:
        yield from _dealt(strata, groups, folds, seed)
        return
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings(action="ignore"):  # of classes smaller than the number of folds
        pairs = list(splitter.split(rows.features, strata, groups))
    yield from ((fit, held) for fit, held in pairs if len(held))


def _dealt(labels: NDArray[np.uint8], groups: Indices, folds: int, seed: int) -> Iterator[tuple[Indices, Indices]]:
    """Yield the same of rows with several labels (n, L), each fold with its share of every label."""
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    together = [np.flatnonzero(groups == group).tolist() for group in order]
    parts = deal(labels, together, [1 / folds] * folds)
    yield from ((np.flatnonzero(parts != part), np.flatnonzero(parts == part)) for part in np.unique(parts))


def group_numbers(rows: Split) -> Indices:
    """Return a number for each row (n,): the same for rows of one group, and for rows with equal features."""
    contents = [hashlib.sha256(features.tobytes()).hexdigest() for features in rows.features]
    return together(np.arange(len(rows)), rows.groups, contents)


def draw_shots(rows: Split, shots: int, seed: int) -> Indices:
    """Return the numbers of `shots` random rows of every class, or of all where it has fewer.

    The samples of one seed are nested: what is drawn for 2 shots is among what is drawn for 4.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen = [order[rows.labels[order] == label][:shots] for label in np.unique(rows.labels)]
    return np.sort(np.concatenate(chosen))
