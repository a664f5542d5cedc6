"""Penalised linear classifiers in the eigenbasis of their features, many penalties at once.

Rotating the centred features to the eigenvectors of their Gram matrix changes neither losses nor penalty, drops
directions that no row has (all but n of them when there are fewer rows than features), and makes the Hessian nearly
diagonal, so that one rescaling of the unknowns saves most of L-BFGS's iterations. Where there are few classes, reading
the features is what an iteration costs; penalties that are solved side by side share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tlcache.heads.large import empty
from tlcache.heads.lbfgs import Doubles, minimise
from tlcache.heads.rows import BLOCK, Array, Features, Labels, blocks

__all__ = ["Basis", "Loss", "logistic_loss", "softmax_loss", "solve_path", "squared_hinge", "squared_tube"]

Loss = Callable[[Array, Any], tuple[Array, Array]]

_COLUMNS = 64  # of scores in one product: with fewer, the cores wait for memory; with more, warm starts save more
_TUBE = np.float32(0.1)  # of numbers whose standard deviation is 1
_SMALLEST = 1e-8  # eigenvalues below this share of the largest are rounding


@dataclass(frozen=True)
class Basis:
    """Directions along which features are taken once they are centred; `of` finds the eigenvectors.

    Parameters
    ----------
    middle
        float32 (dim,): what is subtracted from the rows.
    vectors
        float32 (dim, r).
    power
        float64 (r,): eigenvalues, the sum of squares of the centred rows along each direction.
    """

    middle: Array
    vectors: Array
    power: Doubles

    @classmethod
    def of(cls, X: Features, row_weights: Array | None = None) -> Self:
        """Decompose float32 (n, dim) rows through the smaller of the two Gram matrices.

        With `row_weights`, the mean is weighted, and centred rows are scaled by the weights' roots.
        """
        n, dim = X.shape
        share = np.ones(n, np.float32) if row_weights is None else row_weights
        parts, roots = list(blocks(n, BLOCK if dim <= n else n)), np.sqrt(share)[:, None]
        middle = sum(share[some].astype(np.float64) @ X[some] for some in parts) / share.sum(dtype=np.float64)
        middle = middle.astype(np.float32)
        gram = np.zeros((min(n, dim),) * 2)
        for some in parts:
            rows = (X[some] - middle) * roots[some]
            gram += rows.T @ rows if dim <= n else rows @ rows.T
        power, vectors = np.linalg.eigh(gram)
        kept = power > max(_SMALLEST * float(power[-1]), np.finfo(np.float64).tiny)
        power, vectors = power[kept], vectors[:, kept]
        if dim > n:
            vectors = rows.T @ (vectors / np.sqrt(power)).astype(np.float32)
        return cls(middle, vectors.astype(np.float32), power)

    def coordinates(self, X: Features, features: Callable[[Array], Array] | None = None) -> Array:
        """Return where rows lie, float32 (n, r + 1), with a column of ones for the intercept.

        `features` makes (k, dim) features of k rows of `X`; without it, rows are features.
        """
        Z = empty((len(X), self.vectors.shape[1] + 1))
        for some in blocks(len(X)):
            rows = X[some] if features is None else features(X[some])
            Z[some, :-1] = (rows - self.middle) @ self.vectors
            Z[some, -1] = 1
        return Z

    def back(self, weights: NDArray[np.floating]) -> tuple[Array, Array]:
        """Turn (C, r + 1) weights in this basis, intercepts last, into float32 `coef` (dim, C) and `intercept` (C,)."""
        coef = self.vectors.astype(np.float64) @ weights[:, :-1].T.astype(np.float64)
        intercept = weights[:, -1] - self.middle.astype(np.float64) @ coef
        return coef.astype(np.float32), intercept.astype(np.float32)


def solve_path(
    Z: Array, y: NDArray[Any], penalties: Sequence[float], loss: Loss, row_weights: Array | None = None
) -> Iterator[Array]:
    """Minimise `C * sum of weighted losses + |weights|^2 / 2` for every C of ascending `penalties`.

    Parameters
    ----------
    Z
        float32 (n, r + 1): features whose columns are nearly orthogonal, and ones in the last column.
    y
        Labels (n,), or what each of C columns is to be (n, C), as the loss takes it.

    Yields
    ------
    array
        float32 (classes, r + 1) for every C, intercepts last and free of penalty.
    """
    together = max(1, _COLUMNS // _columns(y))
    start = None
    for first in range(0, len(penalties), together):
        found = _solve(Z, y, penalties[first : first + together], loss, row_weights, start)
        start = found[-1]
        yield from found


def _columns(y: NDArray[Any]) -> int:
    return int(y.max()) + 1 if y.ndim == 1 else y.shape[1]


def _solve(
    Z: Array, y: NDArray[Any], penalties: Sequence[float], loss: Loss, row_weights: Array | None, start: Array | None
) -> Array:
    """Return (B, classes, r + 1) weights for B penalties; all start from `start` (classes, r + 1), or from 0."""
    (n, width), classes, C = Z.shape, _columns(y), np.array(penalties)
    penalised = np.ones(width, np.float32)
    penalised[-1] = 0
    curvature = _CURVATURES.get(loss, 1.0 / classes) * np.einsum("ij,ij->j", Z, Z)
    scale = np.sqrt(C[:, None] * curvature + penalised).astype(np.float32)[:, None]

    def objective(flat: Array, some: Labels) -> tuple[Doubles, Array]:
        weights = flat.reshape(len(flat), classes, width) / scale[some]
        matrix, pull, total = weights.reshape(-1, width), penalised * weights, np.zeros(len(flat))
        slope = np.zeros_like(matrix)
        for rows in blocks(n):  # that are still in the processor's cache when their slopes are summed
            scores = np.ascontiguousarray((Z[rows] @ matrix.T).T).reshape(len(flat), classes, -1)
            losses, slopes = loss(scores, y[rows])
            if row_weights is not None:
                losses, slopes = losses * row_weights[rows], slopes * row_weights[rows]
            total += losses.sum(axis=1, dtype=np.float64)
            slope += slopes.reshape(len(matrix), -1) @ Z[rows]
        slope = (C[some, None, None].astype(np.float32) * slope.reshape(weights.shape) + pull) / scale[some]
        return C[some] * total + (pull * weights).sum(axis=(1, 2), dtype=np.float64) / 2, slope.reshape(flat.shape)

    first = np.zeros((len(C), classes, width), np.float32) if start is None else start * scale
    found: Array = minimise(objective, first.reshape(len(C), -1)).reshape(first.shape) / scale
    return found


def softmax_loss(scores: Array, y: Labels) -> tuple[Array, Array]:
    """Return the log-losses (B, n) of the softmax of `scores` (B, C, n) for labels (n,), and their slopes (B, C, n).

    The slopes are written over the scores, here and in `squared_hinge`.
    """
    row = np.arange(len(y))
    scores -= scores.max(axis=1, keepdims=True)
    hit = scores[:, y, row]
    total = np.exp(scores, out=scores).sum(axis=1)
    scores /= total[:, None]
    scores[:, y, row] -= 1
    return np.log(total) - hit, scores


def squared_hinge(scores: Array, y: Labels) -> tuple[Array, Array]:
    """Return the squared hinge losses (B, n) of one-against-rest `scores` (B, C, n), and their slopes (B, C, n)."""
    row = np.arange(len(y))
    scores[:, y, row] *= -1
    scores += 1
    np.maximum(scores, 0, out=scores)
    losses = np.einsum("bcn,bcn->bn", scores, scores)
    scores *= 2
    scores[:, y, row] *= -1
    return losses, scores


def logistic_loss(scores: Array, y: NDArray[np.uint8]) -> tuple[Array, Array]:
    """Return the log-losses (B, n) of independent labels, summed over the labels, and their slopes (B, C, n).

    `scores` are (B, C, n), and `y` (n, C) is 1 where a row has a label.
    """
    has = np.ascontiguousarray(y.T, np.float32)
    small = np.exp(-np.abs(scores))
    losses: Array = (np.maximum(scores, 0) + np.log(1 + small) - has * scores).sum(axis=1)
    return losses, np.where(scores < 0, small, np.float32(1)) / (1 + small) - has


def squared_tube(scores: Array, y: Array) -> tuple[Array, Array]:
    """Return the squares (B, n) of how far scores (B, C, n) are outside a tube about numbers (n, C), and their slopes.

    That is the squared epsilon-insensitive loss of support vector regression, with an epsilon of 0.1.
    """
    apart = scores - np.ascontiguousarray(y.T)
    outside = np.sign(apart) * np.maximum(np.abs(apart) - _TUBE, 0)
    return np.einsum("bcn,bcn->bn", outside, outside), 2 * outside


_CURVATURES: dict[Loss, float] = {squared_hinge: 2.0, squared_tube: 2.0, logistic_loss: 0.25}
