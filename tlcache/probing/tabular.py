"""Columns of a table as heads take them: one-hot and standardised, or as trees take them, by their own numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tlcache.cache.columns import Values
from tlcache.heads.rows import Array, Scaler, View
from tlcache.heads.table import HeadRow

__all__ = ["Columns", "Prepared", "rows_of"]

Columns = Mapping[str, Values]  # each (n,)
_MOST = 200  # categories of a column; the others are one
_LEAST = 2  # rows of a category; one says nothing of another row
_FEW = 10  # values of a column of numbers that may be names


def rows_of(columns: Columns, rows: NDArray[np.int64]) -> Columns:
    """Return some rows, by their numbers."""
    return {name: values[rows] for name, values in columns.items()}


@dataclass(frozen=True)
class Prepared:
    """What a head is given of rows: their embeddings, which may have no features, and their columns.

    Parameters
    ----------
    row
        The head, as it is to be fitted.
    params
        Parameters of it that say which of the features are columns.
    """

    row: HeadRow
    params: Mapping[str, Any]
    _scaler: Scaler | None
    _columns: Mapping[str, _Category | _Number]

    @classmethod
    def of(cls, row: HeadRow, features: Array, columns: Columns) -> Self:
        """Measure embeddings (n, dim) and columns (n,) of the rows that a head is fitted on, and of no others."""
        known = {name: _measured(values) for name, values in columns.items()}
        if not row.takes_columns:
            return cls(row, {}, None, known)
        names = sorted(known, key=lambda name: isinstance(known[name], _Number))  # categories first
        known = {name: known[name] for name in names}
        categories = sum(isinstance(each, _Category) for each in known.values())
        params = {"columns": 2 * len(known) - categories, "categories": categories}
        return cls(replace(row, scaled=False), params, Scaler.of(features) if features.shape[1] else None, known)

    def __call__(self, features: Array, columns: Columns) -> View:
        """Return rows as the head takes them."""
        dim = features.shape[1]
        if self.params:
            found = [each.code(columns[name]) for name, each in self._columns.items()]
            return View(np.hstack([features if self._scaler is None else self._scaler(features), *found]))
        told = np.hstack([each.flags(columns[name]) for name, each in self._columns.items()])
        return View(np.hstack([features, told]), widths=(dim, told.shape[1]) if dim else ())


@dataclass(frozen=True)
class _Category:
    """The categories of a column, sorted; whatever else there is, is one more."""

    names: Values

    @classmethod
    def of(cls, values: Values) -> Self:
        names: Any
        names, counts = np.unique(values, return_counts=True)
        ranked = np.argsort(-counts, kind="stable")[:_MOST]
        return cls(np.sort(names[ranked[counts[ranked] >= _LEAST]]))

    def numbers(self, values: Values) -> NDArray[np.int64]:
        if not len(self.names):
            return np.zeros(len(values), np.int64)
        place = np.minimum(np.searchsorted(self.names, values), len(self.names) - 1)
        return np.where(self.names[place] == values, place, len(self.names))

    def code(self, values: Values) -> Array:
        return self.numbers(values).astype(np.float32)[:, None]

    def flags(self, values: Values) -> Array:
        return np.eye(len(self.names) + 1, dtype=np.float32)[self.numbers(values)]


@dataclass(frozen=True)
class _Number:
    """Mean and standard deviation of a column, what is unknown left out; and its values, where they are few."""

    middle: float
    scale: float
    names: _Category | None

    @classmethod
    def of(cls, values: Values) -> Self:
        known = values[~np.isnan(values)]
        if not len(known):
            return cls(0.0, 1.0, None)
        few = len(np.unique(known)) <= _FEW
        return cls(float(known.mean()), float(known.std()) or 1.0, _Category.of(values) if few else None)

    def code(self, values: Any) -> Array:
        unknown = np.isnan(values)
        standard = np.where(unknown, 0.0, (values - self.middle) / self.scale)
        return np.stack([np.clip(standard, -1e6, 1e6), unknown], axis=1).astype(np.float32)

    def flags(self, values: Values) -> Array:
        own = self.code(values)
        return own if self.names is None else np.hstack([own, self.names.flags(values)])


def _measured(values: Values) -> _Category | _Number:
    return _Category.of(values) if values.dtype.kind == "S" else _Number.of(values)
