"""Nearest neighbours by cosine similarity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from tlcache.heads.base import Array, Head, Validation

__all__ = ["Knn"]

_BLOCK = 1024
_SMOOTHING = 1e-3


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
    def _fit_heads(cls, heads: Sequence[Self], X: Array, y: NDArray[np.int64], validation: Validation) -> None:
        """Keep the rows, once for all heads."""
        del validation
        rows, weights = _unit(X), heads[0]._row_weights(y)
        for head in heads:
            head.rows_, head.targets_ = rows, y
            head.weights_ = np.ones(len(y), np.float32) if weights is None else weights

    def _logits(self, X: Array) -> Array:
        k, classes = min(self.k, len(self.rows_)), len(self.classes_)
        logits = np.empty((len(X), classes), np.float32)
        for block in _blocks(len(X)):
            cosines = _unit(X[block]) @ self.rows_.T
            nearest = np.argpartition(cosines, -k, axis=1)[:, -k:]
            similar = np.take_along_axis(cosines, nearest, axis=1)
            votes = np.exp((similar - similar.max(axis=1, keepdims=True)) / self.temperature) * self.weights_[nearest]
            tally = np.zeros((len(votes), classes))
            np.add.at(tally, (np.arange(len(votes))[:, None], self.targets_[nearest]), votes)
            share = tally / tally.sum(axis=1, keepdims=True)
            logits[block] = np.log((share + _SMOOTHING) / (1 + classes * _SMOOTHING))
        return logits

    def _width(self) -> int:
        return int(self.rows_.shape[1])


def _unit(X: Array) -> Array:
    unit: Array = X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), np.float32(1e-12))
    return unit


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, n, _BLOCK))
