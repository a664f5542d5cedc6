"""Decoded once: the images of a feature file as a memory-mapped array of uint8 pixels."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlcache.errors import CacheError, DataError
from tlcache.files import cache_folder, check_room, read_regular
from tlcache.images import BadImageError, OneTorchThread, Preprocess, prepare
from tlcache.keys import hash_json
from tlcache.machine import available_cpus
from tlcache.progress import image_bar

__all__ = ["Pixels", "open_pixels", "whole_file"]

_IN_GRAPH = ("mean", "std")  # applied by the network, so they leave the pixels alone


@dataclass(frozen=True)
class Pixels:
    """Images of one size, in the order of a feature file's rows.

    Parameters
    ----------
    images
        uint8 (N, 3, side, side), memory-mapped; `side` is the short side after resizing, so that augmentation may
        look beyond the centre crop.
    checksums
        uint32 (N,), crc32 of each image.
    crop
        Side of the centre crop that the network takes.
    """

    images: NDArray[np.uint8]
    checksums: NDArray[np.uint32]
    crop: int

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return some images, uint8 (n, 3, side, side).

        Raises
        ------
        CacheError
            The bytes are not those that were written.
        """
        found = self.images[rows]
        for row, image in zip(rows.tolist(), found, strict=True):
            if zlib.crc32(image) != self.checksums[row]:
                raise CacheError(f"'{self.images.filename}' is damaged. Remove it; it is made again.")  # type: ignore[attr-defined]
        return found

    @property
    def margin(self) -> slice:
        """Where the centre crop lies, in either direction: exactly what `tlcache.images.prepare` takes."""
        start = round((self.images.shape[-1] - self.crop) / 2)
        return slice(start, start + self.crop)


def open_pixels(root: Path, paths: Sequence[str], sha256: Sequence[str], preprocess: Preprocess) -> Pixels:
    """Open the pixels of some images, decoding them first when that has not been done.

    The file is named after what decides its content: the preprocessing with the version of its rules, and the sha256
    of every image.

    Raises
    ------
    DataError
        An image has changed or vanished since its features were extracted.
    """
    square = replace(preprocess, crop=preprocess.resize)
    decides = {name: value for name, value in square.as_json().items() if name not in _IN_GRAPH}
    path = cache_folder() / "pixels" / f"{hash_json({'preprocess': decides, 'images': list(sha256)})[:16]}.npy"
    shape = (len(paths), 3, square.crop, square.crop)
    if not path.exists():
        with whole_file(path, shape, np.uint8) as images:
            sums = _decode(root, paths, sha256, square, images)
            with whole_file(path.with_suffix(".crc32.npy"), (len(paths),), np.uint32) as checksums:
                checksums[:] = sums
    return Pixels(np.load(path, "r"), np.load(path.with_suffix(".crc32.npy")), preprocess.crop)


class whole_file:  # noqa: N801  # used like a function
    """An array on disk to fill within `with`, which is there under its name only when all went well."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        self._path, self._shape, self._dtype = path, shape, dtype

    def __enter__(self) -> NDArray[np.generic]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        check_room(self._path.parent, int(np.prod(self._shape)) * np.dtype(self._dtype).itemsize)
        descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}-", suffix=".tmp", dir=self._path.parent)
        os.close(descriptor)
        self._temporary = Path(name)
        self._array = np.lib.format.open_memmap(name, "w+", self._dtype, self._shape)
        return self._array

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._array.flush()
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)


def _decode(
    root: Path, paths: Sequence[str], sha256: Sequence[str], preprocess: Preprocess, images: NDArray[np.generic]
) -> list[int]:
    """Fill `images`, a thread per core, and return the checksums."""

    def one(row: int) -> int:
        path = os.path.join(root, paths[row])  # noqa: PTH118  a Path costs 10 times as much
        try:
            data = read_regular(path)
            if hashlib.sha256(data).hexdigest() != sha256[row]:
                raise DataError(f"'{path}' has changed since its features were extracted. Run the same command again.")
            images[row], _ = prepare(data, preprocess)
        except (OSError, BadImageError) as error:
            raise DataError(f"'{path}' cannot be used any more: {error}. Run the same command again.") from None
        advance(1)
        return zlib.crc32(images[row])

    torch = OneTorchThread()
    torch.start()
    try:
        with image_bar("decoding", len(paths)) as advance, ThreadPoolExecutor(available_cpus()) as pool:
            return list(pool.map(one, range(len(paths))))
    finally:
        torch.stop()
