"""Whether a run holds on the test images what it promises of new ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.significance import Units, clustered_interval
from tlcache.heads.uncertainty import Uncertainty
from tlcache.runs.uncertainty import Abstention, ClassCoverage, UncertaintyFigures

__all__ = ["FALSE_ALARMS", "uncertainty_figures"]

Array = NDArray[np.float32]
Labels = NDArray[np.int64]

FALSE_ALARMS = 0.05  # the share of usual images that may be called unusual, where a record has such a share
_RIGHT = (0.95, 0.98, 0.99)


def uncertainty_figures(
    promised: Uncertainty,
    method: str,
    classes: Sequence[str],
    labels: Labels,
    probabilities: Array,
    embeddings: Array | None,
    units: Units | None,
    uncertainty_s: float,
) -> UncertaintyFigures:
    """Return what is promised, and what comes of it on test images.

    Parameters
    ----------
    promised, method
        The promise, and where it is from.
    classes
        Names (C,).
    labels, probabilities, embeddings
        Of the test images: (n,), calibrated (n, C), and raw (n, dim); None where distances are not known.
    units
        (n,) number of each image's group; None: images are independent.
    uncertainty_s
        Seconds that the promise took.
    """
    sets = promised.sets(probabilities)
    held, sizes = sets[np.arange(len(labels)), labels], sets.sum(axis=1)
    low, high = clustered_interval(held, units)
    unusual = None
    if embeddings is not None and promised.far:
        unusual = float((promised.unusual(promised.distances(embeddings)) < FALSE_ALARMS).mean())
    return UncertaintyFigures(
        method=method,
        images=promised.scores.n,
        coverage=promised.coverage,
        per_class=bool(promised.by_class),
        test_coverage=float(held.mean()),
        test_coverage_low=low,
        test_coverage_high=high,
        test_set_size=float(sizes.mean()),
        test_single=float((sizes == 1).mean()),
        test_empty=float((sizes == 0).mean()),
        classes=tuple(_of_classes(promised, classes, labels, held)),
        abstention=tuple(_abstention(promised, share, labels, probabilities) for share in _RIGHT),
        test_unusual=unusual,
        uncertainty_s=uncertainty_s,
    )


def _of_classes(
    promised: Uncertainty, classes: Sequence[str], labels: Labels, held: NDArray[np.bool_]
) -> Iterator[ClassCoverage]:
    for number, (name, own) in enumerate(zip(classes, promised.by_class, strict=False)):
        of_class = held[labels == number]
        yield ClassCoverage(
            name=name,
            images=own.n,
            own=not promised.too_few()[number],
            n=len(of_class),
            test_coverage=float(of_class.mean()) if len(of_class) else None,
        )


def _abstention(promised: Uncertainty, right: float, labels: Labels, probabilities: Array) -> Abstention:
    threshold = promised.threshold(right)
    answered = probabilities.max(axis=1) >= threshold  # never, where it is not a number
    were_right = (probabilities.argmax(axis=1) == labels)[answered]
    return Abstention(
        right=right,
        threshold=None if np.isnan(threshold) else threshold,
        test_answered=float(answered.mean()),
        test_right=float(were_right.mean()) if len(were_right) else None,
    )
