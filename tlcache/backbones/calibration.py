"""The images that show a network which numbers to expect: made, and the same for every network and on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CALIBRATED", "CALIBRATION", "made_images"]

CALIBRATED = 64  # images
# Part of the cache key: raise the version with a change.
CALIBRATION = {"images": "made", "count": CALIBRATED, "version": 1}
_COLOURS = np.array([[1, 0.5, 0], [1, -0.3, 0.3], [1, 0, -0.5]], np.float32)  # of lightness and two colour fields


def made_images(count: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return uint8 (count, 3, height, width): noise with the spectrum of photographs (Field, 1987), and discs on it.

    Ranges that they show a network serve as well as those of its training images (docs/speed.md).
    """
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height, 1 / height)[:, None], np.fft.rfftfreq(width, 1 / width))
    frequency[0, 0] = np.inf
    return np.stack([_made(random, frequency, height, width) for _ in range(count)])


def _made(random: np.random.Generator, frequency: NDArray[np.float64], height: int, width: int) -> NDArray[np.uint8]:
    steepness = random.uniform(0.8, 1.8)
    fields = [_field(random, frequency ** (steepness + softer), height, width) for softer in (0, 0.3, 0.3)]
    pixels = random.uniform(70, 180) + random.uniform(20, 80) * np.tensordot(_COLOURS, fields, 1)
    pixels += random.normal(0, 25, (3, 1, 1))
    for _ in range(random.integers(0, 6)):
        inside = _ellipse(random, height, width)
        pixels[:, inside] = random.uniform(0.2, 0.6) * pixels[:, inside] + random.uniform(0, 150, (3, 1))
    return pixels.clip(0, 255).astype(np.uint8)


def _field(random: np.random.Generator, damping: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    waves = random.normal(size=damping.shape) + 1j * random.normal(size=damping.shape)
    values = np.fft.irfft2(waves / damping, (height, width))
    deviation = values.std()
    return np.asarray(values / deviation if deviation else values)


def _ellipse(random: np.random.Generator, height: int, width: int) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:height, :width]
    down, across = rows - random.uniform(0, height), columns - random.uniform(0, width)
    angle, radius = random.uniform(0, np.pi), random.uniform(0.05, 0.3) * height
    along = (across * np.cos(angle) + down * np.sin(angle)) / radius
    beside = (down * np.cos(angle) - across * np.sin(angle)) / (radius * random.uniform(0.2, 1))
    return np.asarray(along**2 + beside**2 < 1)
