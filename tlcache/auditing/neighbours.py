"""Which images are close: embeddings whitened, compared a block at a time, pairs over a threshold kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.datasets.splits import SPLITS
from tlcache.heads.cosines import closest, unit_rows
from tlcache.heads.rows import Indices, Labels, blocks
from tlcache.heads.solver import Basis
from tlcache.progress import step_bar
from tlcache.threads import blas_for

__all__ = ["Array", "Pairs", "Space", "Impostors", "find_pairs", "fit_basis", "fit_space", "nearest_impostors"]

Array = NDArray[np.float32]

_WIDTH = 256  # principal components; measured on flowers and scans: 128 confuse more impostors, 512 lose more copies
_FIT_ROWS = 20_000
_BLOCK = 4096
_MOST_PAIRS = 4_000_000


@dataclass(frozen=True)
class Space:
    """Embeddings -> principal components of equal variance and length 1, so that a dot product is a cosine.

    Raw embeddings of similar images (scans, portraits) all point one way: their cosines lie above 0.95 whatever they
    show. Whitening gives every direction the same weight (Jégou and
    Chum, "Negative evidences and co-occurrences in image retrieval", 2012).

    Parameters
    ----------
    mean
        float32 (dim,).
    scaled
        float32 (dim, k): components over their standard deviations.
    """

    mean: Array
    scaled: Array

    def __call__(self, X: Array) -> Array:
        """Return float32 (n, k) rows of length 1."""
        rows = np.empty((len(X), self.scaled.shape[1]), np.float32)
        for block in blocks(len(X), _BLOCK):
            found = (X[block] - self.mean) @ self.scaled
            rows[block] = unit_rows(found.astype(np.float32, copy=False))
        return rows


def fit_basis(X: Array) -> Basis:
    """Decompose embeddings (n, dim), 20,000 random ones where there are more; the same input, the same basis."""
    n = len(X)
    rows = X[np.sort(np.random.default_rng(0).choice(n, _FIT_ROWS, replace=False))] if n > _FIT_ROWS else X
    with blas_for(rows.size):
        return Basis.of(rows)


def fit_space(X: Array) -> Space:
    """Fit the space to the basis of embeddings (n, dim); the same input, the same space.

    It has at most 256 dimensions, half of the embedding's, and (past 128 images) one for every eight images: with more,
    what little sets two copies of one image apart would be blown up to the size of everything else.
    """
    n, dim = X.shape
    width = max(1, min(_WIDTH, dim // 2, n // 2, max(16, n // 8)))
    basis, largest = fit_basis(X), slice(None, -width - 1, -1)
    deviations = np.sqrt(basis.power[largest] / max(1, min(n, _FIT_ROWS) - 1))
    return Space(basis.middle, (basis.vectors[:, largest] / deviations).astype(np.float32))


@dataclass(frozen=True)
class Pairs:
    """Rows that are closer than the threshold.

    Parameters
    ----------
    first, second
        int64 (p,), numbers of rows, `first` < `second`; the closest pair first.
    cosine
        float32 (p,).
    nearest
        float32 (n,): cosine of every row with the one closest to it.
    count
        How many pairs there are. Past four million, only the strongest links that hold the groups together are kept.
    close
        bool (n, splits): whether a row is in a pair with a row of each of `tlcache.datasets.splits.SPLITS`.
    """

    first: Indices
    second: Indices
    cosine: Array
    nearest: Array
    count: int
    close: NDArray[np.bool_]

    @property
    def whole(self) -> bool:
        """Whether all pairs are here."""
        return self.count == len(self.first)

    def only(self, some: NDArray[np.bool_], splits: NDArray[np.uint8]) -> Pairs:
        """Return some of them: bool (p,)."""
        first, second = self.first[some], self.second[some]
        close = np.zeros_like(self.close)
        close[first, splits[second]] = close[second, splits[first]] = True
        return Pairs(first, second, self.cosine[some], self.nearest, len(first), close)


def find_pairs(rows: Array, threshold: float, splits: NDArray[np.uint8]) -> Pairs:
    """Return all pairs of rows (n, k), each of length 1, whose cosine is above `threshold`.

    Exact: every pair is looked at, in blocks, each once. Memory is that of the rows and one block of 4,096 x 4,096.

    Parameters
    ----------
    rows
        float32 (n, k).
    threshold
        Cosine.
    splits
        (n,) indices into `SPLITS`.
    """
    n, count = len(rows), 0
    nearest, close = np.full(n, -1, np.float32), np.zeros((n, len(SPLITS)), bool)
    kept: list[tuple[Indices, Indices, Array]] = []
    parts = list(blocks(n, _BLOCK))
    with step_bar("comparing images", len(parts) * (len(parts) + 1) // 2) as advance:
        for number, a in enumerate(parts):
            for b in parts[number:]:
                first, second, cosine = _compare(rows, a, b, threshold, nearest)
                count += len(first)
                close[first, splits[second]] = close[second, splits[first]] = True
                kept.append((first, second, cosine))
                if sum(len(part[0]) for part in kept) > _MOST_PAIRS:
                    kept = [_forest(n, *_joined(kept))]
                advance(1)
    first, second, cosine = _joined(kept)
    order = np.lexsort((second, first, -cosine))
    return Pairs(first[order], second[order], cosine[order], nearest, count, close)


class Impostors(NamedTuple):
    """Rows, the closest row of another label to each, and their cosine (-1 where there is none): (m,) each.

    Biometrics call so what passes for somebody and is not.
    """

    rows: Indices
    nearest: Indices
    cosines: Array

    def only(self, some: NDArray[np.bool_]) -> Impostors:
        """Return some of them: bool (m,)."""
        return Impostors(self.rows[some], self.nearest[some], self.cosines[some])


def nearest_impostors(rows: Array, labels: Labels, most: int = 2000) -> Impostors:
    """Return, for at most so many random rows of (n, k), the closest row of another label."""
    n = len(rows)
    some = np.sort(np.random.default_rng(0).choice(n, min(n, most), replace=False))
    cosines, nearest = closest(rows[some], rows, unlike=(labels[some], labels))
    return Impostors(some, nearest[:, 0], cosines[:, 0])


def _compare(rows: Array, a: slice, b: slice, threshold: float, nearest: Array) -> tuple[Indices, Indices, Array]:
    cosines = rows[a] @ rows[b].T
    if a == b:
        np.fill_diagonal(cosines, -1)
    by_row = cosines.max(axis=1, initial=-1)
    nearest[a] = np.maximum(nearest[a], by_row)
    nearest[b] = np.maximum(nearest[b], cosines.max(axis=0, initial=-1))
    some = np.flatnonzero(by_row > threshold)
    row, column = np.nonzero(cosines[some] > threshold)
    row = some[row]
    if a == b:
        row, column = row[column > row], column[column > row]
    return row + a.start, column + b.start, cosines[row, column]


def _joined(parts: list[tuple[Indices, Indices, Array]]) -> tuple[Indices, Indices, Array]:
    first, second, cosine = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return first, second, cosine


def _forest(n: int, first: Indices, second: Indices, cosine: Array) -> tuple[Indices, Indices, Array]:
    """Return the links of a maximum spanning forest: the same groups from fewer pairs."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    tree = minimum_spanning_tree(coo_matrix((2 - cosine.astype(np.float64), (first, second)), (n, n))).tocoo()
    row, column = tree.row.astype(np.int64), tree.col.astype(np.int64)
    return np.minimum(row, column), np.maximum(row, column), (2 - tree.data).astype(np.float32)
