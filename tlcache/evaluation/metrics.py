"""(labels, probabilities) -> numbers; pure functions, and a frozen row for each that settings can be chosen by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.calibration import calibration_error
from tlcache.evaluation.significance import Units, clustered_interval
from tlcache.runs.base import Figures

__all__ = [
    "METRICS",
    "Metric",
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

_DRAWS = 200  # bootstrap samples for a standard error


@dataclass(frozen=True)
class Metric:
    """What settings can be chosen by.

    Parameters
    ----------
    name
        As in `--metric`, and in records.
    larger_is_better
        Whether that is so.
    value, error
        Of labels (n,), which are columns of probabilities (n, C): the figure, and its standard error.
    seen_only
        Leave out the images of classes that the head was not fitted on: their probability is 0, whatever the head is.
    """

    name: str
    larger_is_better: bool
    value: Callable[[Labels, Probabilities], float]
    error: Callable[[Labels, Probabilities], float]
    seen_only: bool = False


def evaluate(labels: Labels, probabilities: Probabilities, units: Units | None = None) -> Figures:
    """Return the figures of a run: labels (n,) are columns of probabilities (n, C).

    They are `n`, the rows of `METRICS`, the 95 % interval of the accuracy, and `ece`. The interval counts groups where
    `units` (n,) numbers each image's, as `significance.unit_numbers` does.
    """
    low, high = clustered_interval(_right(labels, probabilities), units)
    return Figures.of(
        {
            "n": len(labels),
            **{row.name: row.value(labels, probabilities) for row in METRICS.values()},
            "accuracy_low": low,
            "accuracy_high": high,
            "ece": calibration_error(labels, probabilities),
        }
    )


def _right(labels: Labels, probabilities: Probabilities) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = probabilities.argmax(axis=1) == labels
    return right


def _accuracy(labels: Labels, probabilities: Probabilities) -> float:
    return float(_right(labels, probabilities).mean())


def _accuracy_error(labels: Labels, probabilities: Probabilities) -> float:
    return float(_right(labels, probabilities).std() / sqrt(len(labels)))


def _macro_f1(labels: Labels, probabilities: Probabilities) -> float:
    return macro_f1(labels, probabilities.argmax(axis=1))


def _macro_f1_error(labels: Labels, probabilities: Probabilities) -> float:
    """Return the standard error by the bootstrap over images (Efron, 1979)."""
    random, predicted = np.random.default_rng(0), probabilities.argmax(axis=1)
    drawn = (random.integers(0, len(labels), len(labels)) for _ in range(_DRAWS))
    return float(np.std([macro_f1(labels[rows], predicted[rows]) for rows in drawn]))


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


def macro_f1(labels: Labels, predicted: Labels) -> float:
    """Return the mean F1 over the classes that occur as label (n,) or prediction (n,)."""
    total = np.bincount(np.concatenate([labels, predicted]))
    hit, occurs = np.bincount(labels[labels == predicted], minlength=len(total)), total > 0
    return float(np.mean(2 * hit[occurs] / total[occurs]))


def log_loss(labels: Labels, probabilities: Probabilities) -> float:
    """Return the mean of `log_losses`; of no images, infinity."""
    return float(log_losses(labels, probabilities).mean()) if len(labels) else float("inf")


def _log_loss_error(labels: Labels, probabilities: Probabilities) -> float:
    return float(log_losses(labels, probabilities).std() / sqrt(len(labels))) if len(labels) else float("inf")


def log_losses(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Return -log(probability of the true class) (n,), natural logarithm, probabilities clipped at 1e-7."""
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return np.abs(np.log(np.clip(chosen, 1e-7, 1)))


_ROWS = (
    Metric("accuracy", True, _accuracy, _accuracy_error),
    Metric("macro_f1", True, _macro_f1, _macro_f1_error),
    Metric("log_loss", False, log_loss, _log_loss_error, seen_only=True),
)

METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}
