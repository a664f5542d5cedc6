"""Occlusion: what becomes of an answer when a part of the image is covered. It works for every network and head.

Source: Zeiler and Fergus (2014), Visualizing and understanding convolutional networks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tlcache.pictures.heat import Embeds, Pixels, Values

__all__ = ["Occlusion"]

_CELLS = 8  # to a side
_COVERED = 2  # cells to the side of a patch
_LEAST = 1e-30  # of a probability, whose logarithm is taken
_BATCH = 8


class Occlusion:
    """How much the odds of a class fall where patches of the image are covered in its mean colour.

    Parameters
    ----------
    network
        Embeds images.
    answer
        Embeddings (n, dim) -> probabilities (n, C).
    why
        It is taken, and not a closer way: a sentence.
    """

    name = "occlusion"
    shows = (
        "How much the odds of the class fall, in logarithms, when a patch of a quarter of each side is covered with "
        "the mean colour, averaged over the patches that cover a cell; less than 0.1 is next to nothing. What is "
        "there twice is not missed when one of both is covered, and a covered patch is something that the network has "
        "never seen."
    )
    least = 0.1

    def __init__(self, network: Embeds, answer: Callable[[Values], Values], why: str = "") -> None:
        self._network, self._answer = network, answer
        self.shows = f"{self.shows} {why}".strip()

    def probabilities(self, pixels: Pixels) -> Values:
        """Return what the run says of an image, float32 (C,)."""
        found: Values = self._answer(self._network.embed(pixels[None]))[0]
        return found

    def heat(self, pixels: Pixels, label: int) -> Values:
        """Return the map, 8 x 8."""
        corners = [(row, column) for row in range(1 - _COVERED, _CELLS) for column in range(1 - _COVERED, _CELLS)]
        mean = pixels.mean(axis=(1, 2)).astype(np.uint8)[:, None, None]
        found = [self._log_odds(pixels[None], label)[0]]
        for start in range(0, len(corners), _BATCH):
            covered = np.stack([_covered(pixels, corner, mean) for corner in corners[start : start + _BATCH]])
            found += self._log_odds(covered, label).tolist()
        sums, counts = np.zeros((_CELLS, _CELLS)), np.zeros((_CELLS, _CELLS))
        for (row, column), value in zip(corners, found[1:], strict=True):
            cells = np.s_[max(0, row) : row + _COVERED, max(0, column) : column + _COVERED]
            sums[cells] += found[0] - value
            counts[cells] += 1
        heat: Values = (sums / counts).astype(np.float32)
        return heat

    def _log_odds(self, images: Pixels, label: int) -> Values:
        """Return the logarithm of a class's probability by that of all others (n,): it does not end at 1 as it does."""
        probabilities = self._answer(self._network.embed(images)).astype(np.float64)
        others = np.delete(probabilities, label, axis=1).sum(axis=1)
        found: Values = np.log(np.maximum(probabilities[:, label], _LEAST)) - np.log(np.maximum(others, _LEAST))
        return found


def _covered(pixels: Pixels, corner: tuple[int, int], colour: Pixels) -> Pixels:
    """Return an image with a patch of cells covered, whose first row and column may lie outside."""
    covered = pixels.copy()
    rows, columns = (
        slice(max(0, start) * side // _CELLS, min(_CELLS, start + _COVERED) * side // _CELLS)
        for start, side in zip(corner, pixels.shape[1:], strict=True)
    )
    covered[:, rows, columns] = colour
    return covered
