"""The networks of the table as torch modules: built, loaded, and cut before the classifier."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from tlcache.backbones import Backbone
from tlcache.errors import UnknownNameError, WeightsError, closest
from tlcache.images import Preprocess

__all__ = ["POOLS", "Embedding", "embedding", "pretrained", "untrained"]


def _cls(tokens: Tensor) -> Tensor:
    return tokens[:, 0]


def _patches(features: Tensor) -> Tensor:
    """Return (batch, channels, positions) of a map (batch, channels, H, W) or of tokens (batch, 1 + n, channels)."""
    return features.flatten(2) if features.ndim == 4 else features[:, 1:].transpose(1, 2)


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "avg": lambda features: _patches(features).mean(2),
    "max": lambda features: _patches(features).amax(2),
    "quarters": lambda features: adaptive_avg_pool2d(features, 2).flatten(1),  # the mean of each quarter of a map
    "flatten": lambda features: features.flatten(1),
    "cls": _cls,
}


class Embedding(nn.Module):
    """Images to embeddings: uint8 (batch, 3, H, W) -> float32 (batch, dim), normalisation included."""

    def __init__(self, trunk: nn.Module, neck: nn.Module | None, pool: str, preprocess: Preprocess) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = neck
        self.pool = pool
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", 255 * torch.tensor(preprocess.mean).view(1, 3, 1, 1))
        self.register_buffer("scale", 1 / (255 * torch.tensor(preprocess.std).view(1, 3, 1, 1)))

    def forward(self, image: Tensor) -> Tensor:
        """Return the embeddings of a batch."""
        features: Tensor = self.trunk((image.float() - self.mean) * self.scale)["features"]
        if self.neck is None:
            return POOLS[self.pool](features)
        if self.pool != "flatten":
            features = POOLS[self.pool](features)[:, :, None, None]
        return cast(Tensor, self.neck(features)).flatten(1)


def untrained(backbone: Backbone, seed: int) -> nn.Module:
    """Return the whole network, initialised by its builder from `seed`; the caller's generator is left alone."""
    extra = {"init_weights": True} if backbone.builder == "inception_v3" else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(backbone, **extra).eval()


def pretrained(backbone: Backbone, state: dict[str, Tensor], source: str) -> nn.Module:
    """Return the whole network with `state` loaded strictly, built as for its published weights.

    The number of classes is the one of `state`, so that a checkpoint fine-tuned on other classes is a backbone too.
    `source` names the weights in errors and says whether they are `random`: torchvision's Inception-v3 shifts its
    input from ImageNet's normalisation to its own for trained weights, and only for those.

    Raises
    ------
    WeightsError
        The names or shapes are not those of the network.
    """
    extra = {"init_weights": False, "transform_input": source != "random"} if backbone.builder == "inception_v3" else {}
    with torch.device("meta"):
        last = list(_build(backbone, **extra).state_dict())[-1]
        classes = state[last].shape[0] if last in state else 1000
        model = _build(backbone, num_classes=classes, **extra)
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        lines = [textwrap.shorten(line, 120, placeholder=" ...") for line in str(error).splitlines()[1:4]]
        raise WeightsError(
            f"The weights '{source}' do not fit {backbone.name}: {'; '.join(lines)}. "
            f"Pass the state dict of that network as {backbone.module} builds it."
        ) from None
    return model.float().eval()


def _build(backbone: Backbone, **options: Any) -> nn.Module:
    return cast(nn.Module, getattr(importlib.import_module(backbone.module), backbone.builder)(**options))


def embedding(backbone: Backbone, model: nn.Module, pool: str, preprocess: Preprocess) -> Embedding:
    """Cut `model` at the backbone's layer and pool what comes out.

    Raises
    ------
    UnknownNameError
        The backbone has no such pooling.
    """
    from torchvision.models.feature_extraction import create_feature_extractor

    if pool not in backbone.pools:
        raise UnknownNameError(closest(f"pooling for {backbone.name}", pool, backbone.pools))
    trunk = create_feature_extractor(model, {backbone.layer: "features"}, suppress_diff_warning=True)
    neck = model.get_submodule(backbone.neck) if backbone.neck else None
    return Embedding(trunk, neck, pool, preprocess).eval()
