"""Encoded image bytes -> uint8 pixels; nothing else in the package decodes or resizes.

The rules below decide the pixels, so they carry a version, `RULES_VERSION`, that is part of every cache key.

- Formats: BMP, GIF, JPEG (and MPO), PNG, PPM, TIFF, WebP. Of an animation or a multi-page file, the first frame.
- EXIF orientation is applied; colour profiles are ignored.
- Transparency is composed on white.
- More than 8 bits per sample in grey: divided by the largest value of the smallest of 8, 10, 12, 14 and 16 bits that
  holds the image's maximum, so that 12-bit scans stored in 16 bits are not nearly black. 16-bit RGB keeps its high
  bytes. Floating-point grey: values within [0, 1] are scaled by 255, others follow the rule for integers.
- Dark borders (only with `crop_borders`): outer rows and columns are cut while fewer than 1 % of their pixels have a
  channel above 16 of 255.
- Images longer than 4:1 are first cut to their central 4:1.
- Large JPEGs are decoded at a reduced size by the JPEG decoder itself, never below twice the size needed.
- The short side is resized to `resize` with an antialiased filter, the centre `crop` x `crop` is taken.
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from tlcache.arrow import view
from tlcache.errors import OptionError, UnknownNameError, closest, first_line

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "RULES_VERSION",
    "BadImageError",
    "OneTorchThread",
    "Preprocess",
    "Stored",
    "cut_borders",
    "decode",
    "prepare",
]

RULES_VERSION = 1
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 89_478_485  # a quarter of a gibibyte of RGB: Pillow's own bound
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_LATE_PLUGINS = (TiffImagePlugin, WebPImagePlugin)  # Pillow registers them only when they are imported
_BORDER_LEVEL = 16
_BORDER_SHARE = 0.01
_LONGEST = 4
_OURS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
_FOREIGN = (  # (offset, bytes, name): formats people have that are not read here
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypavif", "AVIF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"<svg", "SVG"),
)


@dataclass(frozen=True)
class Preprocess:
    """What happens to an image between its file and the network.

    Parameters
    ----------
    resize, crop
        Length of the short side after resizing and side of the centre crop, in pixels.
    interpolation
        `bilinear` or `bicubic`, antialiased.
    mean, std
        Per-channel normalisation of values scaled to [0, 1]; applied inside the ONNX graph.
    crop_borders
        Cut dark borders away before resizing.
    """

    resize: int = 256
    crop: int = 224
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    crop_borders: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            raise OptionError(
                f"The crop must be between 1 and the resized short side; found crop={self.crop}, resize={self.resize}."
            )
        if self.interpolation not in ("bilinear", "bicubic"):
            raise UnknownNameError(closest("interpolation", self.interpolation, ("bilinear", "bicubic")))
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise OptionError(f"Mean and std take three numbers, std above 0; found {self.mean} and {self.std}.")

    @property
    def at_least(self) -> int | None:
        """Short side that a JPEG may be decoded at, in pixels; None where the full size decides."""
        return None if self.crop_borders else 2 * self.resize

    def as_json(self) -> dict[str, Any]:
        """Return the fields and the version of the decoding rules, ready for JSON and for the cache key.

        A field that is None is left out, so that one added later changes no key of those who do not use it.
        """
        given = {name: value for name, value in asdict(self).items() if value is not None}
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
        return {"rules": RULES_VERSION, **fields}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Preprocess:
        """Return the preprocessing that `as_json` described, with the rules of this version."""
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        known.pop("rules", None)
        return cls(**known)


class OneTorchThread:
    """Keeps torch to one thread from the first `start` to `stop`; resizing one image is no work for two.

    Torch is imported by `start`, so that a run with nothing to decode does not pay for it. Where there is something to
    decode for sure, it is a context.
    """

    def __init__(self) -> None:
        self._before: int | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Limit torch, if that is not done yet; any thread may call."""
        with self._lock:
            if self._before is None:
                import torch

                self._before = torch.get_num_threads()
                torch.set_num_threads(1)

    def stop(self) -> None:
        """Give torch its threads back."""
        if self._before is not None:
            import torch

            torch.set_num_threads(self._before)


class BadImageError(Exception):
    """An image that cannot be used: `code` is one word for counting, the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Stored(NamedTuple):
    """What a file's header says: width and height in pixels, and frames (pages); only the first frame is used."""

    width: int
    height: int
    frames: int


def decode(data: bytes, at_least: int | None = None) -> tuple[NDArray[np.uint8], Stored]:
    """Decode an encoded image to upright 8-bit RGB.

    Parameters
    ----------
    data
        The bytes of the file.
    at_least
        When given, a JPEG may be decoded at a reduced size whose short side is still at least this many pixels.

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
    pixels, stored = _decode(data, at_least)
    return pixels[:, :, :3], stored


def _decode(data: bytes, at_least: int | None) -> tuple[NDArray[np.uint8], Stored]:
    """Do what `decode` says; the pixels may have a fourth channel that means nothing."""
    with warnings.catch_warnings(action="ignore"):  # Pillow warns of odd metadata, which is no fault of the pixels
        image: Image.Image
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError:
            raise BadImageError("too-large", f"more than {MAX_PIXELS:,} pixels") from None
        except Exception as error:
            raise _unreadable(data, error) from None
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise BadImageError("too-large", f"{width} x {height} is more than {MAX_PIXELS:,} pixels")
        if image.format == "PNG":
            _check_png(data)
        try:
            if at_least is not None and image.format in ("JPEG", "MPO"):
                cast(JpegImagePlugin.JpegImageFile, image).draft("RGB", (at_least, at_least))
            image.load()
            stored = Stored(width, height, _frames(image))
            with contextlib.suppress(Exception):  # a broken EXIF block says nothing about the pixels
                ImageOps.exif_transpose(image, in_place=True)
            return _rgb(image), stored
        except BadImageError:
            raise
        except Exception as error:
            code = "truncated" if "truncated" in str(error) else "damaged"
            raise BadImageError(code, f"{code} {image.format} ({first_line(error)})") from None


def prepare(
    data: bytes, preprocess: Preprocess, out: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.uint8], Stored]:
    """Decode, cut dark borders if asked, resize and crop one image.

    Parameters
    ----------
    out
        Where to put the pixels, an array like them; None: into a new one.

    Returns
    -------
    pixels
        uint8 (3, crop, crop), RGB.
    stored
        What the file's header says.

    Raises
    ------
    BadImageError
        As `decode`.
    """
    pixels, stored = _decode(data, preprocess.at_least)
    if preprocess.crop_borders:
        pixels = cut_borders(pixels)
    out = np.empty((3, preprocess.crop, preprocess.crop), np.uint8) if out is None else out
    _resize_crop(_cut_long(pixels), preprocess, out)
    return out, stored


def cut_borders(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a view of uint8 (H, W, 3) `pixels` without its dark outer rows and columns; an all-dark image stays."""
    bright = pixels[:, :, :3].max(axis=2) > _BORDER_LEVEL
    rows = np.flatnonzero(bright.mean(axis=1) >= _BORDER_SHARE)
    columns = np.flatnonzero(bright.mean(axis=0) >= _BORDER_SHARE)
    if not len(rows) or not len(columns):
        return pixels
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _check_png(data: bytes) -> None:
    """Compare the checksums of a PNG's critical chunks; Pillow does not look at those of the pixels."""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 8 + length
        critical = kind[:1].isupper() and end + 4 <= len(data)
        if critical and zlib.crc32(memoryview(data)[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise BadImageError("damaged", f"damaged PNG (the checksum of its {kind.decode('latin-1')} is wrong)")
        if kind == b"IEND":
            return
        at = end + 4


def _frames(image: Image.Image) -> int:
    """Return the number of frames; the second image in a camera's JPEG is a preview and does not count."""
    with contextlib.suppress(Exception):  # what follows the first frame may be damaged, and is not used
        if image.format != "MPO" and getattr(image, "is_animated", False):
            return int(getattr(image, "n_frames", 2))
    return 1


def _unreadable(data: bytes, error: Exception) -> BadImageError:
    if not data:
        return BadImageError("empty", "empty file")
    for offset, magic, name in _FOREIGN:
        if data[offset:].startswith(magic):
            return BadImageError("unsupported", f"{name} is not supported; convert it to one of {', '.join(FORMATS)}")
    if isinstance(error, UnidentifiedImageError) and not data.startswith(_OURS):
        start = data[:12].decode("latin-1")
        return BadImageError("not-an-image", f"not an image (starts with {start!r})")
    return BadImageError("damaged", f"damaged header (starts with {data[:12]!r})")


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Return any of Pillow's modes as uint8 (H, W, 3 or more) by the rules at the top of this file."""
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        grey = _eight_bits(np.asarray(image))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "La", "PA", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layer)
    return view(image if image.mode == "RGB" else image.convert("RGB"))


def _eight_bits(grey: NDArray[Any]) -> NDArray[np.uint8]:
    values = grey.astype(np.float32)
    if not np.isfinite(values).all():
        raise BadImageError("damaged", "pixels that are not finite numbers")
    top = float(values.max())
    if grey.dtype.kind == "f" and top <= 1:
        scale = 255.0
    else:
        full = next((2**bits - 1 for bits in (8, 10, 12, 14, 16) if top <= 2**bits - 1), top)
        scale = 255.0 / full
    eight: NDArray[np.uint8] = np.clip(np.rint(values * scale), 0, 255).astype(np.uint8)
    return eight


def _cut_long(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    longest = _LONGEST * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return pixels[top : top + longest, left : left + longest]


def _resize_crop(pixels: NDArray[np.uint8], preprocess: Preprocess, out: NDArray[np.uint8]) -> None:
    """Resize and centre-crop into `out` as torchvision's presets do, with PyTorch's antialiased uint8 kernel.

    The kernel is about four times as fast as Pillow's and differs from it by at most one level. What lies right of and
    below the crop, and does not reach into it, is not resized.
    """
    import torch
    from torch.nn.functional import interpolate

    height, width = pixels.shape[:2]
    short, crop = min(height, width), preprocess.crop
    size = (preprocess.resize * height // short, preprocess.resize * width // short)
    top, left = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
    pixels = np.require(pixels, requirements="W")  # slices of NumPy's keep Python's lock, those of torch do not
    if size == (height, width):
        planes = pixels.transpose(2, 0, 1)
    else:
        # Lengths are multiplied by these and rounded down.
        by_rows, by_columns = ((wanted + 1e-9) / length for wanted, length in zip(size, pixels.shape, strict=False))
        part = pixels[: _reach(top + crop, by_rows), : _reach(left + crop, by_columns)]
        batch = torch.from_numpy(part.reshape(1, *part.shape).transpose(0, 3, 1, 2))  # torch takes it as channels_last
        resized = interpolate(batch, scale_factor=(by_rows, by_columns), mode=preprocess.interpolation, antialias=True)
        planes = resized.numpy()[0]
    torch.from_numpy(out).copy_(torch.from_numpy(planes[:3, top : top + crop, left : left + crop]))


def _reach(length: int, factor: float) -> int:
    """Return how many pixels the first `length` of an image resized by `factor` are made of, two more at most."""
    return ceil(length / factor + 2 * max(1, 1 / factor))


if __name__ == "__main__":  # decode one image alone, in a process that it may kill
    try:
        decode(sys.stdin.buffer.read(), int(sys.argv[1]) or None)
    except BadImageError as problem:
        sys.exit(str(problem))
