"""Which of many images without labels to label next: rules on embeddings and on what a model says of them.

`margin` takes what a model is least sure of; `k-centre` what is far from all that is labelled (Sener and Savarese,
2018); `typicality` the most typical image of each cluster, those without labels first (Hacohen et al., 2022).
`combined` multiplies the doubts of the model, typicality in the whole pool, and the distance to what is labelled or
taken, which `benchmarks/suggest.py` found better than two of them; without a model it is typicality.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from tlcache.heads.cosines import closest
from tlcache.heads.rows import Array, Indices, blocks

__all__ = ["STRATEGIES", "Pick", "Pool", "choose"]

_NEIGHBOURS = 20  # that typicality is measured by, as in the paper
_MOST_CLUSTERS = 500
_FIT_ROWS = 20_000


class Pick(NamedTuple):
    """A row to label, how much speaks for it by its strategy's own measure, and why it was taken, in words."""

    row: int
    score: float
    why: str


@dataclass(frozen=True)
class Pool:
    """Images to choose from.

    Parameters
    ----------
    rows
        float32 (n, k), of length 1.
    labelled
        float32 (m, k), what has labels already; m may be 0.
    is_known
        Row, rows that were taken -> whether it is nearly one of those, or one that is labelled.
    doubt
        float32 (n,): 1 less the margin between the two likeliest classes; None where there is no model.
    """

    rows: Array
    labelled: Array
    is_known: Callable[[int, list[int]], bool]
    doubt: Array | None = None


Score = tuple[int, float, str]  # row, score, why
Strategy = Callable[[Pool, int], Iterator[Score]]


def choose(pool: Pool, count: int, strategy: str) -> list[Pick]:
    """Return at most so many rows to label, the most wanted first, and none that is nearly another one.

    Parameters
    ----------
    pool
        The images.
    count
        How many.
    strategy
        A name of `STRATEGIES`.
    """
    return list(islice(_fresh(pool, STRATEGIES[strategy](pool, count)), count))


def _fresh(pool: Pool, ranked: Iterator[Score]) -> Iterator[Pick]:
    taken: list[int] = []
    for row, score, why in ranked:
        if not pool.is_known(row, taken):
            taken.append(row)
            yield Pick(row, score, why)


def _margin(pool: Pool, count: int) -> Iterator[Score]:
    del count
    assert pool.doubt is not None
    for row in np.argsort(-pool.doubt, kind="stable").tolist():
        yield row, float(pool.doubt[row]), f"doubt {pool.doubt[row]:.2f}"


def _k_centre(pool: Pool, count: int) -> Iterator[Score]:
    del count
    return _spread(pool, np.ones(len(pool.rows), np.float32), lambda _: "")


def _combined(pool: Pool, count: int) -> Iterator[Score]:
    if pool.doubt is None:
        return _typicality(pool, count)
    doubt, typical = pool.doubt, _typicality_of(pool.rows, np.zeros(len(pool.rows), np.int64))
    return _spread(pool, doubt * typical, lambda row: f"doubt {doubt[row]:.2f}, typicality {typical[row]:.2f}, ")


def _spread(pool: Pool, worth: Array, why: Callable[[int], str]) -> Iterator[Score]:
    """Take what is worth most, times how far it is from all that is labelled or taken."""
    known = len(pool.labelled) > 0
    distance = 1 - (closest(pool.rows, pool.labelled)[0][:, 0] if known else pool.rows @ -pool.rows.mean(axis=0))
    left = np.ones(len(pool.rows), bool)
    for number in range(len(pool.rows)):
        row = int(np.where(left, worth * distance, -1).argmax())
        yield row, float(worth[row] * distance[row]), f"{why(row)}distance {distance[row]:.2f}"
        left[row], own = False, np.maximum(1 - pool.rows @ pool.rows[row], 0)
        distance = np.minimum(distance, own) if number or known else own


def _typicality(pool: Pool, count: int) -> Iterator[Score]:
    """Go round the clusters, those with the fewest labels and then the largest first, each with its most typical."""
    together = np.concatenate([pool.rows, pool.labelled])
    numbers = _clusters(together, min(len(pool.labelled) + count, _MOST_CLUSTERS))
    numbers, known = numbers[: len(pool.rows)], np.bincount(numbers[len(pool.rows) :], minlength=numbers.max() + 1)
    sizes = np.bincount(numbers, minlength=len(known))
    place = np.empty(len(known), np.int64)
    place[np.lexsort((-sizes, known))] = np.arange(len(known))
    scores = _typicality_of(pool.rows, numbers)
    for row in np.lexsort((place[numbers], _ranks(numbers, scores))).tolist():
        size, labelled = sizes[numbers[row]], known[numbers[row]] or "none"
        yield row, float(scores[row]), f"typical of {size:,} alike, {labelled} labelled"


def _ranks(numbers: Indices, scores: Array) -> Indices:
    """Return how many of its own cluster are before each row, by score: int64 (n,)."""
    order = np.lexsort((-scores, numbers))
    first = np.concatenate([[0], np.flatnonzero(np.diff(numbers[order])) + 1])
    sizes = np.diff([*first, len(order)])
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(first, sizes)
    return ranks


def _typicality_of(rows: Array, numbers: Indices) -> Array:
    """Return the mean cosine of each row with its neighbours in its cluster, at least 0: float32 (n,)."""
    found = np.ones(len(rows), np.float32)
    for number in np.unique(numbers):
        own = np.flatnonzero(numbers == number)
        if len(own) > 1:
            cosines, _ = closest(rows[own], rows[_some(own)], _NEIGHBOURS + 1)
            found[own] = np.maximum(cosines[:, 1:].mean(axis=1), 0)  # the closest is the row itself
    return found


def _clusters(rows: Array, wanted: int) -> Indices:
    """Return the cluster of each row, by k-means in at most so many: int64 (n,)."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    some = _some(np.arange(len(rows)))
    means = KMeans(min(wanted, _MOST_CLUSTERS, len(some)), n_init=1, max_iter=50, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of equal rows there are fewer clusters
        means.fit(rows[some])
    return np.concatenate([means.predict(rows[block]) for block in blocks(len(rows), 8192)]).astype(np.int64)


def _some(rows: Indices) -> Indices:
    """Return these rows, or 20,000 random ones of more."""
    return rows if len(rows) <= _FIT_ROWS else np.random.default_rng(0).choice(rows, _FIT_ROWS, replace=False)


STRATEGIES: Mapping[str, Strategy] = {
    "combined": _combined,
    "margin": _margin,
    "k-centre": _k_centre,
    "typicality": _typicality,
}
