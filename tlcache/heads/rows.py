"""Rows of features as heads read them: chosen and standardised a block at a time, so that no head has its own copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "Array", "Features", "Indices", "Labels", "Scaler", "View", "blocks", "one_hot"]

Array = NDArray[np.float32]
Indices = NDArray[np.int64]  # numbers of rows
Labels = NDArray[np.int64]  # numbers of classes

BLOCK = 1024  # rows at a time


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Return slices of at most `size` that cover `n` rows."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def one_hot(y: Labels, classes: int) -> Array:
    """Return a row for each label (k,), 1 in its column and 0 elsewhere: float32 (k, classes)."""
    rows = np.zeros((len(y), classes), np.float32)
    rows[np.arange(len(y)), y] = 1
    return rows


@dataclass(frozen=True)
class Scaler:
    """Standardisation: float32 `middle` and `scale` (dim,); constant features become 0.

    `widths` are those of the `View` that it was measured on.
    """

    middle: Array
    scale: Array
    widths: tuple[int, ...] = ()

    @classmethod
    def of(cls, X: Features, scaled: bool = True) -> Scaler:
        """Measure mean and standard deviation of (n, dim) rows; with `scaled` False, change nothing.

        Where embeddings of several backbones are joined, each has the same mean square length then: whoever has the
        most features would drown the others in every distance and penalty.
        """
        n, dim = X.shape
        widths = X.widths if isinstance(X, View) else ()
        if not scaled:
            return cls(np.zeros(dim, np.float32), np.ones(dim, np.float32), widths)
        middle = sum(X[some].sum(axis=0, dtype=np.float64) for some in blocks(n)) / n
        squares = sum(np.square(X[some] - middle).sum(axis=0) for some in blocks(n))
        scale = np.sqrt(squares / n)
        scale[scale < 1e-6 * max(float(scale.max()), 1e-30)] = np.inf
        return cls(middle.astype(np.float32), (scale * _balance(scale, widths)).astype(np.float32), widths)

    def uncentred(self) -> Scaler:
        """Return what divides by the same and takes nothing off."""
        return replace(self, middle=np.zeros_like(self.middle))

    def __call__(self, X: Array) -> Array:
        """Return the standardised rows."""
        scaled: Array = X - self.middle
        scaled /= self.scale
        return scaled

    def over(self, X: Features) -> View:
        """Return the rows as a view that standardises what is read."""
        return replace(X, scaler=self) if isinstance(X, View) else View(X, scaler=self)


def _balance(scale: NDArray[np.float64], widths: tuple[int, ...]) -> NDArray[np.float64] | float:
    """Return what to divide standardised features by (dim,), so that each block has its share of their length."""
    if len(widths) < 2:
        return 1.0
    varying = [max(1, int(np.isfinite(block).sum())) for block in np.split(scale, np.cumsum(widths)[:-1])]
    return np.repeat(np.sqrt(np.array(varying) * len(widths) / sum(varying)), widths)


@dataclass(frozen=True, eq=False)
class View:
    """Some rows of a matrix, standardised: indexing by a slice or by numbers reads them, float32 (k, dim).

    Parameters
    ----------
    features
        float32 (m, dim).
    numbers
        int64 (n,), which of its rows; None: all.
    scaler
        Applied to what is read; None: nothing is.
    widths
        Of the embeddings that are joined in a row; empty where there is one.
    """

    features: Array
    numbers: NDArray[np.int64] | None = None
    scaler: Scaler | None = None
    widths: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows, and of features."""
        return len(self), self.features.shape[1]

    def __len__(self) -> int:
        return len(self.features if self.numbers is None else self.numbers)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Array:
        found: Array = self.features[rows if self.numbers is None else self.numbers[rows]]
        return found if self.scaler is None else self.scaler(found)

    def leading(self, width: int) -> View:
        """Return the rows with their first features alone."""
        scaler = self.scaler and Scaler(self.scaler.middle[:width], self.scaler.scale[:width])
        return View(self.features[:, :width], self.numbers, scaler)

    def of(self, rows: NDArray[np.int64]) -> View:
        """Return some of the rows, by their numbers."""
        return replace(self, numbers=rows if self.numbers is None else self.numbers[rows])


Features = Array | View
