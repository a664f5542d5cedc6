"""Label issues, images unlike all others, and the nearest-neighbour gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.cache.feature_file import Split
from tlcache.heads.cosines import closest, unit_rows
from tlcache.heads.rows import Indices, Labels, Scaler
from tlcache.heads.table import find_head
from tlcache.probing.folds import split_folds
from tlcache.probing.heldout import out_of_fold as _out_of_fold
from tlcache.probing.protocol import SearchProtocol
from tlcache.probing.search import Candidate, Fold, choose, search
from tlcache.records import as_json

__all__ = [
    "FOUND",
    "FlaggedRow",
    "LabelIssues",
    "NeighbourGap",
    "find_outliers",
    "find_label_issues",
    "out_of_fold",
    "neighbour_gap",
]

Array = NDArray[np.float32]

_HEAD = "ridge"  # in closed form: seconds where others take minutes, and as accurate
_FOLDS = 5
_SEARCH_ROWS = 20_000

# The share of wrong labels that must be found, or labels are not judged. Flowers, CIFAR-10: 0.3 to 1; MRI: 0.1.
FOUND = 0.25
_DENSER = 8  # more would find nothing where a tenth of the labels are wrong; fewer list more hard images
_DRAWS = 10


@dataclass(frozen=True)
class FlaggedRow:
    """A row whose label is probably wrong, or hard: the class found instead, and its probability."""

    row: int
    predicted: int
    confidence: float


class LabelIssues(NamedTuple):
    """Probable label errors, and the share of labels changed at random that would be among them."""

    rows: tuple[FlaggedRow, ...]
    found: float


@dataclass(frozen=True)
class NeighbourGap:
    """What the label of the nearest train image has over a linear head: test accuracies, and the difference's error.

    Where images of test have copies in train, a neighbour knows the answer and a linear head does not.
    """

    nearest: float
    linear: float
    error: float

    @property
    def gap(self) -> float:
        """How far the neighbour is ahead."""
        return self.nearest - self.linear

    @property
    def suspicious(self) -> bool:
        """Whether that is more than three standard errors."""
        return self.gap > 3 * self.error

    def as_json(self) -> dict[str, float | bool]:
        """Return the fields as JSON values."""
        return {**as_json(self), "suspicious": self.suspicious}


def out_of_fold(rows: Split, classes: int) -> tuple[Array, Candidate]:
    """Return calibrated probabilities (n, C) of heads that did not see the row nor any of its group, and the setting.

    Raises
    ------
    DataError, HeadError
        Fewer groups than folds, or rows that cannot be fitted.
    """
    row, best = find_head(_HEAD), _setting(rows, classes)
    return _out_of_fold(row, rows, best, classes, _FOLDS, seed=0), best


def _setting(rows: Split, classes: int) -> Candidate:
    """Choose the penalty on at most 20,000 rows, so that it takes seconds however many there are."""
    if len(rows) > _SEARCH_ROWS:
        rows = rows.of(np.sort(np.random.default_rng(0).choice(len(rows), _SEARCH_ROWS, replace=False)))
    folds = [Fold.of(rows, *part) for part in split_folds(rows, _FOLDS, seed=0)]
    row = find_head(_HEAD)
    return choose(search(row, SearchProtocol().settings(row), folds, classes, None), "log_loss", one_se=False)


def find_label_issues(labels: Labels, probabilities: Array) -> LabelIssues:
    """Return probable label errors, those with the least support first, and how many of all errors they would be.

    A label's support is its probability (Kuan and Mueller, 2022) over the share of its class. How little support wrong
    labels have is seen by giving rows the labels of others. The list ends where it pays no more: wrong labels must be
    eight times as dense in it as in the whole set. Where it would hold less than a quarter of them, it is empty.

    Parameters
    ----------
    labels
        int64 (n,).
    probabilities
        float32 (n, C), of heads that did not see the row; 0 for a class that they did not see, which is not judged.
    """
    share = np.bincount(labels, minlength=probabilities.shape[1]) / len(labels)
    predicted = probabilities.argmax(axis=1)

    def support(rows: Indices, given: Labels) -> NDArray[np.float64]:
        return np.where(predicted[rows] == given, np.inf, probabilities[rows, given] / share[given])

    known = np.flatnonzero(probabilities[np.arange(len(labels)), labels])
    rows = np.repeat(known, _DRAWS)
    others = labels[np.random.default_rng(0).integers(0, len(labels), len(rows))]
    changed = others != labels[rows]
    wrong = np.sort(support(rows[changed], others[changed]))
    right = support(known, labels[known])
    order = np.argsort(right, kind="stable")[: np.isfinite(right).sum()]
    found = np.searchsorted(wrong, np.append(right[order], np.inf)) / max(1, len(wrong))  # by lists of 0, 1, 2 ... rows
    count = int(np.argmax(found - _DENSER * np.arange(len(found)) / max(1, len(known))))
    listed = known[order[:count]].tolist() if found[count] >= FOUND else []
    issues = (FlaggedRow(row, int(predicted[row]), float(probabilities[row].max())) for row in listed)
    return LabelIssues(tuple(issues), float(found[count]))


def find_outliers(nearest: Array) -> Indices:
    """Return rows whose closest other row is far away, the farthest first.

    Far: below the lower quartile by three times the distance between the quartiles (Tukey, 1977).
    """
    low, high = np.quantile(nearest, [0.25, 0.75])
    far = np.flatnonzero(nearest < low - 3 * (high - low))
    return far[np.argsort(nearest[far], kind="stable")]


def neighbour_gap(fitting: Split, test: Split, best: Candidate) -> tuple[NeighbourGap, NDArray[np.bool_]]:
    """Compare the label of the nearest train image, by cosine of the embeddings as they are, with a linear head's.

    Returns
    -------
    tuple
        The comparison, and which rows of test the linear head has right: bool (n,).
    """
    row = find_head(_HEAD)
    scaler = Scaler.of(fitting.features, row.scaled)
    head = row.type()(**best.params).fit(scaler.over(fitting.features), fitting.labels)
    linear = head.predict(scaler.over(test.features)) == test.labels
    _, nearest = closest(unit_rows(test.features), unit_rows(fitting.features))
    near = fitting.labels[nearest[:, 0]] == test.labels
    difference = near.astype(np.float64) - linear
    error = float(difference.std() / np.sqrt(len(difference)))
    return NeighbourGap(float(near.mean()), float(linear.mean()), error), linear
