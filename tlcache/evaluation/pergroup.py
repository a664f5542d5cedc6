"""One answer for each group of images, such as those of a patient: how answers are joined, and what that reaches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from tlcache.evaluation.metrics import METRICS, Labels, Probabilities, evaluate
from tlcache.evaluation.significance import Units
from tlcache.heads.rows import Array
from tlcache.progress import warn
from tlcache.runs.pergroup import PerGroup

__all__ = ["RULES", "Grouped", "per_group"]

_TIES = 1e-3  # share of the mean probability in votes, which decides where they are equal


def _mean(sorted_rows: Array, starts: Labels, sizes: Array) -> Array:
    return np.asarray(np.add.reduceat(sorted_rows, starts) / sizes, np.float32)


def _maximum(sorted_rows: Array, starts: Labels, sizes: Array) -> Array:
    """Return the largest probability of each class in any image, to a sum of 1."""
    del sizes
    most = np.maximum.reduceat(sorted_rows, starts)
    largest: Array = most / most.sum(axis=1, keepdims=True)
    return largest


def _vote(sorted_rows: Array, starts: Labels, sizes: Array) -> Array:
    """Return the share of images whose answer each class is; of equal shares the larger mean probability decides."""
    answers = np.eye(sorted_rows.shape[1], dtype=np.float32)[sorted_rows.argmax(axis=1)]
    return (1 - _TIES) * _mean(answers, starts, sizes) + _TIES * _mean(sorted_rows, starts, sizes)


RULES: Mapping[str, Callable[[Array, Labels, Array], Array]] = {"mean": _mean, "maximum": _maximum, "vote": _vote}


@dataclass(frozen=True, eq=False)
class Grouped:
    """The groups that are of one class.

    Parameters
    ----------
    groups
        (G,) their numbers, as they were given.
    labels
        (G,), columns of the probabilities.
    probabilities
        By rule, float32 (G, C).
    mixed
        How many groups are of several classes, and not among them.
    """

    groups: Labels
    labels: Labels
    probabilities: Mapping[str, Probabilities]
    mixed: int

    @classmethod
    def of(cls, labels: Labels, probabilities: Probabilities, units: Units) -> Self:
        """Join what was said of images: labels (n,), probabilities (n, C), and the number of each one's group (n,)."""
        order = np.argsort(units, kind="stable")
        groups, sizes = np.unique(units, return_counts=True)
        starts = np.cumsum(sizes) - sizes
        least, most = (each.reduceat(labels[order], starts) for each in (np.minimum, np.maximum))
        whole = least == most
        wide = sizes[:, None].astype(np.float32)
        joined = {name: rule(probabilities[order], starts, wide)[whole] for name, rule in RULES.items()}
        return cls(groups[whole], least[whole], joined, int((~whole).sum()))

    def scores(self, metric: str) -> dict[str, float]:
        """Return what each rule reaches."""
        return {name: METRICS[metric].value(self.labels, each) for name, each in self.probabilities.items()}


def per_group(test: Grouped, held_out: Grouped | None, metric: str, units: Units | None = None) -> PerGroup | None:
    """Choose a rule on groups that were held out of training, and tell what it reaches on test.

    Of equal ones it is the first. Intervals count `units` (G,), where groups are tested several times. None, after a
    warning, where no test group is of one class.
    """
    if not len(test.labels):
        warn(f"There is no answer for each group: all {test.mixed} of the test images are of several classes.")
        return None
    scores = held_out.scores(metric) if held_out and len(held_out.labels) else {}
    sign = 1 if METRICS[metric].larger_is_better else -1
    rule = max(scores, key=lambda name: sign * scores[name]) if scores else next(iter(RULES))
    figures = evaluate(test.labels, test.probabilities[rule], units)
    return PerGroup(rule=rule, validated=scores, mixed=test.mixed, test=figures)
