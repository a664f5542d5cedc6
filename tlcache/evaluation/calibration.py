"""How far probabilities can be believed: the calibration error, and the temperature that mends it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Reliability", "calibration_error", "fit_temperature", "reliability"]

Array = NDArray[np.float32]
Labels = NDArray[np.int64]
_ROWS = 256  # whose scores a processor's cache holds


def fit_temperature(logits: Array, labels: Labels) -> float:
    """Return the temperature that minimises the log-loss of `softmax(logits / temperature)` (Guo et al., 2017).

    The targets are smoothed by 1 / (n + 2), as Platt (1999) does: n right answers do not prove that none is wrong.
    Logits of classes that a head has never seen are -inf; rows of these classes are left out, and with no other rows
    the temperature is 1.
    """
    from scipy.optimize import minimize_scalar

    known = np.isfinite(logits[np.arange(len(labels)), labels])
    if not known.any():
        return 1.0
    if not known.all():
        logits, labels = logits[known], labels[known]
    doubt, highest = 1 / (len(labels) + 2), logits.max(axis=1, keepdims=True).astype(np.float64)
    right = (logits[np.arange(len(labels)), labels] - highest[:, 0]).mean()
    usual = (logits.mean(axis=1, where=np.isfinite(logits), dtype=np.float64) - highest[:, 0]).mean()
    wanted = (1 - doubt) * right + doubt * usual  # a score, which temperatures divide

    def loss(log_temperature: float) -> float:
        scale, total = np.exp(-log_temperature), 0.0
        for start in range(0, len(logits), _ROWS):
            some = slice(start, start + _ROWS)
            total += np.log(np.exp((logits[some] - highest[some]) * scale).sum(axis=1)).sum()
        return float(total / len(logits) - scale * wanted)

    found = minimize_scalar(loss, bounds=(-7, 7), method="bounded").x
    if found < -6.9:  # logits of a penalty that allows next to nothing
        found = minimize_scalar(loss, bounds=(-30, -6), method="bounded").x
    return float(np.exp(found))


def calibration_error(labels: Labels, probabilities: Array, bins: int = 15) -> float:
    """Return the expected calibration error of the top class in equal-width bins (Guo et al., 2017)."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    numbers = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(numbers, confidence - right, bins)
    return float(np.abs(gaps).sum() / len(labels))


class Reliability(NamedTuple):
    """Confidence against accuracy, for the bins of confidence (B,) that have images.

    Parameters
    ----------
    confidence, right
        (B,) mean confidence of a bin's images, and the share of them that is classified rightly.
    images
        (B,) how many there are.
    """

    confidence: NDArray[np.float64]
    right: NDArray[np.float64]
    images: NDArray[np.int64]


def reliability(confidence: Array, right: NDArray[np.bool_], bins: int = 10) -> Reliability:
    """Return the reliability diagram (DeGroot and Fienberg, 1983) of predictions (n,), in bins of equal width.

    >>> confidence, right, images = reliability(np.array([0.55, 0.95, 0.93, 1.0]), np.array([True, False, True, True]))
    >>> confidence.round(2).tolist(), right.round(2).tolist(), images.tolist()
    ([0.55, 0.96], [1.0, 0.67], [1, 3])
    """
    numbers = np.minimum((confidence * bins).astype(int), bins - 1)
    images = np.bincount(numbers, minlength=bins)
    some = images > 0
    sums = [np.bincount(numbers, values, bins)[some] for values in (confidence, right)]
    return Reliability(sums[0] / images[some], sums[1] / images[some], images[some])
