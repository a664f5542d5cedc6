"""Logistic regression: multinomial, or of every label by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tlcache.heads.base import Columns, ColumnValidation, LinearHead, Validation
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

    def __init__(self, C: float = 0.01, class_weight: Any = None) -> None:
        self.C = C
        self.class_weight = class_weight

    @classmethod
    def _fit_heads(cls, heads: Sequence[Self], X: Features, y: NDArray[np.int64], validation: Validation) -> None:
        """Fit the whole path of penalties from one eigendecomposition."""
        del validation
        basis, ordered = Basis.of(X), sorted(heads, key=lambda head: head.C)
        Z, penalties = basis.coordinates(X), [float(head.C) for head in ordered]
        found = solve_path(Z, y, penalties, softmax_loss, ordered[0].row_weights(y))
        for head, weights in zip(ordered, found, strict=True):
            head.coef_, head.intercept_ = basis.back(weights)

    @classmethod
    def _fit_columns(cls, heads: Sequence[Self], X: Features, Y: Columns, validation: ColumnValidation) -> None:
        """Fit the whole path of penalties of all labels together, from one eigendecomposition."""
        del validation
        basis, ordered = Basis.of(X), sorted(heads, key=lambda head: head.C)
        found = solve_path(basis.coordinates(X), Y, [float(head.C) for head in ordered], logistic_loss)
        for head, weights in zip(ordered, found, strict=True):
            head.coef_, head.intercept_ = basis.back(weights)
