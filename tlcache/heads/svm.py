"""A support vector machine with a Gaussian kernel, on Nystroem features so that it stays linear in the rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from tlcache.heads.base import Head, Validation
from tlcache.heads.logits import gaussian, kernel, squared_distances
from tlcache.heads.rows import Array, Features
from tlcache.heads.solver import Basis, solve_path, squared_hinge

__all__ = ["Svm"]

_SMALLEST = 1e-6  # eigenvalues of the landmarks' kernel below this, as equal rows have, are rounding


class Svm(Head):
    """One-against-rest support vector machine, squared hinge loss, Gaussian kernel `exp(-gamma * d^2 / m)`.

    `m` is the median squared distance between training rows. The kernel is exact up to `landmarks` rows and the
    Nystroem approximation from as many random rows above (Williams and Seeger, 2001).

    Parameters
    ----------
    C
        Weight of the loss against the penalty `|coef|^2 / 2`.
    gamma
        Width of the kernel in units of 1 / m.
    class_weight
        `balanced`, a weight per label, or None.
    landmarks, seed
        Most rows that span the kernel's features, and the seed that draws them.
    """

    STATE: ClassVar[tuple[str, ...]] = ("points_", "width_", "coef_", "intercept_")

    def __init__(
        self, C: float = 10.0, gamma: float = 1.0, landmarks: int = 2000, class_weight: Any = None, seed: int = 0
    ) -> None:
        self.C = C
        self.gamma = gamma
        self.landmarks = landmarks
        self.class_weight = class_weight
        self.seed = seed

    @classmethod
    def _fit_heads(cls, heads: Sequence[Self], X: Features, y: NDArray[np.int64], validation: Validation) -> None:
        """Fit every head; those with one kernel share its features."""
        del validation
        ordered = sorted(heads, key=lambda head: (head._kernel_settings(), head.C))
        for _, alike in groupby(ordered, key=cls._kernel_settings):
            cls._fit_alike(list(alike), X, y)

    @classmethod
    def _fit_alike(cls, heads: Sequence[Self], X: Features, y: NDArray[np.int64]) -> None:
        """Fit heads of one kernel, whose features, often more than `X` has, are gone when this returns."""
        first, *others = heads
        basis = first._span(X)
        for head in others:
            head.points_, head.width_ = first.points_, first.width_
        Z = basis.coordinates(X, first._kernel)
        found = solve_path(Z, y, [float(head.C) for head in heads], squared_hinge, first.row_weights(y))
        for head, weights in zip(heads, found, strict=True):
            head.coef_, head.intercept_ = basis.back(weights)

    def _kernel_settings(self) -> tuple[float, int, int]:
        return self.gamma, self.landmarks, self.seed

    def _span(self, X: Features) -> Basis:
        """Choose the landmarks; return the map from kernel values to features whose products are the kernel.

        The landmarks' kernel is diagonal in these features, and that of all rows, of which they are a sample, nearly.
        """
        random = np.random.default_rng(self.seed)
        chosen = np.sort(random.permutation(len(X))[: self.landmarks])
        self.points_ = X[chosen]
        some = random.permutation(len(self.points_))[:500]
        distances = squared_distances(self.points_[some], self.points_[some])
        self.width_ = np.float32(self.gamma / max(float(np.median(distances)), 1e-12))
        points = self.points_.astype(np.float64)  # in float32 the kernel is not definite
        kernel = gaussian(points, points, self.width_)
        middle = kernel.mean(axis=0).astype(np.float32)
        power, vectors = np.linalg.eigh(kernel)
        first = int(np.searchsorted(power, _SMALLEST, side="right"))
        vectors = np.divide(vectors[:, first:], np.sqrt(power[first:]), dtype=np.float32, casting="same_kind")
        return Basis(middle, vectors, power[first:])

    def _kernel(self, X: Array) -> Array:
        return gaussian(X, self.points_, self.width_)

    def _logits(self, X: Array) -> Array:
        return kernel(self, X)
