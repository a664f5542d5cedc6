"""The poolings, one row each: how torch does them, and how the nodes of an ONNX graph do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["POOLS", "Pool"]


@dataclass(frozen=True)
class Pool:
    """A way from features to an embedding (batch, dim).

    Parameters
    ----------
    name
        As it is asked for.
    torch
        What does it: features are a map (batch, channels, H, W) or tokens (batch, 1 + n, channels).
    onnx
        Rank of the features -> the ONNX operator that does it before what is left is made flat; empty where none is
        needed. Ranks that it does not do are missing.
    """

    name: str
    torch: Callable[[Tensor], Tensor]
    onnx: Mapping[int, str]


def _patches(features: Tensor) -> Tensor:
    """Return (batch, channels, positions) of a map (batch, channels, H, W) or of tokens (batch, 1 + n, channels)."""
    return features.flatten(2) if features.ndim == 4 else features[:, 1:].transpose(1, 2)


def _quarters(features: Tensor) -> Tensor:
    """Return the mean of each quarter of a map."""
    from torch.nn.functional import adaptive_avg_pool2d

    return adaptive_avg_pool2d(features, 2).flatten(1)


POOLS: Mapping[str, Pool] = {
    row.name: row
    for row in (
        Pool("avg", lambda features: _patches(features).mean(2), {4: "GlobalAveragePool"}),
        Pool("max", lambda features: _patches(features).amax(2), {4: "GlobalMaxPool"}),
        Pool("flatten", lambda features: features.flatten(1), {4: ""}),
        Pool("cls", lambda features: features[:, 0], {}),
        Pool("quarters", _quarters, {}),
    )
}
