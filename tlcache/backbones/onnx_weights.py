"""Weights of ONNX models that are not in the graph: in files beside it, as torch's exporter keeps them, or large."""

from __future__ import annotations

import hashlib
import mmap
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.external_data_helper import ExternalDataInfo

from tlcache.backbones.model import Onnx, Parted
from tlcache.backbones.onnx_nodes import every_node
from tlcache.errors import ModelError

__all__ = ["MOST_BYTES", "as_inputs", "joined", "packed", "read_weights"]

MOST_BYTES = 2**28  # of a model as one message; of a larger one, large weights stay beside the graph
_MESSAGE = 2**31 - 1  # bytes that one can have
_LARGE = 2**16  # bytes of a tensor: what has to be in the graph, such as scales and zero points, is smaller
_KINDS = {getattr(TensorProto, kind) for kind in ("FLOAT", "FLOAT16", "DOUBLE", "INT8", "UINT8")}
Values: TypeAlias = NDArray[np.generic]


class _File(NamedTuple):
    path: Path
    data: Any  # its bytes, mapped: those that nobody reads need no memory
    sha256: str


class _Part(NamedTuple):
    """The bytes of a tensor, and the sha256 of what holds them from `start` on."""

    data: memoryview
    sha256: str
    start: int


def read_weights(path: Path, model: onnx.ModelProto) -> tuple[list[str], dict[str, Values]]:
    """Put weights that are in other files into a model; if it is large, take the large ones out of it instead.

    Only files beside the model itself are read: a model could name any file of this machine.

    Parameters
    ----------
    path
        The model's file.
    model
        What it holds.

    Returns
    -------
    hashes
        The sha256 of each other file, in the order of their names; empty where there is none.
    apart
        Name -> values of the initializers that are not in the model now, mapped from the file that they are in.

    Raises
    ------
    ModelError
        A file is missing, no file beside the model, or shorter than what it should hold.
    """
    outer, inner = list(model.graph.initializer), list(_inner(model))
    files = _files(path, [tensor for tensor in (*outer, *inner) if _external(tensor)])
    large = model.ByteSize() + sum(len(file.data) for file in files.values()) > MOST_BYTES
    apart = dict[str, Values]()
    for tensor in outer if large else ():
        part = _part(tensor, files)
        if len(part.data) >= _LARGE and tensor.data_type in _KINDS:
            apart[tensor.name] = _values(path, tensor, part.data)
            _leave(tensor, part)
    for tensor in (*(tensor for tensor in outer if tensor.name not in apart), *inner):
        if _external(tensor):
            tensor.raw_data = bytes(_part(tensor, files).data)
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
    return [file.sha256 for file in files.values()], apart


def packed(model: onnx.ModelProto, apart: Mapping[str, Values]) -> Onnx:
    """Return a model for an engine, with those of the weights beside it that it still has."""
    weights = {tensor.name: apart[tensor.name] for tensor in model.graph.initializer if tensor.name in apart}
    graph: bytes = model.SerializeToString()
    return Parted(graph, weights) if weights else graph


def joined(model: Onnx) -> bytes:
    """Return a model as one message, all weights in it.

    Raises
    ------
    ModelError
        It would have over 2 GB.
    """
    if isinstance(model, bytes):
        return model
    size = len(model.graph) + sum(values.nbytes for values in model.weights.values())
    if size > _MESSAGE:
        raise ModelError(f"The network has {size / 1e9:.1f} GB, and one ONNX file can have 2. Take a smaller network.")
    network = onnx.load_model_from_string(model.graph)
    for tensor in network.graph.initializer:
        if tensor.name in model.weights:
            tensor.raw_data, tensor.data_location = model.weights[tensor.name].tobytes(), TensorProto.DEFAULT
            del tensor.external_data[:]
    data: bytes = network.SerializeToString()
    return data


def as_inputs(model: Parted) -> bytes:
    """Return the graph with the weights beside it as inputs, for an engine that reads no graph without its weights."""
    network = onnx.load_model_from_string(model.graph)
    inside = [tensor for tensor in network.graph.initializer if tensor.name not in model.weights]
    for tensor in network.graph.initializer:
        if tensor.name in model.weights:
            network.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    del network.graph.initializer[:]
    network.graph.initializer.extend(inside)
    data: bytes = network.SerializeToString()
    return data


def _files(path: Path, tensors: Iterable[TensorProto]) -> dict[str, _File]:
    """Return the files that tensors are in, by what they are called there."""
    files = {}
    for location in sorted({ExternalDataInfo(tensor).location for tensor in tensors}):
        beside = _beside(path, location)
        with beside.open("rb") as file:
            size = file.seek(0, 2)
            data: Any = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) if size else b""
        files[location] = _File(beside, data, hashlib.sha256(data).hexdigest())
    return files


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


def _part(tensor: TensorProto, files: Mapping[str, _File]) -> _Part:
    if not _external(tensor):
        data = memoryview(bytearray(tensor.raw_data))
        return _Part(data, hashlib.sha256(data).hexdigest(), 0)
    place = ExternalDataInfo(tensor)
    file, start = files[place.location], place.offset or 0
    end = len(file.data) if place.length is None else start + place.length
    if not 0 <= start <= end <= len(file.data):
        raise ModelError(
            f"'{file.path}' has {len(file.data):,} bytes, not all weights of '{tensor.name}'. Fetch it again."
        )
    return _Part(memoryview(file.data)[start:end], file.sha256, start)


def _values(path: Path, tensor: TensorProto, data: memoryview) -> Values:
    kind, shape = helper.tensor_dtype_to_np_dtype(tensor.data_type), tuple(tensor.dims)
    if len(data) != kind.itemsize * np.prod(shape, dtype=np.int64):
        raise ModelError(f"'{path}' has {len(data):,} bytes of weights '{tensor.name}' {shape}. Fetch it again.")
    return np.require(np.frombuffer(data, kind), requirements="A").reshape(shape)


def _leave(tensor: TensorProto, part: _Part) -> None:
    """Let a hash stand for weights, so that a graph says which it has."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", part.sha256), ("offset", part.start), ("length", len(part.data))):
        tensor.external_data.add(key=key, value=str(value))


def _external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def _inner(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield the tensors of nodes, subgraphs and functions."""
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in every_node(nodes):
            for attribute in node.attribute:
                yield attribute.t
                yield from attribute.tensors
                for graph in (attribute.g, *attribute.graphs):
                    yield from graph.initializer
