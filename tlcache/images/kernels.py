"""Resizing: PyTorch's antialiased kernel for uint8, by which embeddings are made, and the same without torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlcache.images.products import along

__all__ = ["Kernel", "Placed", "by_numpy", "by_torch", "by_whole", "kernel_for"]

_MANY = 2000  # images, 0.7 ms less each, are worth loading torch, which takes 1 to 2 s


class Placed(NamedTuple):
    """What is wanted of an image: the part from `start` to `end` of all of it at `size`, as (rows, columns)."""

    size: tuple[int, int]
    start: tuple[int, int]
    end: tuple[int, int]
    interpolation: str


Kernel = Callable[[NDArray[np.uint8], Placed, NDArray[np.uint8]], None]
"""Puts what is wanted of uint8 (H, W, 3 or 4) into uint8 (3, rows, columns); a fourth channel means nothing."""


def kernel_for(images: int) -> Kernel:
    """Return what is done with so many images soonest; their pixels are the same."""
    return by_torch if images > _MANY or "torch" in sys.modules else by_numpy


def by_torch(pixels: NDArray[np.uint8], placed: Placed, out: NDArray[np.uint8]) -> None:
    """Resize as torchvision's presets do.

    What lies right of and below the part that is wanted, and does
    not reach into it, is not resized.
    """
    import torch
    from torch.nn.functional import interpolate

    pixels = np.require(pixels, requirements="W")  # slices of NumPy's keep Python's lock, those of torch do not
    if placed.size == pixels.shape[:2]:
        planes = pixels.transpose(2, 0, 1)
    else:
        part, factors = _needed(pixels, placed)
        batch = torch.from_numpy(part.reshape(1, *part.shape).transpose(0, 3, 1, 2))  # torch takes it as channels_last
        resized = interpolate(batch, scale_factor=tuple(factors), mode=placed.interpolation, antialias=True)
        planes = resized.numpy()[0]
    (top, left), (bottom, right) = placed.start, placed.end
    torch.from_numpy(out).copy_(torch.from_numpy(planes[:3, top:bottom, left:right]))


def by_numpy(pixels: NDArray[np.uint8], placed: Placed, out: NDArray[np.uint8]) -> None:
    """Resize as `by_torch` does, to the bit, without loading torch; it takes about twice as long."""
    part, factors = _needed(pixels, placed)
    directions = zip(part.shape, factors, placed.start, placed.end, strict=False)
    down, across = (along(*direction, placed.interpolation) for direction in directions)
    planes = np.array(part[down.seen, across.seen, :3].transpose(2, 0, 1), across.dtype, order="C")
    out[:] = down(across(planes).swapaxes(1, 2)).swapaxes(1, 2)


def by_whole(pixels: NDArray[np.uint8], placed: Placed, out: NDArray[np.uint8]) -> None:
    """Resize as timm does, by Pillow and all at once, which does rows or columns first as suits the shape.

    Where both shrink alike, as in all but stretched images and those within borders, that makes no difference.
    """
    (top, left), (bottom, right) = placed.start, placed.end
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, :3]))
    resized = image.resize(placed.size[::-1], Image.Resampling[placed.interpolation.upper()])
    out[:] = np.asarray(resized)[top:bottom, left:right].transpose(2, 0, 1)


def _needed(pixels: NDArray[np.uint8], placed: Placed) -> tuple[NDArray[np.uint8], list[float]]:
    """Return the part that decides what is wanted, from the first pixel on, and what rows and columns multiply by."""
    # Lengths are multiplied by these and rounded down.
    factors = [(wanted + 1e-9) / length for wanted, length in zip(placed.size, pixels.shape, strict=False)]
    rows, columns = (_reach(end, factor) for end, factor in zip(placed.end, factors, strict=True))
    return pixels[:rows, :columns], factors


def _reach(length: int, factor: float) -> int:
    """Return how many pixels the first `length` of an image resized by `factor` are made of, two more at most."""
    return ceil(length / factor + 2 * max(1, 1 / factor))
