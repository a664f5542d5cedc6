"""The tensor of somebody's ONNX graph that is the embedding: which it is, what it needs, and how it is pooled."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import onnx

from tlcache.backbones.onnx_nodes import FLOATS, Nodes, describe, kind_of, shape_of, taken_names
from tlcache.backbones.pools import POOLS
from tlcache.errors import ModelError, OptionError, UnknownNameError

__all__ = ["choose", "cut", "pooled"]

_LISTED = 10  # of the tensors inside, in a message


def choose(graph: onnx.GraphProto, asked: str | None, image: str) -> onnx.ValueInfoProto:
    """Return the tensor that is the embedding: the one that is asked for, or the first output that can be one.

    Parameters
    ----------
    graph
        With the shapes of what is inside, as far as they are known.
    asked
        Name of an output or of a tensor inside; None: the first output of floating point that needs the image alone.
    image
        Name of the image input.

    Raises
    ------
    UnknownNameError, ModelError
        There is none of that name, or none that could be used; the message lists what there is.
    """
    others = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer} - {image}
    inside = _inside(graph)
    if asked is None:
        outputs: Iterable[onnx.ValueInfoProto] = graph.output
        for value in outputs:
            if (
                kind_of(value) in FLOATS
                and len(shape_of(value) or (0, 0)) > 1
                and not cut(graph, value.name)[1] & others
            ):
                return value
        raise ModelError(f"No output of the model can be an embedding of an image. {_listed(graph, inside)}")
    if asked not in inside:
        raise UnknownNameError(f"The model has no output '{asked}'. {_listed(graph, inside)}")
    if missing := cut(graph, asked)[1] & others:
        raise ModelError(
            f"Output '{asked}' needs more than the image: {', '.join(sorted(missing))}. {_listed(graph, inside)}"
        )
    return inside[asked]


def cut(graph: onnx.GraphProto, output: str) -> tuple[list[onnx.NodeProto], set[str]]:
    """Return the nodes that a tensor needs, in their order, and the names of all that these take."""
    nodes, taken = [], {output}
    for node in reversed(graph.node):
        if taken & set(node.output):
            nodes.append(node)
            taken |= set(taken_names(node))
    return nodes[::-1], taken


def pooled(nodes: Nodes, graph: onnx.GraphProto, output: onnx.ValueInfoProto, pool: str | None) -> str:
    """Make an embedding (batch, dim) of a tensor, but for making it flat.

    Raises
    ------
    OptionError, ModelError
        The tensor has no such pooling, or needs one.
    """
    shape = shape_of(output)
    if pool is None and shape is not None and (len(shape) == 2 or shape[2:] == [1, 1]):
        return output.name
    able = {name: row.onnx[len(shape)] for name, row in POOLS.items() if len(shape) in row.onnx} if shape else {}
    if shape is None:
        able = {"flatten": lambda _, features: features}
    if pool in able:
        return able[pool](nodes, output.name)
    raise _no_pooling(graph, output, pool, able)


def _no_pooling(
    graph: onnx.GraphProto, output: onnx.ValueInfoProto, pool: str | None, able: Collection[str]
) -> ModelError | OptionError:
    rank = len(shape_of(output) or ())
    *others, last = able or [""]
    choices = f"{', '.join(others)} or {last}" if others else last
    want = f"--pool {choices}" if able else "no --pool" if rank == 2 else "rank 2, 3 or 4 to be an embedding"
    flat = [value for value in graph.output if kind_of(value) in FLOATS and len(shape_of(value) or ()) == 2]
    way = f" Or take --output {flat[0].name}, which needs none." if flat and not pool and flat[0] is not output else ""
    kind = OptionError if able or rank == 2 else ModelError
    return kind(f"Output {describe([output])} takes {want}; asked: {pool or 'no pooling'}.{way}")


def _inside(graph: onnx.GraphProto) -> Mapping[str, onnx.ValueInfoProto]:
    """Return every tensor that a node makes, in their order."""
    known = {value.name: value for value in [*graph.value_info, *graph.output]}
    made = (name for node in graph.node for name in node.output if name)
    return {name: known.get(name) or onnx.ValueInfoProto(name=name) for name in made}


def _listed(graph: onnx.GraphProto, inside: Mapping[str, onnx.ValueInfoProto]) -> str:
    outputs = {value.name for value in graph.output}
    floats = [value for name, value in inside.items() if name not in outputs and kind_of(value) in FLOATS]
    last = f" The last tensors inside, for --output: {describe(floats[-_LISTED:])}." if floats else ""
    return f"Its outputs: {describe(graph.output)}.{last}"
