"""The tensors of somebody's ONNX graph that an embedding can be taken from, with their shapes and poolings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import onnx

from tlcache.backbones.backbone import LAST
from tlcache.backbones.onnx_graph import sound, with_shapes
from tlcache.backbones.onnx_image import image_inputs
from tlcache.backbones.onnx_nodes import FLOATS, kind_of, shape_of, taken_names
from tlcache.backbones.onnx_output import choose
from tlcache.backbones.output import Output
from tlcache.backbones.pools import POOLS

__all__ = ["outputs_in"]

_RANKS = range(2, 5)


def outputs_in(model: onnx.ModelProto, crop: int) -> list[Output]:
    """Return where a graph could be cut in two, as images meet these tensors, and last what is the embedding unasked.

    `crop` is the side of images; 0 where the graph says it.
    """
    whole = sound(model)
    way = image_inputs(whole.graph)[0]
    size = tuple(own or crop for own in way.size)
    graph = with_shapes(whole, way, (size[0], size[1]))
    known = {value.name: value for value in [*graph.value_info, *graph.output]}
    places = [known[name] for name in _passages(graph, way.name, known) if name in known]
    places = [value for value in places if kind_of(value) in FLOATS and len(shape_of(value) or ()) in _RANKS]
    last = choose(graph, None, way.name)
    return [*(_output(value, value.name) for value in places if value.name != last.name), _output(last, LAST)]


def _passages(graph: onnx.GraphProto, image: str, known: dict[str, onnx.ValueInfoProto]) -> Iterator[str]:
    """Yield the tensors of floating point that are all that later nodes take of what the image has become."""
    last_use = {name: number for number, node in enumerate(graph.node) for name in taken_names(node)}
    last_use |= dict.fromkeys((value.name for value in graph.output), len(graph.node))
    made, alive = {image}, {image}
    for number, node in enumerate(graph.node):
        if not made.intersection(taken_names(node)):
            continue  # of weights alone
        made.update(node.output)
        alive.update(name for name in node.output if name not in known or kind_of(known[name]) in FLOATS)
        alive = {name for name in alive if last_use.get(name, -1) > number}
        if len(alive) == 1:
            yield from alive & set(node.output)


def _output(value: onnx.ValueInfoProto, name: str) -> Output:
    shape = tuple((shape_of(value) or [0, 0])[1:])
    flat = len(shape) == 1 or shape[1:] == (1, 1)
    pools = [] if flat else [pool for pool, row in POOLS.items() if len(shape) + 1 in row.onnx]
    return Output(name, shape[:1] if flat else shape, 0, {pool: _dim(pool, shape) for pool in pools})


def _dim(pool: str, shape: Sequence[int]) -> int:
    """Return the length of an embedding; 0 where a size that decides it is not known."""
    channels = shape[0] if len(shape) == 3 else shape[1]
    return {"flatten": prod(shape), "cls+avg": 2 * channels}.get(pool, channels)
