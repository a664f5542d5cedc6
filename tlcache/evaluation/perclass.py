"""Predictions -> precision, recall, F1, AUROC and average precision of each class, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.estimates import Estimate, ratio
from tlcache.evaluation.metrics import Labels, Probabilities
from tlcache.evaluation.ranking import rank_classes
from tlcache.evaluation.significance import Units
from tlcache.runs.classes import ClassFigures, Share

__all__ = ["class_figures", "figures_of", "share_of"]


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
    share = partial(share_of, units=units)
    ranked, predicted = rank_classes(labels, probabilities, share), probabilities.argmax(axis=1)
    areas = ranked.classes if ranked else {}
    return tuple(
        figures_of(name, labels == number, predicted == number, share, areas.get(number))
        for number, name in enumerate(classes)
    )


def share_of(figure: Estimate, units: Units | None = None) -> Share:
    """Return a figure with its interval."""
    low, high = figure.interval(units)
    return Share(value=figure.value, low=low, high=high)


def figures_of(
    name: str,
    of: NDArray[np.bool_],
    taken: NDArray[np.bool_],
    share: Callable[[Estimate], Share],
    areas: tuple[Share, Share] | None,
) -> ClassFigures:
    """Return what is reached on images of which some are of a class, and some are said to be (n,).

    `areas` are AUROC and average precision; None where all images are of the class, or none is.
    """
    hit = of & taken
    parts = {"precision": (hit, taken), "recall": (hit, of), "f1": (2.0 * hit, 1.0 * of + taken)}
    each = {figure: share(ratio(*pair)) if pair[1].any() else None for figure, pair in parts.items()}
    auroc, precision = areas or (None, None)
    return ClassFigures(name=name, n=int(of.sum()), **each, auroc=auroc, average_precision=precision)
