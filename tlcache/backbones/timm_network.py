"""A network of timm as a torch module: created, loaded, described, and cut where its stages end."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import Any, cast

import timm
import torch
from timm.models._manipulate import group_parameters
from torch import Tensor, nn

from tlcache.backbones.backbone import OF_MAPS, Backbone, Layer
from tlcache.backbones.pools import POOLS
from tlcache.backbones.torch_network import TracedNetwork
from tlcache.errors import ModelError, first_line

__all__ = ["Description", "TimmNetwork", "built", "described"]

_Network = Any  # an nn.Module with the methods that all of timm's have

_OWN = "model"  # the pooling that timm itself has before the classifier
_STAGES = 5  # of networks with more, as transformers have them, quarters are stages
_END = "end_of_trunk"
_INTERMEDIATE = "intermediate."  # and its number among timm's intermediate features


@dataclass(frozen=True)
class Description:
    """What is known of a network without its weights.

    Parameters
    ----------
    config
        timm's configuration for its weights.
    dim, parameters, stages, pools
        As in `Backbone`.
    """

    config: Mapping[str, Any]
    dim: int
    parameters: int
    stages: tuple[str, ...]
    pools: tuple[str, ...]


def described(name: str) -> Description:
    """Look at a network of timm's; nothing is computed.

    Raises
    ------
    ModelError
        It has no embedding.
    """
    module = _empty(name)
    image = torch.empty(2, *module.pretrained_cfg["input_size"], device="meta")
    try:
        with torch.no_grad():
            features = module.forward_features(image)
            embedding = module.forward_head(features, pre_logits=True)
    except Exception as error:
        raise ModelError(f"timm's {name} has no embedding before its classifier: {first_line(error)}") from None
    if not isinstance(embedding, Tensor) or embedding.ndim != 2:
        raise ModelError(f"timm's {name} gives no row of numbers for an image before its classifier.")
    parameters = sum(each.numel() for each in module.parameters())
    pools = (_OWN, *_pools(module, image, features))
    has_stages = hasattr(module, "forward_intermediates")
    stages = tuple(f"{_INTERMEDIATE}{number}" for number, _ in _stage_ends(module)) if has_stages else ()
    return Description(module.pretrained_cfg, embedding.shape[1], parameters, stages, pools)


def built(name: str, size: int | None, state: Mapping[str, Tensor] | None) -> _Network:
    """Return a network for images of `size` pixels, None for its own; with `state` loaded, where it is given.

    Names of tensors are timm's, or others that timm knows how to convert. Position embeddings are interpolated where
    they are of another size.

    Raises
    ------
    ModelError
        The network takes no images of that size.
    RuntimeError
        The names or shapes are not those of the network.
    """
    options = {} if size is None else _for_size(name, size)
    if state is None:
        return _create(name, **options)
    first = next(iter(_classifiers(_empty(name))), "")
    classes = next((len(state[each]) for each in (f"{first}.weight", f"{first}.bias") if each in state), 0)
    try:
        module = _create(name, **options, num_classes=classes)
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        return _converted(name, state, {"num_classes": classes, "label_offset": 0} if classes else {}, options, error)
    return module


def _create(name: str, **options: Any) -> _Network:
    return timm.create_model(name, **options)


def _empty(name: str, **options: Any) -> _Network:
    with torch.device("meta"):
        return _create(name, **options).eval()


def _for_size(name: str, size: int) -> dict[str, int]:
    """Return what makes a network one for images of that size, once it has taken one."""
    own = _empty(name).pretrained_cfg
    options = {"img_size": size} if own.get("fixed_input_size") else {}
    try:
        with torch.no_grad():
            _empty(name, **options).forward_features(torch.empty(2, 3, size, size, device="meta"))
    except Exception as error:
        side = own["input_size"][-1]
        raise ModelError(
            f"{name} takes no images of {size} x {size} pixels, its own are {side} x {side}: {first_line(error)}"
        ) from None
    return options


def _converted(
    name: str, state: Mapping[str, Tensor], classes: Mapping[str, int], options: Mapping[str, Any], error: RuntimeError
) -> _Network:
    """Load a state dict as timm converts it, strictly; `error` is what is raised if it does not fit then either.

    Left to itself timm would take whatever fits where the classifier has other classes than its configuration says.
    """
    source = {"state_dict": dict(state), "source": "", "file": None, "url": None, "custom_load": False}
    more = {} if not classes else {"num_classes": classes["num_classes"]}
    try:
        module = _create(
            name,
            **options,
            **more,
            pretrained=True,
            pretrained_cfg_overlay={**source, **classes},
            pretrained_strict=True,
        )
    except Exception:  # whatever a conversion trips over
        raise error from None
    module.pretrained_cfg["state_dict"] = None
    return module


def _classifiers(module: _Network) -> tuple[str, ...]:
    """Return the names of the modules that make classes of embeddings."""
    named = module.pretrained_cfg.get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def _stage_ends(module: _Network) -> list[tuple[int, str]]:
    """Return with which of timm's intermediate features the stages end, and with which module; not the last stage."""
    named = list(enumerate(each["module"] for each in getattr(module, "feature_info", ())))
    own = [name for name, _ in module.named_parameters()]
    named = [each for each in named if any(name.startswith(f"{each[1]}.") for name in own)]
    if len(named) > _STAGES:
        named = [named[len(named) * quarter // 4 - 1] for quarter in (1, 2, 3, 4)]
    return named[:-1]


def _ends(module: _Network) -> list[str]:
    return [name for _, name in _stage_ends(module)]


def _pools(module: _Network, image: Tensor, features: Any) -> tuple[str, ...]:
    """Return the poolings beside timm's own that make sense of what a trunk gives."""
    try:
        with torch.no_grad():
            (last,) = module.forward_intermediates(image, indices=1, output_fmt="NCHW", intermediates_only=True)
        prefix, patches = _spread(module, features)
    except Exception:  # a list of tensors, as of CrossViT, or no such method
        return ()
    if patches.shape[2] != last.shape[2:].numel():
        return ()
    has_class = prefix.shape[1] > 0 and getattr(module, "cls_token", None) is not None
    return (*OF_MAPS, *(("cls", "cls+avg") if has_class else ()))


def _spread(module: _Network, features: Any) -> tuple[Tensor, Tensor]:
    """Return the tokens (n, k, C) that stand for no place, and all others (n, C, places)."""
    if isinstance(features, tuple):
        prefix, patches = features
        return prefix, patches.flatten(2)
    if features.ndim == 4:
        channels_last = features.shape[1] != module.num_features
        patches = (features.permute(0, 3, 1, 2) if channels_last else features).flatten(2)
        return patches[:, :0, :0], patches
    count = int(getattr(module, "num_prefix_tokens", 0))
    return features[:, :count], features[:, count:].transpose(1, 2)


class TimmNetwork:
    """A `TorchNetwork` of timm's: whole, it runs as timm runs it; to be cut it is traced by `torch.fx`.

    Its layers are the groups that timm has for learning rates by layer: a block each, for most.
    """

    def __init__(self, backbone: Backbone, module: _Network) -> None:
        self._backbone = backbone
        self.module: _Network = module

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """Where stages end, except the last, if a single tensor is all that passes there; otherwise nothing."""
        ends = _ends(self.module)
        try:
            for each in ends[:1]:
                _Traced.of(self.module).part(each, _END)
        except Exception:  # of torch.fx, whatever it cannot follow
            return ()
        return tuple(ends)

    def part(self, start: str | None = None, end: str | None = None) -> nn.Module:
        """Return the trunk from one stage's end to another's, or to its own end."""
        end = end or self._backbone.layer
        if end.startswith(_INTERMEDIATE):
            return _Intermediate(self.module, int(end.removeprefix(_INTERMEDIATE)))
        if start is None and not end:
            return _Trunk(self.module)
        return _Traced.of(self.module).part(start, end or _END)

    def pooling(self, pool: str) -> nn.Module:
        """Return what makes embeddings of the trunk's output: timm's own, or another."""
        return _OwnHead(self.module) if pool == _OWN else _Pooling(self.module, pool)

    def layers(self) -> list[Layer]:
        """Return timm's groups of parameters, without the classifier's, as images meet them."""
        module, others = self.module, tuple(f"{name}." for name in _classifiers(self.module))
        numbered = group_parameters(module, module.group_matcher(coarse=False))
        groups = [[name for name in numbered[key] if not name.startswith(others)] for key in sorted(numbered)]
        groups = [names for names in groups if names]
        last = [
            max(number for number, names in enumerate(groups) if any(each.startswith(f"{end}.") for each in names))
            for end in _ends(module)
        ]
        return [
            Layer(_common(names), tuple(names), 1 + sum(number > end for end in last))
            for number, names in enumerate(groups)
        ]


def _common(names: Sequence[str]) -> str:
    """Return the module that parameters are of; of several, the first."""
    parts = [name.split(".")[:-1] or [name] for name in names]
    return ".".join(os.path.commonprefix([each for each in parts if each[0] == parts[0][0]]))


class _Trunk(nn.Module):
    def __init__(self, module: _Network) -> None:
        super().__init__()
        self.module: _Network = module

    def forward(self, images: Tensor) -> Any:
        return self.module.forward_features(images)


class _Intermediate(nn.Module):
    """Images to what leaves a block: the tokens (n, k, C) that stand for no place, and a map (n, C, H, W)."""

    def __init__(self, module: _Network, number: int) -> None:
        super().__init__()
        self.module: _Network = module
        self.options: dict[str, Any] = {"indices": [number], "output_fmt": "NCHW", "intermediates_only": True}
        if "return_prefix_tokens" in signature(module.forward_intermediates).parameters:
            self.options["return_prefix_tokens"] = True

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        (found,) = self.module.forward_intermediates(images, **self.options)
        patches, prefix = found if isinstance(found, (tuple, list)) else (found, found[:, :0, :0, 0])
        return prefix, patches


class _OwnHead(nn.Module):
    def __init__(self, module: _Network) -> None:
        super().__init__()
        self.module: _Network = module

    def forward(self, features: Any) -> Tensor:
        return cast(Tensor, self.module.forward_head(features, pre_logits=True))


class _Pooling(nn.Module):
    """Features to embeddings by poolings that are joined by a plus."""

    def __init__(self, module: _Network, pool: str) -> None:
        super().__init__()
        self.module: _Network = module
        self.pools = pool.split("+")

    def forward(self, features: Any) -> Tensor:
        if self.pools == ["flatten"]:
            return (
                torch.cat([each.flatten(1) for each in features], 1)
                if isinstance(features, tuple)
                else features.flatten(1)
            )
        prefix, patches = _spread(self.module, features)
        rows = [POOLS[pool].torch(prefix if pool == "cls" else patches[..., None]) for pool in self.pools]
        return torch.cat(rows, 1)


class _Traced(TracedNetwork):
    """The trunk as `torch.fx` traces it, with what timm says that it does not trace."""

    @classmethod
    def of(cls, module: _Network) -> _Traced:
        """Make one of a network, whose parameters it shares."""
        kind = type(module)
        trunk = copy.copy(module)
        trunk._modules = {**module._modules, _END: nn.Identity()}
        trunk.__class__ = type(kind.__name__, (kind,), {"forward": _to_the_end})
        return cls(Backbone("", cast(Any, None), ""), trunk)

    def _extractor(self, nodes: dict[str, str]) -> Any:
        from timm.layers import get_notrace_functions, get_notrace_modules
        from torchvision.models.feature_extraction import create_feature_extractor

        leaves = {"leaf_modules": get_notrace_modules(), "autowrap_functions": get_notrace_functions()}
        return create_feature_extractor(self.module, nodes, tracer_kwargs=leaves, suppress_diff_warning=True)


def _to_the_end(trunk: _Network, images: Tensor) -> Tensor:
    return cast(Tensor, trunk.get_submodule(_END)(trunk.forward_features(images)))
