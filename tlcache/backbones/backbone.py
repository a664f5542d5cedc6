"""What a backbone says of itself, and what a source of backbones has to be able to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tlcache.backbones.model import UNKNOWN, Model
from tlcache.backbones.pools import POOLS
from tlcache.errors import UnknownNameError, closest
from tlcache.images import Preprocess

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tlcache.backbones.output import Output

__all__ = ["LAST", "OF_MAPS", "Backbone", "Checkpoint", "Layer", "Source", "TorchNetwork", "Weights"]


LAST = "last"
OF_MAPS = ("avg", "max", "gem", "flatten")


@dataclass(frozen=True)
class Checkpoint:
    """Published weights of one backbone.

    Parameters
    ----------
    name
        What the source calls them.
    file
        File name.
    top1
        Accuracy in per cent on images of `task` that were not trained on: as torchvision states it, or our model card;
        None where nobody does.
    preprocess
        The preprocessing the weights were evaluated with.
    task
        What the weights were trained on.
    licence
        Licence of the weights.
    """

    name: str
    file: str
    top1: float | None
    preprocess: Preprocess = Preprocess()
    task: str = "ImageNet"
    licence: str = "BSD-3-Clause"


@dataclass(frozen=True)
class Weights:
    """Weights on disk: `label` for people, `path` of a state dict, `sha256` of its bytes."""

    label: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Backbone:
    """A network, cut before its classifier or earlier.

    Parameters
    ----------
    name
        Our name of it.
    source
        Where it comes from: what finds its weights and builds it.
    builder
        What the source builds it by: torchvision's name of it, the path of a file.
    dim
        Length of the embedding with the default pooling; 0 where only the network itself tells.
    parameters
        Parameters of the whole network with its published classifier; 0 where they were not counted.
    layer
        Where the trunk ends, as the source names places in it: the output there is pooled into the embedding.
    stages
        Where the stages of the trunk end, except the last, which ends at `layer`. A single tensor passes there, so the
        trunk can be frozen up to it and cut in two.
    checkpoints
        Published weights by their short name, `imagenet`, `imagenet_v2` or `embedded`; the first are the default.
    pools
        Poolings that make sense, the default first; empty where there is nothing to pool.
    neck
        Module of the classifier that still belongs to the embedding (a normalisation), if any.
    usual
        How images are prepared where no weights are published.
    """

    name: str
    source: Source
    builder: str
    dim: int = 0
    parameters: int = 0
    layer: str = ""
    stages: tuple[str, ...] = ()
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)
    pools: tuple[str, ...] = OF_MAPS
    neck: str | None = None
    usual: Preprocess = Preprocess()

    @property
    def default_weights(self) -> str | None:
        """The short name of the weights that are taken when none are asked for; None where none are published."""
        return next(iter(self.checkpoints), None)

    @property
    def at_hand(self) -> list[str]:
        """The short names of the published weights that are on this machine."""
        return self.source.at_hand(self)

    @property
    def origin(self) -> dict[str, str]:
        """What tells the network from all others, as a part of the cache key.

        The source is named, but for the first two: their keys are older than sources, and `builder` alone tells them
        apart.
        """
        built = {"builder": self.builder}
        return built if self.source.name in _UNNAMED else {"source": self.source.name, **built}

    def preprocess(self, weights: str | None = None) -> Preprocess:
        """Return how images are prepared for published weights; for others as for those that are the default."""
        found = self.checkpoints.get(weights or "") or next(iter(self.checkpoints.values()), None)
        return found.preprocess if found else self.usual

    @property
    def outputs(self) -> dict[str, str]:
        """What can be the embedding: `stage:1` and so on, and `last` -> where that is, as the source names places."""
        ends = {f"stage:{number}": end for number, end in enumerate((*self.stages, self.layer), 1)}
        return {**ends, LAST: self.layer}

    def cut(self, output: str | None) -> Backbone:
        """Return the backbone up to one of its `outputs`; None is the last.

        Raises
        ------
        UnknownNameError
            It has no such output.
        """
        output = output or LAST
        if output not in self.outputs:
            raise UnknownNameError(
                f"{closest(f'layer of {self.name}', output, list(self.outputs))} "
                f"See: tlcache layers --model {self.name}"
            )
        end = self.outputs[output]
        if end == self.layer:
            return self
        pools = tuple(pool for pool in self.pools if pool in POOLS) or OF_MAPS
        return replace(self, dim=0, layer=end, stages=self.stages[: self.stages.index(end)], neck=None, pools=pools)

    def pool(self, asked: str | None = None) -> str:
        """Return the pooling that is asked for, or the default.

        Raises
        ------
        UnknownNameError
            The backbone has no such pooling.
        """
        if not self.pools:
            return "flatten"  # of a row, which needs none
        if asked is None:
            return self.pools[0]
        if asked not in self.pools:
            raise UnknownNameError(closest(f"pooling for {self.name}", asked, self.pools))
        return asked

    def licence(self, weights: str) -> str:
        """Return the licence of published weights, and what they were trained on; "unknown" of others."""
        found = self.checkpoints.get(weights)
        return f"{found.licence}, trained on {found.task}" if found and found.licence != UNKNOWN else UNKNOWN

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        weights = {
            name: {"top1": each.top1, "task": each.task, "licence": each.licence}
            for name, each in self.checkpoints.items()
        }
        counts = {"dim": self.dim, "parameters": self.parameters}
        return {"name": self.name, "source": self.source.name, **counts, "weights": weights, "at_hand": self.at_hand}


_UNNAMED = ("torchvision", "embedded")


class Source(Protocol):
    """Where backbones come from: one object in one file, and an entry of `tlcache.backbones.sources.SOURCES`.

    Attributes
    ----------
    name
        Its own name; part of the cache key (see `Backbone.origin`).
    form
        How its models are asked for where they have no listed names, for people: "an ONNX file".
    trainable
        Whether its networks are torch modules, so that `build` works and they can be fine-tuned.
    """

    name: str
    form: str
    trainable: bool

    def names(self, pattern: str | None = None) -> Sequence[str]:
        """Return the names that match a shell pattern; without one, those that are worth listing."""

    def find(self, model: str) -> Backbone | None:
        """Return what `--model` names when it is one of this source's, without a look at weights; otherwise None.

        Raises
        ------
        UnknownNameError
            It can be of no other source, and this one has no such backbone.
        """

    def at_hand(self, backbone: Backbone) -> list[str]:
        """Return the short names of the published weights that are on this machine."""

    def weights(self, backbone: Backbone, name: str) -> Weights:
        """Return published weights by their short name, downloaded where they are not here.

        Raises
        ------
        WeightsError
            They cannot be had, or are damaged.
        """

    def build(
        self, backbone: Backbone, preprocess: Preprocess, state: Mapping[str, Tensor] | None = None
    ) -> TorchNetwork:
        """Return the whole network for images of that size, with a classifier of as many classes as `state` has.

        `state` is loaded strictly: RuntimeError says what does not fit. Without it the network is initialised from
        torch's generator.
        """

    def load(
        self, backbone: Backbone, weights: str | None, pool: str | None, output: str | None, changes: Mapping[str, Any]
    ) -> Model:
        """Return the float32 network that embeds images; arguments and errors are those of `load_model`.

        For sources that build torch networks this is `tlcache.backbones.exported.from_torch`.
        """

    def layers(self, backbone: Backbone, changes: Mapping[str, Any]) -> list[Output]:
        """Return the layers whose output can be the embedding, as images meet them, for changed preprocessing.

        For sources that build torch networks this is `tlcache.backbones.layers.outputs_of`.
        """


class TorchNetwork(Protocol):
    """A network of torch, whole and in parts that share its parameters.

    Attributes
    ----------
    module
        The whole network, whose state dict is that of its weights.
    """

    module: nn.Module

    @property
    def stages(self) -> tuple[str, ...]:
        """Where its stages end, except the last; empty, if it cannot be cut there."""

    def part(self, start: str | None = None, end: str | None = None) -> nn.Module:
        """Return the trunk from one stage's end to another's, a tensor in and a tensor out.

        Without `start` it takes normalised images, float32 (batch, 3, H, W), without `end` it gives what is pooled.
        """

    def pooling(self, pool: str) -> nn.Module:
        """Return what makes embeddings (batch, dim) of the trunk's output, the classifier's normalisation included."""

    def layers(self) -> list[Layer]:
        """Return the layers of the trunk, and of what `pooling` adds, that have parameters, as images meet them."""


@dataclass(frozen=True)
class Layer:
    """A layer that has parameters: its name, theirs, and its stage from 1 at the image on."""

    name: str
    parameters: tuple[str, ...]
    stage: int
