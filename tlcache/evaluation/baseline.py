"""What a constant answer would reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.keys import printable
from tlcache.text import figure_text, numbers_text

__all__ = ["Baseline"]


class Baseline(NamedTuple):
    """What always giving one answer would reach: of classes the largest of the test images, and its share of them."""

    answer: str
    accuracy: float
    figure: str = "accuracy"

    @classmethod
    def of(cls, labels: NDArray[np.int64], classes: Sequence[str]) -> Baseline:
        """Return it for test images with these labels (n,)."""
        counts = np.bincount(labels)
        return cls(printable(classes[int(counts.argmax())]), float(counts.max() / counts.sum()))

    @classmethod
    def of_columns(cls, wanted: NDArray[Any]) -> Baseline:
        """Return it for several labels, uint8 (n, L), the mean of their shares; for numbers (n, 1), their median's."""
        if wanted.dtype == np.uint8:
            shares = wanted.mean(axis=0)
            return cls("", float(shares[(shares > 0) & (shares < 1)].mean()), "mean_average_precision")
        middle = float(np.median(wanted))
        return cls(numbers_text([middle], float(np.ptp(wanted)))[0], float(np.abs(wanted - middle).mean()), "mae")

    def __str__(self) -> str:
        if self.figure == "mae":
            error = figure_text(self.accuracy, self.figure)
            return f"Always answering {self.answer}, the median of the test images: a mean error of {error}."
        if self.figure != "accuracy":
            return f"By chance, whatever the image: a mean average precision of {self.accuracy:.3f}."
        return f"Always answering '{self.answer}', the largest class of the test images: {self.accuracy:.3f}."
