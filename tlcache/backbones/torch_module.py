"""A torch module that a function of the user's returns, as a backbone: `package.module:function`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcache.backbones.backbone import LAST, OF_MAPS, Backbone, Checkpoint, Layer, TorchNetwork, Weights
from tlcache.backbones.exported import from_torch
from tlcache.backbones.layers import measured
from tlcache.backbones.output import Output
from tlcache.backbones.pools import POOLS
from tlcache.errors import ModelError, OptionError, UnknownNameError, closest, first_line
from tlcache.files import cache_folder, hash_file, write_whole
from tlcache.images import Preprocess
from tlcache.keys import slug

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["TORCH_MODULE"]

_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")
_STATED = ("resize", "crop", "mean", "std")
_OWN = "own"
_TOKENS = ("tokens", "cls", "avg", "cls+avg", "max", "gem", "flatten")
_POOLS: Mapping[int, tuple[str, ...]] = {2: (), 3: _TOKENS, 4: OF_MAPS}  # by the rank of what a module gives


class TorchModule:
    """A source of what a function without arguments returns: images (n, 3, H, W) to embeddings (n, dim), or to maps.

    Its module is imported, and so its code is run, when the network is loaded and not before.
    """

    name = "torch"
    form = "a torch module of your own (package.module:function)"
    trainable = False

    def names(self, pattern: str | None = None) -> Sequence[str]:
        """Return nothing: functions are not looked for."""
        del pattern
        return ()

    def find(self, model: str) -> Backbone | None:
        """Return what is called as functions are; nothing is imported."""
        if not _NAME.fullmatch(model):
            return None
        checkpoints = {_OWN: Checkpoint(_OWN, "", None, task=_OWN, licence="unknown")}
        return Backbone(model, self, model, checkpoints=checkpoints)

    def at_hand(self, backbone: Backbone) -> list[str]:
        """Return that the function brings its own weights."""
        return list(backbone.checkpoints)

    def weights(self, backbone: Backbone, name: str) -> Weights:
        """Return the weights that the module has, in a file whose hash is of them and of the code that they are for."""
        from safetensors.torch import save

        module = _made(backbone.builder)
        state = {name: each.contiguous().clone() for name, each in module.state_dict().items()}
        data = save(state, {"code": _code(backbone.builder, module)})
        path = (
            cache_folder() / "modules" / f"{slug(backbone.builder)}-{hashlib.sha256(data).hexdigest()[:16]}.safetensors"
        )
        if not path.is_file():
            write_whole(path, data)
        return Weights(name, path, hash_file(path))

    def build(self, backbone: Backbone, preprocess: Any, state: Mapping[str, Tensor] | None = None) -> TorchNetwork:
        """Call the function."""
        del preprocess
        module = _made(backbone.builder)
        if state is not None:
            module.load_state_dict(state, strict=True)
        return _Network(module, backbone.layer)

    def layers(self, backbone: Backbone, changes: Mapping[str, Any]) -> list[Output]:
        """Return what its children give, theirs where they are sequences, and what it gives itself."""
        module, preprocess = _made(backbone.builder), Preprocess(**changes)
        shapes = _shapes(module, preprocess)
        rows = [(name, _at(backbone, name, shapes)) for name in _outer(shapes)]
        return [_measured(name, row, module, preprocess) for name, row in (*rows, (LAST, backbone))]

    def load(
        self, backbone: Backbone, weights: str | None, pool: str | None, output: str | None, changes: Mapping[str, Any]
    ) -> Any:
        """Export what the function returns, for images as the caller says, as the module does not."""
        if weights not in (None, _OWN):
            raise OptionError(f"{backbone.name} returns a module with its weights; asked: --weights {weights}.")
        _check_stated(backbone, changes)
        if output not in (None, LAST):
            backbone = _at(backbone, output, _shapes(_made(backbone.builder), Preprocess(**changes)))
        return from_torch(backbone, _OWN, pool, None, changes)


TORCH_MODULE = TorchModule()


def _made(builder: str) -> nn.Module:
    """Import and call what `package.module:function` names.

    Raises
    ------
    ModelError
        There is no such function, it fails, or what it returns is no torch module.
    """
    from torch import nn

    place, _, name = builder.partition(":")
    try:
        module = getattr(importlib.import_module(place), name)()
    except Exception as error:  # whatever somebody's code does
        raise ModelError(
            f"'{builder}' gives no network: {type(error).__name__}, {first_line(error)}. It has to be a function "
            "without arguments in a module that Python finds (PYTHONPATH)."
        ) from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"'{builder}' returns no torch module, but: {type(module).__name__}.")
    return module.float().eval()


def _check_stated(backbone: Backbone, changes: Mapping[str, Any]) -> None:
    if missing := [f"--{each}" for each in _STATED if each not in changes]:
        raise OptionError(f"{backbone.name} does not say how its images are prepared. Give {', '.join(missing)}.")


def _at(backbone: Backbone, place: str, shapes: Mapping[str, tuple[int, ...]]) -> Backbone:
    """Return the row of a network up to one of its modules, by the name that this has in it."""
    if place not in shapes:
        raise UnknownNameError(closest(f"layer of {backbone.name}", place, _outer(shapes)))
    return replace(backbone, layer=place, pools=_POOLS[len(shapes[place])])


def _outer(names: Iterable[str]) -> list[str]:
    """Return the names that are worth listing; there are many more inside."""
    return [name for name in names if name.count(".") < 2]


def _measured(name: str, row: Backbone, module: nn.Module, preprocess: Preprocess) -> Output:
    network = _Network(module, row.layer)
    return measured(name, network.part(), [(pool, network.pooling(pool)) for pool in row.pools], preprocess, "cpu")


def _shapes(module: nn.Module, preprocess: Preprocess) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of what each module inside gives, where that is a tensor that can be pooled."""
    import torch

    found, names = dict[str, tuple[int, ...]](), {id(each): name for name, each in module.named_modules()}

    def note(inner: nn.Module, _: Any, features: Any) -> None:
        if torch.is_tensor(features) and features.is_floating_point() and features.ndim in _POOLS:
            found[names[id(inner)]] = tuple(features.shape)

    hooks = [each.register_forward_hook(note) for each in module.modules() if each is not module]
    try:
        with torch.no_grad():
            module(torch.zeros(2, 3, *preprocess.size))
    except Exception as error:  # whatever somebody's code does
        raise ModelError(
            f"The network cannot be run with images of {preprocess.crop} pixels: {first_line(error)}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return {name: found[name] for name in names.values() if name in found and found[name][0] == 2}


def _code(builder: str, module: nn.Module) -> str:
    """Return the hash of the files that the function and the classes of its modules are in, but for those of torch."""
    digest = hashlib.sha256(builder.encode())
    for path in sorted(set(_files(builder, module))):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def _files(builder: str, module: nn.Module) -> Iterator[str]:
    names = {builder.partition(":")[0], *(type(each).__module__ for each in module.modules())}
    for name in names:
        if name.partition(".")[0] != "torch" and (path := inspect.getsourcefile(importlib.import_module(name))):
            yield path


def _inside(module: nn.Module, place: str) -> nn.Module:
    """Return a module that runs another and returns what one inside it gives, the last time that it is called."""
    from torch import nn

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, images: Tensor) -> Tensor:
            found: list[Tensor] = []
            hook = self.module.get_submodule(place).register_forward_hook(lambda *given: found.append(given[-1]))
            try:
                self.module(images)
            finally:
                hook.remove()
            return found[-1]

    return Inside()


class _Network:
    """A `TorchNetwork` that is one part."""

    stages = ()

    def __init__(self, module: nn.Module, place: str = "") -> None:
        self.module, self._place = module, place

    def part(self, start: str | None = None, end: str | None = None) -> nn.Module:
        """Return the whole module, or what gives what one of its modules does."""
        del start, end
        return _inside(self.module, self._place) if self._place else self.module

    def pooling(self, pool: str) -> nn.Module:
        """Return what leaves rows as they are and pools maps."""
        from torch import nn

        class Pooling(nn.Module):
            def forward(self, features: Tensor) -> Tensor:
                return features if features.ndim == 2 else POOLS[pool].torch(features)

        return Pooling()

    def layers(self) -> list[Layer]:
        """Return a layer for every module that has parameters of its own."""
        named = ((name, module.named_parameters(name, recurse=False)) for name, module in self.module.named_modules())
        return [Layer(name, tuple(own), 1) for name, each in named if (own := [one for one, _ in each])]
