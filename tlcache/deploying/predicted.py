"""What was said of images, and how often that was right where they have labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlcache.deploying.judging import Judge, Judged, ranked
from tlcache.deploying.rows import Columns, PredictedRow
from tlcache.evaluation.significance import accuracy_interval
from tlcache.records import as_json

if TYPE_CHECKING:
    from tlcache.heads.answering import Answering

__all__ = ["Checked", "Predicted", "check"]

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Checked:
    """How often predictions are right, of images that are labelled with a class of the model.

    Parameters
    ----------
    n, accuracy, low, high
        So many images, the share that is right, and its 95 % interval (Wilson). Images that cannot be used or were not
        answered are not among them.
    unknown
        Labels that are no class of the model, and how many images have each.
    covered, covered_low, covered_high
        The share of images whose set holds their label, those not answered among them; None without sets.
    """

    n: int
    accuracy: float
    low: float
    high: float
    unknown: Mapping[str, int]
    covered: float | None = None
    covered_low: float | None = None
    covered_high: float | None = None


@dataclass
class Predicted:
    """What a run says of images, in the order in which they were given.

    Parameters
    ----------
    model
        What was asked, by the name of its file.
    classes
        (C,) names of its classes.
    paths
        (N,) of the images.
    ranked
        int64 (N, top): indices into `classes`, the likeliest first; -1 of an image that cannot be used.
    confidences
        float32 (N, top): their calibrated probabilities, of a number it, float64; nan of an image that cannot be used.
    errors
        Number of an image -> why it cannot be used.
    withheld
        Number of an image -> `unsure` or `unknown`, where it is not answered.
    sets
        Number of an image -> indices of the classes that may be right; None where that was not asked for.
    p_values
        float64 (N,): how usual each is, nan of an image that cannot be used; None where the model does not know.
    checked
        How often this is right; None where no image has a label.
    embedded, reused
        Images that went through the network, and whose embedding was there.
    seconds
        On the clock.
    answering
        How `confidences` (N, C) are read of a model of several labels, whose probabilities they are, or of a number.
    """

    model: str
    classes: tuple[str, ...]
    paths: Sequence[str]
    ranked: NDArray[np.int64]
    confidences: NDArray[Any]
    errors: dict[int, str] = field(default_factory=dict)
    withheld: dict[int, str] = field(default_factory=dict)
    sets: dict[int, Sequence[int]] | None = None
    p_values: NDArray[np.float64] | None = None
    checked: Checked | None = None
    embedded: int = 0
    reused: int = 0
    seconds: float = 0.0
    answering: Answering | None = None

    @classmethod
    def of(
        cls,
        model: str,
        classes: tuple[str, ...],
        paths: Sequence[str],
        top: int,
        judge: Judge,
        answering: Answering | None = None,
    ) -> Predicted:
        """Return what is to be filled: nothing is said of any image yet."""
        shape = len(paths), min(top, len(classes)) if answering is None else len(classes)
        numbers = answering is not None and answering.are_numbers
        kind = np.float64 if numbers else np.float32
        found = cls(model, classes, paths, np.full(shape, -1, np.int64), np.full(shape, np.nan, kind))
        found.sets = {} if judge.sets else None
        found.p_values = np.full(len(paths), np.nan) if judge.knows_distances else None
        found.answering = answering
        return found

    def fill(self, numbers: Sequence[int], probabilities: Rows, judged: Judged) -> None:
        """Say of some images what their probabilities (n, C) are, and what was judged of them."""
        if self.answering is not None:
            self.ranked[numbers], self.confidences[numbers] = 0, probabilities
            return
        best = ranked(probabilities, self.ranked.shape[1])
        self.ranked[numbers], self.confidences[numbers] = best, np.take_along_axis(probabilities, best, axis=1)
        self.withheld |= {number: word for number, word in zip(numbers, judged.withheld, strict=True) if word}
        if self.sets is not None and judged.sets is not None:
            self.sets |= zip(numbers, judged.sets, strict=True)
        if self.p_values is not None and judged.unusual is not None:
            self.p_values[numbers] = judged.unusual

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def labels(self) -> list[str]:
        """What is said of each image (N,): its likeliest class, or `withheld`; empty of one that cannot be used."""
        if self.answering is not None:
            texts = self.answering.said(self.confidences)
            return ["" if number in self.errors else text for number, text in enumerate(texts)]
        best = self.ranked[:, 0].tolist()
        return ["" if at < 0 else self.withheld.get(number, self.classes[at]) for number, at in enumerate(best)]

    @property
    def counts(self) -> dict[str, int]:
        """How many images are taken for each class, the most frequent first; classes without any are left out."""
        return dict(Counter(label for label in self.labels if label).most_common())

    @property
    def columns(self) -> Columns:
        """The columns of `rows`."""
        if self.answering is not None:
            return Columns(each=self.answering.further, exact=self.answering.are_numbers)
        return Columns(self.ranked.shape[1], self.sets is not None, self.p_values is not None)

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[PredictedRow]:
        """Yield what is said of the images, or of some that follow each other."""
        for number in range(start, len(self) if stop is None else stop):
            if number in self.errors:
                yield PredictedRow(self.paths[number], error=self.errors[number])
                continue
            if self.answering is not None:
                answers = self.confidences[number]
                said = self.answering.said(answers[None])
                yield PredictedRow(self.paths[number], said, each=self.answering.each(answers))
                continue
            labels = [self.classes[label] for label in self.ranked[number].tolist()]
            labels[0] = self.withheld.get(number, labels[0])
            yield PredictedRow(
                self.paths[number],
                labels,
                self.confidences[number].tolist(),
                set=None if self.sets is None else [self.classes[label] for label in self.sets[number]],
                unusual=None if self.p_values is None else float(self.p_values[number]),
            )

    def as_json(self, rows: bool = True) -> dict[str, Any]:
        """Return what `--json` promises; the predictions themselves only with `rows`."""
        figures = {
            "model": self.model,
            "images": len(self),
            "bad": len(self.errors),
            "withheld": len(self.withheld),
            "embedded": self.embedded,
            "reused": self.reused,
            "seconds": self.seconds,
            "images_per_s": len(self) / self.seconds,
            "counts": self.counts,
            "checked": as_json(self.checked),
        }
        return figures | ({"predictions": [self.columns.values(row) for row in self.rows()]} if rows else {})


def check(found: Predicted, labels: Sequence[str]) -> Checked | None:
    """Compare what was said with labels (N,), empty where an image has none; None where no image has one."""
    if not any(labels) or found.answering is not None:
        return None
    number = {name: at for at, name in enumerate(found.classes)}
    known = np.array([number.get(label, -1) for label in labels], np.int64)
    tested = np.flatnonzero((known >= 0) & (found.ranked[:, 0] >= 0))
    answered = [row for row in tested.tolist() if row not in found.withheld]
    accuracy = _share(int((known == found.ranked[:, 0])[answered].sum()), len(answered))
    unknown = dict(Counter(label for label in labels if label and label not in number).most_common())
    if (sets := found.sets) is None:
        return Checked(len(answered), *accuracy, unknown)
    held = sum(known[row] in sets[row] for row in tested.tolist())
    return Checked(len(answered), *accuracy, unknown, *_share(held, len(tested)))


def _share(part: int, n: int) -> tuple[float, float, float]:
    """Return a share and its 95 % interval; of nothing, all shares are possible."""
    return (part / n, *accuracy_interval(part, n)) if n else (float("nan"), 0.0, 1.0)
