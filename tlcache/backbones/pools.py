"""The poolings, one row each: how torch does them, and how the nodes of an ONNX graph do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["POOLS", "Graph", "Pool"]

_LEAST = 1e-6  # so that nothing is divided by 0


class Graph(Protocol):
    """What nodes are added to: `tlcache.backbones.onnx_nodes.Nodes`, which loads onnx."""

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        """Add a node with one output; return the name of that."""

    def constant(self, values: NDArray[Any]) -> str:
        """Add a tensor of numbers; return its name."""

    def after_the_first(self, name: str) -> str:
        """Add what leaves out the first along axis 1."""


@dataclass(frozen=True)
class Pool:
    """A way from features to an embedding (batch, dim).

    Features are a map (batch, channels, H, W) or tokens (batch, 1 + n, channels), the first of them the class token.

    Parameters
    ----------
    name
        As it is asked for.
    torch
        What does it.
    onnx
        Rank of the features -> what adds the nodes that do it to a graph, and returns what is then to be made flat.
        Ranks that it does not do are missing.
    """

    name: str
    torch: Callable[[Tensor], Tensor]
    onnx: Mapping[int, Callable[[Graph, str], str]]


def _patches(features: Tensor) -> Tensor:
    """Return (batch, channels, positions) of a map (batch, channels, H, W) or of tokens (batch, 1 + n, channels)."""
    return features.flatten(2) if features.ndim == 4 else features[:, 1:].transpose(1, 2)


def _quarters(features: Tensor) -> Tensor:
    """Return the mean of each quarter of a map."""
    from torch.nn.functional import adaptive_avg_pool2d

    return adaptive_avg_pool2d(features, 2).flatten(1)


def _generalised_mean(features: Tensor) -> Tensor:
    """Return the third root of the mean of cubes of what is above 0 (GeM: Radenovic et al., 2018).

    Numbers are divided by the largest first, whose cube could be more than 16 bits hold.
    """
    patches = _patches(features).relu()
    most = patches.amax(2, keepdim=True) + _LEAST
    return (most * (patches / most).pow(3).mean(2, keepdim=True).pow(1 / 3)).squeeze(2)


def _with_class(features: Tensor) -> Tensor:
    import torch

    return torch.cat([features[:, 0], _patches(features).mean(2)], 1)


def _of_map(pool: Callable[[Graph, str], str], first: bool = False) -> Mapping[int, Callable[[Graph, str], str]]:
    """Return what pools a map, and tokens like a map, of which the first counts only if it is said."""

    def tokens(graph: Graph, features: str) -> str:
        counted = features if first else graph.after_the_first(features)
        return pool(graph, graph.add("Transpose", counted, perm=[0, 2, 1]))

    return {3: tokens, 4: pool}


def _over(operator: str, first: bool = False) -> Mapping[int, Callable[[Graph, str], str]]:
    return _of_map(lambda graph, features: graph.add(operator, features), first)


def _same(graph: Graph, features: str) -> str:
    del graph
    return features


def _first(graph: Graph, features: str) -> str:
    return graph.add("Gather", features, graph.constant(np.array(0, np.int64)), axis=1)


def _cubes(graph: Graph, features: str) -> str:
    """Add what `_generalised_mean` does to a map, in float32."""
    patches = graph.add("Relu", graph.add("Cast", features, to=1))
    least, third = (graph.constant(np.array(each, np.float32)) for each in (_LEAST, 1 / 3))
    most = graph.add("Add", graph.add("GlobalMaxPool", patches), least)
    shares = graph.add("Div", patches, most)
    cubes = graph.add("Mul", graph.add("Mul", shares, shares), shares)
    return graph.add("Mul", most, graph.add("Pow", graph.add("GlobalAveragePool", cubes), third))


def _joined(graph: Graph, features: str) -> str:
    average = graph.add("Flatten", _over("GlobalAveragePool")[3](graph, features), axis=1)
    return graph.add("Concat", _first(graph, features), average, axis=1)


POOLS: Mapping[str, Pool] = {
    row.name: row
    for row in (
        Pool("avg", lambda features: _patches(features).mean(2), _over("GlobalAveragePool")),
        Pool("max", lambda features: _patches(features).amax(2), _over("GlobalMaxPool")),
        Pool("gem", _generalised_mean, _of_map(_cubes)),
        Pool("flatten", lambda features: features.flatten(1), {3: _same, 4: _same}),
        Pool("cls", lambda features: features[:, 0], {3: _first}),
        Pool("cls+avg", _with_class, {3: _joined}),
        Pool("tokens", lambda features: features.mean(1), {3: _over("GlobalAveragePool", first=True)[3]}),
        Pool("quarters", _quarters, {}),
    )
}
