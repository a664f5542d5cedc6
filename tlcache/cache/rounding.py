"""The numbers of embeddings as they are kept: float32, as networks give them, or float16, which take half the room."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.errors import OptionError

__all__ = ["rounded"]

_LOST = 0.01  # of the largest number, and it is not there any more: too large, or all of them too small


def rounded(rows: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return embeddings (n, dim) as numbers of another type; what has been rounded stays as it is.

    Raises
    ------
    OptionError
        That type has no such numbers.
    """
    if rows.dtype == dtype:
        return rows
    with np.errstate(over="ignore"):  # it becomes infinite, which is noticed
        found: NDArray[Any] = rows.astype(dtype)
    largest = np.abs(rows).max(initial=0)
    if np.abs(found - rows).max(initial=0) > _LOST * largest:
        kind = np.finfo(dtype)
        raise OptionError(
            f"--dtype {dtype} holds numbers of {kind.smallest_normal:.2g} to {kind.max:,.0f}, and there are embeddings "
            f"whose largest is {largest:.3g}. Leave --dtype out: float32 holds them."
        )
    return found
