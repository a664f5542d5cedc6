"""Resizing: PyTorch's antialiased kernel for uint8, by which embeddings are made, and Pillow's without torch."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Kernel", "Placed", "by_pillow", "by_torch", "by_whole"]


class Placed(NamedTuple):
    """What is wanted of an image: the part from `start` to `end` of all of it at `size`, as (rows, columns)."""

    size: tuple[int, int]
    start: tuple[int, int]
    end: tuple[int, int]
    interpolation: str


Kernel = Callable[[NDArray[np.uint8], Placed, NDArray[np.uint8]], None]
"""Puts what is wanted of uint8 (H, W, 3 or 4) into uint8 (3, rows, columns); a fourth channel means nothing."""


def by_torch(pixels: NDArray[np.uint8], placed: Placed, out: NDArray[np.uint8]) -> None:
    """Resize as torchvision's presets do.

    The kernel is about four times as fast as Pillow's. What lies right of and below the part that is wanted, and does
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


def by_pillow(pixels: NDArray[np.uint8], placed: Placed, out: NDArray[np.uint8]) -> None:
    """Resize without torch: few pixels differ from those of `by_torch`, by one level of 255, hardly any by two."""
    part, factors = _needed(pixels, placed)
    image = Image.fromarray(np.ascontiguousarray(part[:, :, :3]))
    filter = Image.Resampling[placed.interpolation.upper()]
    for axis in (
        1,
        0,
    ):  # torch's order, as overshoots are cut in between; Pillow itself would choose
        image = _along(image, axis, factors[axis], placed, filter)
    out[:] = np.asarray(image).transpose(2, 0, 1)


def by_whole(pixels: NDArray[np.uint8], placed: Placed, out: NDArray[np.uint8]) -> None:
    """Resize as timm does, by Pillow and all at once, which does rows or columns first as suits the shape.

    Where both shrink alike, as in all but stretched images and those within borders, that makes no difference.
    """
    (top, left), (bottom, right) = placed.start, placed.end
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, :3]))
    resized = image.resize(placed.size[::-1], Image.Resampling[placed.interpolation.upper()])
    out[:] = np.asarray(resized)[top:bottom, left:right].transpose(2, 0, 1)


def _along(image: Image.Image, axis: int, factor: float, placed: Placed, filter: Image.Resampling) -> Image.Image:
    """Resize rows (0) or columns (1) alone."""
    lengths = [image.height, image.width]
    if int(lengths[axis] * factor) == lengths[axis]:
        factor = 1  # as torch has it
    box, start, end = [0.0, 0.0, *map(float, lengths)], placed.start[axis], placed.end[axis]
    box[axis], box[2 + axis] = start / factor, min(end / factor, lengths[axis])
    lengths[axis] = end - start
    return image.resize((lengths[1], lengths[0]), filter, (box[1], box[0], box[3], box[2]))


def _needed(pixels: NDArray[np.uint8], placed: Placed) -> tuple[NDArray[np.uint8], list[float]]:
    """Return the part that decides what is wanted, from the first pixel on, and what rows and columns multiply by."""
    # Lengths are multiplied by these and rounded down.
    factors = [(wanted + 1e-9) / length for wanted, length in zip(placed.size, pixels.shape, strict=False)]
    rows, columns = (_reach(end, factor) for end, factor in zip(placed.end, factors, strict=True))
    return pixels[:rows, :columns], factors


def _reach(length: int, factor: float) -> int:
    """Return how many pixels the first `length` of an image resized by `factor` are made of, two more at most."""
    return ceil(length / factor + 2 * max(1, 1 / factor))
