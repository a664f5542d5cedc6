"""How close is a near-duplicate? As close as an altered copy of an image is, and closer than strangers ever are."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from tlcache.auditing.neighbours import Array, Space
from tlcache.errors import CacheError, ModelError, TlcacheError
from tlcache.files import read_regular
from tlcache.images import BadImageError, Preprocess, decode, prepare
from tlcache.machine import available_cpus
from tlcache.models import Model, load_model
from tlcache.progress import image_bar
from tlcache.runtime import Session, open_session
from tlcache.store import FeatureFile

__all__ = ["COPIES", "Calibration", "calibrate", "stranger_bound"]

COPY_SHARE = 0.98  # of altered copies that are above the threshold
STRANGER_SHARE = 0.001  # of images that have a stranger above it
_SAMPLE = 120
_FEW = 100

Alter = Callable[[Image.Image, np.random.Generator], Image.Image]


def _resized(image: Image.Image, random: np.random.Generator) -> Image.Image:
    scale = random.uniform(0.6, 0.9)
    return image.resize((max(1, round(scale * image.width)), max(1, round(scale * image.height))))


def _brightened(image: Image.Image, random: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(random.uniform(1.1, 1.3))


def _cropped(image: Image.Image, random: np.random.Generator) -> Image.Image:
    cut = image.width // 20, image.height // 20
    left, top = (int(random.integers(0, each + 1)) for each in cut)
    return image.crop((left, top, left + image.width - cut[0], top + image.height - cut[1]))


COPIES: Mapping[str, Alter] = {
    "re-encoded": lambda image, _: image,
    "resized": _resized,
    "brightened": _brightened,
    "cropped": _cropped,
    "flipped": lambda image, _: ImageOps.mirror(image),
}


@dataclass(frozen=True)
class Calibration:
    """Where the line is drawn, and why.

    Parameters
    ----------
    threshold
        Cosine above which two images are near-duplicates.
    strangers
        The cosine that one image in a thousand reaches with some image of another class.
    copies
        Kind of altered copy -> share of them above the threshold; empty where no copies could be made.
    images
        How many images copies were made of.
    note
        What a user should know of it; empty when all went well.
    """

    threshold: float
    strangers: float
    copies: Mapping[str, float]
    images: int
    note: str

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "copies": dict(self.copies)}


def calibrate(file: FeatureFile, space: Space, embeddings: Array, strangers: Array) -> Calibration:
    """Choose the threshold of near-duplicates for one feature file.

    Of a sample of its images, altered copies are made, embedded by the same network, and compared with the original:
    the threshold is what 98 % of copies exceed, but never so low that more than one image in a thousand would have a
    near-duplicate of another class. Where the images or the network are gone, it lies half-way between that bound
    and 1.

    Parameters
    ----------
    file
        The feature file.
    space, embeddings
        Where cosines are taken, and the file's rows there: float32 (n, k).
    strangers
        As `tlcache.auditing.neighbours.nearest_strangers` returns.
    """
    bound = stranger_bound(strangers)
    try:
        cosines, images = _copies(file, space, embeddings)
    except (TlcacheError, OSError, BadImageError) as error:
        note = f"No copies could be made to compare with ({error}); the threshold is a guess from the labels alone."
        return Calibration((1 + bound) / 2, bound, {}, 0, note)
    threshold = max(bound, float(np.quantile(np.concatenate(list(cosines.values())), 1 - COPY_SHARE)))
    found = {kind: float(np.mean(values > threshold)) for kind, values in cosines.items()}
    notes = [f"With {len(file)} images the threshold is rough."] if len(file) < _FEW else []
    missed = [f"{1 - share:.0%} of {kind} copies" for kind, share in found.items() if share < 0.9]
    if missed:
        notes.append(f"At this threshold {', '.join(missed)} would be missed: strangers are as close.")
    return Calibration(threshold, bound, found, images, " ".join(notes))


def stranger_bound(strangers: Array) -> float:
    """Return the cosine that one image in a thousand exceeds with its closest image of another class.

    Largest values follow Gumbel's law (Fisher and Tippett, 1928), which is fitted through the median and the 95th
    percentile, so that a duplicate under another label for one image in fifty hardly moves it.
    """
    middle, high = np.quantile(strangers.astype(np.float64), [0.5, 0.95])
    at = -np.log(-np.log(np.array([0.5, 0.95, 1 - STRANGER_SHARE])))
    return float(min(0.999, middle + (high - middle) * (at[2] - at[0]) / (at[1] - at[0])))


def _copies(file: FeatureFile, space: Space, embeddings: Array) -> tuple[dict[str, Array], int]:
    """Return the cosine of altered copies with their original, by kind: float32 (m,) each; and m."""
    model = _network(file)
    session = open_session(model.onnx(), "cpu", precision="fp32", batch=len(COPIES))
    random = np.random.default_rng(0)
    some = random.choice(len(file), min(len(file), _SAMPLE), replace=False)
    paths, hashes, root = file.paths(), file.hashes(), Path(file.attrs["source"])
    found: list[Array] = []
    with image_bar("altered copies", len(some)) as advance, ThreadPoolExecutor(available_cpus()) as pool:

        def one(row: int) -> Array | None:
            advance(1)
            path = os.path.join(root, paths[row])  # noqa: PTH118  names need not be UTF-8
            data = read_regular(path)
            if hashlib.sha256(data).hexdigest().encode() != hashes[row]:
                return None
            copies = space(_embed(data, session, model.preprocess, np.random.default_rng(row)))
            values: Array = copies @ embeddings[row]
            return values

        found = [values for values in pool.map(one, some.tolist()) if values is not None]
    if 2 * len(found) < len(some):
        raise CacheError(f"the images in '{root}' are not those that were embedded")
    return dict(zip(COPIES, np.stack(found, axis=1), strict=True)), len(found)


def _embed(data: bytes, session: Session, preprocess: Preprocess, random: np.random.Generator) -> NDArray[np.float32]:
    pixels, _ = decode(data, preprocess.at_least)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    altered = [prepare(_jpeg(alter(image, random), random), preprocess)[0] for alter in COPIES.values()]
    return session(np.stack(altered))


def _jpeg(image: Image.Image, random: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(random.integers(50, 81)))
    return buffer.getvalue()


def _network(file: FeatureFile) -> Model:
    """Return the network that made the features, in float32."""
    made = json.loads(file.attrs["arguments"])
    names = ("model", "weights", "pool", "output", "precision", "crop_borders", "resize", "crop", "mean", "std")
    arguments = {name: made[name] for name in names}
    arguments |= {name: tuple(made[name]) for name in ("mean", "std") if made[name]}
    model = load_model(**arguments)
    if model.key != file.attrs["key"]:
        raise ModelError("the network has changed since")
    return model if model.precision == "fp32" else load_model(**{**arguments, "precision": "fp32"})
