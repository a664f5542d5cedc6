"""The image input of somebody's ONNX graph, and what makes it of uint8 images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from tlcache.backbones.onnx_nodes import FLOATS, Nodes, describe, kind_of, shape_of
from tlcache.errors import ModelError
from tlcache.images import Preprocess

__all__ = ["ImageInput", "feed", "image_inputs"]

_KINDS = (TensorProto.UINT8, *FLOATS)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow makes grey of RGB


@dataclass(frozen=True)
class ImageInput:
    """An image input, and one way to understand it.

    Parameters
    ----------
    name, kind
        Of the tensor: its name and its element type.
    shape
        Its four sizes, 0 where they are dynamic.
    axis
        Where the channels are: 1 (before height and width) or 3 (after them).
    channels
        3 (RGB) or 1 (grey).
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    axis: int
    channels: int

    @property
    def batch(self) -> int:
        """The number of images that it takes at a time; 0 for any."""
        return self.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, 0 where they are dynamic."""
        height, width = (self.shape[axis] for axis in (1, 2, 3) if axis != self.axis)
        return height, width

    @property
    def floating(self) -> bool:
        """Whether it takes normalised numbers, not uint8."""
        return self.kind != TensorProto.UINT8

    @property
    def words(self) -> str:
        """What it takes, for people."""
        colours = {3: "RGB", 1: "grey"}[self.channels]
        return f"{colours}, channels {'before' if self.axis == 1 else 'after'} height and width"

    def fixed(self, size: tuple[int, int]) -> list[int]:
        """Return its shape for images of `size`, the batch left as it is."""
        inner = [*size]
        inner.insert(self.axis - 1, self.channels)
        return [self.batch, *inner]


def image_inputs(graph: onnx.GraphProto) -> list[ImageInput]:
    """Return the ways to understand a graph's image input, the likeliest first: one, if its shape tells.

    Raises
    ------
    ModelError
        There is no image input, there are several, or it has neither three channels nor one.
    """
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    images = [value for value in inputs if kind_of(value) in _KINDS and len(shape_of(value) or ()) == 4]
    if len(images) != 1:
        raise ModelError(f"An image model has one uint8 or float input of rank 4; found {describe(inputs)}.")
    name, kind, shape = images[0].name, kind_of(images[0]), tuple(shape_of(images[0]) or ())
    ways = [
        ImageInput(name, kind, shape, axis, channels)
        for channels in (3, 1)
        for axis in (1, 3)
        if shape[axis] in (0, channels)
    ]
    certain = [way for way in ways if shape[way.axis]]
    if not ways:
        raise ModelError(
            f"An image model takes three channels (RGB) or one (grey), before height and width or after them; "
            f"found {describe(images)}."
        )
    return certain[:1] or ways


def feed(nodes: Nodes, image: str, into: ImageInput, preprocess: Preprocess) -> str:
    """Make the input of uint8 images (batch, 3, H, W): grey if it is grey, normalised if it is floating point."""
    name, white = image, preprocess.range or 1
    if preprocess.channels == "bgr":
        name = nodes.add("Gather", name, nodes.constant(np.array([2, 1, 0], np.int64)), axis=1)
    if into.floating or into.channels == 1:
        name = nodes.add("Cast", name, to=TensorProto.FLOAT)
    if into.channels == 1:
        name = nodes.add("Conv", name, nodes.constant(np.array(_LUMA, np.float32).reshape(1, 3, 1, 1)))
    if into.floating:
        unit = np.float32(255 / white)
        mean, scale = unit * _planes(preprocess.mean, into), 1 / (unit * _planes(preprocess.std, into))
        name = nodes.add("Sub", name, nodes.constant(mean))
        name = nodes.add("Mul", name, nodes.constant(scale))
        if into.kind != TensorProto.FLOAT:
            name = nodes.add("Cast", name, to=into.kind)
    elif into.channels == 1:
        name = nodes.add(
            "Cast", nodes.add("Add", name, nodes.constant(np.array([0.5], np.float32))), to=TensorProto.UINT8
        )
    return nodes.add("Transpose", name, perm=[0, 2, 3, 1]) if into.axis == 3 else name


def _planes(values: tuple[float, ...], into: ImageInput) -> NDArray[np.float32]:
    return np.array(values[: into.channels], np.float32).reshape(1, -1, 1, 1)
