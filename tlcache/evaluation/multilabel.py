"""Figures of images that may have several labels: 0 and 1 (n, L) against probabilities (n, L)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.calibration import calibration_error
from tlcache.evaluation.estimates import Estimate, Mean, mean_estimate, ratio, with_intervals
from tlcache.evaluation.metrics import LARGEST_LOSS, losses_of_truth
from tlcache.evaluation.perclass import figures_of, share_of
from tlcache.evaluation.ranking import Ranked
from tlcache.evaluation.significance import Units
from tlcache.runs.base import Figures
from tlcache.runs.classes import ClassFigures

__all__ = ["best_thresholds", "binary_error", "estimates", "evaluate", "label_figures", "log_losses", "right"]

Has = NDArray[np.uint8]
Probabilities = NDArray[np.float32]
Thresholds = NDArray[np.float64]


def evaluate(has: Has, probabilities: Probabilities, thresholds: Thresholds, units: Units | None = None) -> Figures:
    """Return the figures of a run, each with its 95 % interval; `accuracy` is that all labels of an image are right.

    Parameters
    ----------
    has, probabilities
        (n, L) whether each image has a label, and the probability of that.
    thresholds
        (L,) from which on an image is said to have a label.
    units
        (n,) number of each image's group; None: images are independent.
    """
    found = with_intervals(estimates(has, probabilities, thresholds), units)
    exact = {f"accuracy{end}": found[f"subset_accuracy{end}"] for end in ("", "_low", "_high")}
    return Figures.of({"n": len(has), "ece": binary_error(has, probabilities), **found, **exact})


def estimates(has: Has, probabilities: Probabilities, thresholds: Thresholds) -> dict[str, Estimate]:
    """Return the figures that have an interval; without those that these images have no say in."""
    wanted, said = has.astype(bool), probabilities >= thresholds
    hits, either = (wanted & said).sum(axis=1), wanted.sum(axis=1) + said.sum(axis=1)
    found: dict[str, Estimate | None] = {
        "mean_average_precision": None,
        "auroc": None,
        "micro_f1": ratio(2 * hits, either) if either.any() else None,
        "macro_f1": _macro_f1(wanted, said),
        "subset_accuracy": mean_estimate(right(has, probabilities, thresholds).astype(np.float64)),
        "hamming": mean_estimate((wanted != said).mean(axis=1)),
        "log_loss": mean_estimate(log_losses(has, probabilities), (0.0, LARGEST_LOSS)),
    }
    ranked = [each for each in _ranked(wanted, probabilities) if each]
    if ranked:
        areas, means = Mean(), Mean()
        for each in ranked:
            areas.add(each.auroc())
            means.add(each.average_precision())
        found |= {"mean_average_precision": means.estimate(), "auroc": areas.estimate()}
    return {name: each for name, each in found.items() if each}


def label_figures(
    names: Sequence[str], has: Has, probabilities: Probabilities, thresholds: Thresholds, units: Units | None = None
) -> tuple[ClassFigures, ...]:
    """Return what is reached on each label; parameters are those of `evaluate`."""
    wanted, share = has.astype(bool), partial(share_of, units=units)
    each = zip(names, wanted.T, (probabilities >= thresholds).T, _ranked(wanted, probabilities), strict=True)
    found = []
    for name, of, taken, ranked in each:
        areas = (share(ranked.auroc()), share(ranked.average_precision())) if ranked else None
        found.append(figures_of(name, of, taken, share, areas))
    return tuple(found)


def right(has: Has, probabilities: Probabilities, thresholds: Thresholds) -> NDArray[np.bool_]:
    """Return whether all labels of each image are said rightly (n,)."""
    found: NDArray[np.bool_] = (has.astype(bool) == (probabilities >= thresholds)).all(axis=1)
    return found


def log_losses(has: Has, probabilities: Probabilities) -> NDArray[np.float64]:
    """Return the mean over the labels of -log(probability of what is) (n,), probabilities clipped at 1e-7."""
    wide = probabilities.astype(np.float64)
    of_truth = np.where(has == 1, wide, 1 - wide)
    losses: NDArray[np.float64] = losses_of_truth(of_truth).mean(axis=1)
    return losses


def binary_error(has: Has, probabilities: Probabilities) -> float:
    """Return the expected calibration error over all images and labels, each a question of yes and no."""
    yes = probabilities.reshape(-1, 1)
    return calibration_error(has.reshape(-1).astype(np.int64), np.hstack([1 - yes, yes]))


def best_thresholds(has: Has, probabilities: Probabilities) -> Thresholds:
    """Return the threshold of each label with the largest F1 (L,), between two probabilities that occur.

    A label that no image has, or all have, keeps 0.5.
    """
    found = np.full(has.shape[1], 0.5)
    for number, (of, scores) in enumerate(zip(has.T.astype(bool), probabilities.T.astype(np.float64), strict=True)):
        if of.all() or not of.any():
            continue
        order = np.argsort(-scores, kind="stable")
        ranked, hits = scores[order], np.cumsum(of[order])
        taken = np.arange(1, len(order) + 1)
        ends = np.append(ranked[1:] < ranked[:-1], True)  # equal scores are taken together
        f1 = np.where(ends, 2 * hits / (taken + of.sum()), -1.0)
        last = int(f1.argmax())
        below = ranked[last + 1] if last + 1 < len(ranked) else 0.0
        found[number] = (ranked[last] + below) / 2
    return found


def _macro_f1(wanted: NDArray[np.bool_], said: NDArray[np.bool_]) -> Estimate | None:
    """Return the mean F1 of the labels that any image has or is said to have."""
    mean, any_of = Mean(), False
    for of, taken in zip(wanted.T, said.T, strict=True):
        if of.any() or taken.any():
            mean.add(ratio(2.0 * (of & taken), 1.0 * of + taken))
            any_of = True
    return mean.estimate() if any_of else None


def _ranked(wanted: NDArray[np.bool_], probabilities: Probabilities) -> list[Ranked | None]:
    """Return the images ranked by each label, None where all or none have it."""
    return [
        Ranked.of(of, np.ascontiguousarray(scores)) if of.any() and not of.all() else None
        for of, scores in zip(wanted.T, probabilities.T, strict=True)
    ]
