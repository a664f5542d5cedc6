"""The networks of the table as torch modules: built, loaded, and cut before the classifier."""

from __future__ import annotations

import importlib
import textwrap
from itertools import takewhile
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from tlcache.backbones.backbone import Backbone
from tlcache.backbones.pools import POOLS
from tlcache.errors import UnknownNameError, WeightsError, closest
from tlcache.images import Preprocess

__all__ = ["Embedding", "embedding", "find_layers", "operations", "pretrained", "split", "untrained"]


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
        return self.embedded(self.normalised(image))

    def normalised(self, image: Tensor) -> Tensor:
        """Return what the network's first layer takes: float32, like `image` in shape."""
        return (image.float() - self.mean) * self.scale

    def embedded(self, activation: Tensor) -> Tensor:
        """Return the embeddings of what the trunk takes."""
        features: Tensor = self.trunk(activation)["features"]
        if self.neck is None:
            return POOLS[self.pool].torch(features)
        if self.pool != "flatten":
            features = POOLS[self.pool].torch(features)[:, :, None, None]
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
    `source` names the weights in errors. Inception-v3 shifts its input from ImageNet's normalisation to its own, as
    torchvision has it for its published weights, whatever the weights: a state dict does not say where it began.

    Raises
    ------
    WeightsError
        The names or shapes are not those of the network.
    """
    extra = {"init_weights": False, "transform_input": True} if backbone.builder == "inception_v3" else {}
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


def operations(backbone: Backbone, crop: int) -> int:
    """Return the floating-point operations that an image of `crop` x `crop` pixels takes; none of them is done."""
    from torch.utils.flop_counter import FlopCounterMode

    extra = {"init_weights": False} if backbone.builder == "inception_v3" else {}
    with torch.device("meta"):
        model = _build(backbone, **extra).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, crop, crop, device="meta"))
    return int(counter.get_total_flops())


def _build(backbone: Backbone, **options: Any) -> nn.Module:
    return cast(nn.Module, getattr(importlib.import_module(backbone.module), backbone.builder)(**options))


def embedding(backbone: Backbone, model: nn.Module, pool: str, preprocess: Preprocess) -> Embedding:
    """Cut `model` at the backbone's layer and pool what comes out.

    Raises
    ------
    UnknownNameError
        The backbone has no such pooling.
    """
    if pool not in backbone.pools:
        raise UnknownNameError(closest(f"pooling for {backbone.name}", pool, backbone.pools))
    trunk = _extractor(model, {backbone.layer: "features"})
    neck = model.get_submodule(backbone.neck) if backbone.neck else None
    return Embedding(trunk, neck, pool, preprocess).eval()


def split(backbone: Backbone, model: nn.Module, cut: str | None) -> tuple[nn.Module | None, nn.Module]:
    """Return the trunk in two parts that share its parameters: up to `cut`, one of the stages' ends, and from there on.

    Each takes a tensor and returns another as `features` in a dictionary. Without a cut there is no first part.
    """
    if cut is None:
        return None, _extractor(model, {backbone.layer: "features"})
    stem = _extractor(model, {cut: "features"})
    rest = _extractor(model, {cut: "cut", backbone.layer: "features"})
    for graph in (rest.train_graph, rest.eval_graph):
        _begin_at_cut(graph)
    rest.graph = rest.train_graph if rest.training else rest.eval_graph
    return stem, rest


def find_layers(backbone: Backbone, model: nn.Module) -> list[tuple[str, tuple[str, ...], int]]:
    """Return name, names of parameters and stage (from 1) of every layer that has parameters, as images meet them."""
    graph = _extractor(model, {name: name for name in (*backbone.stages, backbone.layer)}).eval_graph
    (outputs,) = next(node for node in graph.nodes if node.op == "output").args
    ends, stage = set(outputs.values()), 1
    found: dict[str, tuple[tuple[str, ...], int]] = {}
    names = [name for name, _ in model.named_parameters()]
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            own = tuple(name for name in names if name == node.target or name.startswith(f"{node.target}."))
            if own:
                found.setdefault(str(node.target), (own, stage))
        stage += node in ends
    if backbone.neck:
        own = tuple(name for name in names if name.startswith(f"{backbone.neck}."))
        found[backbone.neck] = (own, len(backbone.stages) + 1)
    return [(name, own, at) for name, (own, at) in found.items()]


def _extractor(model: nn.Module, nodes: dict[str, str]) -> Any:
    from torchvision.models.feature_extraction import create_feature_extractor

    return create_feature_extractor(model, nodes, suppress_diff_warning=True)


def _begin_at_cut(graph: fx.Graph) -> None:
    """Make the output called `cut` the input of `graph`, and drop all that led to it."""
    last = next(node for node in graph.nodes if node.op == "output")
    outputs = dict(last.args[0])
    cut = outputs.pop("cut")
    with graph.inserting_after(cut):
        start = graph.placeholder("activation")
    cut.replace_all_uses_with(start)
    last.args = (outputs,)
    for node in reversed(list(takewhile(lambda node: node is not start, graph.nodes))):
        graph.erase_node(node)  # checks of the image's shape included, which no output depends on
