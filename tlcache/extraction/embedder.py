"""A scikit-learn transformer from images to embeddings, which remembers every image it has seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from tlcache.backbones.engines import default_batch, find_device, open_network
from tlcache.backbones.load import load_model
from tlcache.backbones.model import Model
from tlcache.backbones.network import Embedded, Encoded, Network, embed_images
from tlcache.backbones.paces import AUTO, fastest_engine
from tlcache.cache.feature_file import stage_seconds
from tlcache.cache.find import features_folder, kept_folder
from tlcache.cache.index import Index
from tlcache.cache.publish import read_rows
from tlcache.cache.shards import Shard, write_shard
from tlcache.extraction.given import GivenImage, check_several
from tlcache.files import writing_to
from tlcache.images.notes import sentences
from tlcache.progress import image_bar, warn
from tlcache.threads import available_cpus

__all__ = ["ImageEmbedder"]

_PART_ROWS = 1024


class ImageEmbedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Turns images into the embeddings of a pretrained backbone, for a scikit-learn `Pipeline`.

    There is nothing to fit. Embeddings are kept by the sha256 of the image's bytes, beside the feature files of
    `tlcache.extract`, and each uses those of the other: in a grid search or another run, no image is embedded twice.
    `tlcache ls` lists what is kept, `tlcache prune` asks for it. When images are embedded, what
    `tlcache.extract` warns of in their pixels (a single colour, few grey levels, different divisors) is logged.

    Parameters
    ----------
    model, weights, pool, output, precision
        The backbone, as for `tlcache.extract`; `output` is a layer of it (`tlcache layers`).
    crop_borders
        Cut dark borders of scans away first.
    window, max_pixels
        Grey values that become black and white in images of more than 8 bits, and the largest image to read.
    jpeg_size
        How small large JPEGs are decoded: `full`, `twice` or `nearest`.
    device, engine
        What runs the network, as for `tlcache.extract`.
    features
        Folder of feature files; default `TLCACHE_FEATURES` or `features`.
    cache
        Keep the embeddings and use those that are there.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> paths = sorted(str(path) for path in photos.rglob("*.png"))
    >>> labels = [path.split("/")[-2] for path in paths]
    >>> embedder = ImageEmbedder(model=str(tiny_model), features=folder)
    >>> make_pipeline(embedder, LogisticRegression()).fit(paths, labels).score(paths, labels)
    1.0
    """

    def __init__(
        self,
        model: str = "mobilenetv3_large",
        weights: str | None = None,
        *,
        pool: str | None = None,
        output: str | None = None,
        precision: str = "fp32",
        crop_borders: bool = False,
        window: tuple[float, float] | None = None,
        max_pixels: int | None = None,
        jpeg_size: str | None = None,
        device: str = "auto",
        engine: str = "onnxruntime",
        features: str | Path | None = None,
        cache: bool = True,
    ) -> None:
        self.model = model
        self.weights = weights
        self.pool = pool
        self.output = output
        self.precision = precision
        self.crop_borders = crop_borders
        self.window = window
        self.max_pixels = max_pixels
        self.jpeg_size = jpeg_size
        self.device = device
        self.engine = engine
        self.features = features
        self.cache = cache

    def fit(self, X: object = None, y: object = None) -> Self:
        """Do nothing; there is nothing to fit."""
        del X, y
        return self

    def transform(self, X: Iterable[Any]) -> NDArray[np.float32]:
        """Return the embeddings of images, float32 (n, dim).

        Parameters
        ----------
        X
            Paths, the bytes of image files, PIL images, or uint8 arrays (H, W), (H, W, 3) or (H, W, 4), mixed as you
            like; an array (n, H, W, 3) is n of them, and a single image is a list of one. Pixels count as the PNG
            file they would be; PIL images are turned and brought to 8 bits as their files are.

        Raises
        ------
        DataError
            An image that cannot be used; the message names it. Or no list: one image by itself, a table.
        ModelError, DeviceError, WeightsError
            The network cannot be had or cannot be run.
        """
        check_several(X)
        model = self._model()
        images = [GivenImage(number, image, self.window) for number, image in enumerate(X)]
        index = self._index(model)
        if not images:
            return np.empty((0, index.dim or self._network(model)[0].dim), np.float32)
        outdated = {image.sha256 for image in images if image.changed} & index.outdated
        usable = {image.sha256 for image in images if image.sha256 in index.rows} - outdated
        fresh = self._embed(model, {image.sha256: image for image in images if image.sha256 not in usable}, index)
        if fresh:
            noted = {word: [each.name for each in images if each.sha256 in of] for word, of in index.noted.items()}
            for line in sentences(noted, self.window is not None):
                warn(line)
        known = [image.sha256 for image in images if image.sha256 in usable]
        rows = dict(zip(known, read_rows(index.sources, [index.rows[sha256] for sha256 in known]), strict=True))
        rows |= fresh
        return np.stack([rows[image.sha256] for image in images])

    def __sklearn_is_fitted__(self) -> bool:
        """Return True: a transformer with nothing to fit is always fitted."""
        return True

    def _model(self) -> Model:
        return load_model(
            self.model,
            self.weights,
            pool=self.pool,
            output=self.output,
            precision=self.precision,
            crop_borders=self.crop_borders or None,
            window=self.window and tuple(self.window),
            max_pixels=self.max_pixels,
            jpeg_size=self.jpeg_size,
        )

    def _index(self, model: Model) -> Index:
        """Return what is there already: in feature files, and from transformers."""
        index = Index(model.key)
        if self.cache:
            index.add_others(features_folder(self.features), model.file_stem)
        return index

    def _network(self, model: Model) -> tuple[Network, int]:
        """Return what runs the network, and how many images it is given at once."""
        engine = fastest_engine(model, self.device) if self.engine == AUTO else self.engine
        device = find_device(self.device, engine, self.precision)
        size = default_batch(engine, device, model.preprocess.crop)
        return open_network(model.onnx(), device, engine=engine, precision=self.precision, batch=size), size

    def _embed(self, model: Model, images: Mapping[str, GivenImage], index: Index) -> dict[str, NDArray[np.float32]]:
        """Return the embedding of every image by the hash of its bytes, and keep them; notes are added to the index."""
        if not images:
            return {}
        network, size = self._network(model)
        todo, found, fresh = list(images.values()), dict[str, NDArray[np.float32]](), list[_Batch]()
        batches = [todo[start : start + size] for start in range(0, len(todo), size)]
        with image_bar(model.name, len(todo)) as advance:
            embedded = embed_images(network, model.preprocess, batches, _read, len(todo))
            for batch, done in zip(batches, embedded, strict=True):
                fresh.append((batch, done))
                advance(len(batch))
                if len(fresh) * size >= _PART_ROWS or batch is batches[-1]:
                    part, fresh = _joined(fresh, network.provider), []
                    found |= zip(part.sha256.astype(str), part.features, strict=True)
                    index.note(part)
                    self._keep(model, part)
        return found

    def _keep(self, model: Model, part: Shard) -> None:
        folder = kept_folder(features_folder(self.features)) / model.file_stem
        if self.cache:
            with writing_to(folder, "Pass cache=False to keep nothing."):
                write_shard(folder, part)


_Batch = tuple[Sequence[GivenImage], Embedded]


def _read(images: Sequence[GivenImage]) -> list[Encoded]:
    return [image.encoded() for image in images]


def _joined(batches: Sequence[_Batch], provider: str) -> Shard:
    """Return batches as one part; what they took is of threads that shared the CPUs."""
    notes = defaultdict[str, list[str]](list)
    for image, words in (
        (image, words) for images, done in batches for image, words in zip(images, done.notes, strict=True)
    ):
        for word in words | image.notes:
            notes[word].append(image.sha256)
    decode_s, infer_s = sum(done.decode_s for _, done in batches), sum(done.infer_s for _, done in batches)
    return Shard(
        np.array([image.sha256 for images, _ in batches for image in images], "S64"),
        np.concatenate([done.rows for _, done in batches]),
        np.array([stored for _, done in batches for stored in done.stored], np.int32),
        [],
        stage_seconds(decode_s=decode_s, infer_s=infer_s, wall_s=(decode_s + infer_s) / available_cpus()),
        provider,
        notes=notes,
    )
