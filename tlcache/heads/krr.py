"""Kernel ridge regression with a Gaussian kernel, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from tlcache.heads.landmarks import KernelHead
from tlcache.heads.ridge import least_squares
from tlcache.heads.rows import Features, blocks

__all__ = ["Krr"]

_JITTER = 1e-6  # of the landmarks' kernel, which of equal rows is singular


class Krr(KernelHead):
    """Kernel ridge regression on one-hot targets of -1 and 1, Gaussian kernel as of `KernelHead`.

    Rows are taken to features whose products are the kernel, by the Cholesky factor of the landmarks' kernel; there it
    is `Ridge`, whose one eigendecomposition serves every penalty (Saunders, Gammerman and Vovk, 1998).

    Parameters
    ----------
    alpha
        Penalty on the squared norm of each class's function in the kernel's space; the intercept is free.
    gamma, landmarks, seed
        Of the kernel.
    class_weight
        `balanced`, a weight per label, or None.
    """

    def __init__(
        self, alpha: float = 0.1, gamma: float = 1.0, landmarks: int = 2000, class_weight: Any = None, seed: int = 0
    ) -> None:
        self.alpha = alpha
        self.gamma = gamma
        self.landmarks = landmarks
        self.class_weight = class_weight
        self.seed = seed

    @classmethod
    def _fit_alike(cls, heads: Sequence[Self], X: Features, y: NDArray[Any], landmarks: NDArray[Any]) -> None:
        """Solve for every penalty in the features of one kernel."""
        landmarks.flat[:: len(landmarks) + 1] += _JITTER
        factor = np.linalg.cholesky(landmarks)
        Z = np.empty((len(X), len(factor)), np.float32)
        for some in blocks(len(X)):
            Z[some] = solve_triangular(factor, heads[0]._kernel(X[some]).T, lower=True).T
        found = least_squares(Z, y, [head.alpha for head in heads], heads[0].row_weights(y))
        for head, (coef, intercept) in zip(heads, found, strict=True):
            head.intercept_ = intercept
            head.coef_ = solve_triangular(factor, coef, trans=1, lower=True).astype(np.float32)
