"""The layers of networks that torch builds, as they are found by a run without numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tlcache.backbones.backbone import LAST, Backbone
from tlcache.backbones.output import Output
from tlcache.images import Preprocess

if TYPE_CHECKING:
    from torch import nn

__all__ = ["measured", "outputs_of"]


def outputs_of(backbone: Backbone, changes: Mapping[str, Any]) -> list[Output]:
    """Return the layers of a network that torch builds, as images meet them; nothing is computed.

    Parameters
    ----------
    backbone
        With the ends of its stages.
    changes
        Fields of `Preprocess` that replace the backbone's own.
    """
    import torch

    preprocess = replace(backbone.preprocess(), **changes)
    found = []
    for name in [*list(backbone.outputs)[: len(backbone.stages)], LAST]:
        row = backbone.cut(name)
        with torch.device("meta"):
            network = backbone.source.build(row, preprocess)
        network.module.eval()
        pools = [(pool, network.pooling(pool)) for pool in row.pools]
        output = measured(name, network.part(), pools, preprocess, "meta")
        of_class = int(getattr(network.module, "num_prefix_tokens", "cls" in row.pools))
        found.append(_ordered(output, of_class))
    return found


def measured(
    name: str, part: nn.Module, pools: Iterable[tuple[str, nn.Module]], preprocess: Preprocess, device: str
) -> Output:
    """Return what leaves a part of a network, and what each of the poolings makes of it, by a run with two images."""
    import torch

    with torch.no_grad():
        features = part(torch.zeros(2, 3, *preprocess.size, device=device))
        dims = {pool: int(module(features).shape[1]) for pool, module in pools}
    if isinstance(features, tuple) and features[0].shape[1]:
        prefix, patches = features
        return Output(name, (patches[0, 0].numel(), patches.shape[1]), prefix.shape[1], dims)
    if isinstance(features, tuple):
        features = features[1]
    if isinstance(features, list):  # of tensors, as in CrossViT, which a pooling of its own makes a row of
        return Output(name, tuple(dims.values())[:1], 0, dims)
    return Output(name, tuple(features.shape[1:]), 0, dims if features.ndim > 2 else {})


def _ordered(output: Output, prefix: int) -> Output:
    """Return an output with its channels first where it is a map, and tokens that stand for no place by themselves."""
    shape = output.shape
    if len(shape) == 3 and shape[0] != output.pools.get("avg", shape[0]):
        return replace(output, shape=(shape[2], *shape[:2]))
    if len(shape) == 2 and not output.prefix:
        return replace(output, shape=(shape[0] - prefix, shape[1]), prefix=prefix)
    return output
