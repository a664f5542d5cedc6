"""Samples of more than 8 bits -> 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.images.formats import BadImageError
from tlcache.images.notes import BELOW_ZERO, DIVIDED, FEW_LEVELS, WINDOWED

__all__ = ["eight_bits"]

_BITS = (8, 10, 12, 14, 16)
_HALVES = tuple(2 ** (bits - 1) for bits in range(8, 17))  # of signed ranges
_FEW = 16  # grey levels


def eight_bits(values: NDArray[Any], window: tuple[float, float] | None, notes: set[str]) -> NDArray[np.uint8]:
    """Scale samples to 0 to 255 by the rules of this package.

    Parameters
    ----------
    values
        Of any shape and of any number type.
    window
        The values that become 0 and 255; None: by the bits that the samples use.
    notes
        Where to add what a user should know.

    Raises
    ------
    BadImageError
        `damaged`: values that are not finite.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise BadImageError("damaged", "pixels that are not finite numbers")
    black, white = window or _range(values.dtype.kind == "f", low, high, notes)
    scaled = (values.astype(np.float32) - np.float32(black)) * np.float32(255.0 / (white - black))
    eight: NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    if window:
        notes.add(WINDOWED)
    if np.count_nonzero(np.bincount(eight.ravel(), minlength=256)) < _FEW:
        notes.add(FEW_LEVELS)
    return eight


def _range(floating: bool, low: float, high: float, notes: set[str]) -> tuple[float, float]:
    """Return the values that become 0 and 255."""
    if low < 0:
        notes.add(BELOW_ZERO)
        if floating and low >= -1 and high <= 1:
            return -1, 1
        half = next((each for each in _HALVES if low >= -each and high <= each - 1), 0)
        largest = max(-low, high)
        return (-half, half - 1) if half else (-largest, largest)
    if floating and high <= 1:
        notes.add(f"{DIVIDED}1")
        return 0, 1
    full = next((2**bits - 1 for bits in _BITS if high <= 2**bits - 1), high)
    notes.add(f"{DIVIDED}{full:,.0f}" if full < 2**16 else f"{DIVIDED}their own largest value")
    return 0, full
