"""How well probabilities rank: area under the ROC curve and average precision, every class against the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.estimates import Estimate, Mean

__all__ = ["Ranked", "Ranking", "rank_classes"]

Labels = NDArray[np.int64]
Scores = NDArray[np.floating]


@dataclass(frozen=True)
class Ranked:
    """Images in the order of their scores, from the smallest: those of a class, and the rest.

    Parameters
    ----------
    order
        (n,) which image each is.
    positive
        (n,) whether it is of the class.
    before
        (n + 1,) how many of the class come before each place.
    first, last
        (n,) where the images with the same score begin, and where they have ended.
    """

    order: NDArray[np.int64]
    positive: NDArray[np.bool_]
    before: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    @classmethod
    def of(cls, positive: NDArray[np.bool_], scores: Scores) -> Ranked:
        """Rank images by scores (n,), of which some are positive and some are not."""
        order = np.argsort(scores)
        ordered, positive = scores[order], positive[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        sizes = np.diff(np.append(starts, len(order)))
        before = np.concatenate([[0], np.cumsum(positive)])
        return cls(order, positive, before, np.repeat(starts, sizes), np.repeat(starts + sizes, sizes))

    def auroc(self) -> Estimate:
        """Return the area under the ROC curve, with the variance of DeLong, DeLong and Clarke-Pearson (1988).

        Ties count half.
        """
        of, n = int(self.before[-1]), len(self.order)
        below, above = self.before[self.first], self.before[self.last]
        beaten = (self.first - below + self.last - above) / 2  # of the rest: half of those with the same score
        ahead = of - (below + above) / 2
        parts = np.where(self.positive, beaten / (n - of), ahead / of)
        value = float(parts[self.positive].mean())
        scale = np.where(self.positive, _unbiased(of), _unbiased(n - of)) * n
        return Estimate(value, self._by_image((parts - value) * scale), min(of, n - of))

    def average_precision(self) -> Estimate:
        """Return the mean precision at the scores of the class's images; without interpolation."""
        of, n = int(self.before[-1]), len(self.order)
        taken = n - self.first
        precision = (of - self.before[self.first]) / taken
        value = float(precision[self.positive].mean())
        share, gain = (
            np.cumsum(np.where(self.positive, each, 0.0))[self.last - 1] for each in (1 / taken, precision / taken)
        )
        pulls = (self.positive * (share + precision - value) - gain) * n / of
        return Estimate(value, self._by_image(pulls), of)

    def _by_image(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.empty(len(values))
        found[self.order] = values
        return found


def _unbiased(n: int) -> float:
    """Return what makes a sum of n squared deviations, multiplied by its square, the variance of their mean."""
    return 1 / sqrt(n * max(1, n - 1))


@dataclass(frozen=True)
class Ranking:
    """Means over the classes that have test images and are not all of them.

    Parameters
    ----------
    auroc, auroc_weighted, average_precision
        Every class counting the same, every class counting by its images, and the first for the average precision.
    classes
        AUROC and average precision of each class, as they were told.
    """

    auroc: Estimate
    auroc_weighted: Estimate
    average_precision: Estimate
    classes: dict[int, tuple[Any, Any]] = field(default_factory=dict)


def rank_classes(
    labels: Labels, probabilities: Scores, told: Callable[[Estimate], Any] | None = None
) -> Ranking | None:
    """Rank images by the probability of each class; None where all are of one class.

    Of two classes the AUROC is that of the second, which is that of the first.

    Parameters
    ----------
    labels, probabilities
        (n,) columns of (n, C).
    told
        Makes what is kept of each class's estimates, which have n numbers each; None: nothing is.
    """
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    numbers = np.flatnonzero((counts > 0) & (counts < len(labels))).tolist()
    if not numbers:
        return None
    means, classes = (Mean(), Mean(), Mean()), dict[int, tuple[Any, Any]]()
    areas = np.zeros(counts.size)
    for number, ranked in _each(labels, probabilities, numbers):
        area, mean = ranked.auroc(), ranked.average_precision()
        if counts.size > 2 or number == 1:
            means[0].add(area)
            means[1].add(area, float(counts[number]))
            areas[number] = area.value
        means[2].add(mean)
        if told:
            classes[number] = told(area), told(mean)
    auroc, weighted, precision = (each.estimate() for each in means)
    if counts.size > 2:  # the weights are counted on these images, too
        weighted = replace(weighted, pulls=weighted.pulls + areas[labels] - weighted.value)
    return Ranking(auroc, weighted, precision, classes)


def _each(labels: Labels, probabilities: Scores, numbers: list[int]) -> Iterator[tuple[int, Ranked]]:
    for number in numbers:
        yield number, Ranked.of(labels == number, np.ascontiguousarray(probabilities[:, number]))
