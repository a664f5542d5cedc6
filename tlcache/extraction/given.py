"""Images as they are given in Python: paths, bytes, pictures of Pillow's, arrays -> the bytes of a file each."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from tlcache.backbones.network import Encoded
from tlcache.datasets.folder import open_folder
from tlcache.errors import DataError, first_line
from tlcache.images import BadImageError, changed, checked, rgb_of

__all__ = ["GivenImage", "check_several"]

_AS_PNG = ("1", "L", "LA", "P", "RGB", "RGBA")
_ORIENTATION = 0x0112
_FILES = open_folder()


def check_several(given: Any) -> None:
    """Raise DataError where something is no list of images, though what it yields may look like images.

    A path yields letters, an image (H, W, 3) yields H grey ones, a table of pandas yields the names of its columns.
    """
    shape = tuple(getattr(given, "shape", (None,)))
    is_array = isinstance(given, np.ndarray)
    pixels = is_array and (len(shape) == 3 and shape[2] in (3, 4) or len(shape) == 2 and given.dtype == np.uint8)
    if pixels or not shape or isinstance(given, str | bytes | bytearray | os.PathLike | Image.Image):
        raise DataError("A single image was given, where a list of images is expected: transform([image]).")
    if len(shape) == 2 or isinstance(given, Mapping):
        raise DataError(
            "A table was given, where a list of images is expected. Give the column of their paths: "
            "transform(table['path'])."
        )
    if not isinstance(given, Iterable):
        raise DataError(f"{type(given).__name__} was given, where a list of images is expected: transform([image]).")


class GivenImage:
    """One image that is asked for: a file by its path, its bytes, or pixels, which count as the PNG they would be.

    Attributes
    ----------
    name
        What to call it in a message.
    sha256
        Hash of the bytes of its file, or of the PNG.
    changed
        As `tlcache.images.changed`.
    notes
        What a user should know of pixels that were brought to 8 bits: words of `tlcache.images.notes`.

    Raises
    ------
    DataError, ImageReadError
        It is no image, or its file cannot be read.
    """

    def __init__(self, number: int, image: Any, window: tuple[float, float] | None) -> None:
        self.notes: set[str] = set()
        self._path = os.fspath(image) if isinstance(image, str | os.PathLike) else None
        self.name = f"image {number}" if self._path is None else self._path
        # kept where it is no file: encoding pixels takes longer than reading a file once more
        encoded = (
            image if isinstance(image, bytes) or self._path is not None else _png(self.name, image, window, self.notes)
        )
        self._bytes = encoded if self._path is None else b""
        data = self._read()
        self.sha256, self.changed = hashlib.sha256(data).hexdigest(), changed(data)

    def encoded(self) -> Encoded:
        """Return the image; a file is read once more, as there may be more of them than memory can hold."""
        return Encoded(self.name, self._read(self.sha256))

    def _read(self, sha256: str | None = None) -> bytes:
        return self._bytes if self._path is None else _FILES.read(self._path, sha256)


def _png(name: str, image: Any, window: tuple[float, float] | None, notes: set[str]) -> bytes:
    buffer = io.BytesIO()
    try:
        picture = _picture(image, window, notes) if isinstance(image, Image.Image) else Image.fromarray(checked(image))
        picture.save(buffer, "PNG", compress_level=1)
    except (BadImageError, TypeError, ValueError, OSError) as error:
        raise DataError(f"{name.capitalize()} is no image: {first_line(error)}.") from None
    return buffer.getvalue()


def _picture(image: Image.Image, window: tuple[float, float] | None, notes: set[str]) -> Image.Image:
    """Return an image that as a PNG shows what its file shows; a PNG keeps neither orientation nor every mode."""
    image.load()  # some are turned by that
    turned = image.getexif().get(_ORIENTATION, 1)
    if image.mode in _AS_PNG and turned == 1:
        return image
    picture = Image.fromarray(np.ascontiguousarray(rgb_of(image, window, notes)[:, :, :3]))
    picture.getexif()[_ORIENTATION] = turned
    return ImageOps.exif_transpose(picture)
