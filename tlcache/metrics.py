"""(labels, probabilities) -> numbers; pure functions."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "accuracy_interval",
    "balanced_accuracy",
    "calibration_error",
    "confusion",
    "evaluate",
    "log_loss",
    "log_losses",
    "macro_f1",
    "recalls",
]

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float32]


def evaluate(labels: Labels, probabilities: Probabilities) -> dict[str, float]:
    """Return the figures of a run: labels (n,) are columns of probabilities (n, C).

    Keys: `n`, `accuracy` with its 95 % interval `accuracy_low` and `accuracy_high`, `macro_f1`, `log_loss`, `ece`.
    """
    predicted = probabilities.argmax(axis=1)
    right = int((predicted == labels).sum())
    low, high = accuracy_interval(right, len(labels))
    return {
        "n": len(labels),
        "accuracy": right / len(labels),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": macro_f1(confusion(labels, predicted, probabilities.shape[1])),
        "log_loss": log_loss(labels, probabilities),
        "ece": calibration_error(labels, probabilities),
    }


def accuracy_interval(right: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for `right` of `n` (Wilson, 1927): sound near 0 and 1 and for few images.

    >>> [round(bound, 3) for bound in accuracy_interval(90, 100)]
    [0.826, 0.945]
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))  # rounding leaves the share inside


def confusion(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Return counts (C, C): row = true class, column = predicted class."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def balanced_accuracy(counts: NDArray[np.int64]) -> float:
    """Return the mean recall over the classes that occur as label, from a confusion matrix."""
    return float(np.nanmean(recalls(counts)))


def recalls(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each class's images that were recognised (C,), nan for classes without an image."""
    total = counts.sum(axis=1)
    shares: NDArray[np.float64] = np.divide(np.diag(counts), total, out=np.full(len(counts), np.nan), where=total > 0)
    return shares


def macro_f1(counts: NDArray[np.int64]) -> float:
    """Return the mean F1 over the classes that occur as label or prediction, from a confusion matrix."""
    hit, total = np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1)
    occurs = total > 0
    return float(np.mean(2 * hit[occurs] / total[occurs]))


def log_loss(labels: Labels, probabilities: Probabilities) -> float:
    """Return the mean of `log_losses`."""
    return float(log_losses(labels, probabilities).mean())


def log_losses(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Return -log(probability of the true class) (n,), natural logarithm, probabilities clipped at 1e-7."""
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return np.abs(np.log(np.clip(chosen, 1e-7, 1)))


def calibration_error(labels: Labels, probabilities: Probabilities, bins: int = 15) -> float:
    """Return the expected calibration error of the top class in equal-width bins (Guo et al., 2017)."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    numbers = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(numbers, confidence - right, bins)
    return float(np.abs(gaps).sum() / len(labels))
