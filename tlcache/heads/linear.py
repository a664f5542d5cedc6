"""Convex linear heads: logistic regression, and ridge regression in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcache.heads.base import Array, LinearHead
from tlcache.heads.solver import Basis, minimise, softmax_loss

__all__ = ["LogReg", "Ridge"]


class LogReg(LinearHead):
    """Multinomial logistic regression with an L2 penalty, by L-BFGS in the eigenbasis of the features.

    Parameters
    ----------
    C
        Inverse penalty, as in scikit-learn: minimises `C * sum of log-losses + |coef|^2 / 2`.
    """

    def __init__(self, C: float = 0.01) -> None:
        self.C = C

    @classmethod
    def fit_each(
        cls, settings: Sequence[Mapping[str, Any]], X: Array, y: ArrayLike, X_val: Array, y_val: ArrayLike
    ) -> Iterator[Self]:
        """Fit the whole path of penalties: one eigendecomposition, each fit started from the stronger penalty's."""
        del X_val, y_val
        basis, start = None, None
        for setting in sorted(settings, key=lambda setting: float(setting["C"])):
            head = cls(**setting)
            head.classes_, target = np.unique(y, return_inverse=True)
            head.n_features_in_ = X.shape[1]
            basis = basis or Basis.of(X)
            start = minimise(basis, target, head.C, softmax_loss, start)
            head._set(*basis.back(start))
            yield head

    def _fit(self, X: Array, y: NDArray[np.int64], validation: object = None) -> None:
        del validation
        basis = Basis.of(X)
        self._set(*basis.back(minimise(basis, y, self.C, softmax_loss)))


class Ridge(LinearHead):
    """Ridge regression on one-hot targets of -1 and 1, in closed form.

    One eigendecomposition serves every penalty (Golub, Heath and Wahba, 1979).

    Parameters
    ----------
    alpha
        Penalty, as in scikit-learn: minimises `|X coef - Y|^2 + alpha * |coef|^2`; the intercept is free.
    """

    def __init__(self, alpha: float = 1000.0) -> None:
        self.alpha = alpha

    @classmethod
    def fit_each(
        cls, settings: Sequence[Mapping[str, Any]], X: Array, y: ArrayLike, X_val: Array, y_val: ArrayLike
    ) -> Iterator[Self]:
        """Fit every penalty from one eigendecomposition."""
        del X_val, y_val
        basis = Basis.of(X)
        classes, target = np.unique(y, return_inverse=True)
        for setting in settings:
            head = cls(**setting)
            head.classes_, head.n_features_in_ = classes, X.shape[1]
            head._solve(basis, target)
            yield head

    def _fit(self, X: Array, y: NDArray[np.int64], validation: object = None) -> None:
        del validation
        self._solve(Basis.of(X), y)

    def _solve(self, basis: Basis, y: NDArray[np.int64]) -> None:
        targets = 2 * np.eye(int(y.max()) + 1, dtype=np.float32)[y] - 1
        middle = targets.mean(axis=0)
        weights = (basis.Z.T @ (targets - middle)) / (basis.power + self.alpha)[:, None]
        self._set(*basis.back(np.vstack([weights, middle])))
