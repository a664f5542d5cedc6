"""Nearest neighbours by cosine similarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcache.heads.base import Head, Validation
from tlcache.heads.cosines import closest, unit_rows
from tlcache.heads.rows import Array, Features, View, blocks

__all__ = ["SMOOTHING", "Knn"]

_ASKED = 512  # rows at a time
SMOOTHING = 1e-3


class Knn(Head):
    """The k most similar training rows vote, weighted by `exp(cosine / temperature)` (Wu et al., 2018).

    Parameters
    ----------
    k
        Number of neighbours; all rows when there are fewer.
    temperature
        Small values let the most similar rows decide.
    class_weight
        `balanced`, a weight per label, or None; multiplies the votes.
    """

    STATE: ClassVar[tuple[str, ...]] = ("rows_", "targets_", "weights_")

    def __init__(self, k: int = 10, temperature: float = 0.07, class_weight: Any = None) -> None:
        self.k = k
        self.temperature = temperature
        self.class_weight = class_weight

    @classmethod
    def _fit_heads(cls, heads: Sequence[Self], X: Features, y: NDArray[np.int64], validation: Validation) -> None:
        """Keep the rows, once for all heads."""
        del validation
        rows, weights = np.empty(X.shape, np.float32), heads[0].row_weights(y)
        for some in blocks(len(X)):
            rows[some] = unit_rows(X[some])
        for head in heads:
            head.rows_, head.targets_ = rows, y
            head.weights_ = np.ones(len(y), np.float32) if weights is None else weights

    @classmethod
    def logits_each(cls, heads: Sequence[Self], X: ArrayLike | View) -> list[Array]:
        """Return the logits of heads that were fitted together, whose neighbours are looked for once."""
        rows, most = X if isinstance(X, View) else np.asarray(X, np.float32), max(heads, key=lambda head: head.k)
        logits = [np.empty((len(rows), len(most.classes_)), np.float32) for _ in heads]
        for block in blocks(len(rows), _ASKED):
            similar, nearest = closest(unit_rows(rows[block]), most.rows_, most.k)
            for head, found in zip(heads, logits, strict=True):
                found[block] = head._votes(similar[:, : head.k], nearest[:, : head.k])
        return logits

    def _logits(self, X: Array) -> Array:
        return self.logits_each([self], X)[0]

    def _votes(self, similar: Array, nearest: NDArray[np.int64]) -> Array:
        """Return the logarithm of each class's share of the votes, (n, C)."""
        n, classes = len(similar), len(self.classes_)
        votes = np.exp((similar - similar[:, :1]) / self.temperature) * self.weights_[nearest]
        places = np.arange(n)[:, None] * classes + self.targets_[nearest]
        tally = np.bincount(places.ravel(), votes.ravel(), n * classes).reshape(n, classes)
        share = tally / tally.sum(axis=1, keepdims=True)
        logs: Array = np.log((share + SMOOTHING) / (1 + classes * SMOOTHING)).astype(np.float32)
        return logs
