"""PyTorch's antialiased resizing of uint8 as products of matrices: the same pixels to the bit, without torch.

Torch's sums are of whole numbers: levels times weights that are rounded to 16 bits. Floats hold such sums exactly, in
whatever order they are added, so that BLAS may add them. Source: `_compute_index_ranges_int16_weights` of PyTorch's
UpSampleKernel.cpp, after Pillow's Resample.c.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Along", "along"]

Floats = NDArray[np.floating[Any]]

_BAND = 16  # wanted pixels whose weights are one matrix
_AT_ONCE = 1 << 18  # multiplications in one product, which OpenBLAS leaves to the thread that asks for it
_MOST_BITS = 22
_LEVELS = 255


def _triangle(x: Floats) -> Floats:
    return np.maximum(0, 1 - x)


def _cubic(x: Floats) -> Floats:
    inner, outer = ((1.5 * x) - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))


_FILTERS: dict[str, tuple[Callable[[Floats], Floats], int]] = {"bilinear": (_triangle, 1), "bicubic": (_cubic, 2)}


class Along(NamedTuple):
    """Resizing in one direction.

    Parameters
    ----------
    seen
        The pixels that decide the wanted ones.
    bands
        Which of those decide which of the wanted ones, and the weights (seen, wanted) of that, whole numbers.
    bits
        How often weights are to be halved.
    """

    seen: slice
    bands: tuple[tuple[slice, slice, Floats], ...]
    bits: int

    @property
    def dtype(self) -> np.dtype[np.floating[Any]]:
        """The floats that hold all sums exactly."""
        return self.bands[0][2].dtype

    def __call__(self, levels: Floats) -> Floats:
        """Return (n, m, wanted) of levels (n, m, seen), as floats that are levels."""
        levels = levels.astype(self.dtype, copy=False)
        sums = np.empty((*levels.shape[:2], self.bands[-1][1].stop), self.dtype)
        rows = max(1, _AT_ONCE // max(weights.size for *_, weights in self.bands))
        for start in range(0, levels.shape[1], rows):
            some = slice(start, start + rows)
            for seen, wanted, weights in self.bands:
                np.matmul(levels[:, some, seen], weights, out=sums[:, some, wanted])
        sums += 2.0 ** (self.bits - 1)
        sums *= 2.0**-self.bits
        np.floor(sums, out=sums)
        return np.clip(sums, 0, _LEVELS, out=sums)


@lru_cache(64)
def along(length: int, factor: float, start: int, end: int, interpolation: str) -> Along:
    """Return what makes the pixels from `start` to `end` of `length` pixels that are resized by `factor`."""
    first, weights, bits = _weights(length, factor, interpolation)
    most = weights.clip(0).sum(1).max() * _LEVELS + 2.0**bits / 2
    weights = weights.astype(np.float32 if most < 1 << 24 else np.float64)
    last = first + weights.shape[1]
    begin = int(first[start])
    bands = []
    for at in range(start, end, _BAND):
        to = min(at + _BAND, end)
        low, high = int(first[at]), int(last[to - 1])
        band = np.zeros((high - low, to - at), weights.dtype)
        rows = first[at:to, None] - low + np.arange(weights.shape[1])
        band[rows, np.arange(to - at)[:, None]] = weights[at:to]
        high = min(high, length)
        bands.append((slice(low - begin, high - begin), slice(at - start, to - start), band[: high - low]))
    return Along(slice(begin, begin + bands[-1][0].stop), tuple(bands), bits)


def _weights(length: int, factor: float, interpolation: str) -> tuple[NDArray[np.int64], Floats, int]:
    """Return of every pixel the first that it is made of, the whole weights of that and those after, and their bits."""
    count, scale = int(length * factor), 1 / factor
    if count == length:
        return np.arange(length), np.ones((length, 1)), 0  # as torch has it
    shape, reach = _FILTERS[interpolation]
    stretch = max(scale, 1.0)
    support = reach * stretch
    centre = scale * (np.arange(count) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), length)
    place = first[:, None] + np.arange(2 * ceil(support) + 1)
    weights = shape(np.abs((place - centre[:, None] + 0.5) * (1 / stretch)))
    weights[place >= last[:, None]] = 0
    weights /= np.add.accumulate(weights, 1)[:, -1:]  # one after the other, as torch adds them
    largest = float(weights.max())
    bits = next((bits for bits in range(_MOST_BITS) if int(0.5 + largest * (2 << bits)) >= 1 << 15), _MOST_BITS)
    weights *= 1 << bits
    return first, np.trunc(weights + np.copysign(0.5, weights)), bits
