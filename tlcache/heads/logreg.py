"""Logistic regression: multinomial, or of every label by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from numpy.typing import NDArray

from tlcache.heads.base import LinearHead, Validation
from tlcache.heads.rows import Features
from tlcache.heads.solver import Basis, logistic_loss, softmax_loss, solve_path

__all__ = ["LogReg"]


class LogReg(LinearHead):
    """Multinomial logistic regression with an L2 penalty, by L-BFGS in the eigenbasis of the features.

    Parameters
    ----------
    C
        Inverse penalty, as in scikit-learn: minimises `C * sum of log-losses + |coef|^2 / 2`.
    class_weight
        `balanced`, a weight per label, or None.
    """

    LEARNS_COLUMNS: ClassVar[bool] = True

    def __init__(self, C: float = 0.01, class_weight: Any = None) -> None:
        self.C = C
        self.class_weight = class_weight

    @classmethod
    def _fit_heads(cls, heads: Sequence[Self], X: Features, y: NDArray[Any], validation: Validation) -> None:
        """Fit the whole path of penalties, of labels by themselves all together, from one eigendecomposition."""
        del validation
        basis, ordered = Basis.of(X), sorted(heads, key=lambda head: head.C)
        Z, penalties = basis.coordinates(X), [float(head.C) for head in ordered]
        loss = softmax_loss if y.ndim == 1 else logistic_loss
        found = solve_path(Z, y, penalties, loss, ordered[0].row_weights(y))
        for head, weights in zip(ordered, found, strict=True):
            head.coef_, head.intercept_ = basis.back(weights)
