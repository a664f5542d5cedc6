"""The bytes of a file -> upright RGB."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, JpegImagePlugin, TiffImagePlugin

from tlcache.arrow import view
from tlcache.errors import first_line
from tlcache.images import dicom, tiff
from tlcache.images.damage import check_png, mended, unusual_jpeg
from tlcache.images.depth import eight_bits
from tlcache.images.formats import BadImageError, Stored, kind_of, open_as, refusal
from tlcache.images.notes import NOT_OPAQUE, TRANSPARENT
from tlcache.images.preprocessing import MAX_PIXELS

__all__ = ["decode", "decode_padded", "rgb_of"]

Window = tuple[float, float] | None


def decode(
    data: bytes, at_least: int | None = None, *, window: Window = None, max_pixels: int = MAX_PIXELS
) -> tuple[NDArray[np.uint8], Stored]:
    """Decode an encoded image to upright 8-bit RGB.

    Parameters
    ----------
    data
        The bytes of the file.
    at_least
        When given, a JPEG may be decoded at a reduced size whose short side is still at least this many pixels.
    window, max_pixels
        As in `Preprocess`.

    Returns
    -------
    pixels
        uint8 (H, W, 3).
    stored
        What the file's header says.

    Raises
    ------
    BadImageError
        `empty`, `unsupported`, `not-an-image`, `too-large`, `truncated` or `damaged`.
    """
    pixels, stored = decode_padded(data, at_least, window, max_pixels, set())
    return pixels[:, :, :3], stored


def decode_padded(
    data: bytes, at_least: int | None, window: Window, max_pixels: int, notes: set[str]
) -> tuple[NDArray[np.uint8], Stored]:
    """Do what `decode` says; the pixels may have a fourth channel that means nothing."""
    with warnings.catch_warnings(action="ignore"):  # Pillow warns of odd metadata, which is no fault of the pixels
        kind = kind_of(data)
        if kind == "PNG":
            check_png(data)
        try:
            image, stored = _load(kind, data, at_least, window, max_pixels, notes)
            with contextlib.suppress(Exception):  # a broken EXIF block says nothing about the pixels
                ImageOps.exif_transpose(image, in_place=True)
            return rgb_of(image, window, notes), stored
        except BadImageError:
            raise
        except Exception as error:
            raise _failure(kind, data, error) from None


def rgb_of(image: Image.Image, window: Window = None, notes: set[str] | None = None) -> NDArray[np.uint8]:
    """Return a picture of Pillow's, whatever its mode, as uint8 (H, W, 3 or more) by the rules, not turned."""
    notes = set() if notes is None else notes
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        return np.repeat(_grey(image, window, notes)[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "La", "PA", "RGBa") or "transparency" in image.info:
        image = _on_white(image, notes)
    if image.mode == "LAB":
        image = _from_lab(image)
    return view(image if image.mode == "RGB" else image.convert("RGB"))


def _load(
    kind: str, data: bytes, at_least: int | None, window: Window, max_pixels: int, notes: set[str]
) -> tuple[Image.Image, Stored]:
    """Return the image of a file with its pixels, and what its header says; anything may be raised."""
    if kind == "TIFF":
        return _load_tiff(data, window, max_pixels, notes)
    if kind == "DICOM":
        frame, frames = dicom.read(data, max_pixels, window, notes)
        return frame, Stored(*frame.size, frames)
    try:
        return _loaded(open_as(kind, data), at_least, max_pixels)
    except BadImageError:
        raise
    except Exception:
        whole = mended(kind, data)
        if whole is None:
            raise
        return _loaded(open_as(kind, whole), at_least, max_pixels)


def _loaded(image: Image.Image, at_least: int | None, max_pixels: int) -> tuple[Image.Image, Stored]:
    width, height = _check_size(image, max_pixels)
    if at_least is not None and image.format in ("JPEG", "MPO"):
        cast(JpegImagePlugin.JpegImageFile, image).draft("RGB", (at_least, at_least))
    image.load()
    return image, Stored(width, height, _frames(image))


def _load_tiff(data: bytes, window: Window, max_pixels: int, notes: set[str]) -> tuple[Image.Image, Stored]:
    try:
        image = cast(TiffImagePlugin.TiffImageFile, open_as("TIFF", data))
        whole = tiff.seek_whole(image)
        readable = not tiff.is_misread(cast(tiff.Tags, image.tag_v2))
    except BadImageError:
        raise
    except Exception:
        readable = False
    if readable:
        loaded, stored = _loaded(image, None, max_pixels)
        return loaded, stored._replace(frames=whole or stored.frames)
    other, frames = tiff.read(data, max_pixels, window, notes)
    return other, Stored(*other.size, frames)


def _check_size(image: Image.Image, max_pixels: int) -> tuple[int, int]:
    width, height = image.size
    if width * height > max_pixels:
        raise BadImageError(
            "too-large", f"{width} x {height} is more than {max_pixels:,} pixels; --max-pixels N allows more"
        )
    return width, height


def _frames(image: Image.Image) -> int:
    """Return the number of frames; the second image in a camera's JPEG is a preview and does not count."""
    with contextlib.suppress(Exception):  # what follows the first frame may be damaged, and is not used
        if image.format != "MPO" and getattr(image, "is_animated", False):
            return int(getattr(image, "n_frames", 2))
    return 1


def _failure(kind: str, data: bytes, error: Exception) -> BadImageError:
    """Return what a decoder's error means."""
    if kind == "JPEG" and (unusual := unusual_jpeg(data)):
        return BadImageError("unsupported", f"{unusual}, is not supported; convert it to PNG")
    why = first_line(error)
    missing = "imagecodecs" if "imagecodecs" in why else getattr(error, "name", "")  # of a module
    if kind == "TIFF" and missing:
        return BadImageError("unsupported", f"this TIFF needs another package ({why}): pip install {missing}")
    if isinstance(error, SyntaxError):  # Pillow's word for a header
        return refusal(kind, data, why)
    code = "truncated" if "truncated" in why else "damaged"
    return BadImageError(code, f"{code} {kind} ({why})")


def _grey(image: Image.Image, window: Window, notes: set[str]) -> NDArray[np.uint8]:
    values: NDArray[Any] = np.asarray(image)
    tags = cast(tiff.Tags, getattr(image, "tag_v2", {}))
    if image.mode == "I" and tags and not tiff.is_signed(tags):
        values = values.view(np.uint32)
    grey = eight_bits(values, window, notes)
    if tiff.is_white_zero(tags):
        grey = 255 - grey
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return grey


def _on_white(image: Image.Image, notes: set[str]) -> Image.Image:
    layer = image.convert("RGBA")
    least, most = cast(tuple[int, int], layer.getchannel("A").getextrema())
    if most == 0:
        notes.add(TRANSPARENT)
    elif least > 0 and most < 255:
        notes.add(NOT_OPAQUE)
    return Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return cast(Image.Image, ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB"))
