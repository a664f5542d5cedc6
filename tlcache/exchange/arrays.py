"""Embeddings that lie in a file as they are: rows are read where they are needed, and are float32 and finite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from tlcache.errors import DataError
from tlcache.keys import some

__all__ = ["GivenRows", "flattened"]

_KINDS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class GivenRows:
    """Rows of an array that may be mapped from a file.

    Parameters
    ----------
    values
        (n, dim) of a float type.
    name
        What to call a row in a message.
    """

    values: NDArray[Any]
    name: Callable[[int], str]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows, and of features."""
        return self.values.shape[0], self.values.shape[1]

    def features(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return some rows: float32 (n, dim); raises DataError where a number is not finite."""
        start = int(rows[0]) if len(rows) else 0
        follow = len(rows) and int(rows[-1]) - start == len(rows) - 1 and bool((np.diff(rows) == 1).all())
        found: NDArray[np.float32] = np.asarray(self.values[start : start + len(rows)] if follow else self.values[rows])
        with np.errstate(over="ignore"):  # which is told as not finite
            found = found.astype(np.float32, copy=False)
        if not np.isfinite(found).all():
            bad = rows[~np.isfinite(found).all(axis=1)].tolist()
            raise DataError(
                f"Embeddings have to be finite float32; NaN, infinite and larger ones: {some([*map(self.name, bad)])}. "
                "Make these again, or leave them out."
            )
        return found


def flattened(shape: tuple[int, ...], dtype: np.dtype[Any], path: Path, name: str) -> tuple[int, int]:
    """Return the shape (n, dim) of an array that may have axes of length 1 beside these.

    Raises
    ------
    DataError
        It has others, or no numbers of a float type.
    """

    def refuse(what: str) -> NoReturn:
        raise DataError(f"'{path}': '{name}' has {what}; embeddings are (images, features) of {', '.join(_KINDS)}.")

    if dtype.name not in _KINDS:
        refuse(f"numbers of type {dtype.name}")
    long = [length for length in shape if length != 1]
    if len(shape) == 2:
        rows, dim = shape
    elif len(long) == 2:
        rows, dim = long
    else:
        refuse(f"the shape {tuple(shape)}")
    if not rows or not dim:
        refuse(f"the shape {tuple(shape)}")
    return rows, dim
