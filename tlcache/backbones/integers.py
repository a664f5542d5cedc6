"""A network in int8 as extraction takes it: converted once, kept, and how far it is from itself in fp32."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from tlcache.backbones.calibration import CALIBRATED, made_images
from tlcache.backbones.engines import open_session
from tlcache.backbones.kept import kept
from tlcache.backbones.model import Onnx
from tlcache.backbones.onnx_weights import joined
from tlcache.backbones.quantised import Fed, to_int8
from tlcache.progress import say, warn

__all__ = ["Apart", "kept_int8", "share_apart"]

_COMPARED = 8  # images, twice: the first time to warm up
_FAR, _SLOW = 0.3, 1.2  # from here on a network does not suit


@dataclass(frozen=True)
class Apart:
    """How far a network in int8 is from itself in fp32.

    Parameters
    ----------
    share
        Median length of the differences between embeddings of made images, in lengths of the embeddings.
    faster
        How many images it embeds in the time of one in fp32, on one core of the machine where it was quantised.
    """

    share: float
    faster: float

    def __str__(self) -> str:
        return f"embeddings differ from fp32 by {self.share:.0%} of their length, {self.faster:.1f} times as fast here"


def kept_int8(name: str, stem: str, network: Callable[[], Onnx], size: tuple[int, int]) -> bytes:
    """Return a network in int8, from the cache folder if it is there, and warn where that does not suit it.

    Parameters
    ----------
    name, stem
        What to call it, and its file.
    network
        Returns it in float32.
    size
        Height and width of its images.

    Raises
    ------
    ModelError
        It cannot be quantised.
    """

    def made() -> bytes:
        whole = joined(network())
        say(f"converting {name} to int8 (once) ...")
        data = to_int8(whole, made_images(CALIBRATED, *size))
        apart = _compare(whole, data, made_images(_COMPARED, *size, seed=1))
        say(f"{name} in int8: {apart}")
        return _stated(data, apart)

    data = kept(stem, made)
    apart = _told(data)
    if apart.share > _FAR or apart.faster < _SLOW:
        warn(f"int8 does not suit {name}: {apart}. --precision fp32 is exact; tlcache engines tells what each costs.")
    return data


def _compare(exact: bytes, rounded: bytes, images: NDArray[np.uint8]) -> Apart:
    sessions, fed = [open_session(exact), open_session(rounded)], Fed(exact)
    for _ in range(2):
        found, spent = list[NDArray[np.float32]](), list[float]()
        for session in sessions:
            began = time.thread_time()
            found.append(np.concatenate([session.run(None, fed(image))[0][:1] for image in images]))
            spent.append(time.thread_time() - began)
    return Apart(share_apart(*found), spent[0] / max(spent[1], 1e-9))


def share_apart(first: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the median length of the differences between embeddings (n, dim), in lengths of the first."""
    lengths, differences = (np.linalg.norm(rows, axis=1) for rows in (first, other - first))
    return float(np.median(differences / np.maximum(lengths, 1e-12)))


def _stated(network: bytes, apart: Apart) -> bytes:
    model = onnx.load_model_from_string(network)
    onnx.helper.set_model_props(model, {"int8": json.dumps(asdict(apart))})
    data: bytes = model.SerializeToString()
    return data


def _told(network: bytes) -> Apart:
    metadata = {each.key: each.value for each in onnx.load_model_from_string(network).metadata_props}
    return Apart(**json.loads(metadata["int8"]))
