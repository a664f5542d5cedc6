"""What a figure is worth: how much each image pulls on it, which gives its error and its interval, by group or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.distributions import t_below, t_quantile
from tlcache.evaluation.significance import Difference, Units, effective_groups, share_interval, variance_of

__all__ = ["Estimate", "Mean", "compare_figures", "mean_estimate", "ratio", "with_intervals"]


@dataclass(frozen=True)
class Estimate:
    """A figure of test images, and how far it follows each of them.

    Parameters
    ----------
    value
        The figure.
    pulls
        (n,) float64: its influence function (Hampel, 1974) at each image; their mean is 0. Of an accuracy, whether the
        image is right, less the accuracy; of an AUROC, what DeLong et al. (1988) call structural components.
    worth
        How many independent images it is worth where nothing varies: of a mean over classes less than n.
    bounds
        The least and the largest value it can have.
    """

    value: float
    pulls: NDArray[np.float64]
    worth: float
    bounds: tuple[float, float] = (0.0, 1.0)

    def error(self, units: Units | None = None) -> float:
        """Return the standard error; `units` (n,) number each image's group, None: images are independent."""
        return sqrt(variance_of(self.pulls, units))

    def interval(self, units: Units | None = None) -> tuple[float, float]:
        """Return the 95 % interval: Wilson's (1927), for the effective sample size that the variance says."""
        least, most = self.bounds
        width = most - least
        low, high = share_interval((self.value - least) / width, self.pulls / width, units, self.worth)
        return least + width * low, least + width * high


def with_intervals(found: Mapping[str, Estimate], units: Units | None = None) -> dict[str, float]:
    """Return every figure by its name, and with `_low` and `_high` its 95 % interval."""
    told = dict[str, float]()
    for name, each in found.items():
        low, high = each.interval(units)
        told |= {name: each.value, f"{name}_low": low, f"{name}_high": high}
    return told


def mean_estimate(values: NDArray[np.float64], bounds: tuple[float, float] = (0.0, 1.0)) -> Estimate:
    """Return the mean of what each image has (n,)."""
    mean = float(values.mean())
    return Estimate(mean, values - mean, len(values), bounds)


def ratio(part: NDArray[np.generic], whole: NDArray[np.generic]) -> Estimate:
    """Return the ratio of two sums over images (n,), the first of which is part of the second."""
    some, all_of = part.astype(np.float64), whole.astype(np.float64)
    value = float(some.sum() / all_of.sum())
    return Estimate(value, (some - value * all_of) * len(some) / all_of.sum(), float((all_of > 0).sum()))


def compare_figures(
    first: Estimate,
    second: Estimate,
    right: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    units: Units | None = None,
) -> Difference:
    """Compare two runs by a figure of the same images.

    The difference follows each image as far as the two figures do, which gives its error; of the AUROC this is the test
    of DeLong, DeLong and Clarke-Pearson (1988). `right` (n,) and `units` are as for `compare_paired`.
    """
    won, lost = (int((one & ~other).sum()) for one, other in (right, right[::-1]))
    difference, error = first.value - second.value, sqrt(variance_of(first.pulls - second.pulls, units))
    groups = len(first.pulls) if units is None else effective_groups(np.bincount(units))
    freedom = max(groups - 1, 0.1)
    p = 2 * t_below(freedom, -abs(difference) / error) if error else float(difference == 0)
    half = t_quantile(freedom, 0.975) * error
    return Difference(won, lost, difference, difference - half, difference + half, p)


class Mean:
    """A weighted mean of figures of the same images, which are added one by one."""

    def __init__(self) -> None:
        self._weights = self._value = self._spread = 0.0
        self._pulls: NDArray[np.float64] | float = 0.0

    def add(self, figure: Estimate, weight: float = 1.0) -> None:
        """Add a figure."""
        self._weights += weight
        self._value += weight * figure.value
        self._pulls = self._pulls + weight * figure.pulls
        self._spread += weight**2 / figure.worth

    def estimate(self) -> Estimate:
        """Return the mean of what was added."""
        worth = self._weights**2 / self._spread
        return Estimate(self._value / self._weights, np.asarray(self._pulls / self._weights), worth)
