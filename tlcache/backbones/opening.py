"""The test that a network has to pass when it is first used, so that no rows are silently wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.backbones.network import Network
from tlcache.errors import ModelError, first_line
from tlcache.files import cache_folder, write_whole
from tlcache.keys import hash_json
from tlcache.progress import say
from tlcache.text import counted

__all__ = ["open_tested", "some_images"]

_VERSION = 1  # of the test: raise it when more is tried
# Of the largest number, by precision: more than the order of sums does.
_SAME = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-2, "int8": 0.1}
_DEPENDS = "an embedding depends on the other images of its batch (dynamic quantisation, BatchNorm in training mode)"
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class _Found:
    """What is remembered of a network: whether images are run one at a time."""

    alone: bool


def open_tested(open_network: Callable[[bool], Network], identity: Mapping[str, Any]) -> Network:
    """Open a network as it has to be: for many images at a time, or for one where a row would depend on the others.

    It is tried on three images: together, together again, and one of them alone; once for every `identity`, which is
    remembered in the cache folder.

    Parameters
    ----------
    open_network
        Opens it: for one image at a time if it is given True.
    identity
        What decides how the network behaves, as JSON fields.

    Raises
    ------
    ModelError
        It gives other rows each time, no finite ones, or rows that depend on others even so.
    """
    memory = cache_folder() / "opened" / f"{hash_json({'test': _VERSION, **identity})}.json"
    if found := _remembered(memory):
        network = open_network(found.alone)
    else:
        network, found = _try(open_network)
        with suppress(OSError):  # then it is tried again the next time
            write_whole(memory, json.dumps(asdict(found)).encode())
    if found.alone:
        say(f"Images are run one at a time: in a batch the network fails, or {_DEPENDS}.")
    return network


def _remembered(memory: Path) -> _Found | None:
    with suppress(OSError, ValueError, TypeError):
        return _Found(**json.loads(memory.read_bytes()))
    return None


def _try(open_network: Callable[[bool], Network]) -> tuple[Network, _Found]:
    try:
        network = open_network(False)
        single = not _independent(network)
    except ModelError:  # a number of images may be baked in; if it is something else, that will come again
        single = True
    if single:
        network = open_network(True)
    images = some_images(*network.shape)
    rows = _rows(network, images)
    if not np.isfinite(rows).all(1).any():
        raise ModelError(
            "The network gives no finite embedding for any image: "
            + ("its weights are damaged." if network.precision == "fp32" else "try --precision fp32.")
        )
    if not _close(rows, _rows(network, images), network.precision):
        raise ModelError(
            "The network gives another embedding of the same image each time, as with dropout in training mode. "
            "Export it for evaluation."
        )
    if single and not _independent(network):
        raise ModelError(f"Of this network {_DEPENDS}, and it takes no single image. Export it with a batch of 1.")
    return network, _Found(single)


def _independent(network: Network) -> bool:
    """Return whether an image has the same row alone as among others."""
    images = some_images(*network.shape)
    middle = slice(1, 2)  # neither the darkest nor the most varied, whose values others would not reach
    return _close(_rows(network, images)[middle], _rows(network, images[middle]), network.precision)


def some_images(height: int, width: int) -> NDArray[np.uint8]:
    """Return uint8 (3, 3, height, width): black, a gradient, and noise."""
    images = np.zeros((3, 3, height, width), np.uint8)
    images[1] = np.linspace(0, 255, width) * np.array([1, 0.7, 0.4]).reshape(3, 1, 1)
    images[2] = np.random.default_rng(0).integers(0, 256, images.shape[1:], dtype=np.uint8)
    return images


def _rows(network: Network, images: NDArray[np.uint8]) -> Rows:
    try:
        rows = network.rows(images)
    except Exception as error:  # ONNX Runtime's own have no base but this
        raise ModelError(f"The network cannot be run: {first_line(error)}") from None
    if rows.ndim != 2 or len(rows) != len(images):
        raise ModelError(
            f"The network gives {rows.shape} for {counted(len(images), 'image')}; expected a row for each."
        )
    return rows


def _close(some: Rows, others: Rows, precision: str) -> bool:
    finite = np.isfinite(some)
    if some.shape != others.shape or not (finite == np.isfinite(others)).all():
        return False
    apart = np.abs(np.where(finite, some, 0) - np.where(finite, others, 0)).max()
    return bool(apart <= _SAME[precision] * np.abs(np.where(finite, some, 0)).max())
