"""A threshold that holds one rate on images held out of training, and what both rates are on the test images."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.errors import OptionError, UnknownNameError, closest
from tlcache.evaluation.comparison import Comparison, Entry
from tlcache.evaluation.estimates import ratio
from tlcache.evaluation.significance import Units, unit_numbers
from tlcache.records import as_json
from tlcache.runs.classes import Share
from tlcache.runs.predictions import Predictions
from tlcache.tasks import CLASSIFY

__all__ = ["OperatingPoint", "Rates", "Wanted", "operating_points", "threshold_of"]


@dataclass(frozen=True)
class Wanted:
    """The class to be found, and the rate to hold: of `specificity` or `sensitivity`, so much."""

    positive: str
    rate: str
    least: float

    @classmethod
    def of(cls, positive: str | None, at: tuple[str, float] | None) -> Wanted | None:
        """Return what two options ask for; None where neither is given.

        Raises
        ------
        OptionError
            One of them is missing.
        """
        if positive is None and at is None:
            return None
        if positive is None or at is None:
            raise OptionError("--positive CLASS and --at specificity=0.9 belong together; give both.")
        return cls(positive, *at)


@dataclass(frozen=True)
class OperatingPoint:
    """What a run reaches with one threshold.

    Parameters
    ----------
    entry
        The run; its class is found where its probability is `threshold` or more.
    threshold
        From images that were held out of training.
    positives, negatives
        How many of these are of the class, and of all others.
    sensitivity, specificity
        On the test images; None where these have none of the class, or no others.
    """

    entry: Entry
    threshold: float
    positives: int
    negatives: int
    sensitivity: Share | None
    specificity: Share | None

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        fields = {name: value for name, value in vars(self).items() if name != "entry"}
        return {"record": str(self.entry.run.path), **as_json(fields)}


class Rates(NamedTuple):
    """What was asked for, what runs reach, and the runs whose records hold nothing that a threshold can be from."""

    wanted: Wanted
    points: list[OperatingPoint]
    without: list[Entry]


def operating_points(found: Comparison, wanted: Wanted) -> Rates:
    """Return what the runs of a comparison reach with thresholds that hold a rate on what was held out of training.

    Raises
    ------
    UnknownNameError, OptionError
        The dataset has no such class, or what is learned is no class.
    """
    if found.task != CLASSIFY:
        raise OptionError(
            f"--positive and --at are of classes, and '{found.dataset}' is of --task {found.task}; leave them out, or "
            "choose another dataset with --data."
        )
    classes = found.entries[0].run.classes
    if wanted.positive not in classes:
        raise UnknownNameError(closest("class", wanted.positive, classes))
    points, without = [], []
    for entry in found.entries:
        held = entry.run.held_out()
        point = None if held is None else _point(entry, held, classes.index(wanted.positive), wanted)
        points += [point] if point else []
        without += [] if point else [entry]
    return Rates(wanted, points, without)


def _point(entry: Entry, held: Predictions, number: int, wanted: Wanted) -> OperatingPoint | None:
    positive, scores = held.label == number, held.probabilities[:, number]
    if positive.all() or not positive.any():
        return None
    threshold = threshold_of(positive, scores, wanted.rate, wanted.least)
    test = entry.run.predictions()
    of, found = test.label == number, test.probabilities[:, number] >= threshold
    units = unit_numbers(test.group)
    sensitivity, specificity = _rate(found & of, of, units), _rate(~found & ~of, ~of, units)
    return OperatingPoint(entry, threshold, int(positive.sum()), int((~positive).sum()), sensitivity, specificity)


def threshold_of(positive: NDArray[np.bool_], scores: NDArray[np.floating], rate: str, least: float) -> float:
    """Return the threshold that holds a rate of at least so much on these images, and loses least of the other one.

    Parameters
    ----------
    positive, scores
        (n,) whether an image is of the class, and its probability of that.
    rate, least
        `specificity`: the share of the others below the threshold; `sensitivity`: of the class's images not below it.
    """
    own = np.sort(scores[positive if rate == "sensitivity" else ~positive])
    count = ceil(least * len(own) - 1e-9)
    if rate == "sensitivity":
        return float(own[len(own) - max(1, count)])
    return float(np.nextafter(own[max(1, count) - 1], np.inf))


def _rate(part: NDArray[np.bool_], whole: NDArray[np.bool_], units: Units | None) -> Share | None:
    if not whole.any():
        return None
    found = ratio(part, whole)
    low, high = found.interval(units)
    return Share(value=found.value, low=low, high=high)
