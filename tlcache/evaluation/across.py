"""Which way of classifying is better over several datasets: ranks, Friedman's test, Wilcoxon's against the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.significance import LEVEL, correct_for_many
from tlcache.evaluation.task import larger_is_better

if TYPE_CHECKING:
    from tlcache.evaluation.comparison import Comparison

__all__ = ["Across", "across", "friedman", "ranks", "wilcoxon"]

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Across:
    """The same runs on several datasets.

    Parameters
    ----------
    datasets
        Names (D,).
    names
        Heads with their backbones (K,), the best mean rank first.
    mean_ranks, mean_values
        (K,) over the datasets, of the figure that is compared by; rank 1 is the best.
    p
        Of all being equal: Friedman's test.
    p_first
        (K - 1,) of each of the others being equal to the first: Wilcoxon's signed-rank test, Holm's correction.
    least_p
        The smallest that Wilcoxon's can be on so many datasets, before the correction.
    """

    datasets: tuple[str, ...]
    names: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    mean_values: tuple[float, ...]
    p: float
    p_first: tuple[float, ...]
    least_p: float

    @property
    def can_show(self) -> bool:
        """Whether so many datasets can show any difference from the first."""
        return self.least_p * len(self.p_first) < LEVEL

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        return dict(vars(self))


def across(comparisons: Sequence[Comparison]) -> Across | None:
    """Return what holds over datasets, each with its first comparison; None where no two runs are on each of several.

    A run that several of one name are of is the one that was picked.
    """
    first: dict[str, Comparison] = {}
    for found in comparisons:
        if found.by == comparisons[0].by:  # classes and numbers have no figure in common
            first.setdefault(found.dataset, found)
    each = [_values(found) for found in first.values()]
    shared = [name for name in each[0] if all(name in values for values in each)] if each else []
    if len(each) < 2 or len(shared) < 2:
        return None
    sign = 1 if larger_is_better(comparisons[0].by) else -1
    values = np.array([[of[name] for name in shared] for of in each])
    placed = ranks(-sign * values)
    order = np.lexsort((-sign * values.mean(axis=0), placed.mean(axis=0)))
    best, others = order[0], order[1:]
    p = [wilcoxon(values[:, best] - values[:, other]) for other in others]
    return Across(
        datasets=tuple(first),
        names=tuple(shared[number] for number in order),
        mean_ranks=tuple(placed.mean(axis=0)[order].tolist()),
        mean_values=tuple(values.mean(axis=0)[order].tolist()),
        p=friedman(placed),
        p_first=tuple(correct_for_many(p).tolist()),
        least_p=2.0 ** (1 - len(each)),
    )


def _values(found: Comparison) -> Mapping[str, float]:
    values: dict[str, float] = {}
    for entry in found.picked:
        values.setdefault(entry.name, entry.figure(found.by)[0])
    return values


def ranks(values: Doubles) -> Doubles:
    """Return the rank of each number in its row (D, K), 1 the smallest; equal ones share the mean of theirs.

    >>> ranks(np.array([[0.3, 0.1, 0.3]])).tolist()
    [[2.5, 1.0, 2.5]]
    """
    below = (values[:, None] < values[..., None]).sum(axis=2)
    equal = (values[:, None] == values[..., None]).sum(axis=2)
    placed: Doubles = below + (equal + 1) / 2
    return placed


def friedman(placed: Doubles) -> float:
    """Return p of all columns of ranks (D, K) being equal (Friedman, 1937), corrected for ties."""
    from scipy.special import chdtrc

    rows, columns = placed.shape
    spread = float(((placed - (columns + 1) / 2) ** 2).sum())
    if not spread:
        return 1.0
    between = float(((placed.sum(axis=0) - rows * (columns + 1) / 2) ** 2).sum())
    return float(chdtrc(columns - 1, (columns - 1) * between / spread))


def wilcoxon(differences: Doubles) -> float:
    """Return p of differences (D,) being as often and as far above 0 as below (Wilcoxon, 1945), two-sided and exact.

    Differences of 0 are left out; equal ones share the mean of their ranks. All 2^D signs are counted, by the sums that
    they reach.
    """
    some = differences[differences != 0]
    if not len(some):
        return 1.0
    twice = np.rint(2 * ranks(np.abs(some)[None])[0]).astype(np.int64)  # whole numbers
    ways = np.zeros(int(twice.sum()) + 1)
    ways[0] = 1
    for rank in twice:
        ways[rank:] = ways[rank:] + ways[: len(ways) - rank]
    less = min(int(twice[some > 0].sum()), int(twice[some < 0].sum()))
    return min(1.0, 2 * float(ways[: less + 1].sum() / ways.sum()))
