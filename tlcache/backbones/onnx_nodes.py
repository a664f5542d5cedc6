"""Nodes that are added to an ONNX graph, and what graphs are made of, for messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tlcache.errors import ModelError

__all__ = ["FLOATS", "Nodes", "describe", "every_node", "in_order", "kind_of", "shape_of", "taken_names"]

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
Numbers = NDArray[Any] | np.generic


class Nodes:
    """New nodes, whose tensors have names that are free: they begin with `prefix`.

    Attributes
    ----------
    made
        The nodes, in the order in which they run.
    opset
        Version of the operators in the graph.
    """

    def __init__(self, prefix: str, opset: int) -> None:
        self.made: list[onnx.NodeProto] = []
        self.opset = opset
        self._prefix = prefix

    def add(self, operator: str, *inputs: str | Numbers, **attributes: Any) -> str:
        """Add a node with one output; return the name of that. Inputs are names, or numbers, which become constants."""
        return self.several(1, operator, *inputs, **attributes)[0]

    def several(self, outputs: int, operator: str, *inputs: str | Numbers, **attributes: Any) -> list[str]:
        """Add a node with some outputs; return their names."""
        taken = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        name = f"{self._prefix}.{len(self.made)}"
        names = [name, *(f"{name}.{number}" for number in range(1, outputs))]
        self.made.append(helper.make_node(operator, taken, names, **attributes))
        return names

    def constant(self, values: Numbers) -> str:
        """Add a tensor of numbers; return its name."""
        return self.add("Constant", value=numpy_helper.from_array(np.asarray(values)))

    def after_the_first(self, name: str) -> str:
        """Add what leaves out the first along axis 1, as the operator set has it."""
        most = np.iinfo(np.int64).max
        if self.opset < 10:
            return self.add("Slice", name, starts=[1], ends=[most], axes=[1])
        return self.add("Slice", name, *(self.constant(np.array([each], np.int64)) for each in (1, most, 1)))


def every_node(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from every_node(graph.node)


def taken_names(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node takes, also from outside of its subgraphs."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from taken_names(inner)


def in_order(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return nodes as they can run one after the other: some converters put new ones at the end.

    Raises
    ------
    ModelError
        Nodes wait for each other.
    """
    makers = {name: number for number, node in enumerate(nodes) for name in node.output if name}
    needs = {
        number: [makers[name] for name in taken_names(node) if name in makers] for number, node in enumerate(nodes)
    }
    if all(maker < number for number, some in needs.items() for maker in some):
        return list(nodes)
    try:
        return [nodes[number] for number in TopologicalSorter(needs).static_order()]
    except CycleError:
        raise ModelError("The model is not valid: some of its nodes wait for each other.") from None


def kind_of(value: onnx.ValueInfoProto) -> int:
    """Return the element type of a tensor; 0 (`TensorProto.UNDEFINED`) of what is no tensor, or not known."""
    return int(value.type.tensor_type.elem_type)


def shape_of(value: onnx.ValueInfoProto) -> list[int] | None:
    """Return the sizes of a tensor, 0 where they are dynamic; None where not even their number is known."""
    tensor = value.type.tensor_type
    return [size.dim_value for size in tensor.shape.dim] if tensor.HasField("shape") else None


def describe(values: Iterable[onnx.ValueInfoProto]) -> str:
    """Return names, types and shapes of tensors, for a message."""
    return "; ".join(map(_described, values)) or "none"


def _described(value: onnx.ValueInfoProto) -> str:
    if kind := kind_of(value):
        shape = shape_of(value)
        sizes = "of unknown shape" if shape is None else f"({', '.join(str(size or '?') for size in shape)})"
        return f"{value.name}: {TensorProto.DataType.Name(kind).lower()} {sizes}"
    return f"{value.name}: {(value.type.WhichOneof('value') or 'unknown').removesuffix('_type')}"
