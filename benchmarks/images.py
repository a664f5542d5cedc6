"""Photographs that nobody took: noise with the spectrum of natural images, as JPEG files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["write_photos"]


def write_photos(folder: Path, n: int, width: int = 500, height: int = 667, distinct: int = 64) -> Path:
    """Write `n` JPEGs in four class folders; amplitudes fall as 1/f, as in photographs (Field, 1987).

    Only `distinct` of them differ in their pixels; every file differs in its bytes.
    """
    random = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    photos = [_photo(random, frequency, width, height) for _ in range(min(n, distinct))]
    for number in range(n):
        path = folder / f"class{number % 4}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photos[number % distinct] + number.to_bytes(4))  # decoders stop before what follows the end
    return folder


def _photo(random: np.random.Generator, frequency: NDArray[np.float64], width: int, height: int) -> bytes:
    noise = np.fft.rfft2(random.normal(size=(3, height, width))) / frequency
    noise[1:] = 0.9 * noise[:1] + 0.3 * noise[1:]  # colours go together
    waves = np.fft.irfft2(noise, (height, width))
    waves = 128 + 50 * (waves - waves.mean((1, 2), keepdims=True)) / waves.std((1, 2), keepdims=True)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(waves, 0, 255).astype(np.uint8).transpose(1, 2, 0)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
