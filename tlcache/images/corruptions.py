"""Images made worse on purpose, as the network sees them: noise, blur, light, and what files and cameras do.

All but `dark` and `rotate` are those of ImageNet-C, by its published code (Hendrycks and Dietterich, 2019, Benchmarking
neural network robustness to common corruptions and perturbations). Lengths in pixels are of images of 224 and follow
their short side. What is random follows from the content of the file: the same image is always made worse alike.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, hypot
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlcache.errors import OptionError, UnknownNameError, closest
from tlcache.images.formats import open_as

__all__ = ["CORRUPTIONS", "SEVERITIES", "Corruption", "check_corruption", "corrupt"]

Values = NDArray[np.float64]  # (H, W, 3), from 0 to 1
SEVERITIES = (1, 2, 3, 4, 5)
_SIDE = 224  # of the images that the published lengths are of


@dataclass(frozen=True)
class Corruption:
    """A way to make images worse.

    Parameters
    ----------
    what
        It does, in words; the published name in brackets.
    levels
        What `change` is given for severities 1 to 5.
    change
        Values from 0 to 1 (H, W, 3), a level, and what is random -> such values, which may go beyond these bounds.
    """

    what: str
    levels: tuple[Any, ...]
    change: Callable[[Values, Any, np.random.Generator], Values]


def check_corruption(corruption: str) -> tuple[Corruption, int]:
    """Return the kind and the severity that a text like `blur:3` names.

    Raises
    ------
    OptionError
        There is no such kind, or severity.
    """
    kind, _, severity = corruption.partition(":")
    if kind not in CORRUPTIONS:
        raise UnknownNameError(closest("kind of corruption", kind, CORRUPTIONS))
    if severity not in map(str, SEVERITIES):
        raise OptionError(f"A severity is a whole number from 1 to 5; found '{corruption}'.")
    return CORRUPTIONS[kind], int(severity)


def corrupt(pixels: NDArray[np.uint8], corruption: str, content: bytes) -> None:
    """Make an image worse, in its place.

    Parameters
    ----------
    pixels
        uint8 (3, H, W).
    corruption
        Kind and severity, like `blur:3`.
    content
        Of the file; it decides what is random.
    """
    kind, severity = check_corruption(corruption)
    seed = hashlib.sha256(corruption.encode() + hashlib.sha256(content).digest()).digest()
    random = np.random.default_rng(int.from_bytes(seed[:16], "big"))
    worse = kind.change(pixels.transpose(1, 2, 0) / 255.0, kind.levels[severity - 1], random)
    pixels[:] = (np.clip(worse, 0, 1) * 255).astype(np.uint8).transpose(2, 0, 1)


def _scaled(values: Values, length: float) -> float:
    return length * float(min(values.shape[:2])) / _SIDE


def _noise(values: Values, level: float, random: np.random.Generator) -> Values:
    return values + random.normal(size=values.shape, scale=level)


def _speckle(values: Values, level: float, random: np.random.Generator) -> Values:
    return values + values * random.normal(size=values.shape, scale=level)


def _shot(values: Values, level: float, random: np.random.Generator) -> Values:
    return random.poisson(values * level) / level


def _impulse(values: Values, level: float, random: np.random.Generator) -> Values:
    hit, white = random.random(values.shape) <= level, random.random(values.shape) <= 0.5
    return np.where(hit, white, values)


def _blur(values: Values, level: float, random: np.random.Generator) -> Values:
    from scipy.ndimage import gaussian_filter

    del random
    sigma = _scaled(values, level)
    blurred: Values = gaussian_filter(values, (sigma, sigma, 0), mode="nearest", truncate=4.0)
    return blurred


def _defocus(values: Values, level: tuple[float, float], random: np.random.Generator) -> Values:
    from scipy.signal import fftconvolve

    del random
    kernel = _disk(_scaled(values, level[0]), level[1])
    reach = len(kernel) // 2
    padded = np.pad(values, ((reach, reach), (reach, reach), (0, 0)), "reflect")
    blurred: Values = fftconvolve(padded, kernel[:, :, None], "valid", (0, 1))  # it is its own mirror image
    return blurred


def _disk(radius: float, soft: float) -> Values:
    """Return a disk whose edge is blurred by `soft` pixels, summing to 1."""
    reach, taps = (8, 1) if radius <= 8 else (ceil(radius), 2)
    x, y = np.meshgrid(*2 * (np.arange(-reach, reach + 1),))
    disk = (x**2 + y**2 <= radius**2).astype(np.float64)
    edge = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * soft**2))
    padded = np.pad(disk / disk.sum(), taps, "reflect")
    for axis in (0, 1):
        padded = np.apply_along_axis(np.convolve, axis, padded, edge / edge.sum(), "valid")
    return padded


def _brightness(values: Values, level: float, random: np.random.Generator) -> Values:
    """Add to the value of HSV, which scales the channels; black becomes grey."""
    del random
    value = values.max(axis=2, keepdims=True)
    wanted = np.clip(value + level, 0, 1)
    lighter: Values = np.where(value > 0, values * (wanted / np.where(value > 0, value, 1)), wanted)
    return lighter


def _saturate(values: Values, level: tuple[float, float], random: np.random.Generator) -> Values:
    """Scale the saturation of HSV, and add to it; the hue of greys is red."""
    del random
    value, least = values.max(axis=2, keepdims=True), values.min(axis=2, keepdims=True)
    spread = value - least
    wanted = np.clip(level[0] * spread / np.where(value > 0, value, 1) + level[1], 0, 1)
    below = np.where(spread > 0, (value - values) / np.where(spread > 0, spread, 1), (0, 1, 1))
    changed: Values = value * (1 - wanted * below)
    return changed


def _contrast(values: Values, level: float, random: np.random.Generator) -> Values:
    del random
    middle = values.mean(axis=(0, 1), keepdims=True)
    lower: Values = (values - middle) * level + middle
    return lower


def _jpeg(values: Values, level: int, random: np.random.Generator) -> Values:
    del random
    stream = io.BytesIO()
    _image(values).save(stream, "JPEG", quality=level)
    return _values(open_as("JPEG", stream.getvalue()))


def _pixelate(values: Values, level: float, random: np.random.Generator) -> Values:
    del random
    image = _image(values)
    width, height = (max(1, int(side * level)) for side in image.size)
    smaller = image.resize((width, height), Image.Resampling.BOX)
    return _values(smaller.resize(image.size, Image.Resampling.BOX))


def _rotate(values: Values, level: float, random: np.random.Generator) -> Values:
    """Turn to either side; what comes in at the corners is mirrored."""
    height, width = values.shape[:2]
    reach = ceil((hypot(height, width) - min(height, width)) / 2) + 1
    padded = _image(np.pad(values, ((reach, reach), (reach, reach), (0, 0)), "symmetric"))
    turned = padded.rotate(level * random.choice((-1, 1)), Image.Resampling.BILINEAR)
    return _values(turned.crop((reach, reach, reach + width, reach + height)))


def _image(values: Values) -> Image.Image:
    return Image.fromarray(np.rint(values * 255).astype(np.uint8))


def _values(image: Image.Image) -> Values:
    return (np.asarray(image) + 0.5) / 255  # so that no rounding takes a level away


CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": Corruption("normal noise (gaussian_noise)", (0.08, 0.12, 0.18, 0.26, 0.38), _noise),
    "shot": Corruption("noise of little light (shot_noise)", (60, 25, 12, 5, 3), _shot),
    "impulse": Corruption("white and black specks (impulse_noise)", (0.03, 0.06, 0.09, 0.17, 0.27), _impulse),
    "speckle": Corruption("noise that grows with light (speckle_noise)", (0.15, 0.2, 0.35, 0.45, 0.6), _speckle),
    "blur": Corruption("blur (gaussian_blur)", (1, 2, 3, 4, 6), _blur),
    "defocus": Corruption("out of focus (defocus_blur)", ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)), _defocus),
    "bright": Corruption("lighter (brightness)", (0.1, 0.2, 0.3, 0.4, 0.5), _brightness),
    "dark": Corruption("darker", (-0.1, -0.2, -0.3, -0.4, -0.5), _brightness),
    "contrast": Corruption("less contrast (contrast)", (0.4, 0.3, 0.2, 0.1, 0.05), _contrast),
    "saturate": Corruption(
        "fewer or more colours (saturate)", ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)), _saturate
    ),
    "pixelate": Corruption("few pixels (pixelate)", (0.6, 0.5, 0.4, 0.3, 0.25), _pixelate),
    "jpeg": Corruption("JPEG of low quality (jpeg_compression)", (25, 18, 15, 10, 7), _jpeg),
    "rotate": Corruption("turned to either side", (5, 10, 20, 30, 45), _rotate),
}
