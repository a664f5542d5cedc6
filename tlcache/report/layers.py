"""The layers of a network as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tlcache.backbones.output import Output
from tlcache.report.fitting import FittedTable

__all__ = ["layers_table"]


def layers_table(layers: Sequence[Output]) -> FittedTable:
    """Return what leaves each layer, and how long the embedding is with each pooling."""
    table = FittedTable(("Layer", "What leaves it", "Dim, and --pool"), (), ())
    for layer in layers:
        table.add_row(layer.name, layer.kind, _pools(layer.pools) or "no pooling")
    return table


def _pools(pools: Mapping[str, int]) -> str:
    alike: dict[int, list[str]] = {}
    for pool, dim in pools.items():
        alike.setdefault(dim, []).append(pool)
    return "; ".join(f"{dim or '?'} {', '.join(names)}" for dim, names in alike.items())
