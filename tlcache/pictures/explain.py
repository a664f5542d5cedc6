"""A run and images -> which places of each speak for what the run says of it, and how that is known."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tlcache.arguments import CHOOSING, Device, Runs
from tlcache.errors import ImageReadError, OptionError, UnknownNameError, closest
from tlcache.kinds import SWITCH, listing, text
from tlcache.options import Option, described
from tlcache.progress import image_bar

if TYPE_CHECKING:
    from tlcache.deploying.saved import Saved
    from tlcache.images import Preprocess
    from tlcache.pictures.heat import Method, Pixels, Values

__all__ = ["Explained", "Explanation", "explain"]


@dataclass(frozen=True)
class Explanation:
    """What speaks for a class in an image.

    Parameters
    ----------
    path
        Of the image.
    label, probability
        The class, and how likely the run says it is.
    predicted
        What the run says the image is.
    heat
        float32 (h, w): how much each place speaks for the class, below 0 against it; the first row is the top.
    pixels
        uint8 (3, H, W), RGB: the image as the network sees it, which is what `heat` is laid over.
    """

    path: str
    label: str
    probability: float
    predicted: str
    heat: Values
    pixels: Pixels

    @property
    def effect(self) -> float:
        """The largest value of `heat`, in the unit that `Explained.shows` says."""
        return float(self.heat.max())

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises; the pixels are left out."""
        named = {name: getattr(self, name) for name in ("path", "label", "probability", "predicted")}
        return {
            **named,
            "effect": round(self.effect, 5),
            "heat": [[round(value, 5) for value in row] for row in self.heat.tolist()],
        }


@dataclass(frozen=True)
class Explained:
    """What speaks for the answers of a run.

    Parameters
    ----------
    run
        Its name.
    method, shows
        How the maps were made, and what they show and cannot show, in sentences.
    images
        In the order in which they were given.
    errors
        Path -> why an image cannot be used.
    least
        An effect that is smaller is next to nothing, and is painted faintly; 0 where none is known to be.
    """

    run: str
    method: str
    shows: str
    images: tuple[Explanation, ...]
    errors: dict[str, str]
    least: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        about = {name: getattr(self, name) for name in ("run", "method", "shows", "errors", "least")}
        return {**about, "images": [each.as_json() for each in self.images]}


@described()
def explain(
    run: str | Path,
    images: str | PathLike[str] | Iterable[str | PathLike[str]] = (),
    *,
    mistakes: Annotated[
        bool,
        Option("The test images that a report shows as the run's mistakes; it then has their maps", SWITCH, CHOOSING),
    ] = False,
    label: Annotated[
        str | None, Option("The class to look for", text("CLASS"), CHOOSING, default="what the run says")
    ] = None,
    runs: Runs = None,
    device: Device = "auto",
) -> Explained:
    """Say which places of images speak for what a run says of them.

    Of a linear head on an embedding that is a mean over places, the map is exact (class activation); of a fine-tuned
    network it is Grad-CAM; of all others it is what covering patches of the image changes.

    Parameters
    ----------
    run
        Its record (`.json`), the `.safetensors` beside it, or the name of both.
    images
        As for `predict`; or paths of the run's own test images.

    Raises
    ------
    OptionError, DataError
        There is no such run or class, or nothing at a place where images are said to be.
    HeadError, ModelError, WeightsError, DeviceError
        The run's files are damaged, or its network cannot be had or run.

    Examples
    --------
    >>> run = fit_heads([feature_file], heads=["ridge"], runs=folder)[0]
    >>> found = explain(run.path, photos / "red" / "0.png")
    >>> found.method, found.images[0].predicted, found.images[0].heat.shape
    ('class activation map', 'red', (4, 4))
    """
    from tlcache.deploying.saved import find_saved
    from tlcache.images import BadImageError, prepare
    from tlcache.pictures.choosing import chosen_method

    saved = find_saved(run, runs)
    method, classes, preprocess = chosen_method(saved, device)
    if label is not None and label not in classes:
        raise UnknownNameError(closest("class", label, classes))
    found, errors = list[Explanation](), dict[str, str]()
    asked = [*(_mistaken(saved) if mistakes else ()), *map(os.fspath, listing(images))]
    places = _images(asked, saved, classes)
    with image_bar("explaining", len(places)) as advance:
        for path, read in places:
            try:
                pixels, _ = prepare(read(path), preprocess)
            except (BadImageError, ImageReadError) as error:
                errors[path] = getattr(error, "reason", "") or str(error)  # without what cached images may need
            else:
                found.append(_explained(method, classes, path, pixels, label))
            advance(1)
    made = Explained(saved.path.stem, method.name, method.shows, tuple(found), errors, method.least)
    if mistakes and saved.run and label is None:
        _keep(made, saved.run.path, preprocess)
    return made


def _explained(method: Method, classes: Sequence[str], path: str, pixels: Pixels, label: str | None) -> Explanation:
    probabilities = method.probabilities(pixels)
    best = int(probabilities.argmax())
    number = best if label is None else classes.index(label)
    heat = method.heat(pixels, number)
    return Explanation(path, classes[number], float(probabilities[number]), classes[best], heat, pixels)


def _mistaken(saved: Saved) -> list[str]:
    """Return the test images that a report shows as mistakes of the run.

    Raises
    ------
    OptionError
        There are none.
    """
    from tlcache.evaluation.metrics import confusion
    from tlcache.evaluation.mistakes import shown_mistakes

    if saved.run is None:
        raise OptionError(f"'{saved.path.name}' has no record beside it, which says where it is wrong. Name images.")
    top = saved.run.predictions().in_order().top()
    rows = shown_mistakes(top, confusion(top.label, top.predicted, len(saved.run.classes)))
    if not rows:
        raise OptionError(
            f"'{saved.path.stem}' makes no mistake on its test images. Name images in place of --mistakes."
        )
    return [top.paths[row] for row in rows]


def _keep(made: Explained, run: Path, preprocess: Preprocess) -> None:
    from tlcache.pictures.recorded import MistakeMaps, write_maps
    from tlcache.runs.folder import explained_path

    heats = {each.path: each.as_json()["heat"] for each in made.images}
    write_maps(MistakeMaps(made.method, made.shows, preprocess.as_json(), heats, explained_path(run), made.least))


def _images(asked: Sequence[str], saved: Saved, classes: Sequence[str]) -> list[tuple[str, Callable[[str], bytes]]]:
    """Return paths with what reads them: files as they are given, and test images of the run by their names there."""
    from tlcache.datasets.anywhere import absolute, open_anywhere
    from tlcache.datasets.dataset import reopen
    from tlcache.deploying.inputs import parted

    tested = {os.fsdecode(row) for row in saved.run.predictions().row.tolist()} if saved.run else set[str]()
    own, paths = parted(asked, tested, classes)
    anywhere = open_anywhere(map(absolute, paths))
    files = [(path, lambda path: anywhere.read(absolute(path))) for path in paths]
    if not own or saved.run is None:
        return files
    return [*((path, reopen(saved.run.source).read) for path in own), *files]
