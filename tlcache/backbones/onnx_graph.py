"""Somebody's ONNX image model -> the same network with uint8 images in and pooled embeddings out."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

from tlcache.backbones.onnx_image import ImageInput, feed, image_inputs
from tlcache.backbones.onnx_nodes import Nodes, every_node, in_order
from tlcache.backbones.onnx_output import choose, cut, pooled
from tlcache.errors import ModelError, one_line
from tlcache.images import Preprocess

__all__ = ["adapt", "alone", "depends_on_batch", "fingerprint", "freed", "sound", "with_shapes"]

_LEAST_IR = 4  # before, initializers had to be inputs, too


def sound(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with its nodes in order, and without initializers among its inputs, as in files of before 2019."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    _replace(copy.graph.input, inputs)
    _replace(copy.graph.node, in_order(model.graph.node))
    copy.ir_version = max(copy.ir_version, _LEAST_IR)
    return copy


def adapt(
    model: onnx.ModelProto,
    preprocess: Preprocess,
    output: str | None,
    pool: str | None,
    way: ImageInput | None = None,
) -> tuple[onnx.ModelProto, str]:
    """Put scaling, normalisation and layout in front of a model's image input, and pooling behind its output.

    What the output does not need is left out, such as the text branch of a model for images and texts.

    Parameters
    ----------
    model
        Its image input is uint8 or float, (batch, channels, H, W) or (batch, H, W, channels), with three channels (RGB)
        or one (grey: 0.299 R + 0.587 G + 0.114 B). It is not changed.
    preprocess
        Its mean and std go into the graph when the input is floating point.
    output
        Name of the output (or of any inner tensor) that is the embedding; default: the first output that can be one.
    pool
        A name of `tlcache.backbones.pools.POOLS`: what to do with an output of rank 3 or 4. Flat outputs stay.
    way
        How to understand the input; default: the likeliest of `tlcache.backbones.onnx_image.image_inputs`.

    Returns
    -------
    adapted
        Input: uint8 (batch, 3, H, W); output: float32 (batch, dim). The batch is 1 where embeddings depend on it.
    output
        Name of the tensor that is the embedding.

    Raises
    ------
    OptionError, ModelError
        The inputs or outputs are not of that kind; the message lists those found.
    """
    adapted = sound(model)
    graph = adapted.graph
    way = way or image_inputs(graph)[0]
    known = with_shapes(adapted, way, preprocess.size)
    chosen = choose(known, output, way.name)
    body, taken = cut(graph, chosen.name)
    opset = next((entry.version for entry in adapted.opset_import if entry.domain in ("", "ai.onnx")), 1)
    before, after = Nodes("tlcache.image", opset), Nodes("tlcache.embedding", opset)
    before.made.append(helper.make_node("Identity", [feed(before, "tlcache.image", way, preprocess)], [way.name]))
    flat = after.add("Flatten", pooled(after, known, chosen, pool), axis=1)
    embedding = after.add("Cast", flat, to=TensorProto.FLOAT)
    shape = [way.batch or (1 if depends_on_batch(model) else "batch"), 3, *preprocess.size]
    _replace(graph.node, [*before.made, *body, *after.made])
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in taken])
    _replace(graph.input, [helper.make_tensor_value_info("tlcache.image", TensorProto.UINT8, shape)])
    _replace(graph.output, [helper.make_tensor_value_info(embedding, TensorProto.FLOAT, ["batch", None])])
    _replace(graph.value_info, [])
    return adapted, chosen.name


def alone(model: onnx.ModelProto, output: str) -> onnx.ModelProto:
    """Return a copy of a model with one of its outputs alone, and what that needs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    body, taken = cut(graph, output)
    _replace(graph.node, body)
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in taken])
    _replace(graph.output, [value for value in graph.output if value.name == output])
    _replace(graph.value_info, [value for value in graph.value_info if value.name in taken])
    return copy


def fingerprint(model: onnx.ModelProto) -> str:
    """Return a hash of what a model computes with: its nodes and weights."""
    digest = hashlib.sha256()
    for part in (*model.graph.node, *model.graph.initializer):
        digest.update(part.SerializeToString(deterministic=True))
    return digest.hexdigest()


def freed(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """Give tensors inside a model that have some names others; it is changed, and returned."""
    outer = {value.name for value in (*model.graph.input, *model.graph.output)}
    others = {name: f"network/{name}" for name in names if name not in outer}
    for graph in _graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = others.get(value.name, value.name)
        for node in graph.node:
            for taken in (node.input, node.output):
                _replace(taken, [others.get(name, name) for name in taken])
    return model


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and all that are inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _graphs(inner)


def depends_on_batch(model: onnx.ModelProto) -> bool:
    """Return whether a graph says that embeddings depend on the other images of their batch."""
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    return any(_looks_at_the_batch(node) for nodes in bodies for node in every_node(nodes))


def _looks_at_the_batch(node: onnx.NodeProto) -> bool:
    training = any(each.name == "training_mode" and each.i for each in node.attribute)
    return node.op_type.startswith("DynamicQuantize") or (node.op_type == "BatchNormalization" and training)


def with_shapes(model: onnx.ModelProto, way: ImageInput, size: tuple[int, int]) -> onnx.GraphProto:
    """Return the graph with the shapes of what is inside, for images of a size."""
    fed = onnx.ModelProto()
    fed.CopyFrom(model)
    (image,) = (value for value in fed.graph.input if value.name == way.name)
    for dim, length in zip(image.type.tensor_type.shape.dim, way.fixed(size), strict=True):
        if length:
            dim.dim_value = length
    try:
        return onnx.shape_inference.infer_shapes(fed).graph
    except Exception as error:
        raise ModelError(f"The model is not valid: {one_line(error)}") from None


def _replace(old: Any, new: Sequence[Any]) -> None:
    del old[:]
    old.extend(new)
