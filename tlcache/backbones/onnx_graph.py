"""Somebody's ONNX image model -> the same network with uint8 images in and pooled embeddings out."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.compose import add_prefix

from tlcache.backbones.pools import POOLS
from tlcache.errors import ModelError, OptionError, UnknownNameError
from tlcache.images import Preprocess

__all__ = ["adapt", "describe", "image_input"]


def adapt(model: onnx.ModelProto, preprocess: Preprocess, output: str | None, pool: str | None) -> onnx.ModelProto:
    """Put scaling, normalisation and layout in front of a model's image input, and pooling behind its output.

    Parameters
    ----------
    model
        One image input, uint8 or float, (batch, 3, H, W) or (batch, H, W, 3). It is not changed.
    preprocess
        Its mean and std go into the graph when the input is floating point.
    output
        Name of the output (or of any inner tensor) that is the embedding; default: the first output.
    pool
        `avg`, `max` or `flatten`: what to do with an output (batch, channels, H, W). Two-dimensional outputs stay.

    Returns
    -------
    onnx.ModelProto
        Input `image`: uint8 (batch, 3, crop, crop); output `embedding`: float32 (batch, dim).

    Raises
    ------
    ModelError
        The inputs or outputs are not of that kind; the message lists those found.
    """
    adapted = add_prefix(model, "model.")  # so that our names are free
    graph = adapted.graph
    source = _image(graph)
    kind, shape = source.type.tensor_type.elem_type, _shape(source)
    last = shape[3] == 3 and shape[1] != 3
    before = _before(graph, source.name, kind, preprocess, last)
    after = _after(adapted, output, pool)
    image = helper.make_tensor_value_info(
        "image", TensorProto.UINT8, [shape[0] or "batch", 3, preprocess.crop, preprocess.crop]
    )
    graph.input.remove(source)
    graph.input.insert(0, image)
    body = list(graph.node)
    del graph.node[:]
    graph.node.extend([*before, *body, *after])
    onnx.checker.check_model(adapted)
    return adapted


def image_input(model: onnx.ModelProto) -> tuple[int, bool]:
    """Return the side in pixels of a model's square image input (0: dynamic) and whether it is floating point.

    Raises
    ------
    ModelError
        The model has no image input; the message lists those found.
    """
    source = _image(model.graph)
    return _shape(source)[2], source.type.tensor_type.elem_type != TensorProto.UINT8


def describe(values: list[onnx.ValueInfoProto]) -> str:
    """Return names, types and shapes of inputs or outputs, for a message."""
    texts = []
    for value in values:
        kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
        texts.append(f"{value.name.removeprefix('model.')}: {kind} {tuple(size or '?' for size in _shape(value))}")
    return "; ".join(texts) or "none"


def _image(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    weights = {tensor.name for tensor in graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [value for value in graph.input if value.name not in weights]
    kinds = (TensorProto.UINT8, TensorProto.FLOAT, TensorProto.FLOAT16)
    if len(inputs) == 1 and len(_shape(inputs[0])) == 4 and inputs[0].type.tensor_type.elem_type in kinds:
        return inputs[0]
    raise ModelError(f"An image model has one uint8 or float input of rank 4; found {describe(inputs)}.")


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    """Return the sizes of a tensor, 0 where they are dynamic."""
    return [size.dim_value for size in value.type.tensor_type.shape.dim]


def _before(
    graph: onnx.GraphProto, target: str, kind: int, preprocess: Preprocess, channels_last: bool
) -> list[onnx.NodeProto]:
    nodes, name = [], "image"
    if kind != TensorProto.UINT8:
        mean = 255 * np.array(preprocess.mean, np.float32).reshape(1, 3, 1, 1)
        scale = 1 / (255 * np.array(preprocess.std, np.float32).reshape(1, 3, 1, 1))
        graph.initializer.extend([numpy_helper.from_array(mean, "mean"), numpy_helper.from_array(scale, "scale")])
        nodes = [
            helper.make_node("Cast", [name], ["image_float"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["image_float", "mean"], ["image_centred"]),
            helper.make_node("Mul", ["image_centred", "scale"], ["image_normal"]),
        ]
        name = "image_normal"
        if kind == TensorProto.FLOAT16:
            nodes.append(helper.make_node("Cast", [name], ["image_half"], to=TensorProto.FLOAT16))
            name = "image_half"
    if channels_last:
        nodes.append(helper.make_node("Transpose", [name], ["image_last"], perm=[0, 2, 3, 1]))
        name = "image_last"
    return [*nodes, helper.make_node("Identity", [name], [target])]


def _after(model: onnx.ModelProto, output: str | None, pool: str | None) -> list[onnx.NodeProto]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    known = {value.name: value for value in [*graph.value_info, *graph.output]}
    name = f"model.{output}" if output else graph.output[0].name
    if name not in known:
        raise UnknownNameError(f"The model has no output '{output}'. Its outputs: {describe(list(graph.output))}.")
    nodes = []
    if operator := _pooling(known[name], pool):
        nodes.append(helper.make_node(operator, [name], ["pooled"]))
        name = "pooled"
    nodes += [
        helper.make_node("Flatten", [name], ["flat"], axis=1),
        helper.make_node("Cast", ["flat"], ["embedding"], to=TensorProto.FLOAT),
    ]
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", None]))
    return nodes


def _pooling(output: onnx.ValueInfoProto, pool: str | None) -> str:
    """Return the operator that makes `output` an embedding, but for making it flat; empty where none is needed."""
    rank = len(_shape(output))
    if rank == 2 and pool is None:
        return ""
    able = {name: row.onnx[rank] for name, row in POOLS.items() if rank in row.onnx}
    if pool in able:
        return able[pool]
    *others, last = able or [""]
    want = f"--pool {', '.join(others)} or {last}" if able else "no --pool" if rank == 2 else "rank 2 or 4"
    kind = OptionError if able or rank == 2 else ModelError
    raise kind(f"Output {describe([output])} takes {want}; asked: {pool or 'no pooling'}.")
