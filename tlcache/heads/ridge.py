"""Ridge regression on one-hot targets, in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tlcache.heads.base import LinearHead, Validation
from tlcache.heads.rows import Array, Features, blocks
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
    targets = 2 * np.eye(int(y.max()) + 1, dtype=np.float32)[y] - 1
    middle = np.average(targets, axis=0, weights=share).astype(np.float32)
    pull = share[:, None] * (targets - middle)
    along = sum(pull[some].T @ X[some] for some in blocks(len(X)))
    products = ((along - np.outer(pull.sum(axis=0), basis.middle)) @ basis.vectors).astype(np.float64)
    for penalty in penalties:
        weights = products / (basis.power + penalty)
        yield basis.back(np.column_stack([weights, middle]))
