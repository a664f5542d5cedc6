"""A support vector machine with a Gaussian kernel, on Nystroem features so that it stays linear in the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcache.heads.base import Array, Head
from tlcache.heads.solver import Basis, minimise, squared_hinge

__all__ = ["Svm"]


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
    landmarks, seed
        Most rows that span the kernel's features, and the seed that draws them.
    """

    STATE: ClassVar[tuple[str, ...]] = ("points_", "map_", "width_", "coef_", "intercept_")

    def __init__(self, C: float = 10.0, gamma: float = 1.0, landmarks: int = 2000, seed: int = 0) -> None:
        self.C = C
        self.gamma = gamma
        self.landmarks = landmarks
        self.seed = seed

    @classmethod
    def fit_each(
        cls, settings: Sequence[Mapping[str, Any]], X: Array, y: ArrayLike, X_val: Array, y_val: ArrayLike
    ) -> Iterator[Self]:
        """Fit every setting; those with one `gamma` share its features and their eigendecomposition."""
        del X_val, y_val
        classes, target = np.unique(y, return_inverse=True)
        ordered = sorted(settings, key=lambda setting: (float(setting["gamma"]), float(setting["C"])))
        for _, group in groupby(ordered, key=lambda setting: setting["gamma"]):
            heads = [cls(**setting) for setting in group]
            heads[0]._span(X)
            basis, start = Basis.of(heads[0]._features(X)), None
            for head in heads:
                head.classes_, head.n_features_in_ = classes, X.shape[1]
                head.points_, head.map_, head.width_ = heads[0].points_, heads[0].map_, heads[0].width_
                start = minimise(basis, target, head.C, squared_hinge, start)
                head.coef_, head.intercept_ = (part.astype(np.float32) for part in basis.back(start))
                yield head

    def _fit(self, X: Array, y: NDArray[np.int64], validation: object = None) -> None:
        del validation
        self._span(X)
        basis = Basis.of(self._features(X))
        weights = basis.back(minimise(basis, y, self.C, squared_hinge))
        self.coef_, self.intercept_ = (part.astype(np.float32) for part in weights)

    def _span(self, X: Array) -> None:
        """Choose the landmarks and the map from kernel values to features whose products are the kernel."""
        random = np.random.default_rng(self.seed)
        chosen = np.sort(random.permutation(len(X))[: self.landmarks])
        self.points_ = X[chosen]
        some = random.permutation(len(self.points_))[:500]
        distances = _squared_distances(self.points_[some], self.points_[some])
        self.width_ = np.float32(self.gamma / max(float(np.median(distances)), 1e-12))
        power, vectors = np.linalg.eigh(self._kernel(self.points_).astype(np.float64))
        kept = power > 1e-6 * power[-1]
        self.map_ = (vectors[:, kept] / np.sqrt(power[kept])).astype(np.float32)

    def _kernel(self, X: Array) -> Array:
        kernel: Array = np.exp(-self.width_ * _squared_distances(X, self.points_))
        return kernel

    def _features(self, X: Array) -> Array:
        features: Array = self._kernel(X) @ self.map_
        return features

    def _logits(self, X: Array) -> Array:
        logits: Array = self._features(X) @ self.coef_ + self.intercept_
        return logits

    def _width(self) -> int:
        return int(self.points_.shape[1])


def _squared_distances(A: Array, B: Array) -> Array:
    distances = (A * A).sum(axis=1)[:, None] + (B * B).sum(axis=1) - 2 * A @ B.T
    nearest: Array = np.maximum(distances, 0, out=distances)
    return nearest
