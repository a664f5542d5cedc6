"""What a setting says of rows that it was not fitted on, and what may be promised of new images by that."""

from __future__ import annotations

import numpy as np

from tlcache.cache.feature_file import Split
from tlcache.evaluation.task import task_on
from tlcache.heads.rows import Array, Indices, Scaler
from tlcache.heads.table import HeadRow
from tlcache.heads.uncertainty import Distances, Uncertainty
from tlcache.probing.folds import fold_count, group_numbers, split_folds
from tlcache.probing.protocol import SearchProtocol
from tlcache.probing.search import Candidate, fit_each, fitting

__all__ = ["distances_of", "held_answers", "out_of_fold", "uncertainty_of"]

_NEIGHBOUR = 5  # the nearest one alone makes near-duplicates of training images count for more
_KEPT_ROWS = 4096  # that new images are compared with: a fused file of 1,280 features grows by 21 MB


def out_of_fold(row: HeadRow, rows: Split, best: Candidate, classes: int, folds: int, seed: int) -> Array:
    """Return answers (n, classes) of heads that saw neither the row nor any of its group or copies.

    They are calibrated probabilities, of classes or of each of several labels, or numbers.

    A class that the other folds do not have is given the probability 0.

    Parameters
    ----------
    row, best
        The head, and its setting with the temperature.
    rows
        To fit on and to judge.
    classes, folds, seed
        Number of classes of the dataset, of folds, and what these are drawn by.

    Raises
    ------
    DataError, HeadError
        Fewer groups than folds, or rows that cannot be fitted.
    """
    answers = np.zeros((len(rows), classes), np.float64 if rows.wanted.dtype == np.float64 else np.float32)
    for fit, held in split_folds(rows, folds, seed):
        answers[held] = held_answers(row, rows, best, classes, fit, held)
    return answers


def held_answers(row: HeadRow, rows: Split, best: Candidate, classes: int, fit: Indices, held: Indices) -> Array:
    """Return answers (m, classes) for some rows, by their numbers (m,), of a head fitted on others.

    A class that these others do not have is given the probability 0. Parameters are those of `out_of_fold`.

    Raises
    ------
    HeadError
        Rows that cannot be fitted.
    """
    scaler, task = Scaler.of(rows.view(fit), row.scaled), task_on(rows)
    with fitting(row):
        (head,) = fit_each(row, [best.params], task, scaler.over(rows.view(fit)), rows.wanted[fit])
        logits = np.full((len(held), classes), -np.inf, np.float32)
        logits[:, head.classes_] = head.logits(scaler.over(rows.view(held)))
    return task.answers(logits, best.temperature)


def distances_of(rows: Split) -> Distances:
    """Return how far rows are from each other, no row compared with its group or copies; see `Distances`.

    Of many rows, only some, drawn at random, are what new ones are compared with. Joined ones are scaled as heads have
    them, so that no backbone decides alone; they are not centred, which tells less (docs/joins.md).
    """
    chosen = np.random.default_rng(0).permutation(len(rows))[:_KEPT_ROWS]
    scaler = Scaler.of(rows.view()).uncentred() if rows.widths else None
    return Distances.of(rows.features, group_numbers(rows), np.sort(chosen), _NEIGHBOUR, scaler)


def uncertainty_of(
    row: HeadRow, rows: Split, best: Candidate, classes: int, protocol: SearchProtocol, far: Distances
) -> Uncertainty:
    """Return what the head of a setting, fitted on all of these rows, promises; `far` is of the same rows."""
    probabilities = out_of_fold(row, rows, best, classes, fold_count(rows, protocol.folds), protocol.seed)
    assert protocol.coverage is not None
    return Uncertainty.of(probabilities, rows.labels, protocol.coverage, protocol.per_class, far)
