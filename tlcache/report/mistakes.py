"""Where a run goes wrong, as pictures: an image, and what was most similar to it in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.datasets.dataset import reopen
from tlcache.evaluation.comparison import Entry
from tlcache.evaluation.mistakes import Confusion, confusions, surest_mistakes
from tlcache.keys import printable
from tlcache.pictures.reasons import Reasons, near_in
from tlcache.report.thumbnails import Listed, Shown, Thumbnails

__all__ = ["Confused", "Mistakes", "mistakes"]

_SUREST = 12
_PAIRS = 10


class Confused(NamedTuple):
    """How often images of one class were taken for another, by name: times, share of the class's images, and one."""

    true: str
    predicted: str
    times: int
    share: float
    example: Listed


@dataclass(frozen=True)
class Mistakes:
    """The most confused pairs of classes, the surest mistakes, and what the nearest images are by, where there are."""

    pairs: Sequence[Confused]
    surest: Sequence[Listed]
    near_by: str


def mistakes(entry: Entry, counts: NDArray[np.int64], reasons: Reasons | None, room: Thumbnails) -> Mistakes:
    """Return where a run goes wrong.

    Parameters
    ----------
    entry
        The run.
    counts
        int64 (C, C), its confusion matrix, rows being true classes.
    reasons
        The images it was trained on; None where they are not known any more.
    room
        For the pictures.
    """
    drawn = _Drawn(entry, reasons, room)
    surest = [drawn.mistake(row) for row in surest_mistakes(entry.top, _SUREST).tolist()]
    pairs = [drawn.confused(each) for each in confusions(counts, _PAIRS)]
    return Mistakes(pairs, surest, reasons.backbone if reasons else "")


class _Drawn:
    def __init__(self, entry: Entry, reasons: Reasons | None, room: Thumbnails) -> None:
        self._top, self._classes, self._room = entry.top, entry.run.classes, room
        self._images, self._paths = reopen(entry.run.source), entry.top.paths
        self._near = near_in(reasons, self._paths)

    def mistake(self, row: int) -> Listed:
        """Return a test image by its number."""
        path, confidence = self._paths[row], f"{self._top.confidence[row]:.2f}"
        true, predicted = (self._classes[numbers[row]] for numbers in (self._top.label, self._top.predicted))
        words = [(path, f"{printable(true)} taken for {printable(predicted)} ({confidence})")]
        for label in (true, predicted):
            if near := self._near(path, label):
                words.append((near.path, f"nearest {printable(label)} of training ({near.cosine:.2f})"))
        pictures = self._room.of(self._images, [each for each, _ in words])
        shown = (Shown(picture, line, printable(each)) for picture, (each, line) in zip(pictures, words, strict=True))
        return Listed((path, true, predicted, confidence), "", tuple(shown))

    def confused(self, pair: Confusion) -> Confused:
        """Return two classes with the surest of the mistakes."""
        rows = np.flatnonzero((self._top.label == pair.true) & (self._top.predicted == pair.predicted))
        example = self.mistake(int(rows[self._top.confidence[rows].argmax()]))
        names = printable(self._classes[pair.true]), printable(self._classes[pair.predicted])
        return Confused(*names, pair.times, pair.share, example)
