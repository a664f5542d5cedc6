"""Several networks of the same images, ready to run: what they have in common once, and each bit as if alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.backbones.model import Onnx, Parted
from tlcache.backbones.network import Network
from tlcache.backbones.opening import some_images
from tlcache.files import cache_folder, write_whole
from tlcache.keys import hash_json
from tlcache.progress import say

__all__ = ["Several", "open_several"]

_VERSION = 1  # of the comparison: raise it when more is compared


@dataclass(frozen=True)
class Several:
    """A network that gives the embeddings of several beside each other.

    Parameters
    ----------
    network
        float32 (n, sum of the dims).
    columns
        Where those of each are.
    """

    network: Network
    columns: tuple[slice, ...]


@dataclass(frozen=True)
class _Compared:
    """What is remembered of networks: their dims, and which of them give other rows together than alone."""

    dims: list[int]
    apart: list[int]


def open_several(models: Sequence[Onnx], open_one: Callable[[Onnx], Network], identity: Mapping[str, Any]) -> Several:
    """Open networks so that each gives what it gives alone, to the last bit.

    An engine may compute something otherwise where more is asked of it than before. So networks that are one graph are
    compared with each alone, on three images, once for every `identity`, which is remembered in the cache folder; those
    whose rows differ are run by themselves.

    Parameters
    ----------
    models
        The networks.
    open_one
        Opens one of them, or what is made of several.
    identity
        What decides how the engine runs them, as JSON fields.
    """
    if len(models) == 1:
        network = open_one(models[0])
        return Several(network, (slice(0, network.dim),))
    from tlcache.backbones.onnx_merge import merged  # onnx, which deployed models do without

    together = merged(models)
    found = _compared(models, together, open_one, identity)
    joint = [number for number in range(len(models)) if number not in found.apart]
    networks = [open_one(models[number]) for number in found.apart]
    if len(joint) == len(models):
        networks.append(open_one(together or models[0]))
    elif joint:
        some = [models[number] for number in joint]
        networks.append(open_one(some[0] if len(some) == 1 else merged(some) or some[0]))
    order = [*found.apart, *joint]
    ends = accumulate(found.dims[number] for number in order)
    places = {number: slice(end - found.dims[number], end) for number, end in zip(order, ends, strict=True)}
    return Several(_beside(networks), tuple(places[number] for number in range(len(models))))


def _compared(
    models: Sequence[Onnx], together: Onnx | None, open_one: Callable[[Onnx], Network], identity: Mapping[str, Any]
) -> _Compared:
    hashes = [hashlib.sha256(each.graph if isinstance(each, Parted) else each).hexdigest() for each in models]
    key = hash_json({"comparison": _VERSION, "models": hashes, **identity})
    memory = cache_folder() / "opened" / f"{key}.json"
    found = _remembered(memory)
    if found is None:
        found = _compare(models, together, open_one)
        with suppress(OSError):  # then it is compared again the next time
            write_whole(memory, json.dumps(asdict(found)).encode())
    if found.apart:
        say(
            f"{len(found.apart)} of {len(models)} networks are run by themselves, as they give other numbers, in the "
            "last digits, where they share what they have in common."
        )
    return found


def _remembered(memory: Path) -> _Compared | None:
    with suppress(OSError, ValueError, TypeError):
        return _Compared(**json.loads(memory.read_bytes()))
    return None


def _compare(models: Sequence[Onnx], together: Onnx | None, open_one: Callable[[Onnx], Network]) -> _Compared:
    alone = [_rows(open_one(each)) for each in models]
    dims, start, apart = [rows.shape[1] for rows in alone], 0, []
    joint = _rows(open_one(together)) if together else None
    for number, rows in enumerate(alone):
        own = None if joint is None else joint[:, start : start + dims[number]]
        start += dims[number]
        if own is None or own.tobytes() != rows.tobytes():
            apart.append(number)
    return _Compared(dims, apart)


def _rows(network: Network) -> NDArray[np.float32]:
    """Return what a network gives for three images together, and for one of them alone."""
    images = some_images(*network.shape)
    return np.concatenate([network.rows(images), network.rows(images[1:2])])


def _beside(networks: Sequence[Network]) -> Network:
    return networks[0] if len(networks) == 1 else _Beside(networks)


class _Beside(Network):
    """Networks of the same images that run one after the other, their rows side by side."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks
        self.provider, self.shape, self.precision = networks[0].provider, networks[0].shape, networks[0].precision
        self.dim = sum(each.dim for each in networks)

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.concatenate([each.rows(images) for each in self._networks], axis=1)
