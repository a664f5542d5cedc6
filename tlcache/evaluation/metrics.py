"""(labels, probabilities) -> numbers; pure functions, and a frozen row for each that settings can be chosen by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.agreement import Agreement
from tlcache.evaluation.calibration import calibration_error
from tlcache.evaluation.estimates import Estimate, mean_estimate, with_intervals
from tlcache.evaluation.ranking import rank_classes
from tlcache.evaluation.significance import Units, clustered_interval
from tlcache.runs.base import Figures

__all__ = [
    "LARGEST_LOSS",
    "METRICS",
    "Metric",
    "Probabilities",
    "brier",
    "confusion",
    "estimates",
    "evaluate",
    "figures",
    "log_loss",
    "log_losses",
    "losses_of_truth",
    "macro_f1",
    "recalls",
    "top5",
]

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float32]

_LEAST = 1e-7  # probability of the true class, in a log-loss
LARGEST_LOSS = float(-np.log(_LEAST))


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
    always
        Compute it of every setting that is tried, even where another one is chosen by.
    """

    name: str
    larger_is_better: bool
    value: Callable[[Labels, Probabilities], float]
    error: Callable[[Labels, Probabilities], float]
    seen_only: bool = False
    always: bool = True


def evaluate(labels: Labels, probabilities: Probabilities, units: Units | None = None) -> Figures:
    """Return the figures of a run: labels (n,) are columns of probabilities (n, C).

    They are `n`, the rows of `METRICS` and the weighted AUROC, the 95 % interval of each that has one, and `ece`. What
    these images have no say in is left out. Intervals count groups where `units` (n,) numbers each image's, as
    `significance.unit_numbers` does.
    """
    known = figures(labels, probabilities, units)
    low, high = clustered_interval(probabilities.argmax(axis=1) == labels, units)  # to the last digit Wilson's
    added = {row.name: row.value(labels, probabilities) for row in METRICS.values() if row.name not in _NAMES}
    exact = {"accuracy_low": low, "accuracy_high": high, "ece": calibration_error(labels, probabilities)}
    return Figures.of({"n": len(labels), **known, **exact, **added})


def figures(labels: Labels, probabilities: Probabilities, units: Units | None = None) -> dict[str, float]:
    """Return every figure of `estimates` by its name, and with `_low` and `_high` its 95 % interval."""
    return with_intervals(estimates(labels, probabilities), units)


def estimates(labels: Labels, probabilities: Probabilities) -> dict[str, Estimate]:
    """Return the figures that have an interval; without those that these images have no say in."""
    agreed = Agreement(labels, probabilities.argmax(axis=1))
    found: dict[str, Estimate | None] = {name: compute(agreed) for name, compute in _AGREED.items()}
    if ranked := rank_classes(labels, probabilities):
        found |= {name: getattr(ranked, name) for name in _RANKED}
    found |= {"top5": top5(labels, probabilities), "brier": brier(labels, probabilities)}
    found["log_loss"] = mean_estimate(log_losses(labels, probabilities), (0.0, LARGEST_LOSS))
    return {name: each for name, each in found.items() if each}


def top5(labels: Labels, probabilities: Probabilities) -> Estimate | None:
    """Return the share of images whose class is among the five likeliest; None for five classes or fewer.

    Of equal probabilities that of the first class counts as the larger one, as in every answer.
    """
    if probabilities.shape[1] <= 5:
        return None
    own = probabilities[np.arange(len(labels)), labels][:, None]
    equal = (probabilities == own) & (np.arange(probabilities.shape[1]) < labels[:, None])
    return mean_estimate((((probabilities > own) | equal).sum(axis=1) < 5).astype(np.float64))


def brier(labels: Labels, probabilities: Probabilities) -> Estimate:
    """Return the Brier score (1950): the squared error of the probabilities, from 0 to 2; of two classes half of it."""
    wide = probabilities.astype(np.float64)
    own = wide[np.arange(len(labels)), labels]
    errors = np.einsum("ij,ij->i", wide, wide) - own**2 + (1 - own) ** 2
    scale = 0.5 if probabilities.shape[1] == 2 else 1.0
    return mean_estimate(scale * errors, (0.0, 2 * scale))


def confusion(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Return counts (C, C): row = true class, column = predicted class."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def recalls(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each class's images that were recognised (C,), nan for classes without an image."""
    total = counts.sum(axis=1)
    shares: NDArray[np.float64] = np.divide(np.diag(counts), total, out=np.full(len(counts), np.nan), where=total > 0)
    return shares


def macro_f1(labels: Labels, predicted: Labels) -> float:
    """Return the mean F1 over the classes that occur as label (n,) or prediction (n,)."""
    return Agreement(labels, predicted).macro_f1().value


def log_loss(labels: Labels, probabilities: Probabilities) -> float:
    """Return the mean of `log_losses`; of no images, infinity."""
    return float(log_losses(labels, probabilities).mean()) if len(labels) else float("inf")


def _log_loss_error(labels: Labels, probabilities: Probabilities) -> float:
    return float(log_losses(labels, probabilities).std() / sqrt(len(labels))) if len(labels) else float("inf")


def log_losses(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Return -log(probability of the true class) (n,), natural logarithm, probabilities clipped at 1e-7."""
    return losses_of_truth(probabilities[np.arange(len(labels)), labels])


def losses_of_truth(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return -log of probabilities of what is true, clipped at 1e-7, in their shape."""
    losses: NDArray[np.float64] = np.abs(np.log(np.clip(probabilities.astype(np.float64), _LEAST, 1)))
    return losses


_AGREED: Mapping[str, Callable[[Agreement], Estimate]] = {
    "accuracy": Agreement.accuracy,
    "macro_f1": Agreement.macro_f1,
    "balanced_accuracy": Agreement.balanced_accuracy,
    "mcc": Agreement.mcc,
    "kappa": Agreement.kappa,
}
_RANKED = ("auroc", "auroc_weighted", "average_precision")
_NAMES = {*_AGREED, *_RANKED, "top5", "brier", "log_loss"}


def _agreed(name: str, always: bool = False) -> Metric:
    def estimate(labels: Labels, probabilities: Probabilities) -> Estimate:
        return _AGREED[name](Agreement(labels, probabilities.argmax(axis=1)))

    return _row(name, estimate, always=always)


def _ranked(name: str) -> Metric:
    def estimate(labels: Labels, probabilities: Probabilities) -> Estimate | None:
        return getattr(rank_classes(labels, probabilities), name, None)

    return _row(name, estimate)


def _row(
    name: str,
    estimate: Callable[[Labels, Probabilities], Estimate | None],
    larger_is_better: bool = True,
    always: bool = False,
) -> Metric:
    """Return a metric; where images have no say in it, all settings are equal, and log-loss decides."""

    def value(labels: Labels, probabilities: Probabilities) -> float:
        return found.value if (found := estimate(labels, probabilities)) else 0.0

    def error(labels: Labels, probabilities: Probabilities) -> float:
        return found.error() if (found := estimate(labels, probabilities)) else 0.0

    return Metric(name, larger_is_better, value, error, always=always)


_ROWS = (
    _agreed("accuracy", always=True),
    _agreed("macro_f1", always=True),
    Metric("log_loss", False, log_loss, _log_loss_error, seen_only=True),
    _ranked("auroc"),
    _ranked("average_precision"),
    _agreed("balanced_accuracy"),
    _agreed("mcc"),
    _agreed("kappa"),
    _row("top5", top5),
    _row("brier", brier, larger_is_better=False),
)

METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}
