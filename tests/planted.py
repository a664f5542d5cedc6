"""Copies of images as they turn up on the web: re-encoded, resized, brightened, cropped, flipped."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Alter = Callable[[Image.Image], Image.Image]

KINDS: dict[str, Alter] = {
    "re-encoded": lambda image: image,
    "resized": lambda image: image.resize((round(0.7 * image.width), round(0.7 * image.height))),
    "brightened": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "cropped": lambda image: image.crop((round(0.05 * image.width), round(0.05 * image.height), *image.size)),
    "flipped": lambda image: ImageOps.mirror(image),
}


def plant(images: Sequence[Path], place: Callable[[Path, str], Path]) -> list[tuple[Path, Path]]:
    """Write one copy of every image, the kinds in turn; return (original, copy)."""
    pairs = []
    for number, path in enumerate(images):
        kind = list(KINDS)[number % len(KINDS)]
        copy = place(path, kind)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            KINDS[kind](image.convert("RGB")).save(copy, quality=65)
        pairs.append((path, copy))
    return pairs


def write_scene(path: Path, seed: int) -> Path:
    """Write a JPEG of soft shapes like no other."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)
    for _ in range(5):
        side, x, y, *colour = map(int, random.integers((10, 0, 0, 0, 0, 0), (40, 80, 80, 256, 256, 256)))
        image.paste(tuple(colour), (x, y, x + side, y + side))
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    image.filter(ImageFilter.GaussianBlur(1)).save(buffer, "JPEG", quality=92)
    path.write_bytes(buffer.getvalue())
    return path
