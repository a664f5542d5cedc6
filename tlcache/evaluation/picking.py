"""Which run is picked: by what was held out of training, and no fine-tuning in vain where there are heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.task import TASKS, larger_is_better
from tlcache.runs.finetuned import FinetunedRun
from tlcache.runs.predictions import Predictions
from tlcache.runs.record import Run

__all__ = ["SameImages", "pick_order"]


@dataclass(frozen=True)
class SameImages:
    """The best head and the best fine-tuning on the images that both held out, where they were validated on others.

    Parameters
    ----------
    n
        How many images these are.
    head, tuned
        What each reaches on them, in the figure that runs are compared by.
    """

    n: int
    head: float
    tuned: float


def pick_order(runs: Sequence[Run], scores: Sequence[float | None], by: str) -> tuple[list[int], SameImages | None]:
    """Return the numbers of runs, the one to pick first, and what decided between head and fine-tuning, if anything.

    Where heads were validated on other images than fine-tunings, as in folds of train and val, the best of each is
    compared on the images that both held out, and the fine-tuning is picked only where it is better on these. One of
    which no epoch was kept comes after all heads.

    Parameters
    ----------
    runs
        Those on the same test images, the best on these first.
    scores
        The figure `by` of each on the images that it held out; where one is None, the order of `runs` counts.
    """
    heads = [number for number, run in enumerate(runs) if not isinstance(run, FinetunedRun)]
    last = [bool(heads) and run.untuned for run in runs]
    sign = 1 if larger_is_better(by) else -1
    known = [sign * score for score in scores if score is not None]
    if len(known) < len(runs):
        return sorted(range(len(runs)), key=last.__getitem__), None
    losses = [run.validated.get("log_loss", 0.0) for run in runs]
    order = sorted(range(len(runs)), key=lambda n: (last[n], -known[n], losses[n]))
    head = next((number for number in order if number in heads), None)
    tuned = next((number for number in order if number not in heads and not last[number]), None)
    if head is None or tuned is None or runs[head].validated_on == runs[tuned].validated_on:
        return order, None
    same = _same_images(runs[head], runs[tuned], by)
    if same is not None:
        first = tuned if sign * (same.tuned - same.head) > 0 else head
        order.sort(key=lambda number: number != first)
    return order, same


def _same_images(head: Run, tuned: Run, by: str) -> SameImages | None:
    """Return what both reach on the images that both held out; None where a record does not hold that."""
    a, b = head.held_out(), tuned.held_out()
    if a is None or b is None:
        return None
    rows = np.intersect1d(a.row, b.row)
    if not len(rows):
        return None
    figure = TASKS[head.task][by]
    return SameImages(len(rows), *(figure.value(*_on(rows, each)) for each in (a, b)))


def _on(rows: NDArray[np.bytes_], found: Predictions) -> tuple[NDArray[Any], NDArray[Any]]:
    of = np.isin(found.row, rows)
    return found.label[of], found.probabilities[of]
