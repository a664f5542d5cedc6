"""The backbone whose weights are part of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import filter as matching
from pathlib import Path
from typing import TYPE_CHECKING

from tlcache.backbones.backbone import OF_MAPS, Backbone, Checkpoint, TorchNetwork, Weights
from tlcache.backbones.exported import from_torch
from tlcache.backbones.layers import outputs_of
from tlcache.backbones.weights import checked
from tlcache.errors import WeightsError
from tlcache.images import Preprocess

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["EMBEDDED", "weights_path"]


class Embedded:
    """A source of one network, for which nothing is downloaded."""

    name = "embedded"
    form = ""
    trainable = True
    load = staticmethod(from_torch)
    layers = staticmethod(outputs_of)

    def names(self, pattern: str | None = None) -> Sequence[str]:
        """Return the name of the network."""
        return matching([_ROW.name], pattern or "*")

    def find(self, model: str) -> Backbone | None:
        """Return the network's row when it is called so."""
        return _ROW if model == _ROW.name else None

    def at_hand(self, backbone: Backbone) -> list[str]:
        """Return all there are: they are part of the package."""
        return [name for name, row in backbone.checkpoints.items() if weights_path(row).is_file()]

    def weights(self, backbone: Backbone, name: str) -> Weights:
        """Return the weights beside this file."""
        path = weights_path(backbone.checkpoints[name])
        if not path.is_file():
            raise WeightsError(f"'{path}', which is part of tlcache, is not there. Install tlcache again.")
        return checked(name, path, "Install tlcache again.")

    def build(
        self, backbone: Backbone, preprocess: Preprocess, state: Mapping[str, Tensor] | None = None
    ) -> TorchNetwork:
        """Build the network, which takes images of any size."""
        from tlcache.backbones.embedded.network import resnet20_cifar
        from tlcache.backbones.torch_network import TracedNetwork, filled

        del preprocess
        return TracedNetwork(backbone, filled(resnet20_cifar, state))


def weights_path(checkpoint: Checkpoint) -> Path:
    """Return where weights of the package lie."""
    return Path(__file__).parent / checkpoint.file


EMBEDDED = Embedded()
_ROW = Backbone(
    "resnet20_cifar",
    EMBEDDED,
    "resnet20_cifar",
    128,
    272_474,
    layer="layer2",  # what layer3 adds serves CIFAR-10 alone
    stages=("layer1",),
    checkpoints={
        "embedded": Checkpoint(
            "resnet20_cifar",
            "resnet20_cifar-8fe8b048.safetensors",
            87.49,
            Preprocess(resize=32, crop=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
            task="CIFAR-10",
            licence="Apache-2.0",
        )
    },
    pools=("quarters", *OF_MAPS),
)
