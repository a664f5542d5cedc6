"""What of the layers that are unfrozen is trained: all, biases, normalisations, or low-rank updates of matrices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.nn.utils import parametrize

from tlcache.backbones.backbone import Backbone, Layer, TorchNetwork
from tlcache.errors import OptionError
from tlcache.finetuning.classifier import trained_layers
from tlcache.finetuning.recipe import Recipe

__all__ = ["layers_to_train", "merge"]

_OTHERS = {"lora": "a smaller rank, --method full, or unfreeze more"}
_SCALE = 2.0  # of an update, as with an alpha of twice the rank


class _LowRank(nn.Module):
    """A matrix, or the kernel of a convolution of 1 x 1, with an update of low rank that begins as 0."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.down, math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + _SCALE * (self.up @ self.down).view_as(weight)


def layers_to_train(recipe: Recipe, backbone: Backbone, network: TorchNetwork) -> list[Layer]:
    """Return the layers that a recipe trains, with the parameters that it trains of them, from the image on.

    `bias` is of Ben Zaken et al. (BitFit, 2022), `norm` of Frankle et al. (2021), `lora:R` of Hu et al. (2022): then
    the matrices of the network get an update of rank R, drawn from torch's generator, until `merge` adds it to them.

    Raises
    ------
    OptionError
        The network has fewer layers or stages, or nothing of that kind in them.
    """
    layers = trained_layers(backbone, network, recipe.unfrozen, recipe.cached_prefix)
    kind, _, rank = recipe.method.partition(":")
    if kind in ("full", "last"):
        return layers

    def is_wanted(name: str) -> bool:
        if kind == "bias":
            return name.endswith("bias")
        if kind == "norm":  # timm has many of its own, which have no class in common
            return "norm" in type(_owner(network.module, name)).__name__.lower()
        return _is_matrix(network.module, name, int(rank))

    some = [replace(layer, parameters=tuple(filter(is_wanted, layer.parameters))) for layer in layers]
    if not (found := [layer for layer in some if layer.parameters]):
        raise OptionError(
            f"{backbone.name} has nothing that --method {recipe.method} trains in --unfreeze {recipe.unfreeze}. Give "
            f"{_OTHERS.get(kind, '--method full, or unfreeze more')}."
        )
    return _updated(network.module, found, int(rank)) if kind == "lora" else found


def merge(module: nn.Module) -> None:
    """Add the updates of low rank, where there are any, to what they are of: the network is a plain one again."""
    for part in list(module.modules()):
        for name in list(getattr(part, "parametrizations", ())):
            parametrize.remove_parametrizations(part, name)


def _owner(module: nn.Module, parameter: str) -> nn.Module:
    return module.get_submodule(parameter.rpartition(".")[0])


def _is_matrix(module: nn.Module, name: str, rank: int) -> bool:
    """Return whether a parameter is the matrix of a linear map, and larger than an update of that rank."""
    part, last = _owner(module, name), name.rpartition(".")[2]
    pointwise = isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.groups == 1
    linear = last == "weight" and (pointwise or isinstance(part, nn.Linear))
    attention = last == "in_proj_weight" and isinstance(part, nn.MultiheadAttention)
    return (linear or attention) and min(part.get_parameter(last).shape[:2]) > rank


def _updated(module: nn.Module, layers: Sequence[Layer], rank: int) -> list[Layer]:
    return [replace(layer, parameters=tuple(_added(module, layer.parameters, rank))) for layer in layers]


def _added(module: nn.Module, matrices: Sequence[str], rank: int) -> Iterator[str]:
    """Put an update on each of these matrices; the names of what is to be trained then are yielded."""
    for name in matrices:
        part, last = _owner(module, name), name.rpartition(".")[2]
        update = _LowRank(part.get_parameter(last), rank)
        parametrize.register_parametrization(part, last, update)
        yield from (
            f"{name.removesuffix(last)}parametrizations.{last}.0.{each}" for each, _ in update.named_parameters()
        )
