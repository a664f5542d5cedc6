"""What folds say of a figure: folds share their training images, so that their spread tells less than it seems to."""

from __future__ import annotations

from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.distributions import t_below, t_quantile
from tlcache.evaluation.significance import Difference

__all__ = ["Resampled", "compare_folds", "error_of", "resampled", "within"]


class Resampled(NamedTuple):
    """The mean over folds, its standard error and 95 % interval, and p of the mean being 0."""

    mean: float
    error: float
    low: float
    high: float
    p: float


def resampled(values: NDArray[np.float64], ratio: float, least: float = 0.0) -> Resampled:
    """Return what folds say of the mean: the corrected resampled t-test of Nadeau and Bengio (2003).

    Parameters
    ----------
    values
        (J,) a figure of every fold of every repetition, or the difference of two.
    ratio
        Images of a fold, to the images that its heads were fitted on: 1/4 for five folds.
    least
        The standard error that so many images have at least: a few folds may happen to be alike.

    Examples
    --------
    >>> found = resampled(np.array([0.9, 0.92, 0.88, 0.91, 0.89]), 1 / 4)
    >>> round(found.low, 3), round(found.high, 3)
    (0.871, 0.929)
    """
    folds, mean = len(values), float(values.mean())
    error = max(least, sqrt((1 / folds + ratio) * float(values.var(ddof=1))))
    half = t_quantile(folds - 1, 0.975) * error
    p = 2 * t_below(folds - 1, -abs(mean) / error) if error else float(mean == 0)
    return Resampled(mean, error, mean - half, mean + half, p)


def compare_folds(
    first: NDArray[np.bool_], second: NDArray[np.bool_], fold: NDArray[np.int64], ratio: float
) -> Difference:
    """Compare two cross-validated runs by their differences in every fold.

    Parameters
    ----------
    first, second, fold
        (n,) whether each image was classified rightly by one and by the other, and its fold of all repetitions.
    ratio
        As for `resampled`.
    """
    gains = first.astype(np.float64) - second
    found = resampled(np.bincount(fold, gains) / np.bincount(fold), ratio, error_of(gains))
    won, lost = int((gains > 0).sum()), int((gains < 0).sum())
    return Difference(won, lost, float(gains.mean()), max(-1.0, found.low), min(1.0, found.high), found.p)


def error_of(each: NDArray[np.floating[Any]] | NDArray[np.bool_]) -> float:
    """Return the standard error of a mean over images (n,), as if each had been tested apart."""
    return float(each.std()) / sqrt(len(each))


def within(found: Resampled) -> tuple[float, float]:
    """Return the interval of a mean share, which is between 0 and 1."""
    return max(0.0, found.low), min(1.0, found.high)
