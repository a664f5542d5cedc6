"""The networks of torchvision.models, and the weights it publishes for them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fnmatch import filter as matching
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tlcache.backbones.backbone import Backbone, Checkpoint, TorchNetwork, Weights
from tlcache.backbones.exported import from_torch
from tlcache.backbones.layers import outputs_of
from tlcache.images import Preprocess

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TORCHVISION", "checkpoint_path"]


class Torchvision:
    """A source whose networks are cut at nodes of the graph that torchvision traces."""

    name = "torchvision"
    form = ""
    trainable = True
    load = staticmethod(from_torch)
    layers = staticmethod(outputs_of)

    def names(self, pattern: str | None = None) -> Sequence[str]:
        """Return our names of the networks."""
        return matching([row.name for row in _ROWS], pattern or "*")

    def find(self, model: str) -> Backbone | None:
        """Return the row called `model`, in our spelling or torchvision's."""
        return next((row for row in _ROWS if model in (row.name, row.builder)), None)

    def at_hand(self, backbone: Backbone) -> list[str]:
        """Return the published weights that lie in torch.hub's folder."""
        return [name for name, row in backbone.checkpoints.items() if checkpoint_path(row).is_file()]

    def weights(self, backbone: Backbone, name: str) -> Weights:
        """Return published weights from torch.hub's folder, where torchvision itself would have put them."""
        from tlcache.backbones.downloads import published  # and what speaks with servers

        checkpoint = backbone.checkpoints[name]
        return published(backbone, name, checkpoint_path(checkpoint), partial(_address, backbone, checkpoint))

    def build(
        self, backbone: Backbone, preprocess: Preprocess, state: Mapping[str, Tensor] | None = None
    ) -> TorchNetwork:
        """Build a network for its weights, whatever the size of its images.

        Inception-v3 shifts its input from ImageNet's normalisation to its own, as torchvision has it for its published
        weights, whatever the weights: a state dict does not say where it began.
        """
        from torchvision import models

        from tlcache.backbones.torch_network import TracedNetwork, filled

        del preprocess
        make = getattr(models, backbone.builder)
        if backbone.builder == "inception_v3":
            make = partial(make, init_weights=state is None, transform_input=state is not None)
        return TracedNetwork(backbone, filled(make, state))


TORCHVISION = Torchvision()


def checkpoint_path(checkpoint: Checkpoint) -> Path:
    """Return where published weights lie or would lie: in torch.hub's own folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    hub = Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch").expanduser() / "hub"
    return hub / "checkpoints" / checkpoint.file


def _address(backbone: Backbone, checkpoint: Checkpoint) -> str:
    """Return where torchvision keeps weights, or their place on the mirror `TLCACHE_WEIGHTS_URL`."""
    mirror = os.environ.get("TLCACHE_WEIGHTS_URL")
    if mirror:
        return f"{mirror.rstrip('/')}/{checkpoint.file}"
    from torchvision.models import get_model_weights

    return str(get_model_weights(backbone.builder)[checkpoint.name].url)


_USUAL = Preprocess()


def _published(
    v1: tuple[str, float], v2: tuple[str, float] | None = None, preprocess: Preprocess = _USUAL
) -> dict[str, Checkpoint]:
    rows = {"imagenet": Checkpoint("IMAGENET1K_V1", *v1, preprocess)}
    if v2 is not None:
        rows["imagenet_v2"] = Checkpoint("IMAGENET1K_V2", *v2, Preprocess(resize=232))
    return rows


_ROWS = (
    Backbone(
        "mobilenetv3_small", TORCHVISION, "mobilenet_v3_small", 576, 2_542_856, "features",
        ("features.0", "features.1", "features.3", "features.8"),
        _published(("mobilenet_v3_small-047dcff4.pth", 67.668)),
    ),
    Backbone(
        "mobilenetv3_large", TORCHVISION, "mobilenet_v3_large", 960, 5_483_032, "features",
        ("features.1", "features.3", "features.6", "features.12"),
        _published(("mobilenet_v3_large-8738ca79.pth", 74.042), ("mobilenet_v3_large-5c1a4163.pth", 75.274)),
    ),
    Backbone(
        "resnet50", TORCHVISION, "resnet50", 2048, 25_557_032, "layer4",
        ("layer1", "layer2", "layer3"),
        _published(("resnet50-0676ba61.pth", 76.13), ("resnet50-11ad3fa6.pth", 80.858)),
    ),
    Backbone(
        "resnet101", TORCHVISION, "resnet101", 2048, 44_549_160, "layer4",
        ("layer1", "layer2", "layer3"),
        _published(("resnet101-63fe2227.pth", 77.374), ("resnet101-cd907fc2.pth", 81.886)),
    ),
    Backbone(
        "resnet152", TORCHVISION, "resnet152", 2048, 60_192_808, "layer4",
        ("layer1", "layer2", "layer3"),
        _published(("resnet152-394f9c45.pth", 78.312), ("resnet152-f82ba261.pth", 82.284)),
    ),
    Backbone(
        "inception_v3", TORCHVISION, "inception_v3", 2048, 27_161_264, "Mixed_7c",
        ("maxpool1", "maxpool2", "Mixed_5d", "Mixed_6e"),
        _published(("inception_v3_google-0cc3c7bd.pth", 77.294), preprocess=Preprocess(resize=342, crop=299)),
    ),
    Backbone(
        "mobilenetv2", TORCHVISION, "mobilenet_v2", 1280, 3_504_872, "features",
        ("features.1", "features.3", "features.6", "features.13"),
        _published(("mobilenet_v2-b0353104.pth", 71.878), ("mobilenet_v2-7ebf99e0.pth", 72.154)),
    ),
    Backbone(
        "resnet18", TORCHVISION, "resnet18", 512, 11_689_512, "layer4",
        ("layer1", "layer2", "layer3"),
        _published(("resnet18-f37072fd.pth", 69.758)),
    ),
    Backbone(
        "squeezenet1_1", TORCHVISION, "squeezenet1_1", 512, 1_235_496, "features",
        ("features.2", "features.5", "features.8"),
        _published(("squeezenet1_1-b8a52dc0.pth", 58.178)),
    ),
    Backbone(
        "efficientnet_b0", TORCHVISION, "efficientnet_b0", 1280, 5_288_548, "features",
        ("features.1", "features.2", "features.3", "features.5"),
        _published(
            ("efficientnet_b0_rwightman-7f5810bc.pth", 77.692), preprocess=Preprocess(interpolation="bicubic")
        ),
    ),
    Backbone(
        "convnext_tiny", TORCHVISION, "convnext_tiny", 768, 28_589_128, "features",
        ("features.1", "features.3", "features.5"),
        _published(("convnext_tiny-983f1562.pth", 82.52), preprocess=Preprocess(resize=236)),
        neck="classifier.0",
    ),
    Backbone(
        "vit_b_16", TORCHVISION, "vit_b_16", 768, 86_567_656, "encoder",
        ("encoder.layers.encoder_layer_2", "encoder.layers.encoder_layer_5", "encoder.layers.encoder_layer_8"),
        _published(("vit_b_16-c867db91.pth", 81.072)),
        pools=("cls", "avg", "cls+avg", "max", "gem", "flatten"),
    ),
)  # fmt: skip
