"""What a constant answer would reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.keys import printable

__all__ = ["Baseline"]


class Baseline(NamedTuple):
    """What always giving one answer would reach: the largest class of the test images, and its share of them."""

    answer: str
    accuracy: float

    @classmethod
    def of(cls, labels: NDArray[np.int64], classes: Sequence[str]) -> Baseline:
        """Return it for test images with these labels (n,)."""
        counts = np.bincount(labels)
        return cls(printable(classes[int(counts.argmax())]), float(counts.max() / counts.sum()))
