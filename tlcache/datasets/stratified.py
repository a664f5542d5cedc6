"""Images with several labels dealt out to splits or folds, each of which gets its share of every label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["deal"]


def deal(labels: NDArray[np.uint8], together: Sequence[Sequence[int]], shares: Sequence[float]) -> NDArray[np.int64]:
    """Deal images out by iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011).

    The label with the fewest images left is dealt first, each time to the part that lacks most of it, and of several to
    the part that lacks most images; in the end images without a label.

    Parameters
    ----------
    labels
        (N, L) 0 or 1.
    together
        Numbers of rows that are not to be torn apart, all of them in the order in which they are dealt.
    shares
        (K,) of the parts.

    Returns
    -------
    array
        int64 (N,), the part of each row; -1 for rows that none of `together` has.

    Examples
    --------
    >>> deal(np.array([[1], [1], [0], [0]], np.uint8), [[0], [1], [2], [3]], [0.5, 0.5]).tolist()
    [0, 1, 0, 1]
    """
    units = sorted(together, key=len, reverse=True)
    counts = np.array([labels[list(rows)].sum(axis=0, dtype=np.int64) for rows in units]).reshape(len(units), -1)
    left, open_units = counts.sum(axis=0), np.ones(len(units), bool)
    wanted = np.outer(shares, left)
    wanted_rows = np.array(shares) * sum(map(len, units))
    parts = np.full(len(labels), -1, np.int64)

    def place(unit: int, lacking: NDArray[np.float64]) -> None:
        ranked = np.lexsort((-wanted_rows.round(9), -lacking.round(9)))
        part = int(ranked[0])
        wanted[part] -= counts[unit]
        wanted_rows[part] -= len(units[unit])
        open_units[unit] = False
        left[:] -= counts[unit]
        parts[list(units[unit])] = part

    while left.any():
        label = int(np.where(left > 0, left, left.max() + 1).argmin())
        for unit in np.flatnonzero(open_units & (counts[:, label] > 0)).tolist():
            place(unit, wanted[:, label])
    for unit in np.flatnonzero(open_units).tolist():
        place(unit, wanted_rows)
    return parts
