"""The networks of timm, and the weights that are published for them on the Hugging Face Hub."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from fnmatch import filter as matching
from functools import cache
from typing import TYPE_CHECKING, Any

from tlcache.backbones.backbone import Backbone, Checkpoint, TorchNetwork, Weights
from tlcache.backbones.exported import from_torch
from tlcache.backbones.hub import cached, fetched
from tlcache.backbones.layers import outputs_of
from tlcache.errors import ModelError, OptionError, UnknownNameError
from tlcache.extras import extra
from tlcache.files import hash_file
from tlcache.images import Preprocess

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TIMM"]

_BEFORE, _HUB, _AT, _CONFIG = "timm/", "hf-hub:", "@", "config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # as timm names them, the first that is there


class Timm:
    """A source of over a thousand networks, `timm/NAME[.TAG]`, and of those that others publish, `hf-hub:ORG/NAME`.

    The tag says which weights, and how images are prepared for them; without one they are those that timm has as the
    default. `timm/NAME.TAG@224` is for images of that side.
    """

    name = "timm"
    form = "a network of timm (tlcache models --timm 'vit*')"
    trainable = True
    load = staticmethod(from_torch)
    layers = staticmethod(outputs_of)

    def names(self, pattern: str | None = None) -> Sequence[str]:
        """Return names with tags where the pattern asks for timm's; they are too many to list without one."""
        if not (pattern or "").startswith(_BEFORE):
            return ()
        return matching([_BEFORE + name for name in _tagged()], pattern or "*")

    def find(self, model: str) -> Backbone | None:
        """Return what is called as timm's networks are, with the tag of its weights in its name."""
        if model.startswith(_BEFORE):
            name, _, side = model.removeprefix(_BEFORE).partition(_AT)
            return _row(_BEFORE + _with_tag(name), _side(model, side))
        return _row(model) if model.startswith(_HUB) else None

    def at_hand(self, backbone: Backbone) -> list[str]:
        """Return the published weights that are in the cache of the Hugging Face Hub."""
        return [
            name for name, each in backbone.checkpoints.items() if any(cached(each.file, file) for file in _WEIGHTS)
        ]

    def weights(self, backbone: Backbone, name: str) -> Weights:
        """Return published weights from the cache of the Hugging Face Hub, where timm itself would have put them."""
        repository = backbone.checkpoints[name].file
        file = next((file for file in _WEIGHTS if cached(repository, file)), _WEIGHTS[0])
        path = fetched(
            repository,
            file,
            f"{backbone.name} needs its {name} weights: pass --weights FILE (.safetensors or .pth, with timm's names), "
            "or --weights random (untrained: a control).",
        )
        return Weights(name, path, hash_file(path))

    def build(
        self, backbone: Backbone, preprocess: Preprocess, state: Mapping[str, Tensor] | None = None
    ) -> TorchNetwork:
        """Build a network for its weights and the size of its images."""
        from tlcache.backbones.timm_network import TimmNetwork, built, described

        _timm()
        name = _created_by(backbone.builder)
        size = preprocess.crop if preprocess.crop != described(name).config["input_size"][-1] else None
        return TimmNetwork(backbone, built(name, size, state))


TIMM = Timm()


def _timm() -> Any:
    return extra("timm", "timm", "'tlcache[timm]'", ModelError)


@cache
def _tagged() -> list[str]:
    """Return timm's names, with tags where there are weights, of networks for square colour images."""
    timm = _timm()
    tagged = timm.list_pretrained()
    having = {name.partition(".")[0] for name in tagged}
    named = [*tagged, *(name for name in timm.list_models() if name not in having)]
    return sorted(name for name in named if not _unfit(timm.get_pretrained_cfg(name).input_size))


def _unfit(size: Sequence[int]) -> bool:
    channels, height, width = size
    return channels != 3 or height != width


def _with_tag(name: str) -> str:
    """Return timm's name of a network with the tag of its weights, where there are any.

    Raises
    ------
    UnknownNameError
        timm has no such network, or no such weights of it.
    """
    timm = _timm()
    network, _, tag = name.partition(".")
    if not timm.is_model(network):
        near = difflib.get_close_matches(network, timm.list_models(), n=1)
        hint = f" Did you mean '{_BEFORE}{near[0]}'?" if near else ""
        raise UnknownNameError(
            f"timm {timm.__version__} has no network '{network}'.{hint} See: tlcache models --timm '{network[:4]}*'"
        )
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{network}.*")]
    if tag and tag not in tags:
        known = f"Known: {', '.join(tags)}." if tags else "It has none: leave the tag out."
        raise UnknownNameError(f"timm has no weights '{tag}' of {network}. {known}")
    usual = timm.get_pretrained_cfg(network).tag  # of a network without weights, no tag that it has
    return ".".join([network, *([tag] if tag else [usual] if usual in tags else [])])


def _created_by(builder: str) -> str:
    """Return what timm creates a network by: its name, or the folder with what the hub has of it."""
    if not builder.startswith(_HUB):
        return builder
    found = fetched(builder.removeprefix(_HUB), _CONFIG, f"{builder} is described by it.")
    return f"local-dir:{found.parent}"


def _side(model: str, side: str) -> int | None:
    """Return the side of images that a name ends with, as in `timm/NAME@224`; None where it says none.

    Raises
    ------
    OptionError
        It is no number of pixels.
    """
    if model.endswith(_AT) or (side and not (side.isdecimal() and int(side))):
        raise OptionError(f"'{model}' ends with {_AT}{side}, which is no side in pixels. Give one, as in @224.")
    return int(side) if side else None


@cache
def _row(name: str, side: int | None = None) -> Backbone:
    """Return the row of a network, after a look at it on the meta device, which has no numbers.

    With another `side` than its own, images are prepared as large as that from the beginning.
    """
    _timm()
    from tlcache.backbones.timm_network import described

    builder = name.removeprefix(_BEFORE)
    about = described(_created_by(builder))
    if _unfit(about.config["input_size"]):
        raise ModelError(f"{name} takes images of {about.config['input_size']} (channels, height, width), not squares.")
    own = about.config["input_size"][-1]
    preprocess = _prepared(about.config, side or own)
    hub = builder.partition(_HUB)[2] or about.config.get("hf_hub_id")
    licence = str(about.config.get("license") or "unknown")
    tag = builder.partition(".")[2] if name.startswith(_BEFORE) else "hub"
    published = {tag: Checkpoint(tag, hub, None, preprocess, tag, licence)} if hub and tag else {}
    return Backbone(
        name if side in (None, own) else f"{name}{_AT}{side}",
        TIMM,
        builder,
        about.dim,
        about.parameters,
        stages=about.stages,
        checkpoints=published,
        pools=about.pools,
        usual=preprocess,
    )


def _prepared(config: Mapping[str, Any], size: int) -> Preprocess:
    """Return how timm prepares images of a side for weights that have this configuration."""
    mode = config.get("crop_mode") or "center"
    try:
        return Preprocess(
            resize=math.floor(size / (config.get("crop_pct") or 0.875)),
            crop=size,
            interpolation=config.get("interpolation") or "bicubic",
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            crop_mode=None if mode == "center" else mode,
        )
    except OptionError as error:
        raise ModelError(f"Images cannot be prepared as {config.get('architecture')} takes them. {error}") from None
