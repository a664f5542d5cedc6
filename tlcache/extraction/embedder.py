"""A scikit-learn transformer from images to embeddings, which remembers every image it has seen."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin

from tlcache.backbones.engines import Session, default_batch, find_device, open_session
from tlcache.backbones.load import load_model
from tlcache.backbones.model import Model
from tlcache.cache.find import features_folder
from tlcache.cache.index import Index
from tlcache.cache.publish import read_rows
from tlcache.cache.shards import Shard, write_shard
from tlcache.errors import CacheError, DataError, ModelError, first_line
from tlcache.files import read_regular
from tlcache.images import BadImageError, OneTorchThread, Stored, prepare
from tlcache.machine import available_cpus
from tlcache.progress import image_bar

__all__ = ["ImageEmbedder"]

_PART_ROWS = 1024
_Row = tuple[NDArray[np.float32], Stored]


class ImageEmbedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Turns images into the embeddings of a pretrained backbone, for a scikit-learn `Pipeline`.

    There is nothing to fit. Embeddings are kept by the sha256 of the image's bytes, beside the feature files of
    `tlcache.extract`, whose embeddings are used too: in a grid search or another run, no image is embedded twice.

    Parameters
    ----------
    model, weights, pool, precision
        The backbone, as for `tlcache.extract`.
    crop_borders
        Cut dark borders of scans away first.
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
        precision: str = "fp32",
        crop_borders: bool = False,
        device: str = "auto",
        engine: str = "onnxruntime",
        features: str | Path | None = None,
        cache: bool = True,
    ) -> None:
        self.model = model
        self.weights = weights
        self.pool = pool
        self.precision = precision
        self.crop_borders = crop_borders
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
            Paths, PIL images, or uint8 arrays (H, W), (H, W, 3) or (H, W, 4), mixed as you like; an array (n, H, W, 3)
            is n of them. Pixels count as the PNG file they would be.

        Raises
        ------
        DataError
            An image that cannot be used; the message names it.
        ModelError, DeviceError, WeightsError
            The network cannot be had or cannot be run.
        """
        network = self._network()
        images = [_Source(number, image) for number, image in enumerate(X)]
        index = self._index(network)
        fresh = self._embed(network, {image.sha256: image for image in images if image.sha256 not in index.rows})
        known = [image.sha256 for image in images if image.sha256 in index.rows]
        rows = dict(zip(known, read_rows(index.sources, [index.rows[sha256] for sha256 in known]), strict=True))
        rows |= {sha256: features for sha256, (features, _) in fresh.items()}
        return np.stack([rows[image.sha256] for image in images]) if images else np.empty((0, 0), np.float32)

    def __sklearn_is_fitted__(self) -> bool:
        """Return True: a transformer with nothing to fit is always fitted."""
        return True

    def _network(self) -> Model:
        crop_borders = self.crop_borders or None
        return load_model(self.model, self.weights, pool=self.pool, precision=self.precision, crop_borders=crop_borders)

    def _index(self, network: Model) -> Index:
        """Return what is there already: from this transformer, and from feature files of the same key."""
        index = Index(network.key)
        if self.cache:
            index.add_others(features_folder(self.features), f"{network.file_stem}.h5")
            index.add_shards(self._folder(network))
        return index

    def _folder(self, network: Model) -> Path:
        return features_folder(self.features) / ".embedder" / network.file_stem

    def _embed(self, network: Model, images: Mapping[str, _Source]) -> dict[str, _Row]:
        """Return embedding and size of every image, by the hash of its bytes, and keep them."""
        if not images:
            return {}
        device = find_device(self.device, self.engine, self.precision)
        size = default_batch(self.engine, device, network.preprocess.crop)
        session = open_session(network.onnx(), device, engine=self.engine, precision=self.precision, batch=size)
        todo = list(images.values())
        parts = [todo[start : start + _PART_ROWS] for start in range(0, len(todo), _PART_ROWS)]
        found: dict[str, _Row] = {}
        with (
            OneTorchThread(),
            ThreadPoolExecutor(available_cpus()) as pool,
            image_bar(network.name, len(todo)) as advance,
        ):
            for part in parts:
                batches = [part[start : start + size] for start in range(0, len(part), size)]
                rows: dict[str, _Row] = {}
                for done in pool.map(partial(_run, session, network), batches):
                    rows |= done
                    advance(len(done))
                if self.cache:
                    _keep(self._folder(network), rows, session.provider)
                found |= rows
        return found


class _Source:
    """One image that is asked for: a file's path, or pixels, which count as the PNG they would be."""

    def __init__(self, number: int, image: Any) -> None:
        self._path = os.fspath(image) if isinstance(image, str | os.PathLike) else None
        self.name = f"image {number}" if self._path is None else self._path
        self._png = _png(self.name, image) if self._path is None else b""  # encoding takes longer than reading a file
        self.sha256 = hashlib.sha256(self.data()).hexdigest()

    def data(self) -> bytes:
        """Return the encoded image."""
        if self._path is None:
            return self._png
        try:
            return read_regular(self._path)
        except OSError as error:
            raise DataError(f"Cannot read '{self.name}': {error.strerror or error}.") from None


def _png(name: str, image: Any) -> bytes:
    buffer = io.BytesIO()
    try:
        picture = image if isinstance(image, Image.Image) else Image.fromarray(_pixels(image))
        picture.save(buffer, "PNG", compress_level=1)
    except (TypeError, ValueError, OSError) as error:
        raise DataError(f"{name.capitalize()} is no image: {first_line(error)}.") from None
    return buffer.getvalue()


def _pixels(image: Any) -> NDArray[np.uint8]:
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise ValueError(
            f"expected a path, a PIL image or uint8 (H, W), (H, W, 3), (H, W, 4); found {pixels.dtype} {pixels.shape}"
        )
    return pixels


def _run(session: Session, network: Model, images: Sequence[_Source]) -> dict[str, _Row]:
    """Decode and embed one batch."""
    prepared = []
    for image in images:
        data = image.data()
        if hashlib.sha256(data).hexdigest() != image.sha256:
            raise DataError(f"'{image.name}' was changed while it was read.")
        try:
            prepared.append(prepare(data, network.preprocess))
        except BadImageError as error:
            raise DataError(f"'{image.name}' cannot be used: {error}. Leave it out.") from None
    try:
        features = session(np.stack([pixels for pixels, _ in prepared]))
    except (RuntimeError, MemoryError) as error:
        raise ModelError(f"The network failed on a batch of {len(images)} ({first_line(error)}).") from error
    for image, row in zip(images, features, strict=True):
        if not np.isfinite(row).all():
            raise DataError(f"The network gives numbers that are not finite for '{image.name}'.")
    return {image.sha256: (row, stored) for image, row, (_, stored) in zip(images, features, prepared, strict=True)}


def _keep(folder: Path, rows: Mapping[str, _Row], provider: str) -> None:
    features, stored = zip(*rows.values(), strict=True)
    part = Shard(
        np.array(list(rows), "S64"),
        np.stack(features),
        np.array(stored, np.int32),
        [],
        np.zeros(4),
        provider,
    )
    try:
        write_shard(folder, part)
    except OSError as error:
        raise CacheError(f"Cannot write to '{folder}': {error.strerror}. Pass cache=False to keep nothing.") from None
