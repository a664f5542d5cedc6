"""Predictions -> precision, recall, F1, AUROC and average precision of each class, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

from tlcache.evaluation.estimates import Estimate, ratio
from tlcache.evaluation.metrics import Labels, Probabilities
from tlcache.evaluation.ranking import rank_classes
from tlcache.evaluation.significance import Units
from tlcache.runs.classes import ClassFigures, Share

__all__ = ["class_figures"]


def class_figures(
    classes: Sequence[str], labels: Labels, probabilities: Probabilities, units: Units | None = None
) -> tuple[ClassFigures, ...]:
    """Return what is reached on each class.

    Parameters
    ----------
    classes
        Names (C,).
    labels, probabilities
        (n,) columns of (n, C).
    units
        (n,) number of each image's group; None: images are independent.
    """

    def share(figure: Estimate) -> Share:
        low, high = figure.interval(units)
        return Share(value=figure.value, low=low, high=high)

    ranked = rank_classes(labels, probabilities, share)
    predicted, found = probabilities.argmax(axis=1), []
    for number, name in enumerate(classes):
        of, taken = labels == number, predicted == number
        hit = of & taken
        parts = {"precision": (hit, taken), "recall": (hit, of), "f1": (2.0 * hit, 1.0 * of + taken)}
        each = {name: share(ratio(*pair)) if pair[1].any() else None for name, pair in parts.items()}
        auroc, precision = (ranked.classes if ranked else {}).get(number, (None, None))
        found.append(ClassFigures(name=name, n=int(of.sum()), **each, auroc=auroc, average_precision=precision))
    return tuple(found)
