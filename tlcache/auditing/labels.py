"""Label issues, images unlike all others, and the nearest-neighbour gap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.cache.feature_file import Split
from tlcache.evaluation.task import task_on
from tlcache.heads.cosines import closest, unit_rows
from tlcache.heads.rows import Indices, Labels, Scaler
from tlcache.heads.table import find_head
from tlcache.probing.folds import split_folds
from tlcache.probing.heldout import out_of_fold as _out_of_fold
from tlcache.probing.protocol import SearchProtocol
from tlcache.probing.search import Candidate, Fold, choose, search
from tlcache.records import as_json
from tlcache.tasks import MULTILABEL, USUAL, joined_label

__all__ = [
    "FOUND",
    "FlaggedRow",
    "LabelIssues",
    "NeighbourGap",
    "find_label_issues",
    "find_number_issues",
    "find_outliers",
    "find_set_issues",
    "label_issues",
    "neighbour_gap",
    "out_of_fold",
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
    """A row whose label is probably wrong, or hard, and what is found instead.

    That is a class and its probability; of several labels those in words, with the probability of the surest; of a
    number it in words, with how many times the usual error it lies away.
    """

    row: int
    predicted: int | str
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
    """Return answers (n, C) of heads that did not see the row nor any of its group, and the setting.

    They are calibrated probabilities, of classes or of each of several labels, or numbers.

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
    row, task = find_head(_HEAD), task_on(rows)
    metric = "log_loss" if "log_loss" in task.metrics else USUAL[task.name]
    tried = search(row, SearchProtocol().settings(row), folds, classes, None, metric, task)
    return choose(tried, metric, one_se=False, task=task)


def label_issues(rows: Split, answers: Array) -> tuple[LabelIssues, float]:
    """Return probable label errors, and how often the heads behind them are right.

    Of several labels that is the share of images with all labels right, of a number the share of the variance that is
    explained. Every label is a question of yes and no by itself. Parameters are as of `out_of_fold`, and its answers.
    """
    if rows.targets is None:
        return find_label_issues(rows.labels, answers), float((answers.argmax(axis=1) == rows.labels).mean())
    if rows.targets.task == MULTILABEL:
        right = ((answers >= 0.5) == rows.wanted.astype(bool)).all(axis=1)
        return find_set_issues(rows.wanted, answers, rows.targets.names), float(right.mean())
    numbers = rows.wanted[:, 0]
    left = float(np.square(answers[:, 0] - numbers).mean() / numbers.var())
    return find_number_issues(numbers, answers[:, 0]), 1 - left


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
    listed, found = _least_supported(known, labels, support)
    issues = (FlaggedRow(row, int(predicted[row]), float(probabilities[row].max())) for row in listed)
    return LabelIssues(tuple(issues), found)


def find_set_issues(has: NDArray[np.uint8], probabilities: Array, names: Sequence[str]) -> LabelIssues:
    """Return the same of several labels (n, L), those first in which the surest label disagrees.

    Every label is judged by itself; `found` is the mean over those that can be judged, or over all where none can.
    """
    flips, each = dict[int, dict[int, float]](), list[float]()
    for number, (of, yes) in enumerate(zip(has.T.astype(np.int64), probabilities.T, strict=True)):
        issues = find_label_issues(of, np.stack([1 - yes, yes], axis=1))
        each.append(issues.found)
        for issue in issues.rows:
            flips.setdefault(issue.row, {})[number] = issue.confidence
    rows = list[FlaggedRow]()
    for row, flipped in flips.items():
        looks = has[row].astype(bool)
        looks[list(flipped)] ^= True
        rows.append(FlaggedRow(row, joined_label([*compress(names, looks)]), max(flipped.values())))
    judged = [found for found in each if found >= FOUND]
    return LabelIssues(tuple(sorted(rows, key=lambda one: -one.confidence)), float(np.mean(judged or each)))


def find_number_issues(numbers: NDArray[np.float64], predicted: Array) -> LabelIssues:
    """Return the same of numbers (n,), the largest errors first, in standard deviations of the usual ones.

    These are 1.4826 times the median error, so that the wrong ones hardly count.
    """

    def support(rows: Indices, given: NDArray[np.float64]) -> NDArray[np.float64]:
        return -np.abs(predicted[rows] - given)

    listed, found = _least_supported(np.arange(len(numbers)), numbers, support)
    errors = np.abs(predicted - numbers)
    usual = max(1.4826 * float(np.median(errors)), 1e-12)
    issues = (FlaggedRow(row, f"{predicted[row]:.6g}", float(errors[row] / usual)) for row in listed)
    return LabelIssues(tuple(issues), found)


def _least_supported(
    known: Indices, given: NDArray[Any], support: Callable[[Indices, NDArray[Any]], NDArray[np.float64]]
) -> tuple[list[int], float]:
    """Return which of the known rows have so little support as rows that are given what others have (n,).

    The second is the share of these that would be among them.
    """
    rows = np.repeat(known, _DRAWS)
    others = given[np.random.default_rng(0).integers(0, len(given), len(rows))]
    changed = others != given[rows]
    wrong = np.sort(support(rows[changed], others[changed]))
    right = support(known, given[known])
    order = np.argsort(right, kind="stable")[: np.isfinite(right).sum()]
    found = np.searchsorted(wrong, np.append(right[order], np.inf)) / max(1, len(wrong))  # by lists of 0, 1, 2 ... rows
    count = int(np.argmax(found - _DENSER * np.arange(len(found)) / max(1, len(known))))
    return known[order[:count]].tolist() if found[count] >= FOUND else [], float(found[count])


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
