"""Figures of the classes that are answered: balanced accuracy, F1, Matthews' coefficient, kappa, and of every class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.estimates import Estimate, mean_estimate

__all__ = ["Agreement"]

Labels = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Labels (n,) beside answers (n,), both numbers of classes.

    Counts of each class say all there is to say: a confusion matrix of 20,000 classes has 3 GB.
    """

    labels: Labels
    predicted: Labels

    @cached_property
    def right(self) -> Shares:
        """1 where label and answer agree (n,)."""
        right: Shares = (self.labels == self.predicted).astype(np.float64)
        return right

    @cached_property
    def _counts(self) -> tuple[Shares, Shares, Shares]:
        """Images of each class, answers of it, and those that are both (C,)."""
        classes = int(max(self.labels.max(), self.predicted.max())) + 1
        hits = self.labels[self.labels == self.predicted]
        each = (np.bincount(numbers, minlength=classes) for numbers in (self.labels, self.predicted, hits))
        of, taken, hit = (counts.astype(np.float64) for counts in each)
        return of, taken, hit

    def accuracy(self) -> Estimate:
        """Return the share of images that are classified rightly."""
        return mean_estimate(self.right)

    def balanced_accuracy(self) -> Estimate:
        """Return the mean recall over the classes that occur as label."""
        of, _, hit = self._counts
        some = of > 0
        recalls, own = hit / np.maximum(1, of), of[self.labels]
        pulls = (self.right - recalls[self.labels]) * len(self.labels) / (some.sum() * own)
        return Estimate(float(recalls[some].mean()), pulls, _worth(of[some]))

    def macro_f1(self) -> Estimate:
        """Return the mean F1 over the classes that occur as label or answer."""
        of, taken, hit = self._counts
        both = of + taken
        some = both > 0
        f1 = 2 * hit / np.maximum(1, both)
        scale = len(self.labels) / (some.sum() * both)[[self.labels, self.predicted]]
        pulls = (self.right - f1[self.labels]) * scale[0] + (self.right - f1[self.predicted]) * scale[1]
        return Estimate(float(f1[some].mean()), pulls, _worth(both[some] / 2))

    def kappa(self) -> Estimate:
        """Return Cohen's kappa (1960); 0 where chance alone would agree always."""
        chance, pull_of_chance = self._chance()
        agreed = self.right.mean()
        if chance == 1:
            return self._nothing()
        value = (agreed - chance) / (1 - chance)
        pulls = (self.right - agreed - (1 - value) * pull_of_chance) / (1 - chance)
        return Estimate(float(value), pulls, len(self.labels), (-1.0, 1.0))

    def mcc(self) -> Estimate:
        """Return Matthews' coefficient, of several classes Gorodkin's (2004); 0 where all labels or answers are one."""
        n = len(self.labels)
        of, taken, _ = (counts / n for counts in self._counts)
        chance, pull_of_chance = self._chance()
        spread_of, spread_taken = 1 - of @ of, 1 - taken @ taken
        if min(spread_of, spread_taken) < 0.5 / n**2:
            return self._nothing()
        agreed = self.right.mean()
        value = (agreed - chance) / sqrt(spread_of * spread_taken)
        spreading = (of @ of - of[self.labels]) / spread_of + (taken @ taken - taken[self.predicted]) / spread_taken
        pulls = (self.right - agreed - pull_of_chance) / sqrt(spread_of * spread_taken) - value * spreading
        return Estimate(float(value), pulls, n, (-1.0, 1.0))

    def _chance(self) -> tuple[float, Shares]:
        """Return how often independent answers would agree, and how each image pulls on that (n,)."""
        of, taken, _ = (counts / len(self.labels) for counts in self._counts)
        chance = float(of @ taken)
        return chance, taken[self.labels] + of[self.predicted] - 2 * chance

    def _nothing(self) -> Estimate:
        return Estimate(0.0, np.zeros(len(self.labels)), len(self.labels), (-1.0, 1.0))


def _worth(images: Shares) -> float:
    """Return how many independent images a mean over classes with so many images each (K,) is worth."""
    return float(len(images) ** 2 / (1 / np.maximum(images, 0.5)).sum())
