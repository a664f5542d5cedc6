"""Where runs go wrong: classes that are taken for others, classes that are missed, images that they are sure of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.metrics import recalls
from tlcache.runs.predictions import TopPredictions

__all__ = [
    "PAIRS",
    "SUREST",
    "Confusion",
    "confusions",
    "hardest_classes",
    "shown_mistakes",
    "surest_mistakes",
    "surest_of",
]

SUREST, PAIRS = 12, 10  # mistakes and confused pairs of classes that a report shows as pictures


class Confusion(NamedTuple):
    """Images of class `true` that were taken for class `predicted`: how many, and the share of the class's images."""

    true: int
    predicted: int
    times: int
    share: float


def confusions(counts: NDArray[np.int64], most: int) -> list[Confusion]:
    """Return the most frequent ones of a confusion matrix (C, C), rows being true classes, at most so many.

    >>> confusions(np.array([[4, 1, 0], [0, 5, 0], [3, 0, 3]]), 5)
    [Confusion(true=2, predicted=0, times=3, share=0.5), Confusion(true=0, predicted=1, times=1, share=0.2)]
    """
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    places = np.argsort(-wrong, axis=None, kind="stable")[: min(most, np.count_nonzero(wrong))]
    pairs = (divmod(place, len(counts)) for place in places.tolist())
    return [Confusion(a, b, int(wrong[a, b]), float(wrong[a, b] / counts[a].sum())) for a, b in pairs]


def hardest_classes(counts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the classes that have test images (K,), those first that the runs recognise worst on average.

    `counts` are the runs' confusion matrices (C, C) on the same images.
    """
    shares = np.array([recalls(each) for each in counts])
    tested = np.flatnonzero(~np.isnan(shares[0]))
    return tested[np.argsort(shares.mean(axis=0)[tested], kind="stable")]


def surest_mistakes(top: TopPredictions, most: int) -> NDArray[np.int64]:
    """Return the numbers of the images that are classified wrongly with the largest confidence, at most so many.

    An image that was tested several times is there once.
    """
    wrong = np.flatnonzero(~top.right)
    surest = wrong[np.argsort(-top.confidence[wrong], kind="stable")]
    _, first = np.unique(top.row[surest], return_index=True)
    return surest[np.sort(first)][:most]


def surest_of(top: TopPredictions, pair: Confusion) -> int:
    """Return the number of the test image of one class that was taken for the other with the largest confidence."""
    rows = np.flatnonzero((top.label == pair.true) & (top.predicted == pair.predicted))
    return int(rows[top.confidence[rows].argmax()])


def shown_mistakes(top: TopPredictions, counts: NDArray[np.int64]) -> list[int]:
    """Return the numbers of the mistakes that a report shows as pictures, each once."""
    pairs = [surest_of(top, each) for each in confusions(counts, PAIRS)]
    return list(dict.fromkeys([*surest_mistakes(top, SUREST).tolist(), *pairs]))
