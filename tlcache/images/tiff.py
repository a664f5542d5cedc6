"""TIFF: which page is the image, and the layouts that Pillow has no mode for or gets wrong, read by tifffile."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from tlcache.images.depth import eight_bits
from tlcache.images.formats import BadImageError

if TYPE_CHECKING:
    from tifffile import TiffPage

__all__ = ["Tags", "is_deep", "is_misread", "is_reduced", "is_signed", "is_white_zero", "read", "seek_whole", "tags_of"]

Tags = Mapping[int, Any]

_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 254, 258, 259, 262, 274
_PLANES, _SUB_PAGES, _FORMAT = 284, 330, 339
_UNCOMPRESSED, _SEPARATE, _SIGNED = 1, 2, 2
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB = 0, 1, 2
_REDUCED = 1  # bit of NewSubfileType
_ALPHAS = (1, 2)  # ExtraSamples: premultiplied, and not
_BYTES_PER_PIXEL = 16  # on the average, of the largest image allowed


def tags_of(data: bytes) -> Tags:
    """Return the tags of the first page; anything may be raised."""
    big = data[2:3] == b"+" or data[3:4] == b"+"
    stream = io.BytesIO(data)
    tags = TiffImagePlugin.ImageFileDirectory_v2(stream.read(16 if big else 8))
    stream.seek(tags.next)
    tags.load(stream)
    return tags


def is_deep(tags: Tags, beyond: int = 8) -> bool:
    """Return whether samples have more than so many bits."""
    return bool(max(tags.get(_BITS, (1,))) > beyond)


def is_signed(tags: Tags) -> bool:
    """Return whether samples may be below zero: signed or floating point."""
    return bool(max(tags.get(_FORMAT, (1,))) > 1)


def is_white_zero(tags: Tags) -> bool:
    """Return whether zero is white."""
    return bool(tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE)


def is_reduced(tags: Tags) -> bool:
    """Return whether the page is a smaller copy of another one."""
    return bool(tags.get(_SUBFILE, 0) & _REDUCED)


def is_misread(tags: Tags) -> bool:
    """Return whether Pillow opens such pages and gets them wrong.

    It interleaves the bytes of uncompressed planes of more than 8 bits, and takes signed bytes for unsigned ones.
    """
    planes = tags.get(_PLANES) == _SEPARATE and tags.get(_COMPRESSION, 1) == _UNCOMPRESSED
    several = len(tags.get(_BITS, (1,))) > 1
    return (is_deep(tags) and planes and several) or (not is_deep(tags) and _SIGNED in tags.get(_FORMAT, (1,)))


def seek_whole(image: TiffImagePlugin.TiffImageFile) -> int:
    """Go to the first page that is no reduced copy; return the number of those that are none, 0 where nobody counted.

    Raises
    ------
    BadImageError
        `unsupported`: only a reduced copy is an ordinary image, as in camera raw files.
    """
    if not is_reduced(cast(Tags, image.tag_v2)):
        return 0
    whole = []
    for number in range(image.n_frames):
        image.seek(number)
        if not is_reduced(cast(Tags, image.tag_v2)):
            whole.append(number)
    image.seek(whole[0] if whole else 0)
    _check_raw(bool(whole), _SUB_PAGES in image.tag_v2)
    return len(whole) or image.n_frames


def read(data: bytes, max_pixels: int, window: tuple[float, float] | None, notes: set[str]) -> tuple[Image.Image, int]:
    """Read with tifffile: RGB with its orientation as EXIF, and how many images there are; anything may be raised."""
    import logging

    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it tells of odd tags, which are no fault of the pixels
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pages = [page.aspage() for page in file.pages]
        whole = [page for page in pages if not page.subfiletype & _REDUCED]
        _check_raw(bool(whole), pages[0].subifds is not None)
        page = (whole or pages)[0]
        _check(page, len(data), max_pixels)
        bands = page.asarray()
    image = Image.fromarray(_rgb(page, bands, window, notes))
    image.getexif()[_ORIENTATION] = page.tags.valueof(_ORIENTATION, 1)
    return image, len(whole or pages)


def _check_raw(whole: bool, below: bool) -> None:
    if below and not whole:
        raise BadImageError(
            "unsupported", "camera raw is not supported, and only a preview lies beside it; convert it to PNG or JPEG"
        )


def _check(page: TiffPage, length: int, max_pixels: int) -> None:
    """Raise BadImageError for what is too large or not all there, before memory is taken."""
    if page.imagewidth * page.imagelength > max_pixels or page.nbytes > _BYTES_PER_PIXEL * max_pixels:
        size = f"{page.imagewidth} x {page.imagelength} pixels of {page.samplesperpixel} samples"
        allowed = f"{max_pixels:,} of RGB; --max-pixels N allows more"
        raise BadImageError("too-large", f"{size} are more than {allowed}")
    ends = [at + size for at, size in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or max(ends) > length or not all(page.databytecounts):
        raise BadImageError("truncated", "truncated TIFF (its pixels end beyond the file)")
    if page.photometric not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB):
        raise BadImageError("unsupported", f"TIFF of {page.photometric!r} and {page.dtype}; convert it to PNG")


def _rgb(page: TiffPage, bands: NDArray[Any], window: tuple[float, float] | None, notes: set[str]) -> NDArray[np.uint8]:
    """Return uint8 (H, W, 3) of samples (H, W), (H, W, bands) or (bands, H, W); bands beyond colours are left out."""
    planes = bands.reshape(-1, *bands.shape[-2:]) if page.axes.endswith("YX") else np.moveaxis(bands, -1, 0)
    if len(planes) < 3:
        grey = eight_bits(planes[0], window, notes)
        colours = np.stack(3 * [255 - grey if page.photometric == _MIN_IS_WHITE else grey], axis=2)
    else:
        colours = _high(np.moveaxis(planes[:3], 0, 2), notes)
    if page.photometric == _RGB and len(planes) == 4 and page.extrasamples and page.extrasamples[0] in _ALPHAS:
        return _on_white(colours, _high(planes[3], notes), page.extrasamples[0] == 1)
    return colours


def _high(samples: NDArray[Any], notes: set[str]) -> NDArray[np.uint8]:
    """Return colours as 8 bits: the high byte of 16 bits, others as grey."""
    return (samples >> 8).astype(np.uint8) if samples.dtype == np.uint16 else eight_bits(samples, None, notes)


def _on_white(colours: NDArray[np.uint8], alpha: NDArray[np.uint8], premultiplied: bool) -> NDArray[np.uint8]:
    clear = 255.0 - alpha[:, :, None]
    shown = colours * (1.0 if premultiplied else alpha[:, :, None] / 255) + clear
    return np.clip(np.rint(shown), 0, 255).astype(np.uint8)
