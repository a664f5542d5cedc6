"""A support vector machine with a Gaussian kernel, on Nystroem features so that it stays linear in the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tlcache.heads.landmarks import KernelHead
from tlcache.heads.rows import Features
from tlcache.heads.solver import Basis, solve_path, squared_hinge, squared_tube

__all__ = ["Svm"]

_SMALLEST = 1e-6  # eigenvalues of the landmarks' kernel below this, as equal rows have, are rounding


class Svm(KernelHead):
    """One-against-rest support vector machine, squared hinge loss, Gaussian kernel as of `KernelHead`.

    Of numbers it is support vector regression with the squared epsilon-insensitive loss.

    Parameters
    ----------
    C
        Weight of the loss against the penalty `|coef|^2 / 2`.
    gamma, landmarks, seed
        Of the kernel.
    class_weight
        `balanced`, a weight per label, or None.
    """

    def __init__(
        self, C: float = 10.0, gamma: float = 1.0, landmarks: int = 2000, class_weight: Any = None, seed: int = 0
    ) -> None:
        self.C = C
        self.gamma = gamma
        self.landmarks = landmarks
        self.class_weight = class_weight
        self.seed = seed

    @classmethod
    def _fit_alike(cls, heads: Sequence[Self], X: Features, y: NDArray[Any], landmarks: NDArray[Any]) -> None:
        """Fit the whole path of weights in features whose products are the kernel."""
        ordered, basis = sorted(heads, key=lambda head: head.C), _diagonal(landmarks)
        loss = squared_hinge if y.ndim == 1 else squared_tube
        Z = basis.coordinates(X, ordered[0]._kernel)
        found = solve_path(Z, y, [float(head.C) for head in ordered], loss, ordered[0].row_weights(y))
        for head, weights in zip(ordered, found, strict=True):
            head.coef_, head.intercept_ = basis.back(weights)


def _diagonal(landmarks: NDArray[Any]) -> Basis:
    """Return the map from kernel values to features whose products are the kernel.

    The landmarks' kernel is diagonal in these features, and that of all rows, of which they are a sample, nearly.
    """
    power, vectors = np.linalg.eigh(landmarks)
    first = int(np.searchsorted(power, _SMALLEST, side="right"))
    vectors = np.divide(vectors[:, first:], np.sqrt(power[first:]), dtype=np.float32, casting="same_kind")
    return Basis(landmarks.mean(axis=0).astype(np.float32), vectors, power[first:])
