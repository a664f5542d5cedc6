"""Ridge regression on one-hot targets, in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tlcache.heads.base import LinearHead, Validation
from tlcache.heads.rows import Array, Features, blocks, one_hot
from tlcache.heads.solver import Basis

__all__ = ["Ridge", "least_squares"]


class Ridge(LinearHead):
    """Ridge regression on one-hot targets of -1 and 1, in closed form.

    One eigendecomposition serves every penalty (Golub, Heath and Wahba, 1979).

    Parameters
    ----------
    alpha
        Penalty, as in scikit-learn: minimises `|X coef - Y|^2 + alpha * |coef|^2`; the intercept is free.
    class_weight
        `balanced`, a weight per label, or None.
    """

    def __init__(self, alpha: float = 1000.0, class_weight: Any = None) -> None:
        self.alpha = alpha
        self.class_weight = class_weight

    @classmethod
    def _fit_heads(cls, heads: Sequence[Self], X: Features, y: NDArray[np.int64], validation: Validation) -> None:
        """Solve for every penalty in one eigenbasis."""
        del validation
        found = least_squares(X, y, [head.alpha for head in heads], heads[0].row_weights(y))
        for head, layer in zip(heads, found, strict=True):
            head.coef_, head.intercept_ = layer


def least_squares(
    X: Features, y: NDArray[np.int64], penalties: Sequence[float], row_weights: Array | None
) -> Iterator[tuple[Array, Array]]:
    """Yield `coef` (dim, C) and `intercept` (C,) of `Ridge` for every penalty."""
    basis = Basis.of(X, row_weights)
    share = np.ones(len(y), np.float32) if row_weights is None else row_weights
    counts = np.bincount(y, share.astype(np.float64))
    middle = (2 * counts / counts.sum() - 1).astype(np.float32)
    along, total = np.zeros((len(middle), X.shape[1])), np.zeros(len(middle))
    for some in blocks(len(X)):  # of the targets, n x C, there is never more than a block
        pull = share[some, None] * (2 * one_hot(y[some], len(middle)) - 1 - middle)
        along += pull.T @ X[some]
        total += pull.sum(axis=0, dtype=np.float64)
    products = (along - np.outer(total, basis.middle)) @ basis.vectors
    for penalty in penalties:
        weights = products / (basis.power + penalty)
        yield basis.back(np.column_stack([weights, middle]))
