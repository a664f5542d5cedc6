"""Is one run better than another? Intervals and paired tests on the same test images, by group where there are groups.

Closed forms, not the bootstrap: simulated, the percentile bootstrap's 95 % intervals held the truth 80 to 96 % of the
time with 60 images or 15 groups, these 89 to 99 %; with many of either both are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tlcache.datasets.texts import Texts
from tlcache.evaluation.distributions import fair_coin_below, t_quantile

__all__ = [
    "Difference",
    "LEVEL",
    "Units",
    "accuracy_interval",
    "clustered_interval",
    "compare_paired",
    "correct_for_many",
    "effective_groups",
    "smallest_shown",
    "share_interval",
    "unit_numbers",
    "variance_of",
]

Units = NDArray[np.int64]
LEVEL = 0.05
_ENUMERATED = 16  # groups whose signs are all tried: 65,536 ways


@dataclass(frozen=True)
class Difference:
    """How much more accurate one run is than another on the same images.

    Parameters
    ----------
    won, lost
        Images that only the first, and only the second, got right.
    difference, low, high
        Difference of accuracies and its 95 % interval.
    p
        Of no difference, two-sided, not corrected for many comparisons.
    """

    won: int
    lost: int
    difference: float
    low: float
    high: float
    p: float

    @property
    def error(self) -> float:
        """The standard error, as the interval has it."""
        return (self.high - self.low) / (2 * NormalDist().inv_cdf(0.975))

    def reversed(self) -> Difference:
        """Return how much more accurate the second is than the first."""
        return Difference(self.lost, self.won, -self.difference, -self.high, -self.low, self.p)


def unit_numbers(groups: Sequence[str] | Sequence[bytes] | NDArray[np.bytes_]) -> Units | None:
    """Return a number for each image's group (n,), images without one apart; None where there are no groups."""
    names = groups.stored if isinstance(groups, Texts) else np.asarray(groups)
    alone = names == names.dtype.type()
    if alone.all():
        return None
    numbers = np.unique(names, return_inverse=True)[1].astype(np.int64)
    numbers[alone] = numbers.max() + 1 + np.arange(alone.sum())
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64)


def accuracy_interval(right: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for `right` of `n` (Wilson, 1927): sound near 0 and 1 and for few images.

    >>> [round(bound, 3) for bound in accuracy_interval(90, 100)]
    [0.826, 0.945]
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))  # rounding leaves the share inside


def clustered_interval(right: NDArray[np.bool_], units: Units | None = None) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy: Wilson's, for the effective sample size; see `share_interval`.

    Parameters
    ----------
    right
        (n,) whether each image was classified rightly.
    units
        (n,) number of each image's group; None: images are independent.
    """
    if units is None:
        return accuracy_interval(int(right.sum()), len(right))
    share = float(right.mean())
    return share_interval(share, right.astype(np.float64) - share, units, len(right))


def share_interval(share: float, pulls: NDArray[np.float64], units: Units | None, worth: float) -> tuple[float, float]:
    """Return the 95 % interval of a figure between 0 and 1: Wilson's, for the effective sample size.

    Images of one group tend to be right or wrong together, so that n of them tell less than n. The effective
    sample size is the number of independent images whose share would vary as much (Korn and Graubard, 1998); where
    nothing varies, it is `worth`, or the number of groups. Groups count as many as there would be of one size (Kish,
    1965): with half of the images in one group, hardly four, however many there are.

    Parameters
    ----------
    share
        The figure.
    pulls
        (n,) how far it follows each image, 0 on average; of an accuracy, whether that is right, less the accuracy.
    units
        As for `clustered_interval`.
    worth
        Independent images that it is worth where nothing varies.
    """
    variance = max(variance_of(pulls), variance_of(pulls, units))  # groups by chance unlike are no more images
    groups = len(pulls) if units is None else effective_groups(np.bincount(units))
    spread = share * (1 - share)
    effective = spread / variance if min(spread, variance) > 0 else min(worth, groups)
    if units is not None and groups > 1:
        effective *= (NormalDist().inv_cdf(0.975) / t_quantile(groups - 1, 0.975)) ** 2
    return accuracy_interval(share * effective, effective)


def variance_of(pulls: NDArray[np.float64], units: Units | None = None) -> float:
    """Return the variance of a figure that follows each image so far (n,), by group where there are groups."""
    if units is None:
        return float(pulls @ pulls) / len(pulls) ** 2
    sums = np.bincount(units, pulls)
    return len(sums) / max(1, len(sums) - 1) * float(sums @ sums) / len(pulls) ** 2


def effective_groups(sizes: NDArray[np.int64]) -> float:
    """Return how many groups of one size tell as much as groups of these (G,) (Kish, 1965).

    >>> effective_groups(np.array([5, 5, 5, 5])), round(effective_groups(np.array([100, *[1] * 100])), 1)
    (4.0, 4.0)
    """
    return float(sizes.sum()) ** 2 / float(np.square(sizes, dtype=np.float64).sum())


def compare_paired(first: NDArray[np.bool_], second: NDArray[np.bool_], units: Units | None = None) -> Difference:
    """Compare two runs image by image.

    p is McNemar's exact test; with groups, the test that flips the sign of each group's difference, of which it is the
    special case. The interval is Bonett and Price's (2012), which adds one image won and one lost; with groups the same
    on the groups' sums.

    Parameters
    ----------
    first, second
        (n,) whether each image was classified rightly by one and by the other.
    units
        As for `clustered_interval`.

    Examples
    --------
    >>> right = np.arange(100) < 90
    >>> compare_paired(right, right).p
    1.0
    >>> compare_paired(right, np.arange(100) < 80).difference
    0.1
    """
    gains = first.astype(np.float64) - second.astype(np.float64)
    won, lost = int((gains > 0).sum()), int((gains < 0).sum())
    n = len(gains)
    numbers = np.arange(n) if units is None else units
    sums = np.bincount(numbers, gains).astype(np.float64)
    sizes = np.bincount(numbers)
    low, high = _difference_interval(sums, sizes)
    p = _sign_test(won, lost) if units is None and won + lost else _flip_signs(sums)
    return Difference(won, lost, (won - lost) / n, low, high, p)


def _difference_interval(sums: NDArray[np.float64], sizes: NDArray[np.int64]) -> tuple[float, float]:
    sums, sizes = np.append(sums, [1, -1]), np.append(sizes, [1, 1])
    n, units = sizes.sum(), len(sums)
    middle = sums.sum() / n
    residuals = sums - sizes * middle
    half = t_quantile(effective_groups(sizes) - 1, 0.975) * np.sqrt(units / (units - 1) * (residuals @ residuals)) / n
    return max(-1.0, float(middle - half)), min(1.0, float(middle + half))


def _sign_test(won: int, lost: int) -> float:
    """Return how often a fair coin is at least as far from half of its throws, both ways."""
    return min(1.0, 2 * fair_coin_below(min(won, lost), won + lost))


def _flip_signs(sums: NDArray[np.float64]) -> float:
    """Return how often random signs give a sum as far from 0: counted, or for many groups by the normal law."""
    some = np.abs(sums[sums != 0])
    if not len(some):
        return 1.0
    if len(some) > _ENUMERATED:
        return float(erfc(abs(sums.sum()) / np.sqrt(2 * (some @ some))))
    totals = np.zeros(1)
    for size in some:
        totals = np.concatenate([totals + size, totals - size])
    return float(np.mean(np.abs(totals) >= abs(sums.sum()) - 1e-9))


def smallest_shown(found: Sequence[Difference], images: float) -> float:
    """Return the smallest difference that would be shown between two of these runs, corrected for their number.

    It follows from how many images the runs usually answer unlike, and is never less than what a test of so many images
    can show at all: all of a few that differ won by one run.

    Parameters
    ----------
    found
        Every two of the runs.
    images
        How many independent images there are, or groups.
    """
    level = LEVEL / len(found)
    usual = float(np.median([each.error for each in found])) * NormalDist().inv_cdf(1 - level / 2)
    return min(1.0, max(usual, float(np.ceil(np.log2(2 / level))) / images))


def correct_for_many(p: Sequence[float]) -> NDArray[np.float64]:
    """Return p values corrected for their number (Holm, 1979), in their order.

    >>> correct_for_many([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, np.float64)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1, stepped)
    return corrected
