"""(labels, probabilities) -> numbers; pure functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.calibration import calibration_error
from tlcache.evaluation.significance import Units, clustered_interval

__all__ = [
    "Probabilities",
    "balanced_accuracy",
    "confusion",
    "evaluate",
    "log_loss",
    "log_losses",
    "macro_f1",
    "recalls",
]

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float32]


def evaluate(labels: Labels, probabilities: Probabilities, units: Units | None = None) -> dict[str, float]:
    """Return the figures of a run: labels (n,) are columns of probabilities (n, C).

    Keys: `n`, `accuracy` with its 95 % interval `accuracy_low` and `accuracy_high`, `macro_f1`, `log_loss`, `ece`. The
    interval counts groups where `units` (n,) numbers each image's, as `significance.unit_numbers` does.
    """
    predicted = probabilities.argmax(axis=1)
    right = predicted == labels
    low, high = clustered_interval(right, units)
    return {
        "n": len(labels),
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": macro_f1(confusion(labels, predicted, probabilities.shape[1])),
        "log_loss": log_loss(labels, probabilities),
        "ece": calibration_error(labels, probabilities),
    }


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
