"""Where a run goes wrong, as pictures: an image, and what was most similar to it in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.datasets.dataset import reopen
from tlcache.errors import ImageReadError
from tlcache.evaluation.comparison import Entry
from tlcache.evaluation.mistakes import PAIRS, SUREST, Confusion, confusions, surest_mistakes, surest_of
from tlcache.images import BadImageError, Preprocess, prepare
from tlcache.keys import printable
from tlcache.pictures.reasons import Reasons, near_in
from tlcache.pictures.recorded import read_maps
from tlcache.report.heat import heat_address
from tlcache.report.thumbnails import Listed, Shown, Thumbnails

__all__ = ["Confused", "Mistakes", "mistakes"]

_MAP = 96  # pixels in height


class Confused(NamedTuple):
    """How often images of one class were taken for another, by name: times, share of the class's images, and one."""

    true: str
    predicted: str
    times: int
    share: float
    example: Listed


@dataclass(frozen=True)
class Mistakes:
    """The most confused pairs of classes, the surest mistakes, and what the nearest images are by, where there are.

    `maps` says what the maps beside them show; empty where there are none.
    """

    pairs: Sequence[Confused]
    surest: Sequence[Listed]
    near_by: str
    maps: str = ""


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
    surest = [drawn.mistake(row) for row in surest_mistakes(entry.top, SUREST).tolist()]
    pairs = [drawn.confused(each) for each in confusions(counts, PAIRS)]
    return Mistakes(pairs, surest, reasons.backbone if reasons else "", drawn.maps)


class _Drawn:
    def __init__(self, entry: Entry, reasons: Reasons | None, room: Thumbnails) -> None:
        self._top, self._classes, self._room = entry.top, entry.run.classes, room
        self._images, self._paths = reopen(entry.run.source), entry.top.paths
        self._near = near_in(reasons, self._paths)
        self._maps = read_maps(entry.run.path)

    @property
    def maps(self) -> str:
        """What the maps of what speaks for an answer are, and what they show."""
        if self._maps is None:
            return ""
        return f"Maps: {self._maps.method}; orange speaks for the wrong answer, blue against it. {self._maps.shows}"

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
        return Listed((path, true, predicted, confidence), "", (*shown, *self._explained(path, predicted)))

    def _explained(self, path: str, predicted: str) -> Iterator[Shown]:
        """Yield the map of what speaks for the wrong answer, where it is recorded."""
        if self._maps is None or (heat := self._maps.heat(path)) is None:
            return
        address = ""
        with suppress(ImageReadError, BadImageError):
            seen = Preprocess.from_json(self._maps.preprocess)
            pixels, _ = prepare(self._images.read(path), seen)
            address = heat_address(pixels, heat, _MAP, self._maps.least)
        line = f"{self._maps.method}: what speaks for {printable(predicted)}"
        yield Shown(self._room.place(address), line, printable(path))

    def confused(self, pair: Confusion) -> Confused:
        """Return two classes with the surest of the mistakes."""
        example = self.mistake(surest_of(self._top, pair))
        names = printable(self._classes[pair.true]), printable(self._classes[pair.predicted])
        return Confused(*names, pair.times, pair.share, example)
