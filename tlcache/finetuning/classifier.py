"""A network with a head of our own, cut where its frozen layers end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlcache.backbones.backbone import Backbone, Layer, TorchNetwork
from tlcache.backbones.torch_network import Embedding
from tlcache.errors import OptionError
from tlcache.images import Preprocess

__all__ = ["Classifier", "cut_before", "trained_layers"]

_LEFT = 0.05  # of what statistics were, after the steps that they have to follow in
_FASTEST = 0.3  # momentum of statistics: one batch is not all there is


def trained_layers(
    backbone: Backbone, network: TorchNetwork, unfreeze: str, cached_prefix: bool = False
) -> list[Layer]:
    """Return the layers of the backbone that `unfreeze` (`all`, `last:N`, `stage:K`, `top:N`) names, from the image on.

    Raises
    ------
    OptionError
        The backbone has fewer layers or stages, or with `cached_prefix` no stage is left that could be cached.
    """
    layers = network.layers()
    kind, _, number = unfreeze.partition(":")
    stages = layers[-1].stage
    most = {"all": 0, "last": len(layers), "stage": stages, "top": stages}[kind]
    if kind != "all" and int(number) > most:
        what = "layers with parameters" if kind == "last" else "stages"
        raise OptionError(f"{backbone.name} has {most} {what}; asked: --unfreeze {unfreeze}.")
    first = {"stage": int(number or 0), "top": stages + 1 - int(number or 0)}.get(kind, 0)
    trained = layers[-int(number) :] if kind == "last" else [layer for layer in layers if layer.stage >= first]
    if cached_prefix and cut_before(network, trained) is None:
        raise OptionError(f"{_why_uncut(backbone, network, unfreeze)} Unfreeze less, or leave cached-prefix out.")
    return trained


def _why_uncut(backbone: Backbone, network: TorchNetwork, unfreeze: str) -> str:
    if not network.stages:
        return f"{backbone.name} cannot be cut in two: more than a single tensor passes between its stages."
    return (
        f"--unfreeze {unfreeze} reaches into the first stage of {backbone.name}: there is no frozen part that could be "
        "cached."
    )


def cut_before(network: TorchNetwork, layers: Sequence[Layer]) -> str | None:
    """Return the last stage's end before all of `layers`; None if they begin in the first, or it cannot be cut."""
    first = min(layer.stage for layer in layers)
    return network.stages[first - 2] if network.stages and first > 1 else None


class Classifier(nn.Module):
    """uint8 images (n, 3, H, W) -> logits (n, C), in two steps of which the first never changes.

    `stem` turns images into what the trained part takes: normalised images, the activation at a cut, or embeddings.
    It is evaluated, without gradients, and so a function that can be computed once. `rest` does everything after it.

    Parameters
    ----------
    backbone, network
        Its row and the network itself; its parameters are shared, not copied.
    head
        Embeddings (n, dim) -> logits (n, C).
    preprocess
        Its mean and standard deviation are applied to images.
    layers
        The layers of the backbone that are trained; all others are frozen. Empty: the head alone is trained.
    freeze_statistics
        Keep the statistics of the BatchNorms that are trained, too.
    """

    def __init__(
        self,
        backbone: Backbone,
        network: TorchNetwork,
        head: nn.Module,
        preprocess: Preprocess,
        layers: Sequence[Layer],
        freeze_statistics: bool = False,
    ) -> None:
        super().__init__()
        self.head, self._freeze_statistics, self._head_only = head, freeze_statistics, not layers
        self.cut = cut_before(network, layers) if layers else None
        self.stem = network.part(end=self.cut) if self.cut else None
        self.body = Embedding(network.part(start=self.cut), network.pooling(backbone.pool()), preprocess)
        trained = {name for layer in layers for name in layer.parameters}
        self._trained = [(parameter, name in trained) for name, parameter in network.module.named_parameters()]
        self.eval()

    def unfreeze(self) -> None:
        """Let gradients flow to the layers that are trained, and to no others."""
        for parameter, trained in self._trained:
            parameter.requires_grad_(trained)

    def follow(self, steps: int) -> None:
        """Let the statistics that are trained follow the images within about so many steps, or as fast as they do."""
        fitting = min(_FASTEST, 1 - _LEFT ** (1 / steps))
        for module in self.body.modules():
            if isinstance(module, _BatchNorm) and module.momentum is not None:
                module.momentum = max(module.momentum, fitting)

    def before(self, images: Tensor) -> Tensor:
        """Return what `after` takes, from uint8 images; no gradient flows back from it."""
        with torch.no_grad():
            if self._head_only:
                return cast(Tensor, self.body(images))
            normal = self.body.normalised(images)
            return normal if self.stem is None else cast(Tensor, self.stem(normal))

    def embed(self, activations: Tensor) -> Tensor:
        """Return embeddings (n, dim) of what `before` returned."""
        return activations if self._head_only else self.body.embedded(activations)

    def after(self, activations: Tensor) -> Tensor:
        """Return logits (n, C) of what `before` returned."""
        return cast(Tensor, self.head(self.embed(activations)))

    def forward(self, inputs: Tensor, ready: bool = False) -> Tensor:
        """Return logits (n, C) of images, or with `ready` of what `before` returned for them."""
        return self.after(inputs if ready else self.before(inputs))

    def has_idle(self, inputs: Tensor, ready: bool) -> bool:
        """Return whether some parameters that are to be trained have no part in the logits."""
        self.eval()
        self.zero_grad(set_to_none=True)
        self(inputs, ready).sum().backward()
        idle = any(each.requires_grad and each.grad is None for each in self.parameters())
        self.zero_grad(set_to_none=True)
        return idle

    def train(self, mode: bool = True) -> Self:
        """Set what is trained to training mode; frozen layers, whose statistics belong to them, stay in `eval`."""
        super().train(mode)
        if self._head_only:
            self.body.eval()
        for module in self.body.modules():
            if isinstance(module, _BatchNorm) and (self._freeze_statistics or not _is_trained(module)):
                module.eval()
        if self.stem is not None:
            self.stem.eval()
        return self


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))
