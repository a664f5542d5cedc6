"""A network with its head, in one ONNX file, that says what images show."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlcache.backbones.engines import default_batch, open_session
from tlcache.datasets.folder import open_folder
from tlcache.deploying.judging import Judge, Judged, ranked
from tlcache.deploying.rows import Columns, PredictedRow
from tlcache.errors import ImageReadError, ModelError, OptionError, one_line
from tlcache.heads.answering import ANSWERS, answering_of
from tlcache.heads.uncertainty import Uncertainty
from tlcache.images import BadImageError, Preprocess, by_numpy, fit, prepare, upright
from tlcache.keys import native
from tlcache.kinds import number, whole
from tlcache.threads import in_threads

__all__ = ["TAKES", "Bundle", "load_model"]

_FILES = open_folder()
_EXPECTED = "Expected the model of a run; make it with: tlcache export RUN --out model.onnx"
_SHARE = number(above=0, below=1)
TAKES = {"top": whole(1), "right": _SHARE, "reject": _SHARE}
_ADVICE = "Fit its head again with: tlcache fit-heads --coverage 0.9, and export that."


def load_model(path: str | Path, *, max_pixels: int | None = None) -> Bundle:
    """Open a model that `tlcache export` made of a run; it runs on the CPU.

    Parameters
    ----------
    path
        The .onnx file.
    max_pixels
        Largest image to read; default: 89,478,485.

    Raises
    ------
    ModelError
        It is no such model, or ONNX Runtime does not accept it.

    Examples
    --------
    >>> model = load_model(bundle)
    >>> row, bad = model.predict([photos / "red" / "0.png", photos / "none.png"])
    >>> row.labels, row.confidences[0] > 0.9, bad.error
    (['red'], True, 'No such file or directory')
    """
    return Bundle(Path(path).read_bytes(), str(path), max_pixels)


class Bundle:
    """A network with its head, which says what images show. Any number of threads may ask it.

    Parameters
    ----------
    model
        The bytes of its file.
    name
        What to call it in messages.
    max_pixels
        As for `load_model`.

    Attributes
    ----------
    classes
        Names, in the order of `probabilities`.
    metadata
        What the file says of its making: `dataset`, `backbone`, `head`, `accuracy`, `licence` and more.
    preprocess
        What happens to an image before the network.
    uncertainty
        What sets, `right` and `reject` go by; None where the head was fitted without `--coverage`.
    answering
        How its answers are read, where they are several labels or a number; None of classes.
    """

    def __init__(self, model: bytes, name: str, max_pixels: int | None = None) -> None:
        try:
            self._session = open_session(model)
        except ModelError as error:
            raise ModelError(f"'{name}' is no model that can be used here. {_EXPECTED} ({error})") from None
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        outputs = [each.name for each in self._session.get_outputs()]
        if "classes" not in self.metadata or not {*ANSWERS}.intersection(outputs):
            raise ModelError(f"'{name}' gives {', '.join(outputs)} and names no classes. {_EXPECTED}")
        try:
            self.classes: list[str] = native(json.loads(self.metadata["classes"]))
            preprocess = Preprocess.from_json(json.loads(self.metadata["preprocess"]))
            kept = {name: native(json.loads(self.metadata.get(name, "null"))) for name in ("uncertainty", "answering")}
            self.uncertainty = Uncertainty.of_tables(kept["uncertainty"]) if kept["uncertainty"] else None
            self.answering = answering_of(kept)
        except (KeyError, TypeError, ValueError, OptionError) as error:
            raise ModelError(
                f"'{name}' does not say what a model of tlcache says ({one_line(error)}). If a newer tlcache made it "
                f"({self.metadata.get('tlcache', 'unknown')}), use that."
            ) from None
        images = self._session.get_inputs()[0].shape[0]  # a number, or the name of any number
        usual = default_batch("onnxruntime", "cpu", preprocess.crop)
        self._batch = images if isinstance(images, int) else usual
        self.preprocess = replace(preprocess, max_pixels=max_pixels) if max_pixels else preprocess

    def predict(
        self,
        images: Iterable[Any],
        *,
        top: int = 1,
        sets: bool = False,
        right: float | None = None,
        reject: float | None = None,
    ) -> list[PredictedRow]:
        """Say what images show.

        Parameters
        ----------
        images
            Paths, the bytes of image files, what is open for reading them, PIL images, or uint8 arrays (H, W),
            (H, W, 3) or (H, W, 4), mixed as you like, or one of these.
        top
            How many classes to name of each.
        sets, right, reject
            As of `tlcache.predict`; they need a head that was fitted with `--coverage`.

        Returns
        -------
        list of PredictedRow
            One for each image, in their order; where an image cannot be used, `error` says why.

        Raises
        ------
        ModelError
            The network failed, perhaps because memory ran out.
        OptionError
            A value that an option may not have, or the model does not know what `sets`, `right` or `reject` need.
        """
        for option, value in (("top", top), ("right", right), ("reject", reject)):
            if value is not None and not TAKES[option].allows(value):
                raise OptionError(f"{option} takes {TAKES[option].takes}; asked: {value!r}.")
        judge = self.judge(sets=sets, right=right, reject=reject)
        self.columns(judge, top)
        given = [images] if _is_one(images) else list(images)
        return [row for rows in self.rows(given, judge, top) for row in rows]

    def judge(self, **asked: Any) -> Judge:
        """Return what judges answers as is asked for by `sets`, `right` and `reject`."""
        return Judge(self.uncertainty, **asked, advice=_ADVICE)

    def columns(self, judge: Judge, top: int = 1) -> Columns:
        """Return what columns the rows have.

        Raises
        ------
        OptionError
            Several classes are asked for, and it has none.
        """
        if self.answering is None:
            return Columns(min(top, len(self.classes)), judge.sets, judge.knows_distances)
        if top != 1:
            raise OptionError(f"top is of classes, and the model is of --task {self.answering.task}; leave it out.")
        return Columns(each=self.answering.further, exact=self.answering.are_numbers)

    def rows(self, images: Sequence[Any], judge: Judge, top: int = 1) -> Iterator[list[PredictedRow]]:
        """Yield what `predict` returns, a batch at a time; meanwhile the next ones are decoded."""
        size = self._batch

        def one(start: int) -> list[PredictedRow]:
            batch = images[start : start + size]
            pixels = np.empty((len(batch), 3, *self.preprocess.size), np.uint8)
            errors = [self._fill(image, out) for image, out in zip(batch, pixels, strict=True)]
            names = [_name(image, number) for number, image in enumerate(batch, start)]
            rows = [PredictedRow(name, error=error) for name, error in zip(names, errors, strict=True)]
            return self._answers(rows, pixels, judge, top)

        yield from in_threads(one, range(0, len(images), size))

    def outputs(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Return what the file gives for prepared images, uint8 (n, 3, H, W): `probabilities` (n, C) and more.

        Raises
        ------
        ModelError
            As `predict`.
        """
        names = [each.name for each in self._session.get_outputs()]
        try:
            return dict(zip(names, self._session.run(names, {"image": pixels}), strict=True))
        except Exception as error:  # ONNX Runtime's own have no base but this
            raise ModelError(f"The network failed on a batch of {len(pixels)} ({one_line(error)}).") from None

    def _fill(self, image: Any, out: NDArray[np.uint8]) -> str:
        """Prepare one image; return why it cannot be used, or nothing."""
        try:
            data = _content(image)
            if isinstance(data, bytes | bytearray | memoryview):
                prepare(bytes(data), self.preprocess, out, kernel=by_numpy)
            else:
                fit(upright(data, self.preprocess.window), self.preprocess, out, by_numpy)
        except ImageReadError as error:
            return error.reason
        except BadImageError as error:
            return str(error)
        return ""

    def _answers(
        self, rows: list[PredictedRow], pixels: NDArray[np.uint8], judge: Judge, top: int
    ) -> list[PredictedRow]:
        """Return rows with what is said of those images that can be used."""
        usable = np.flatnonzero([not row.error for row in rows])
        if not len(usable):
            return rows
        found = self.outputs(pixels[usable])
        answers = next(found[name] for name in ANSWERS if name in found)
        said = self._of_classes(answers, judge.judge(answers, found.get("distance")), top)
        if self.answering:
            said = ({"labels": self.answering.said(own[None]), "each": self.answering.each(own)} for own in answers)
        for at, own, fields in zip(usable, answers, said, strict=True):
            bad = {} if np.isfinite(own).all() else {"error": "the network gives numbers that are not finite"}
            rows[at] = replace(rows[at], **(bad or fields))
        return rows

    def _of_classes(self, probabilities: NDArray[np.float32], judged: Judged, top: int) -> Iterator[dict[str, Any]]:
        """Yield what rows say of images, of the probabilities of classes (n, C)."""
        for which, (own, order) in enumerate(zip(probabilities, ranked(probabilities, top), strict=True)):
            labels = self._named(order)
            yield {
                "labels": [judged.withheld[which] or labels[0], *labels[1:]],
                "confidences": own[order].tolist(),
                "set": None if judged.sets is None else self._named(judged.sets[which]),
                "unusual": None if judged.unusual is None else judged.unusual[which],
            }

    def _named(self, numbers: Iterable[int]) -> list[str]:
        return [self.classes[number] for number in numbers]


def _is_one(images: Any) -> bool:
    """Return whether this is one image, or what was meant as one, although it may be iterated."""
    if isinstance(images, np.ndarray):
        return images.ndim in (0, 2, 3)
    one = isinstance(images, str | bytes | bytearray | memoryview | os.PathLike | Image.Image)
    return one or hasattr(images, "read") or not isinstance(images, Iterable)


def _content(image: Any) -> Any:
    """Return the bytes of a file that is named or open; other images as they are."""
    if isinstance(image, str | os.PathLike):
        return _FILES.read(os.fspath(image))
    if not hasattr(image, "read"):
        return image
    try:
        return image.read()
    except (OSError, ValueError) as error:  # closed, or open as text
        raise BadImageError("unreadable", one_line(error)) from None


def _name(image: Any, number: int) -> str:
    return os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {number}"
