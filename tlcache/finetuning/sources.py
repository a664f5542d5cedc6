"""Where training batches come from: images, augmented on the way, or activations that were computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlcache.backbones.engines import default_batch, find_device, open_network
from tlcache.backbones.model import Model
from tlcache.finetuning.augment import augment, draws
from tlcache.finetuning.pixels import Pixels
from tlcache.finetuning.presets import PRESETS
from tlcache.finetuning.stored import StoredArray
from tlcache.heads.rows import Indices
from tlcache.images import OneTorchThread
from tlcache.keys import hash_json
from tlcache.progress import image_bar
from tlcache.threads import in_threads

__all__ = ["Source", "from_activations", "from_embeddings", "from_pixels", "parts_of"]


@dataclass(frozen=True)
class Source:
    """Labelled training or validation rows.

    Parameters
    ----------
    labels
        What is wanted of each, as `tlcache.cache.feature_file.Split.wanted`: labels (n,), or columns (n, C).
    fetch
        Numbers of rows and an epoch -> what goes in: uint8 images, or with `ready` what `Classifier.after` takes.
    ready
        The frozen part of the network has been applied.
    """

    labels: NDArray[Any]
    fetch: Callable[[Indices, int], Tensor]
    ready: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, order: Indices, size: int, epoch: int, share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and labels in the given order, the next batch being made while one is used.

        With `share` (i, n), only the i-th of n parts of every batch, as `parts_of` says.
        """
        parts = parts_of(order, size, share)
        with _helper() as pool:
            coming = pool.submit(self.fetch, parts[0], epoch)
            for part, after in zip(parts, [*parts[1:], None], strict=True):
                inputs = coming.result()
                if after is not None:
                    coming = pool.submit(self.fetch, after, epoch)
                yield inputs, torch.from_numpy(self.labels[part])


def parts_of(order: Indices, size: int, share: tuple[int, int] = (0, 1)) -> list[Indices]:
    """Return the rows of each batch, or with `share` (i, n) of the i-th of n parts of it.

    A last batch that would leave a part with a single row joins the one before it: BatchNorm has no statistics of one
    image.
    """
    mine, of = share
    starts = list(range(0, len(order), size))
    if len(starts) > 1 and len(order) - starts[-1] < 2 * of:
        del starts[-1]
    whole = (order[start:stop] for start, stop in zip(starts, [*starts[1:], len(order)], strict=True))
    return [batch[mine::of] for batch in whole]


def _helper() -> ThreadPoolExecutor:
    """Return a thread whose torch computes on that thread alone: a second team of threads would hold up the network's.

    The batch is made beside the training step, on the same cores. Teams of OpenMP wait for their slowest member, so two
    of them on the same cores cost a fifth of the step (measured with MobileNetV3-Small on 2 cores).
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(1)
    pool.submit(torch.get_num_threads).result()  # torch sets a thread up when it first asks: what comes later stays
    pool.submit(torch.set_num_threads, 1).result()
    torch.set_num_threads(threads)  # for this thread, and those to come
    return pool


def from_pixels(pixels: Pixels, rows: Indices, labels: NDArray[Any], preset: str, seed: int, device: str) -> Source:
    """Return some rows of the pixel store, augmented anew every epoch."""

    def fetch(numbers: Indices, epoch: int) -> Tensor:
        return _augmented(pixels, rows[numbers], preset, seed, epoch, device)

    return Source(labels, fetch)


def from_embeddings(embeddings: NDArray[np.float32], labels: NDArray[Any]) -> Source:
    """Return cached embeddings (n, dim), the same in every epoch."""
    return Source(labels, lambda numbers, _: torch.from_numpy(embeddings[numbers]), ready=True)


def from_activations(
    stem: Model,
    shape: tuple[int, ...],
    pixels: Pixels,
    rows: Indices,
    labels: NDArray[Any],
    preset: str,
    seed: int,
    views: int,
    device: str,
    folder: Path,
) -> Source:
    """Return activations where `stem` ends, of `shape` each, computed by ONNX Runtime and kept in a file of `folder`.

    Of every image there are `views` augmented views, and epochs take turns with them. The file belongs to the key of
    the stem, the images, and how they are augmented.
    """
    views = 1 if preset == "none" else views
    decides = {
        "stem": stem.key,
        "pixels": pixels.key,
        "rows": rows.tolist(),
        "augment": [preset, seed, views] if preset != "none" else None,
    }

    def fill(array: NDArray[np.float32]) -> None:
        _fill(array, stem, pixels, rows, preset, seed, device)

    path = folder / f"{hash_json(decides)[:16]}.npy"
    stored = StoredArray(path, (views * len(rows), *shape), np.float32, fill)

    def fetch(numbers: Indices, epoch: int) -> Tensor:
        return torch.from_numpy(stored[epoch % views * len(rows) + numbers])

    return Source(labels, fetch, ready=True)


def _fill(
    array: NDArray[np.float32], stem: Model, pixels: Pixels, rows: Indices, preset: str, seed: int, device: str
) -> None:
    """Compute the views one after the other, on the CPU a batch per core at a time."""
    size = default_batch("onnxruntime", find_device(device, "onnxruntime", "fp32"), pixels.crop)
    network = open_network(stem.onnx(), device, batch=size)

    def one(start: int) -> int:
        view, first = divmod(start, len(rows))
        part = rows[first : first + size]
        images = _augmented(pixels, part, preset, seed, view, "cpu").numpy()
        array[start : start + len(part)] = network.embed(images).reshape(len(part), *array.shape[1:])
        return len(part)

    starts = [view + first for view in range(0, len(array), len(rows)) for first in range(0, len(rows), size)]
    with OneTorchThread(), image_bar("frozen layers", len(array)) as advance:
        for images in in_threads(one, starts):
            advance(images)


def _augmented(pixels: Pixels, rows: Indices, preset: str, seed: int, epoch: int, device: str) -> Tensor:
    images = torch.from_numpy(pixels.images[rows])
    if preset == "none":
        return images[:, :, pixels.centre, pixels.centre].to(device)
    return augment(images.to(device), pixels.crop, PRESETS[preset], draws(seed, epoch, rows))
