"""The backbones: one frozen row each. Adding one is adding a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tlcache.errors import UnknownNameError, closest
from tlcache.images import Preprocess

__all__ = ["BACKBONES", "Backbone", "Checkpoint", "find"]


@dataclass(frozen=True)
class Checkpoint:
    """Published weights of one backbone.

    Parameters
    ----------
    name
        torchvision's name of the weights, which knows the address to download them from; empty for weights that are
        part of this package.
    file
        File name; ends with the first 8 digits of the file's sha256.
    top1
        Accuracy in per cent on images of `task` that were not trained on: as torchvision states it, or our model card.
    preprocess
        The preprocessing the weights were evaluated with.
    task
        What the weights were trained on.
    """

    name: str
    file: str
    top1: float
    preprocess: Preprocess = Preprocess()
    task: str = "ImageNet"


@dataclass(frozen=True)
class Backbone:
    """A network, cut before its classifier or earlier.

    Parameters
    ----------
    name, builder
        Our name, and that of the function that builds the network: torchvision's name of it.
    dim
        Length of the embedding with the default pooling.
    parameters
        Parameters of the whole network with its published classifier.
    layer
        Name of the last node of the trunk: its output is pooled into the embedding.
    stages
        Nodes where the stages of the trunk end, except the last, which ends at `layer`. A single tensor passes there,
        so the trunk can be frozen up to it and cut in two.
    checkpoints
        Published weights by their short name, `imagenet`, `imagenet_v2` or `embedded`; the first are the default.
    pools
        Poolings that make sense, the default first.
    neck
        Module of the classifier that still belongs to the embedding (a normalisation), if any.
    licence
        Licence of the code and the published weights.
    module
        Where `builder` is.
    """

    name: str
    builder: str
    dim: int
    parameters: int
    layer: str
    stages: tuple[str, ...]
    checkpoints: Mapping[str, Checkpoint]
    pools: tuple[str, ...] = ("avg", "max", "flatten")
    neck: str | None = None
    licence: str = "BSD-3-Clause"
    module: str = "torchvision.models"

    @property
    def default_weights(self) -> str:
        """The short name of the weights that are taken when none are asked for."""
        return next(iter(self.checkpoints))


_USUAL = Preprocess()
_CIFAR = Preprocess(resize=32, crop=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))


def _published(
    v1: tuple[str, float], v2: tuple[str, float] | None = None, preprocess: Preprocess = _USUAL
) -> dict[str, Checkpoint]:
    rows = {"imagenet": Checkpoint("IMAGENET1K_V1", *v1, preprocess)}
    if v2 is not None:
        rows["imagenet_v2"] = Checkpoint("IMAGENET1K_V2", *v2, Preprocess(resize=232))
    return rows


_ROWS = (
    Backbone(
        "mobilenetv3_small", "mobilenet_v3_small", 576, 2_542_856, "features",
        ("features.0", "features.1", "features.3", "features.8"),
        _published(("mobilenet_v3_small-047dcff4.pth", 67.668)),
    ),
    Backbone(
        "mobilenetv3_large", "mobilenet_v3_large", 960, 5_483_032, "features",
        ("features.1", "features.3", "features.6", "features.12"),
        _published(("mobilenet_v3_large-8738ca79.pth", 74.042), ("mobilenet_v3_large-5c1a4163.pth", 75.274)),
    ),
    Backbone(
        "resnet50", "resnet50", 2048, 25_557_032, "layer4",
        ("layer1", "layer2", "layer3"),
        _published(("resnet50-0676ba61.pth", 76.13), ("resnet50-11ad3fa6.pth", 80.858)),
    ),
    Backbone(
        "resnet101", "resnet101", 2048, 44_549_160, "layer4",
        ("layer1", "layer2", "layer3"),
        _published(("resnet101-63fe2227.pth", 77.374), ("resnet101-cd907fc2.pth", 81.886)),
    ),
    Backbone(
        "resnet152", "resnet152", 2048, 60_192_808, "layer4",
        ("layer1", "layer2", "layer3"),
        _published(("resnet152-394f9c45.pth", 78.312), ("resnet152-f82ba261.pth", 82.284)),
    ),
    Backbone(
        "inception_v3", "inception_v3", 2048, 27_161_264, "Mixed_7c",
        ("maxpool1", "maxpool2", "Mixed_5d", "Mixed_6e"),
        _published(("inception_v3_google-0cc3c7bd.pth", 77.294), preprocess=Preprocess(resize=342, crop=299)),
    ),
    Backbone(
        "mobilenetv2", "mobilenet_v2", 1280, 3_504_872, "features",
        ("features.1", "features.3", "features.6", "features.13"),
        _published(("mobilenet_v2-b0353104.pth", 71.878), ("mobilenet_v2-7ebf99e0.pth", 72.154)),
    ),
    Backbone(
        "resnet18", "resnet18", 512, 11_689_512, "layer4",
        ("layer1", "layer2", "layer3"),
        _published(("resnet18-f37072fd.pth", 69.758)),
    ),
    Backbone(
        "squeezenet1_1", "squeezenet1_1", 512, 1_235_496, "features",
        ("features.2", "features.5", "features.8"),
        _published(("squeezenet1_1-b8a52dc0.pth", 58.178)),
    ),
    Backbone(
        "efficientnet_b0", "efficientnet_b0", 1280, 5_288_548, "features",
        ("features.1", "features.2", "features.3", "features.5"),
        _published(
            ("efficientnet_b0_rwightman-7f5810bc.pth", 77.692), preprocess=Preprocess(interpolation="bicubic")
        ),
    ),
    Backbone(
        "convnext_tiny", "convnext_tiny", 768, 28_589_128, "features",
        ("features.1", "features.3", "features.5"),
        _published(("convnext_tiny-983f1562.pth", 82.52), preprocess=Preprocess(resize=236)),
        neck="classifier.0",
    ),
    Backbone(
        "vit_b_16", "vit_b_16", 768, 86_567_656, "encoder",
        ("encoder.layers.encoder_layer_2", "encoder.layers.encoder_layer_5", "encoder.layers.encoder_layer_8"),
        _published(("vit_b_16-c867db91.pth", 81.072)),
        pools=("cls", "avg", "max", "flatten"),
    ),
    Backbone(
        "resnet20_cifar", "resnet20_cifar", 128, 272_474, "layer2",  # what layer3 adds serves CIFAR-10 alone
        ("layer1",),
        {"embedded": Checkpoint("", "resnet20_cifar-8fe8b048.safetensors", 87.49, _CIFAR, "CIFAR-10")},
        pools=("quarters", "avg", "max", "flatten"),
        licence="Apache-2.0",
        module="tlcache.backbones.embedded.network",
    ),
)  # fmt: skip

BACKBONES: Mapping[str, Backbone] = {row.name: row for row in _ROWS}


def find(name: str) -> Backbone:
    """Return the row called `name`, in our spelling or torchvision's.

    Raises
    ------
    UnknownNameError
        No such row; the message names the nearest one and all that exist.

    Examples
    --------
    >>> find("mobilenet_v3_large").name
    'mobilenetv3_large'
    """
    for row in _ROWS:
        if name in (row.name, row.builder):
            return row
    raise UnknownNameError(closest("backbone", name, BACKBONES) + " Or give the path of an .onnx file.")
