"""ONNX networks whose embedding is the mean of a map, or of tokens: the same network with these as a second output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

__all__ = ["Averaged", "averaged"]

_SHAPES = {"Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast", "Dropout"}  # change no number, or hardly


@dataclass(frozen=True)
class Averaged:
    """A network with what its embedding is the mean of.

    Parameters
    ----------
    network
        uint8 images (n, 3, H, W) -> embeddings (n, dim), and that.
    axes
        Of the second output that the mean is over, the batch being axis 0.
    """

    network: bytes
    axes: tuple[int, ...]

    def places(self, found: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the second output as (n, positions, dim)."""
        (channels,) = {*range(1, found.ndim)} - {axis % found.ndim for axis in self.axes}
        last = np.moveaxis(found, channels, -1)
        return last.reshape(len(last), -1, last.shape[-1])


def averaged(network: bytes) -> Averaged | None:
    """Return a network with what its embedding is the mean of; None where it does not end with a mean over places."""
    model = onnx.load_model_from_string(network)
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(model.graph.output[0].name)
    while node is not None and node.op_type in _SHAPES:
        node = makers.get(node.input[0])
    axes = None if node is None else _axes(node, _constants(model.graph))
    if node is None or not axes:
        return None
    model.graph.output.append(helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, None))
    return Averaged(model.SerializeToString(), axes)


def _axes(node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]]) -> tuple[int, ...] | None:
    if node.op_type == "GlobalAveragePool":
        return 2, 3
    if node.op_type != "ReduceMean":
        return None
    for attribute in node.attribute:
        if attribute.name == "axes":
            return tuple(attribute.ints)
    given = constants.get(node.input[1]) if len(node.input) > 1 else None
    return None if given is None else tuple(np.atleast_1d(given).tolist())


def _constants(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if len(tensor.dims) <= 1}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found
