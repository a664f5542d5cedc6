"""Several ONNX networks of the same images as one: what they have in common is computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tlcache.backbones.model import Onnx, Parted

__all__ = ["merged"]

_PREFIX = "tlcache.merged."


def merged(models: Sequence[Onnx]) -> Onnx | None:
    """Return a network that gives the embeddings of several, beside each other.

    Nodes are the same where operator, attributes and all that they take are the same, whatever names they have (value
    numbering: Cocke and Schwartz, 1970).

    Parameters
    ----------
    models
        One input, uint8 images, and one output, float32 (batch, dim).

    Returns
    -------
    model or None
        Its output is float32 (batch, sum of the dims). None where they cannot be one: other sizes of images or batches,
        other versions of operators, functions of their own.
    """
    graphs = [onnx.load_model_from_string(each.graph if isinstance(each, Parted) else each) for each in models]
    first = graphs[0]
    if any(_demands(each) != _demands(first) for each in graphs) or any(each.functions for each in graphs):
        return None
    shared = _Shared()
    outputs = [
        shared.take(each.graph, model.weights if isinstance(model, Parted) else {})
        for each, model in zip(graphs, models, strict=True)
    ]
    shared.nodes.append(helper.make_node("Concat", outputs, [f"{_PREFIX}embedding"], axis=1))
    image = onnx.ValueInfoProto()
    image.CopyFrom(first.graph.input[0])
    image.name = shared.image
    graph = helper.make_graph(
        shared.nodes,
        "merged",
        [image],
        [helper.make_tensor_value_info(f"{_PREFIX}embedding", TensorProto.FLOAT, ["batch", None])],
        list(shared.weights.values()),
        value_info=list(shared.shapes.values()),
    )
    version = max(each.ir_version for each in graphs)
    data: bytes = helper.make_model(graph, opset_imports=first.opset_import, ir_version=version).SerializeToString()
    return Parted(data, shared.apart) if shared.apart else data


def _demands(model: onnx.ModelProto) -> Any:
    """Return what has to be the same for models to be one."""
    (image,) = model.graph.input
    sizes = [size.dim_value for size in image.type.tensor_type.shape.dim]
    return image.type.tensor_type.elem_type, sizes, sorted((each.domain, each.version) for each in model.opset_import)


class _Shared:
    """Nodes and weights of several graphs, each once.

    Attributes
    ----------
    image
        Name of the input.
    nodes, weights, apart
        In the order in which they run; by their hash; name -> values of those beside the graph.
    shapes
        What is known of tensors inside, by their names: engines choose by that how they compute.
    """

    def __init__(self) -> None:
        self.image = f"{_PREFIX}image"
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[bytes, TensorProto] = {}
        self.apart: dict[str, NDArray[np.generic]] = {}
        self.shapes: dict[str, onnx.ValueInfoProto] = {}
        self._made: dict[bytes, list[str]] = {}

    def take(self, graph: onnx.GraphProto, apart: Mapping[str, NDArray[np.generic]]) -> str:
        """Add what is new in a graph, and return the name of its output."""
        names = {graph.input[0].name: self.image}
        for tensor in graph.initializer:
            names[tensor.name] = self._weight(tensor, apart)
        for node in graph.node:
            names |= zip(node.output, self._node(_renamed(node, names)), strict=True)
        for value in (*graph.value_info, graph.output[0]):
            self._shape(value, names.get(value.name, ""))
        return names[graph.output[0].name]

    def _shape(self, value: onnx.ValueInfoProto, name: str) -> None:
        if name and name not in self.shapes:
            self.shapes[name] = onnx.ValueInfoProto()
            self.shapes[name].CopyFrom(value)
            self.shapes[name].name = name

    def _weight(self, tensor: TensorProto, apart: Mapping[str, NDArray[np.generic]]) -> str:
        copy = TensorProto()
        copy.CopyFrom(tensor)
        copy.name, copy.doc_string = "", ""
        own = self.weights.setdefault(_digest(copy), copy)
        own.name = own.name or f"{_PREFIX}weight.{len(self.weights)}"
        if tensor.name in apart:
            self.apart[own.name] = apart[tensor.name]
        return own.name

    def _node(self, node: onnx.NodeProto) -> list[str]:
        """Return the names of what a node gives; it is added unless another one gives the same."""
        wanted = list(node.output)
        del node.output[:]
        node.output.extend("x" if name else "" for name in wanted)
        digest = _digest(node)
        if digest not in self._made:
            names = [f"{_PREFIX}{len(self.nodes)}.{number}" if name else "" for number, name in enumerate(wanted)]
            self._made[digest] = names
            del node.output[:]
            node.output.extend(names)
            self.nodes.append(node)
        return self._made[digest]


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """Return a copy of a node, without what says nothing of its work, that takes tensors by other names."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name, copy.doc_string = "", ""
    del copy.metadata_props[:]
    _rename(copy, names)
    return copy


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Give what a node and its subgraphs take from outside other names."""
    taken = [names.get(name, name) for name in node.input]
    del node.input[:]
    node.input.extend(taken)
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            inner = {name for each in graph.node for name in each.output}
            inner |= {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
            outer = {name: new for name, new in names.items() if name not in inner}
            for each in graph.node:
                _rename(each, outer)
            for value in graph.output:
                value.name = outer.get(value.name, value.name)


def _digest(message: Any) -> bytes:
    return hashlib.sha256(message.SerializeToString(deterministic=True)).digest()
