"""Nearest neighbours by cosine similarity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcache.heads.base import Head, Validation
from tlcache.heads.cosines import unit_rows
from tlcache.heads.large import empty
from tlcache.heads.logits import neighbours, votes
from tlcache.heads.rows import Array, Features, View, blocks

__all__ = ["Knn"]


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
    LEARNS_COLUMNS: ClassVar[bool] = True

    def __init__(self, k: int = 10, temperature: float = 0.07, class_weight: Any = None) -> None:
        self.k = k
        self.temperature = temperature
        self.class_weight = class_weight

    @classmethod
    def _fit_heads(cls, heads: Sequence[Self], X: Features, y: NDArray[Any], validation: Validation) -> None:
        """Keep the rows, once for all heads."""
        del validation
        rows, weights = empty(X.shape), heads[0].row_weights(y)
        for some in blocks(len(X)):
            rows[some] = unit_rows(X[some])
        for head in heads:
            head.rows_, head.targets_ = rows, y
            head.weights_ = np.ones(len(y), np.float32) if weights is None else weights

    @classmethod
    def logits_each(cls, heads: Sequence[Self], X: ArrayLike | View) -> Iterator[Array]:
        """Yield the logits of heads that were fitted together, whose neighbours are looked for once."""
        return votes(heads, X if isinstance(X, View) else np.asarray(X, np.float32))

    def _logits(self, X: Array) -> Array:
        return neighbours(self, X)
