"""Ridge regression on one-hot targets, in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

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

    LEARNS_COLUMNS: ClassVar[bool] = True

    def __init__(self, alpha: float = 1000.0, class_weight: Any = None) -> None:
        self.alpha = alpha
        self.class_weight = class_weight

    @classmethod
    def _fit_heads(cls, heads: Sequence[Self], X: Features, y: NDArray[Any], validation: Validation) -> None:
        """Solve for every penalty in one eigenbasis."""
        del validation
        found = least_squares(X, y, [head.alpha for head in heads], heads[0].row_weights(y))
        for head, layer in zip(heads, found, strict=True):
            head.coef_, head.intercept_ = layer


def least_squares(
    X: Features, y: NDArray[Any], penalties: Sequence[float], row_weights: Array | None
) -> Iterator[tuple[Array, Array]]:
    """Yield `coef` (dim, C) and `intercept` (C,) of `Ridge` for every penalty, on labels (n,) or columns (n, C)."""
    basis = Basis.of(X, row_weights)
    share = np.ones(len(y), np.float32) if row_weights is None else row_weights
    middle = _middle(y, share)
    along, total = np.zeros((len(middle), X.shape[1])), np.zeros(len(middle))
    for some in blocks(len(X)):  # of the targets, n x C, there is never more than a block
        pull = share[some, None] * (_targets(y[some], len(middle)) - middle)
        along += pull.T @ X[some]
        total += pull.sum(axis=0, dtype=np.float64)
    products = (along - np.outer(total, basis.middle)) @ basis.vectors
    for penalty in penalties:
        weights = products / (basis.power + penalty)
        yield basis.back(np.column_stack([weights, middle]))


def _middle(y: NDArray[Any], share: Array) -> Array:
    """Return the weighted mean of `_targets`, float32 (C,)."""
    if y.ndim == 1:
        counts = np.bincount(y, share.astype(np.float64))
        middle: Array = (2 * counts / counts.sum() - 1).astype(np.float32)
        return middle
    return np.average(_targets(y, y.shape[1]), axis=0, weights=share).astype(np.float32)


def _targets(y: NDArray[Any], columns: int) -> Array:
    """Return what logits should be, float32 (n, C): -1 or 1 for classes and several labels, else numbers."""
    found: Array = one_hot(y, columns) if y.ndim == 1 else y.astype(np.float32)
    return found if y.dtype.kind == "f" else 2 * found - 1
