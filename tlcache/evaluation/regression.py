"""Figures of numbers that were predicted, with intervals from how far each follows every image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import atanh, exp, log, nan, sqrt, tanh

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.distributions import t_quantile
from tlcache.evaluation.estimates import Estimate, with_intervals
from tlcache.evaluation.significance import Units, clustered_interval, effective_groups
from tlcache.heads.answering import Answering
from tlcache.runs.base import Figures, NumberInterval

__all__ = ["Free", "conformal_margin", "estimates", "evaluate", "interval_on"]

Numbers = NDArray[np.floating]


@dataclass(frozen=True)
class Free(Estimate):
    """A figure that is no share: its interval is Student's on a scale where it is nearly normal, and brought back.

    Parameters
    ----------
    scale
        To that scale, from it, and the slope of the first, at the figure.
    """

    scale: tuple[Callable[[float], float], Callable[[float], float], Callable[[float], float]] | None = None

    def interval(self, units: Units | None = None) -> tuple[float, float]:
        """Return the 95 % interval; `units` (n,) number each image's group, None: images are independent."""
        least, most = self.bounds
        if self.scale is None or not least < self.value < most:
            return self.value, self.value
        to, back, slope = self.scale
        groups = len(self.pulls) if units is None else effective_groups(np.bincount(units))
        half = t_quantile(max(groups - 1, 0.1), 0.975) * self.error(units) * abs(slope(self.value))
        middle = to(self.value)
        ends = sorted((back(middle - half), back(middle + half)))
        return ends[0], ends[1]


_POSITIVE = (log, lambda x: exp(min(x, 700.0)), lambda x: 1 / x)
_EXPLAINED = (lambda x: log(1 - x), lambda x: 1 - exp(min(x, 700.0)), lambda x: 1 / (1 - x))
_CORRELATION = (atanh, tanh, lambda x: 1 / (1 - x * x))
_INFINITE = float("inf")


def evaluate(wanted: Numbers, predicted: Numbers, units: Units | None = None) -> Figures:
    """Return the figures of a run, each with its 95 % interval; those of classes are not there.

    Parameters
    ----------
    wanted, predicted
        (n, 1) numbers.
    units
        (n,) number of each image's group; None: images are independent.
    """
    found = with_intervals(estimates(wanted, predicted), units)
    return Figures.of({"n": len(wanted), **dict.fromkeys(_OF_CLASSES, nan), **found})


_OF_CLASSES = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss", "ece")


def estimates(wanted: Numbers, predicted: Numbers) -> dict[str, Estimate]:
    """Return mean absolute error, root of the mean squared error, R2 and Spearman's correlation.

    The last two are left out where all numbers are equal, and the last where all that was predicted are.
    """
    y, said = (each.reshape(-1).astype(np.float64) for each in (wanted, predicted))
    apart, squares, n = np.abs(said - y), np.square(said - y), len(y)
    mae, mse = float(apart.mean()), float(squares.mean())
    rmse = sqrt(mse)
    found: dict[str, Estimate] = {
        "mae": Free(mae, apart - mae, n, (0.0, _INFINITE), _POSITIVE),
        "rmse": Free(rmse, (squares - mse) / (2 * rmse) if rmse else squares, n, (0.0, _INFINITE), _POSITIVE),
    }
    spread = np.square(y - y.mean())
    variance = float(spread.mean())
    if y.min() < y.max():  # of equal numbers, too, rounding may leave a variance
        pulls = (mse * spread / variance - squares) / variance
        found["r2"] = Free(1 - mse / variance, pulls, n, (-_INFINITE, 1.0), _EXPLAINED)
        found |= {"spearman": _spearman(y, said)} if said.min() < said.max() else {}
    return found


def _spearman(y: NDArray[np.float64], said: NDArray[np.float64]) -> Estimate:
    """Return Spearman's rank correlation with its influence function (Croux and Dehon, 2010)."""
    first, second = _ranks(y), _ranks(said)
    scale = float(first.std() * second.std())
    value = float(np.mean(first * second)) / scale
    pulls = first * second + _above(y, second) + _above(said, first)
    pulls = (pulls - pulls.mean()) / scale
    return Free(value, pulls, len(y), (-1.0, 1.0), _CORRELATION)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of values below each (n,), equal ones counting half, less its mean."""
    ordered = np.sort(values)
    ranks = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2 * len(values))
    centred: NDArray[np.float64] = ranks - ranks.mean()
    return centred


def _above(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each image the mean over all of the other rank (n,) where the value is not below its own."""
    order = np.argsort(values, kind="stable")
    sums = np.append(np.cumsum(others[order][::-1])[::-1], 0.0)
    means: NDArray[np.float64] = sums[np.searchsorted(values[order], values, "left")] / len(values)
    return means


def interval_on(
    answering: Answering | None, wanted: Numbers, predicted: Numbers, units: Units | None
) -> NumberInterval | None:
    """Return what comes of the promised margin on test images (n, 1); None where none is promised."""
    if answering is None or not answering.coverage:
        return None
    inside = (np.abs(wanted - predicted) <= answering.margin).reshape(-1)
    low, high = clustered_interval(inside, units)
    return NumberInterval(
        coverage=answering.coverage,
        margin=answering.margin,
        test_coverage=float(inside.mean()),
        test_low=low,
        test_high=high,
    )


def conformal_margin(residuals: NDArray[np.floating], coverage: float) -> float:
    """Return how far on both sides of an answer the truth lies with a probability of `coverage` or more.

    Split-conformal prediction (Papadopoulos et al., 2002; Lei et al., 2018): the k-th smallest of the absolute
    residuals (n,) of images that were held out, k = ceil((n + 1) * coverage); infinity where these are too few.

    >>> conformal_margin(np.arange(1.0, 100.0), 0.9)
    90.0
    """
    ordered = np.sort(np.abs(residuals).reshape(-1))
    place = int(np.ceil((len(ordered) + 1) * coverage - 1e-9))
    return float(ordered[place - 1]) if place <= len(ordered) else float("inf")
