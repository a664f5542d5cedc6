"""A source of backbones as somebody outside the package would write one, unlike torchvision in all that it may be.

Its names have a prefix and tags, and a tag has its own preprocessing and licence; it has a folder of weights of its
own; its network is built for the size of its images, has a pooling of its own, and cannot be traced.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from tlcache.backbones.backbone import Backbone, Checkpoint, Layer, Weights
from tlcache.backbones.exported import from_torch
from tlcache.backbones.layers import outputs_of
from tlcache.errors import UnknownNameError, WeightsError, closest
from tlcache.files import hash_file
from tlcache.images import Preprocess

TAGS = {"small": Preprocess(resize=32, crop=16), "large": Preprocess(resize=32, crop=24, mean=(0.5, 0.5, 0.5))}


class Positioned(nn.Module):
    """Two convolutions with a learnt bias for every position between them, so that it fits one size of images."""

    def __init__(self, crop: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 4, stride=4)
        self.position = nn.Parameter(torch.randn(1, 4, crop // 4, crop // 4))
        self.second = nn.Conv2d(4, 6, 3, padding=1)
        self.neck = nn.Linear(6, 5)
        self.classifier = nn.Linear(5, classes)

    def forward(self, images: Tensor) -> Tensor:
        if len(images) == 0:  # which torch.fx cannot trace
            raise ValueError("no images")
        features = self.second(self.first(images) + self.position)
        return self.classifier(self.neck(features.mean((2, 3))))


class Stem(nn.Module):
    def __init__(self, whole: Positioned) -> None:
        super().__init__()
        self.first, self.position = whole.first, whole.position

    def forward(self, images: Tensor) -> Tensor:
        return self.first(images) + self.position


class Own(nn.Module):
    def __init__(self, whole: Positioned) -> None:
        super().__init__()
        self.neck = whole.neck

    def forward(self, features: Tensor) -> Tensor:
        return self.neck(features.mean((2, 3)))


class PositionedNetwork:
    """The network in its two stages."""

    stages = ("stage1",)

    def __init__(self, backbone: Backbone, module: Positioned) -> None:
        self.module, self._last = module, backbone.layer

    def part(self, start: str | None = None, end: str | None = None) -> nn.Module:
        parts = {"stage1": Stem(self.module), "stage2": self.module.second}
        names = list(parts)
        first = names.index(start) + 1 if start else 0
        return nn.Sequential(*(parts[name] for name in names[first : names.index(end or self._last) + 1]))

    def pooling(self, pool: str) -> nn.Module:
        return nn.Flatten() if pool == "flatten" else Own(self.module)

    def layers(self) -> list[Layer]:
        stages = {"first": 1, "position": 1, "second": 2, "neck": 2}
        names = [name for name, _ in self.module.named_parameters()]
        return [
            Layer(place, tuple(name for name in names if name.startswith(place)), stage)
            for place, stage in stages.items()
        ]


class Tagged:
    """`own/net.small` and `own/net.large`; `own/net` is the first of them."""

    name = "own"
    form = "own/NAME.TAG"
    trainable = True
    load = staticmethod(from_torch)
    layers = staticmethod(outputs_of)

    def names(self, pattern: str | None = None) -> Sequence[str]:
        return fnmatch.filter([f"own/net.{tag}" for tag in TAGS], pattern) if pattern else ["own/net"]

    def find(self, model: str) -> Backbone | None:
        source, _, rest = model.partition("/")
        if source != self.name:
            return None
        name, _, tag = rest.partition(".")
        if name != "net" or tag not in ("", *TAGS):
            raise UnknownNameError(closest("backbone", model, self.names("*")))
        tags = [tag] if tag else list(TAGS)
        checkpoints = {each: Checkpoint(each, f"{each}.bin", 0.0, TAGS[each], licence=f"{each}-1.0") for each in tags}
        return Backbone(model, self, "net", 5, 400, "stage2", ("stage1",), checkpoints, ("own", "flatten"))

    def at_hand(self, backbone: Backbone) -> list[str]:
        return [name for name, row in backbone.checkpoints.items() if Path("hub", row.file).is_file()]

    def weights(self, backbone: Backbone, name: str) -> Weights:
        path = Path("hub", backbone.checkpoints[name].file)
        if not path.is_file():
            raise WeightsError(f"There is nothing at {path}.")
        return Weights(name, path, hash_file(path))

    def build(
        self, backbone: Backbone, preprocess: Preprocess, state: Mapping[str, Tensor] | None = None
    ) -> PositionedNetwork:
        classes = 10 if state is None else len(state["classifier.bias"])
        module = Positioned(preprocess.crop, classes)
        if state is not None:
            grid = interpolate(state["position"], module.position.shape[2:])
            module.load_state_dict({**state, "position": grid}, strict=True)
        return PositionedNetwork(backbone, module)


def publish(tag: str) -> None:
    """Put weights where the source keeps them."""
    Path("hub").mkdir(exist_ok=True)
    torch.manual_seed(list(TAGS).index(tag))
    save_file(Positioned(TAGS[tag].crop, 3).state_dict(), Path("hub", f"{tag}.bin"))
