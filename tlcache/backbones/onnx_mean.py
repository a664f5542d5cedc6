"""ONNX networks whose embedding is the mean of a map, or of tokens: the same network with these as a second output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

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
    tile
        Height and width of what each mean is over, where there are several side by side; None: the mean of all.
    """

    network: bytes
    axes: tuple[int, ...]
    tile: tuple[int, int] | None = None

    def places(self, found: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the second output as (n, positions, dim), of which the embedding is the mean over positions.

        Of several means side by side, a place is 0 in all but its own.
        """
        found = found.astype(np.float32)  # of 16 bits
        if self.tile:
            return _apart(found, self.tile)
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
    tile = None if node is None else _tile(node)
    axes = (2, 3) if tile else None if node is None else _axes(node, _constants(model.graph))
    if node is None or not axes:
        return None
    model.graph.output.append(onnx.ValueInfoProto(name=node.input[0]))  # of whatever precision
    return Averaged(model.SerializeToString(), axes, tile)


def _tile(node: onnx.NodeProto) -> tuple[int, int] | None:
    """Return height and width of the means side by side that a node computes; None where it does not."""
    if node.op_type != "AveragePool":
        return None
    given = {each.name: tuple(each.ints) for each in node.attribute}
    kernel = given["kernel_shape"]
    ones = given.get("dilations") or (1, 1)
    if len(kernel) != 2 or given.get("strides") != kernel or any(given.get("pads", ())) or ones != (1, 1):
        return None
    return kernel[0], kernel[1]


def _apart(found: NDArray[np.float32], tile: tuple[int, int]) -> NDArray[np.float32]:
    """Return maps (n, C, H, W) as (n, H W, C rows columns): each place in the mean of its tile alone."""
    n, channels, height, width = found.shape
    rows, columns = height // tile[0], width // tile[1]
    places = np.zeros((n, height, width, channels, rows, columns), np.float32)
    for row, column in np.ndindex(rows, columns):
        cells = np.s_[row * tile[0] : (row + 1) * tile[0], column * tile[1] : (column + 1) * tile[1]]
        values = found[:, :, *cells] * rows * columns
        places[:, *cells, :, row, column] = np.moveaxis(values, 1, -1)
    return places.reshape(n, height * width, -1)


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
