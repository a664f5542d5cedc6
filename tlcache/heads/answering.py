"""How logits of columns are read: as probabilities of several labels, each with its threshold, or as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tlcache.heads.logits import logistic
from tlcache.tasks import MULTILABEL, joined_label

__all__ = ["ANSWERS", "Answering", "answering_of"]

ANSWERS = ("probabilities", "value")  # what exported files call what is answered: of classes and labels, of a number
_SAME = 1e-4  # of the spread of numbers


@dataclass(frozen=True)
class Answering:
    """What a head of columns says by its logits.

    Parameters
    ----------
    task
        `multilabel` or `regression`.
    names
        (C,) of the columns.
    thresholds
        Of several labels (C,): the probability from which on an image is said to have the label.
    middle, spread
        Of numbers: what a logit of 0 is, and how much a logit of 1 is more; the units are those of the labels.
    margin, coverage
        Of numbers: the truth is no further from an answer than `margin` with a probability of `coverage`.
    """

    task: str
    names: tuple[str, ...]
    thresholds: tuple[float, ...] = ()
    middle: float = 0.0
    spread: float = 1.0
    margin: float = 0.0
    coverage: float = 0.0

    def answers(self, logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[Any]:
        """Return probabilities, float32 (n, C), or numbers, float64 (n, C): far from 0 float32 has too few digits."""
        if self.task == MULTILABEL:
            return logistic(logits / temperature)
        found: NDArray[np.float64] = self.middle + self.spread * logits.astype(np.float64)
        return found

    def said(self, answers: NDArray[np.floating]) -> list[str]:
        """Return what is said of each image (n,): its labels with `;` between them, or a number.

        >>> Answering("multilabel", ("cat", "dog"), (0.5, 0.2)).said(np.float32([[0.9, 0.3], [0.1, 0.1]]))
        ['cat;dog', ';']
        """
        if self.task != MULTILABEL:
            return list(map(str, answers[:, 0]))  # with as many digits as tell it from all others of its kind
        names, chosen = np.array(self.names), answers >= np.array(self.thresholds)
        return [joined_label(names[row].tolist()) for row in chosen]

    @property
    def further(self) -> tuple[str, ...]:
        """What columns stand beside what is said: a probability of every label, or the ends of a number's interval."""
        if self.task == MULTILABEL:
            return tuple(f"p({name})" for name in self.names)
        return ("low", "high") if self.coverage else ()

    def each(self, answers: NDArray[np.floating]) -> dict[str, float]:
        """Return what stands in these, of an image, from its answers (C,)."""
        if self.task == MULTILABEL:
            values = [float(each) for each in answers]
        else:
            values = [float(answers[0]) + sign * self.margin for sign in (-1, 1)] if self.coverage else []
        return dict(zip(self.further, values, strict=True))

    @property
    def are_numbers(self) -> bool:
        """Whether answers are numbers, with a unit of their own, and no probabilities."""
        return self.task != MULTILABEL

    @property
    def output(self) -> str:
        """What exported files call the answers: one of `ANSWERS`."""
        return ANSWERS[self.are_numbers]

    def same(self, one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return whether two answers (n, C) say the same of each image: the same labels, or nearly the same number."""
        if self.task == MULTILABEL:
            equal = (one >= np.array(self.thresholds)) == (other >= np.array(self.thresholds))
        else:
            equal = np.abs(one - other) <= _SAME * self.spread
        found: NDArray[np.bool_] = equal.all(axis=1)
        return found

    def as_fields(self) -> dict[str, Any]:
        """Return what a head's file says of it."""
        return dict(vars(self))

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Return it from what a head's file says."""
        lists = {name: tuple(fields[name]) for name in ("names", "thresholds")}
        return cls(**{**fields, **lists})


def answering_of(fields: Mapping[str, Any]) -> Answering | None:
    """Return how the head is read of which a file says `fields`; None of classes."""
    return Answering.of_fields(fields["answering"]) if fields.get("answering") else None
