"""What heads with a Gaussian kernel share: rows that span it, exactly or as Nystroem's sample, and how they answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from tlcache.heads.base import Head, Validation
from tlcache.heads.logits import gaussian, kernel, squared_distances
from tlcache.heads.rows import Array, Features

__all__ = ["KernelHead"]


class KernelHead(Head):
    """A layer on the Gaussian kernel `exp(-gamma * d^2 / m)` of rows and landmarks.

    `m` is the median squared distance between training rows. The kernel is exact up to `landmarks` rows and the
    Nystroem approximation from as many random rows above (Williams and Seeger, 2001). A subclass fits heads of one
    kernel in `_fit_alike`.

    Parameters
    ----------
    gamma
        Width of the kernel in units of 1 / m.
    landmarks, seed
        Most rows that span the kernel's features, and the seed that draws them.
    """

    STATE: ClassVar[tuple[str, ...]] = ("points_", "width_", "coef_", "intercept_")
    LEARNS_COLUMNS: ClassVar[bool] = True

    gamma: float
    landmarks: int
    seed: int

    @classmethod
    def _fit_heads(cls, heads: Sequence[Self], X: Features, y: NDArray[Any], validation: Validation) -> None:
        """Fit every head; those with one kernel share its features, often more than `X` has, which then are gone."""
        del validation
        for _, some in groupby(sorted(heads, key=cls._kernel_settings), key=cls._kernel_settings):
            alike = list(some)
            points = alike[0]._landmarks(X)
            for head in alike:
                head.points_, head.width_ = alike[0].points_, alike[0].width_
            cls._fit_alike(alike, X, y, points)

    @classmethod
    def _fit_alike(cls, heads: Sequence[Self], X: Features, y: NDArray[Any], landmarks: NDArray[Any]) -> None:
        """Fit heads of one kernel, given its values between the landmarks, float64 (m, m)."""
        raise NotImplementedError

    def _kernel_settings(self) -> tuple[float, int, int]:
        return self.gamma, self.landmarks, self.seed

    def _landmarks(self, X: Features) -> NDArray[Any]:
        """Choose landmarks and width; return the kernel between the landmarks, float64 (m, m)."""
        random = np.random.default_rng(self.seed)
        chosen = np.sort(random.permutation(len(X))[: self.landmarks])
        self.points_ = X[chosen]
        some = random.permutation(len(self.points_))[:500]
        distances = squared_distances(self.points_[some], self.points_[some])
        self.width_ = np.float32(self.gamma / max(float(np.median(distances)), 1e-12))
        points = self.points_.astype(np.float64)  # in float32 the kernel is not definite
        return gaussian(points, points, self.width_)

    def _kernel(self, X: Array) -> Array:
        return gaussian(X, self.points_, self.width_)

    def _logits(self, X: Array) -> Array:
        return kernel(self, X)
