"""What every way to explain an answer has: its name, what it shows and cannot show, and a map of an image."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Embeds", "Method", "Pixels", "Values", "grid_of"]

Pixels = NDArray[np.uint8]
Values = NDArray[np.float32]


class Embeds(Protocol):
    """What embeds images, as a network does."""

    def embed(self, images: Pixels) -> Values:
        """Return embeddings (n, dim) of uint8 (n, 3, H, W) images."""


class Method(Protocol):
    """A way to explain what a run says of an image.

    Attributes
    ----------
    name
        As the field calls it.
    shows
        What a map says, and what it does not, in sentences.
    least
        The largest value of a map, in its own unit, below which it says next to nothing, and is painted faintly.
    """

    name: str
    shows: str
    least: float

    def probabilities(self, pixels: Pixels) -> Values:
        """Return what the run says of uint8 (3, H, W) pixels, as its network takes them: float32 (C,)."""

    def heat(self, pixels: Pixels, label: int) -> Values:
        """Return how much each place of an image speaks for a class, by its number: float32 (h, w)."""


def grid_of(places: int, height: int, width: int) -> tuple[int, int] | None:
    """Return rows and columns of so many places of an image, in its proportions; None where they are no such grid.

    >>> grid_of(49, 224, 224), grid_of(32, 64, 128), grid_of(50, 224, 224)
    ((7, 7), (4, 8), None)
    """
    rows = round((places * height / width) ** 0.5)
    return (
        (rows, places // rows)
        if rows and places % rows == 0 and abs(places // rows * height / width - rows) < 1
        else None
    )
