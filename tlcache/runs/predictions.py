"""What a run said of every test image: probabilities in a `.npz`, and a `.csv` for people."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.cache.feature_file import Split
from tlcache.datasets.texts import Texts, numbers
from tlcache.errors import CacheError, first_line
from tlcache.files import whole, write_whole
from tlcache.heads.answering import Answering
from tlcache.tasks import MULTILABEL
from tlcache.text import as_csv

__all__ = ["Predictions", "TopPredictions", "read_held_out", "read_predictions", "write_predictions"]

_AT_ONCE = 8192  # lines
_HELD_OUT = "held_"  # before the names of what was said of images that were held out of training


@dataclass(frozen=True)
class Predictions:
    """What a run said of the test images, or of those that were held out of training, as its `.npz` holds it.

    Parameters
    ----------
    row, group
        (n,) bytes: each image's path, and the name of its group, or nothing.
    label
        (n,) int64: columns of `probabilities`. Of several labels uint8 0 or 1, of numbers float64, (n, C).
    probabilities
        (n, C) float32, calibrated; of numbers what was predicted, float64.
    fold
        (n,) int64: of a cross-validation, which fold of all repetitions; every image is there once for each of these.
    """

    row: NDArray[np.bytes_]
    label: NDArray[Any]
    probabilities: NDArray[Any]
    group: NDArray[np.bytes_]
    fold: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, images: Split, probabilities: NDArray[Any]) -> Predictions:
        """Return what was said of some images."""
        row, group = (Texts.of(names).stored for names in (images.paths, images.groups))
        return cls(row, images.wanted, probabilities, group)

    def top(self) -> TopPredictions:
        """Return the likeliest class of each image."""
        return TopPredictions(self.row, self.label, self.probabilities.argmax(axis=1), self.probabilities.max(axis=1))

    def in_order(self) -> Predictions:
        """Return the same in the order of the rows, which is one for all runs on a dataset."""
        order = np.argsort(self.row) if self.fold is None else np.lexsort((self.fold, self.row))
        return Predictions(**{name: values[order] for name, values in vars(self).items() if values is not None})

    @property
    def units(self) -> NDArray[np.bytes_]:
        """What tells images apart that are counted as one (n,): their groups, and of a cross-validation the images."""
        return self.group if self.fold is None else np.where(self.group == b"", self.row, self.group)


@dataclass(frozen=True)
class TopPredictions:
    """The likeliest class of each test image, which of a thousand classes is a hundredth of `Predictions`.

    Parameters
    ----------
    row, label
        (n,) as in `Predictions`.
    predicted, confidence
        (n,) int64 and float32: the class with the largest probability, and that.
    """

    row: NDArray[np.bytes_]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each image was classified rightly (n,)."""
        right: NDArray[np.bool_] = self.predicted == self.label
        return right

    @property
    def paths(self) -> Texts:
        """The images' paths, relative to the dataset's root."""
        return Texts(self.row)


def write_predictions(
    path: Path,
    classes: Sequence[str],
    found: Predictions,
    held_out: Predictions | None = None,
    answering: Answering | None = None,
    folds: int = 0,
) -> None:
    """Write what a run said of the test images: `path` is the `.npz`, and the `.csv` is written beside it.

    What it said of images that were held out of training is written with it, unless it has more than a run may take.
    `answering` says how `probabilities` are read where they are not of classes; `folds` is how many a repetition of a
    cross-validation has.
    """
    more = {f"{_HELD_OUT}{name}": values for name, values in vars(held_out).items()} if held_out else {}
    arrays = {name: values for name, values in {**vars(found), **more}.items() if values is not None}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays, classes=np.array(classes, np.str_))
    write_whole(path, buffer.getbuffer())
    rows = _rows(found.top(), classes) if answering is None else _of_columns(found, answering)
    if found.fold is not None:
        rows = _in_folds(rows, found.fold, folds)
    with whole(path.with_suffix(".csv")) as unfinished, unfinished.open("wb") as stream:
        while some := list(islice(rows, _AT_ONCE)):
            stream.write(os.fsencode(as_csv(some)))


def _of_columns(found: Predictions, answering: Answering) -> Iterator[Sequence[Any]]:
    """Yield path, label and what was predicted; of several labels the probability of each, too."""
    several = answering.task == MULTILABEL
    right = replace(answering, thresholds=(0.5,)).said(found.label)
    cells = zip(Texts(found.row), right, answering.said(found.probabilities), strict=True)
    names = [f"p({name})" for name in answering.names] if several else []
    each = ([f"{value:.4f}" for value in row] if several else [] for row in found.probabilities.tolist())
    yield "path", "label", "predicted", *names
    yield from ((*first, *rest) for first, rest in zip(cells, each, strict=True))


def _in_folds(rows: Iterator[Sequence[Any]], fold: NDArray[np.int64], folds: int) -> Iterator[Sequence[Any]]:
    """Yield rows with the fold that each image was tested in, and the repetition where there are several, from 1 on."""
    repeated = bool((fold >= folds).any())
    yield *next(rows), *(["repetition"] if repeated else []), "fold"
    for row, number in zip(rows, fold.tolist(), strict=True):
        repetition, own = divmod(number, folds)
        yield *row, *([repetition + 1] if repeated else []), own + 1


def _rows(found: TopPredictions, classes: Sequence[str]) -> Iterator[Sequence[Any]]:
    yield "path", "label", "predicted", "confidence"
    columns = [numbers(each) for each in (found.label, found.predicted, found.confidence)]
    for path, label, predicted, confidence in zip(found.paths, *columns, strict=True):
        yield path, classes[label], classes[predicted], f"{confidence:.4f}"


def read_predictions(path: Path) -> Predictions:
    """Read what a run said of the test images, from its `.npz`.

    Raises
    ------
    CacheError
        The file is missing or damaged.
    """
    found = _read(path, "")
    assert found is not None
    return found


def read_held_out(path: Path) -> Predictions | None:
    """Read what a run said of images that were held out of training; None where its file does not hold that.

    Raises
    ------
    CacheError
        The file is missing or damaged.
    """
    return _read(path, _HELD_OUT)


def _read(path: Path, before: str) -> Predictions | None:
    names = [field.name for field in fields(Predictions)]
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            if before and f"{before}{names[0]}" not in arrays:
                return None
            there = [name for name in names if name != "fold" or f"{before}fold" in arrays]
            return Predictions(**{name: arrays[f"{before}{name}"] for name in there})
    except Exception as error:  # of a damaged file numpy, zipfile and zlib raise half a dozen kinds
        what = f"is damaged ({first_line(error)})" if path.exists() else "is missing"
        raise CacheError(
            f"'{path}', the predictions of a run, {what}. Give the command again that made the run, with --force."
        ) from None
