"""Altered copies of a set's own images, as they turn up on the web, and how close they are to what they are made of."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from tlcache.auditing.neighbours import Array, Space
from tlcache.auditing.pixels import agreement, thumbnail
from tlcache.backbones.load import load_again
from tlcache.backbones.model import Model
from tlcache.backbones.network import Encoded, embed_images
from tlcache.cache.attributes import extract_arguments
from tlcache.cache.feature_file import FeatureFile
from tlcache.datasets.dataset import reopen
from tlcache.errors import CacheError, ImageReadError, ModelError
from tlcache.images import decode
from tlcache.progress import image_bar

__all__ = ["COPIES", "compare_copies"]

_SAMPLE = 120

Alter = Callable[[Image.Image, np.random.Generator], Image.Image]


def _resized(image: Image.Image, random: np.random.Generator) -> Image.Image:
    scale = random.uniform(0.6, 0.9)
    return image.resize((max(1, round(scale * image.width)), max(1, round(scale * image.height))))


def _brightened(image: Image.Image, random: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(random.uniform(1.1, 1.3))


def _cropped(image: Image.Image, random: np.random.Generator) -> Image.Image:
    cut = image.width // 20, image.height // 20
    left, top = (int(random.integers(0, each + 1)) for each in cut)
    return image.crop((left, top, left + image.width - cut[0], top + image.height - cut[1]))


COPIES: Mapping[str, Alter] = {
    "re-encoded": lambda image, _: image,
    "resized": _resized,
    "brightened": _brightened,
    "cropped": _cropped,
    "flipped": lambda image, _: ImageOps.mirror(image),
}


def compare_copies(file: FeatureFile, space: Space, embeddings: Array) -> tuple[Array, Array]:
    """Return how close altered copies of some images are to them: by cosine and by pixels, float32 (m, kinds) each.

    The copies are embedded by the network that made the features.

    Raises
    ------
    TlcacheError, OSError, BadImageError
        The network or the images are gone, or others.
    """
    model = _model(file)
    from tlcache.backbones.engines import open_network  # who reads what an audit found runs no network

    network = open_network(model.onnx(), "cpu", precision="fp32", batch=len(COPIES))
    some = np.random.default_rng(0).choice(len(file), min(len(file), _SAMPLE), replace=False).tolist()
    paths, hashes, images = file.paths(), file.hashes().astype(str), reopen(file.attrs["source"])
    images.expect(paths[row] for row in some)
    pixels: dict[int, Array] = {}

    def copies(row: int) -> list[Encoded]:
        """Return the copies of an image, none when it is gone or another now, and note how far their pixels agree."""
        try:
            data = images.read(paths[row], hashes[row])
        except ImageReadError:
            return []
        made = _altered(data, model.preprocess.at_least, np.random.default_rng(row))
        seen = np.stack([thumbnail(each) for each in (data, *made)])
        pixels[row] = agreement(seen, np.zeros(len(made), np.int64), np.arange(1, len(made) + 1))
        return [Encoded(f"a copy of {paths[row]}", copy) for copy in made]

    cosines: dict[int, Array] = {}
    with image_bar("altered copies", len(some)) as advance:
        embedded = embed_images(network, model.preprocess, some, copies, len(COPIES) * len(some))
        for row, found in zip(some, embedded, strict=True):
            advance(1)
            if len(found.rows):
                cosines[row] = space(found.rows) @ embeddings[row]
    if 2 * len(cosines) < len(some):
        raise CacheError(f"the images in '{images.source}' are gone, or not those that were embedded")
    return np.stack(list(cosines.values())), np.stack([pixels[row] for row in cosines])


def _altered(data: bytes, at_least: int | None, random: np.random.Generator) -> list[bytes]:
    pixels, _ = decode(data, at_least)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return [_jpeg(alter(image, random), random) for alter in COPIES.values()]


def _jpeg(image: Image.Image, random: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(random.integers(50, 81)))
    return buffer.getvalue()


def _model(file: FeatureFile) -> Model:
    """Return the network that made the features, in float32."""
    made = extract_arguments(file.attrs)
    model = load_again(made)
    if model.key != file.attrs["key"]:
        raise ModelError("the network has changed since")
    return model if model.precision == "fp32" else load_again({**made, "precision": "fp32"})
