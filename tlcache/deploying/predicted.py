"""What was said of images, and how often that was right where they have labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.deploying.rows import Columns, PredictedRow
from tlcache.evaluation.significance import accuracy_interval
from tlcache.heads.rows import blocks
from tlcache.records import as_json

__all__ = ["Checked", "Predicted", "check"]

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Checked:
    """How often predictions are right, of images that are labelled with a class of the model.

    Parameters
    ----------
    n, accuracy, low, high
        So many images, the share that is right, and its 95 % interval (Wilson); an image that cannot be used is not
        among them.
    unknown
        Labels that are no class of the model, and how many images have each.
    """

    n: int
    accuracy: float
    low: float
    high: float
    unknown: Mapping[str, int]


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
        float32 (N, top): their calibrated probabilities; nan of an image that cannot be used.
    errors
        Number of an image -> why it cannot be used.
    checked
        How often this is right; None where no image has a label.
    embedded, reused
        Images that went through the network, and whose embedding was there.
    seconds
        On the clock.
    """

    model: str
    classes: tuple[str, ...]
    paths: Sequence[str]
    ranked: NDArray[np.int64]
    confidences: NDArray[np.float32]
    errors: dict[int, str]
    checked: Checked | None = None
    embedded: int = 0
    reused: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, model: str, classes: tuple[str, ...], paths: Sequence[str], top: int) -> Predicted:
        """Return what is to be filled: nothing is said of any image yet."""
        shape = len(paths), min(top, len(classes))
        return cls(model, classes, paths, np.full(shape, -1, np.int64), np.full(shape, np.nan, np.float32), {})

    def fill(self, numbers: Sequence[int], answer: Callable[[Rows], Rows], rows: Rows) -> None:
        """Say of some images what `answer` makes of their embeddings, float32 (n, dim): probabilities (n, C)."""
        for some in blocks(len(rows)):  # so that probabilities of all classes are never there for all images
            probabilities = answer(rows[some])
            best = _ranked(probabilities, self.ranked.shape[1])
            self.ranked[numbers[some]] = best
            self.confidences[numbers[some]] = np.take_along_axis(probabilities, best, axis=1)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def labels(self) -> list[str]:
        """The likeliest class of each image (N,); empty of one that cannot be used."""
        return ["" if best < 0 else self.classes[best] for best in self.ranked[:, 0].tolist()]

    @property
    def counts(self) -> dict[str, int]:
        """How many images are taken for each class, the most frequent first; classes without any are left out."""
        return dict(Counter(label for label in self.labels if label).most_common())

    @property
    def columns(self) -> Columns:
        """The columns of `rows`."""
        return Columns(self.ranked.shape[1])

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[PredictedRow]:
        """Yield what is said of the images, or of some that follow each other."""
        for number in range(start, len(self) if stop is None else stop):
            labels = [self.classes[label] for label in self.ranked[number].tolist() if label >= 0]
            confidences = self.confidences[number, : len(labels)].tolist()
            yield PredictedRow(self.paths[number], labels, confidences, error=self.errors.get(number, ""))

    def as_json(self, rows: bool = True) -> dict[str, Any]:
        """Return what `--json` promises; the predictions themselves only with `rows`."""
        figures = {
            "model": self.model,
            "images": len(self),
            "bad": len(self.errors),
            "embedded": self.embedded,
            "reused": self.reused,
            "seconds": self.seconds,
            "images_per_s": len(self) / self.seconds,
            "counts": self.counts,
            "checked": as_json(self.checked),
        }
        return figures | ({"predictions": [self.columns.values(row) for row in self.rows()]} if rows else {})


def _ranked(probabilities: Rows, top: int) -> NDArray[np.int64]:
    """Return the likeliest classes of each row (n, top); of equal ones the first, as everywhere."""
    if top == 1:
        best: NDArray[np.int64] = probabilities.argmax(axis=1)[:, None]
        return best
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :top]


def check(labels: Sequence[str], ranked: NDArray[np.int64], classes: Sequence[str]) -> Checked | None:
    """Compare predictions with labels.

    Parameters
    ----------
    labels
        (N,) of the images; empty where there is none.
    ranked
        int64 (N, top), as in `Predicted`.
    classes
        Of the model.

    Returns
    -------
    Checked or None
        None where no image has a label.

    Examples
    --------
    >>> found = check(["cat", "cow", "cat", ""], np.array([[0], [0], [1], [1]]), ["cat", "dog"])
    >>> found.n, found.accuracy, found.unknown
    (2, 0.5, {'cow': 1})
    """
    if not any(labels):
        return None
    number = {name: at for at, name in enumerate(classes)}
    known = np.array([number.get(label, -1) for label in labels], np.int64)
    tested = (known >= 0) & (ranked[:, 0] >= 0)
    n, right = int(tested.sum()), int((known == ranked[:, 0])[tested].sum())
    low, high = accuracy_interval(right, n) if n else (0.0, 1.0)
    unknown = Counter(label for label in labels if label and label not in number)
    return Checked(n, right / n if n else float("nan"), low, high, dict(unknown.most_common()))
