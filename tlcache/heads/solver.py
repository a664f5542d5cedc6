"""Penalised linear classifiers in the eigenbasis of their features, many penalties at once.

Rotating the centred features to the eigenvectors of their Gram matrix changes neither losses nor penalty, drops
directions that no row has (all but n of them when there are fewer rows than features), and makes the Hessian nearly
diagonal, so that one rescaling of the unknowns saves most of L-BFGS's iterations. Where there are few classes, reading
the features is what an iteration costs; penalties that are solved side by side share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tlcache.heads.large import empty
from tlcache.heads.lbfgs import Doubles, minimise
from tlcache.heads.rows import BLOCK, Array, Features, Labels, blocks

__all__ = ["Basis", "Loss", "softmax_loss", "solve_path", "squared_hinge"]

Loss = Callable[[Array, Labels], tuple[Array, Array]]

_COLUMNS = 64  # of scores in one product: with fewer, the cores wait for memory; with more, warm starts save more
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
    Z: Array, y: Labels, penalties: Sequence[float], loss: Loss, row_weights: Array | None = None
) -> Iterator[Array]:
    """Minimise `C * sum of weighted losses + |weights|^2 / 2` for every C of ascending `penalties`.

    Parameters
    ----------
    Z
        float32 (n, r + 1): features whose columns are nearly orthogonal, and ones in the last column.

    Yields
    ------
    array
        float32 (classes, r + 1) for every C, intercepts last and free of penalty.
    """
    together = max(1, _COLUMNS // (int(y.max()) + 1))
    start = None
    for first in range(0, len(penalties), together):
        found = _solve(Z, y, penalties[first : first + together], loss, row_weights, start)
        start = found[-1]
        yield from found


def _solve(
    Z: Array, y: Labels, penalties: Sequence[float], loss: Loss, row_weights: Array | None, start: Array | None
) -> Array:
    """Return (B, classes, r + 1) weights for B penalties; all start from `start` (classes, r + 1), or from 0."""
    (n, width), classes, C = Z.shape, int(y.max()) + 1, np.array(penalties)
    penalised = np.ones(width, np.float32)
    penalised[-1] = 0
    curvature = (2.0 if loss is squared_hinge else 1.0 / classes) * np.einsum("ij,ij->j", Z, Z)
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
