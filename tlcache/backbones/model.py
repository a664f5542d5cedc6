"""A backbone with everything that decides its embeddings, and the key of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tlcache.images import Preprocess
from tlcache.keys import hash_json, slug

__all__ = ["EXPORT_VERSION", "KEY_VERSION", "UNKNOWN", "Model", "Onnx", "Parted", "model_identity"]


KEY_VERSION = 1
UNKNOWN = "unknown"
EXPORT_VERSION = 1  # part of the cache key: raise it when the same weights would give other numbers


@dataclass(frozen=True)
class Parted:
    """An ONNX model without its large weights: one message has 2 GB at most, and would be in memory many times over.

    Parameters
    ----------
    graph
        The model. Initializers that are not in it are external, and say by a hash of what file they are.
    weights
        Name -> values of those, which may be mapped from a file.
    """

    graph: bytes
    weights: Mapping[str, NDArray[np.generic]]


Onnx: TypeAlias = bytes | Parted


@dataclass(frozen=True)
class Model:
    """A backbone with everything that decides its embeddings.

    Parameters
    ----------
    name
        Short name, used for files and tables.
    weights
        What the weights are, for people: `imagenet`, `embedded`, `random`, `file:NAME`, `onnx:NAME`.
    preprocess
        What happens to images before the network.
    identity
        Everything that changes an embedding, as JSON fields; nothing else.
    onnx
        Returns the ONNX file, its bytes but for large weights in other files, exporting it first when needed.
    arguments
        `model` and `weights` as `load_model` takes them to give the same, in any folder and whatever the default
        weights are then.
    licence
        Of the weights, and what they were trained on, as far as that is known. It changes no embedding.
    """

    name: str
    weights: str
    preprocess: Preprocess
    identity: dict[str, Any]
    onnx: Callable[[], Onnx]
    arguments: Mapping[str, str | None]
    licence: str = UNKNOWN

    @property
    def key(self) -> str:
        """The sha256 of `identity`: equal keys mean equal embeddings for equal images."""
        return hash_json(self.identity)

    @property
    def file_stem(self) -> str:
        """Name of files that hold its embeddings, without the ending."""
        return f"{slug(self.name)}-{self.key[:12]}"

    @property
    def precision(self) -> str:
        """Of the network's arithmetic: `fp32`, `fp16`, `bf16` or `int8`."""
        return str(self.identity["precision"])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers that are kept of an embedding."""
        found: np.dtype[Any] = np.dtype(self.identity.get("dtype", "float32"))
        return found

    @property
    def unrounded(self) -> Model:
        """The same network with its embeddings as it gives them, float32."""
        return self.kept_as("float32")

    def kept_as(self, dtype: str) -> Model:
        """Return the same network, whose embeddings are rounded to numbers of that type."""
        return replace(self, identity={**self.identity, "dtype": dtype})

    def corrupted(self, corruption: str) -> Model:
        """Return the same network for images that are made worse first, like `blur:3`."""
        preprocess = replace(self.preprocess, corruption=corruption)
        return replace(self, preprocess=preprocess, identity={**self.identity, "preprocess": preprocess.as_json()})


def model_identity(network: Mapping[str, Any], output: str, pool: str | None, preprocess: Preprocess) -> dict[str, Any]:
    """Return everything that changes an embedding of a float32 network, as JSON fields."""
    return {
        "version": KEY_VERSION,
        "backbone": dict(network),
        "output": output,
        "pool": pool,
        "precision": "fp32",
        "dtype": "float32",
        "preprocess": preprocess.as_json(),
    }
