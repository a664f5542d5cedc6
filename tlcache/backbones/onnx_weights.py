"""Weights that an ONNX model keeps in files beside it, as torch's exporter does by default."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import onnx
from onnx.external_data_helper import ExternalDataInfo

from tlcache.backbones.onnx_nodes import every_node
from tlcache.errors import ModelError

__all__ = ["MOST_BYTES", "read_weights"]

MOST_BYTES = 2**31 - 2**24  # of a model as one message, with room for the nodes that are added


def read_weights(path: Path, model: onnx.ModelProto) -> dict[str, str]:
    """Put weights that are in other files into a model.

    Only files beside the model itself are read: a model could name any file of this machine.

    Parameters
    ----------
    path
        The model's file.
    model
        What it holds; weights that are in it already stay.

    Returns
    -------
    hashes
        Name of each other file -> its sha256; empty where there is none.

    Raises
    ------
    ModelError
        A file is missing, no file beside the model, shorter than what it should hold, or all of them are too large.
    """
    kept = [tensor for tensor in _tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    places = [ExternalDataInfo(tensor) for tensor in kept]
    files = {place.location: _beside(path, place.location) for place in places}
    size = sum(file.stat().st_size for file in files.values())
    if size > MOST_BYTES:
        raise ModelError(
            f"'{path}' has weights of {size:,} bytes in other files; at most {MOST_BYTES:,} can be read. "
            "Export it in half precision."
        )
    hashes = {}
    for location, file in sorted(files.items()):
        data = file.read_bytes()
        hashes[file.name] = hashlib.sha256(data).hexdigest()
        for tensor, place in zip(kept, places, strict=True):
            if place.location == location:
                _fill(tensor, place, data, file)
    return hashes


def _beside(path: Path, location: str) -> Path:
    name = str(PurePosixPath(location))
    if name in (".", "..") or set(name) & set("/\\:"):
        raise ModelError(f"'{path}' keeps weights in '{location}'; only files that lie beside it are read.")
    file = path.with_name(name)
    try:
        kind = file.lstat().st_mode
    except OSError as error:
        raise ModelError(f"'{path}' keeps weights in '{name}': {error.strerror}. Put that file beside it.") from None
    if not stat.S_ISREG(kind):
        raise ModelError(f"'{path}' keeps weights in '{name}', which is no file of its own but a link or the like.")
    return file


def _fill(tensor: onnx.TensorProto, place: ExternalDataInfo, data: bytes, file: Path) -> None:
    start = place.offset or 0
    end = len(data) if place.length is None else start + place.length
    if end > len(data):
        raise ModelError(f"'{file}' has {len(data):,} bytes, not all weights of '{tensor.name}'. Fetch it again.")
    tensor.raw_data = data[start:end]
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model, also those of subgraphs and functions."""
    yield from model.graph.initializer
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in every_node(nodes):
            for attribute in node.attribute:
                yield attribute.t
                yield from attribute.tensors
                for graph in (attribute.g, *attribute.graphs):
                    yield from graph.initializer
