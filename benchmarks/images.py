"""Images to measure with: real ones, or photographs that nobody took, which have the spectrum of natural images."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlcache.images import decode

__all__ = ["describe", "find_images", "make_photos", "write_dots", "write_images", "write_manifest"]


def find_images(folder: Path) -> list[bytes]:
    """Return the bytes of the JPEGs below a folder, in the order of their names."""
    found = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")]
    if not found:
        raise SystemExit(f"No JPEGs under '{folder}'.")
    return found


def make_photos(n: int, width: int, height: int) -> Iterator[bytes]:
    """Make JPEGs of noise whose amplitudes fall with the frequency, as in photographs (Field, 1987).

    With f to the power of -1.5 and quality 85 they are about as large as real ones and take as long to decode: 64 KB
    and 560 images/s to a core at 500 x 667, where photographs of flowers have 40 KB and 575.
    """
    random = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)).astype(np.float32) ** 1.5
    frequency[0, 0] = np.inf
    return (_photo(random, frequency, width, height) for _ in range(n))


def write_images(folder: Path, images: Sequence[bytes], n: int) -> list[Path]:
    """Write `n` files of different bytes in four class folders; where `n` is larger, images repeat in their pixels."""
    paths = []
    for number, data in enumerate(islice(cycle(images), n)):
        path = folder / f"class{number % 4}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data + number.to_bytes(4, "big"))  # decoders stop before what follows the end
        paths.append(path)
    return paths


def write_manifest(photos: Sequence[Path]) -> Path:
    """Write a manifest of some of the files that `write_images` wrote, in their folder."""
    manifest = photos[0].parents[1] / "manifest.csv"
    rows = [f"{path.relative_to(manifest.parent).as_posix()},{path.parent.name}" for path in photos]
    manifest.write_text("\n".join(["path,label", *rows]) + "\n")
    return manifest


def write_dots(folder: Path, n: int) -> None:
    """Write `n` different images of 8 x 8 pixels, whose decoding costs next to nothing."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, 192), dtype=np.uint8)
    for number in range(n):
        path = folder / f"class{number % 4}" / f"{number:07d}.ppm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"P6 8 8 255\n" + pixels[number].tobytes())


def describe(images: Sequence[bytes]) -> str:
    """Return number, median size in pixels and in bytes."""
    some = [decode(data)[1] for data in images[:64]]
    width, height = (int(np.median([size[axis] for size in some])) for axis in (0, 1))
    return f"{len(images):,} JPEGs, median {width} x {height}, {np.median([len(data) for data in images]) / 1e3:.0f} KB"


def _photo(random: np.random.Generator, frequency: NDArray[np.float32], width: int, height: int) -> bytes:
    noise = np.fft.rfft2(random.standard_normal((3, height, width), np.float32)) / frequency
    noise[1:] = 0.9 * noise[:1] + 0.3 * noise[1:]  # colours go together
    waves = np.fft.irfft2(noise, (height, width))
    waves = 128 + 50 * (waves - waves.mean((1, 2), keepdims=True)) / waves.std((1, 2), keepdims=True)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(waves, 0, 255).astype(np.uint8).transpose(1, 2, 0)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
