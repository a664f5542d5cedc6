"""Backbones as torch modules: built, loaded, and cut before the classifier."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import takewhile
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from tlcache.backbones.backbone import Backbone, Layer, TorchNetwork
from tlcache.backbones.pools import POOLS
from tlcache.backbones.state_dicts import match_names, quantised
from tlcache.errors import WeightsError
from tlcache.images import Preprocess
from tlcache.keys import some
from tlcache.progress import say

__all__ = ["Embedding", "TracedNetwork", "embedding", "filled", "operations", "pretrained", "synchronised", "untrained"]


class Embedding(nn.Module):
    """Images to embeddings: uint8 (batch, 3, H, W) -> float32 (batch, dim), normalisation included.

    `trunk` and `pooling` are those of a `TorchNetwork`.
    """

    def __init__(self, trunk: nn.Module, pooling: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.trunk = trunk
        self.pooling = pooling
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", 255 * torch.tensor(preprocess.mean).view(1, 3, 1, 1))
        self.register_buffer("scale", 1 / (255 * torch.tensor(preprocess.std).view(1, 3, 1, 1)))

    def forward(self, image: Tensor) -> Tensor:
        """Return the embeddings of a batch."""
        return self.embedded(self.normalised(image))

    def normalised(self, image: Tensor) -> Tensor:
        """Return what the network's first layer takes: float32, like `image` in shape."""
        return (image.float() - self.mean) * self.scale

    def embedded(self, activation: Tensor) -> Tensor:
        """Return the embeddings of what the trunk takes."""
        return cast(Tensor, self.pooling(self.trunk(activation)))


def untrained(backbone: Backbone, seed: int) -> TorchNetwork:
    """Return the whole network, initialised by its source from `seed`; the caller's generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = backbone.source.build(backbone, backbone.preprocess())
    network.module.eval()
    return network


def pretrained(backbone: Backbone, state: Mapping[str, Tensor], label: str, preprocess: Preprocess) -> TorchNetwork:
    """Return the whole network in float32 with `state` loaded strictly, for images prepared so.

    The number of classes is the one of `state`, so that a checkpoint fine-tuned on other classes is a backbone too.
    Where names are not the network's, they are matched as `match_names` does, and it is said. `label` names the
    weights in messages.

    Raises
    ------
    WeightsError
        The names or shapes are not those of the network, or numbers are sparse, complex or not finite.
    """
    try:
        network = backbone.source.build(backbone, preprocess, state)
    except RuntimeError:
        network = _matched(backbone, state, label, preprocess)
    given = network.module.state_dict()
    if odd := [name for name, each in given.items() if each.is_complex() or each.layout != torch.strided]:
        raise WeightsError(
            f"The weights '{label}' hold sparse or complex tensors: {some(odd)}. Save them dense and real."
        )
    network.module.float().eval()
    if bad := [name for name, each in network.module.named_parameters() if not each.isfinite().all()]:
        raise WeightsError(f"The weights '{label}' hold NaN or infinity, in {some(bad)}. They are of no use.")
    return network


def _matched(backbone: Backbone, state: Mapping[str, Tensor], label: str, preprocess: Preprocess) -> TorchNetwork:
    """Return the network with a checkpoint whose names are others, or that has more or less."""
    try:
        found, note = match_names(state, _empty(backbone, preprocess))
        network = backbone.source.build(backbone, preprocess, found)
    except (LookupError, RuntimeError) as error:
        if integers := quantised(state):
            raise WeightsError(
                f"The weights '{label}' are quantised to integers: {some(integers)}. Save those of the network before "
                "that, in floating point, with torch.save(model.state_dict(), path)."
            ) from None
        told = [str(error)] if isinstance(error, LookupError) else str(error).splitlines()[1:4]
        lines = "; ".join(textwrap.shorten(line, 400, placeholder=" ...").rstrip(".") for line in told)
        raise WeightsError(
            f"The weights '{label}' do not fit {backbone.name}: {lines}. {_others(backbone, state, preprocess)}"
        ) from None
    say(f"The weights '{label}' as those of {backbone.name}: {note}.")
    return network


def _empty(backbone: Backbone, preprocess: Preprocess) -> TorchNetwork:
    with torch.device("meta"):
        return backbone.source.build(backbone, preprocess)


def _others(backbone: Backbone, state: Mapping[str, Tensor], preprocess: Preprocess) -> str:
    """Return which networks of the same source a checkpoint fits, for a message."""
    fitting = []
    for name in backbone.source.names():
        row = backbone.source.find(name)
        with suppress(LookupError):
            network = _empty(row or backbone, preprocess)
            found, _ = match_names(state, network)
            if all(each.shape[1:] == found[own].shape[1:] for own, each in network.module.state_dict().items()):
                fitting.append(name)
    if fitting:
        return f"They fit {' and '.join(fitting)}: pass --model {fitting[0]}."
    return f"Pass the state dict of that network as {backbone.source.name} builds it."


def operations(backbone: Backbone, preprocess: Preprocess) -> int:
    """Return the floating-point operations that an image takes; none of them is done."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        module = backbone.source.build(backbone, preprocess).module.eval().requires_grad_(False)  # or hooks trip
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.empty(1, 3, preprocess.crop, preprocess.crop, device="meta"))
    return int(counter.get_total_flops())


def embedding(backbone: Backbone, network: TorchNetwork, pool: str, preprocess: Preprocess) -> Embedding:
    """Cut a network at the backbone's layer and pool what comes out.

    Raises
    ------
    UnknownNameError
        The backbone has no such pooling.
    """
    return Embedding(network.part(), network.pooling(backbone.pool(pool)), preprocess).eval()


def synchronised(module: nn.Module) -> nn.Module:
    """Put torch's SyncBatchNorm in place of every BatchNorm, with its parameters and statistics."""
    if "timm" not in sys.modules:
        return cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(module))  # type: ignore[no-untyped-call]
    from timm.layers import convert_sync_batchnorm  # torch's takes the activation from those that timm has one in

    return cast(nn.Module, convert_sync_batchnorm(module))


def filled(make: Callable[..., nn.Module], state: Mapping[str, Tensor] | None) -> nn.Module:
    """Return what `make` builds; with `state` loaded strictly, and as many `num_classes` as it has, where it is given.

    Raises
    ------
    RuntimeError
        The names or shapes are not those of the network.
    """
    if state is None:
        return make()
    with torch.device("meta"):
        last = list(make().state_dict())[-1]
        module = make(num_classes=state[last].shape[0]) if last in state else make()
    module.load_state_dict(state, strict=True, assign=True)
    return module


class TracedNetwork:
    """A `TorchNetwork` that `torch.fx` can trace: it is cut at nodes of its graph, which a backbone's row names.

    Parameters
    ----------
    backbone
        The row with `layer`, `stages` and `neck`.
    module
        The whole network.
    """

    def __init__(self, backbone: Backbone, module: nn.Module) -> None:
        self._backbone = backbone
        self.module = module

    @property
    def stages(self) -> tuple[str, ...]:
        """Where its stages end, except the last, as the row says."""
        return self._backbone.stages

    def part(self, start: str | None = None, end: str | None = None) -> nn.Module:
        """Return the trunk from one node's output to another's, a tensor in and a tensor out."""
        nodes = {start: "start"} if start else {}
        part = self._extractor({**nodes, end or self._backbone.layer: "end"})
        for graph in (part.train_graph, part.eval_graph):
            _keep_part(graph)
        part.graph = part.train_graph if part.training else part.eval_graph
        return cast(nn.Module, part)

    def pooling(self, pool: str) -> nn.Module:
        """Return what makes embeddings of the trunk's output."""
        return _Pooling(pool, self.module.get_submodule(self._backbone.neck) if self._backbone.neck else None)

    def layers(self) -> list[Layer]:
        """Return the layers that have parameters, as images meet them."""
        backbone = self._backbone
        graph = self._extractor({name: name for name in (*backbone.stages, backbone.layer)}).eval_graph
        (outputs,) = next(node for node in graph.nodes if node.op == "output").args
        ends, stage, found = set(outputs.values()), 1, dict[str, Layer]()
        for node in graph.nodes:
            if node.op in ("call_module", "get_attr") and (own := self._parameters(str(node.target))):
                found.setdefault(str(node.target), Layer(str(node.target), own, stage))
            stage += node in ends
        if neck := backbone.neck:
            found[neck] = Layer(neck, self._parameters(neck), len(backbone.stages) + 1)
        return list(found.values())

    def _parameters(self, place: str) -> tuple[str, ...]:
        names = (name for name, _ in self.module.named_parameters())
        return tuple(name for name in names if name == place or name.startswith(f"{place}."))

    def _extractor(self, nodes: dict[str, str]) -> Any:
        from torchvision.models.feature_extraction import create_feature_extractor

        return create_feature_extractor(self.module, nodes, suppress_diff_warning=True)


class _Pooling(nn.Module):
    """Features to embeddings, with the classifier's normalisation where that belongs to them."""

    def __init__(self, pool: str, neck: nn.Module | None) -> None:
        super().__init__()
        self.pool, self.neck = pool, neck

    def forward(self, features: Tensor) -> Tensor:
        if self.neck is None:
            return POOLS[self.pool].torch(features)
        if self.pool != "flatten":
            features = POOLS[self.pool].torch(features)[:, :, None, None]
        return cast(Tensor, self.neck(features)).flatten(1)


def _keep_part(graph: fx.Graph) -> None:
    """Make the output called `end` the only one, and the one called `start`, where there is one, the input."""
    last = next(node for node in graph.nodes if node.op == "output")
    outputs = dict(last.args[0])
    last.args = (outputs["end"],)
    if start := outputs.get("start"):
        with graph.inserting_after(start):
            activation = graph.placeholder("activation")
        start.replace_all_uses_with(activation)
        for node in reversed(list(takewhile(lambda node: node is not activation, graph.nodes))):
            if not node.users or node.op == "placeholder":  # an error, if the image is still needed
                graph.erase_node(node)  # checks of the image's shape included, which no output depends on
