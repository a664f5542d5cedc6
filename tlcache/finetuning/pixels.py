"""Decoded once: the images of a feature file as uint8 pixels on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tlcache.datasets.source import Images
from tlcache.errors import DataError
from tlcache.files import cache_folder
from tlcache.finetuning.stored import StoredArray
from tlcache.images import REVISION, BadImageError, OneTorchThread, Preprocess, prepare
from tlcache.keys import hash_json
from tlcache.progress import image_bar
from tlcache.threads import in_threads

__all__ = ["Pixels", "open_pixels"]

_IN_GRAPH = ("mean", "std")  # applied by the network, so they leave the pixels alone, but for borders of the mean


@dataclass(frozen=True)
class Pixels:
    """Images of one size, in the order of a feature file's rows.

    Parameters
    ----------
    images
        uint8 (N, 3, side, side); `side` is the short side after resizing, so that augmentation may look beyond the
        centre crop.
    crop
        Side of the centre crop that the network takes.
    key
        Hash of what decides the pixels.
    """

    images: StoredArray
    crop: int
    key: str

    @property
    def centre(self) -> slice:
        """Where the centre crop lies, in either direction: exactly what `tlcache.images.prepare` takes."""
        start = round((self.images.rows.shape[-1] - self.crop) / 2)
        return slice(start, start + self.crop)


def open_pixels(source: Images, paths: Sequence[str], sha256: Sequence[str], preprocess: Preprocess) -> Pixels:
    """Open the pixels of some images of a source, decoding them first when that has not been done.

    They belong to the preprocessing, with the version and revision of its rules, and to the sha256 of every image.

    Raises
    ------
    DataError
        An image has changed or vanished since it was embedded.
    """
    square = replace(preprocess, crop=preprocess.resize)
    in_graph = () if preprocess.crop_mode == "border" else _IN_GRAPH
    decides = {name: value for name, value in square.as_json().items() if name not in in_graph}
    key = hash_json({"preprocess": decides, "decoder": REVISION, "images": list(sha256)})
    shape = (len(paths), 3, square.crop, square.crop)

    def fill(images: NDArray[np.uint8]) -> None:
        _decode(source, paths, sha256, square, images)

    return Pixels(
        StoredArray(cache_folder() / "pixels" / f"{key[:16]}.npy", shape, np.uint8, fill), preprocess.crop, key
    )


def _decode(
    source: Images, paths: Sequence[str], sha256: Sequence[str], preprocess: Preprocess, images: NDArray[np.uint8]
) -> None:
    """Fill `images`, a thread per core."""

    def one(row: int) -> None:
        try:
            prepare(source.read(paths[row], sha256[row]), preprocess, images[row])
        except BadImageError as error:
            raise DataError(f"'{source.name(paths[row])}' cannot be used any more: {error}. Leave it out.") from None

    source.expect(paths)
    with OneTorchThread(), image_bar("decoding", len(paths)) as advance:
        for _ in in_threads(one, range(len(paths))):
            advance(1)
