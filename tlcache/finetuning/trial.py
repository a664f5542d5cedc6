"""One recipe on some data: its network, the phases, and what each is fed with."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tlcache.backbones.backbone import Layer
from tlcache.backbones.exported import load_stem
from tlcache.backbones.torch_network import pretrained
from tlcache.backbones.weights import load_state
from tlcache.errors import OptionError
from tlcache.files import cache_folder
from tlcache.finetuning.checkpoints import Checkpoints
from tlcache.finetuning.classifier import Classifier, trained_layers
from tlcache.finetuning.data import TuningData
from tlcache.finetuning.heads import fresh_head
from tlcache.finetuning.methods import layers_to_train, merge
from tlcache.finetuning.ranks import first_alone, shared, size
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.sources import Source, from_activations, from_embeddings, from_pixels
from tlcache.finetuning.speed import ComputeFormat, choose_format, forget_peak, peak_bytes
from tlcache.finetuning.training import Late, Phase, State, Tell, Training, logits_of
from tlcache.progress import say

__all__ = ["Trial", "seconds_of"]


class Trial:
    """A network that is trained by a recipe.

    Parameters
    ----------
    data, recipe
        What is trained, and how.
    refit
        Train on train + val, without validation, for these numbers of epochs of each phase.

    Attributes
    ----------
    trained_parameters, peak_bytes
        How many numbers are trained, and the largest memory that this process, or the GPU, had while they were.
    setup_s
        Seconds beside the epochs: the cached head, decoding, activations, measuring how to compute, checkpoints. Of a
        run that was resumed, those since then.
    """

    def __init__(self, data: TuningData, recipe: Recipe, refit: Mapping[str, int] | None = None) -> None:
        _check_processes(recipe, data.device)
        started, self.peak_bytes = time.perf_counter(), 0
        self.data, self.recipe, self._refit = data, recipe, refit
        self._fitted = ("train",) if refit is None else ("train", "val")
        backbone = data.backbone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.head = self._head().to(data.device)
        state = load_state(data.weights)
        self._network = pretrained(backbone, state, data.weights.label, data.preprocess)
        self.model = self._network.module.to(data.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.layers = layers_to_train(recipe, backbone, self._network)
        self.network = self._classifier(self.layers)
        named = dict(self.model.named_parameters())
        own = [named[name] for layer in self.layers for name in layer.parameters]
        self.trained_parameters = sum(each.numel() for each in (*own, *self.head.parameters()))
        self.setup_s = time.perf_counter() - started

    def train(
        self,
        checkpoints: Checkpoints,
        way: ComputeFormat | None = None,
        tell: Tell = say,
        late: Late | None = None,
    ) -> State:
        """Train, or go on where the checkpoints end; the best weights are in the network afterwards.

        How to compute is measured, where the recipe leaves it open and `way` does not say. `tell` is told of every
        epoch, and `late` may end it after one.
        """
        data, recipe, started = self.data, self.recipe, time.perf_counter()
        training = Training(
            self.model,
            self.head,
            recipe,
            data.target,
            len(data.classes),
            data.device,
            checkpoints,
            tell,
            late,
            data.live,
        )
        with torch.random.fork_rng():
            state = shared(lambda: self._begin(training.both, checkpoints, way))
            known = len(state.history)
            phases = first_alone(self._phases)
            forget_peak(data.device)
            found = training.run(phases, state)
            self.peak_bytes = peak_bytes(data.device)
        merge(self.model)
        self.setup_s += time.perf_counter() - started - seconds_of(found.history[known:])
        return found

    def _begin(self, both: nn.Module, checkpoints: Checkpoints, way: ComputeFormat | None) -> State:
        saved = checkpoints.latest()
        if saved and (saved["average"] is None or "n_averaged" in saved["average"]):  # earlier versions kept another
            return State(**saved)
        recipe, data, rates = self.recipe, self.data, dict[str, float]()
        if way is None:
            way, rates = choose_format(recipe.precision, recipe.layout, self.network, data.preprocess.crop, data.device)
        return State(way.precision, way.layout, rates, both.state_dict())

    def logits(self, split: str, way: ComputeFormat) -> NDArray[np.float32]:
        """Return logits (n, C) of the images of a split as they are; -inf for classes without an image to train on."""
        images = self._images("none", split)
        logits = shared(lambda: logits_of(self.network, images, self.data.device, way))
        logits[:, ~self.data.target.seen(self.data.labels(*self._fitted), np.arange(logits.shape[1]))] = -np.inf
        return logits

    def _head(self) -> nn.Sequential:
        recipe, data = self.recipe, self.data
        if recipe.init_head == "scratch":
            return fresh_head(recipe.head, data.splits["train"].features.shape[1], len(data.classes))
        return data.head(recipe.head, recipe.seed, self._refit is not None, recipe.class_weight)

    def classifier(self, unfreeze: str) -> Classifier:
        """Return the network with these layers to train."""
        return self._classifier(trained_layers(self.data.backbone, self._network, unfreeze))

    def suits(self, unfreeze: str) -> bool:
        """Return whether these are layers of the network, and not all of them unless `all` is asked."""
        kind, _, number = unfreeze.partition(":")
        return kind == "all" or int(number) < self.layers[-1].stage

    def _classifier(self, layers: list[Layer]) -> Classifier:
        data = self.data
        still = self.recipe.batch_norm == "eval"
        return Classifier(data.backbone, self._network, self.head, data.preprocess, layers, still).to(data.device)

    def _phases(self) -> list[Phase]:
        recipe, phases = self.recipe, []
        if recipe.init_head == "scratch":
            phases.append(self._phase("head", self._classifier([]), [], recipe.head_epochs, recipe.head_lr))
        phases.append(self._phase("backbone", self.network, self.layers, recipe.epochs, recipe.learning_rate))
        return phases

    def _phase(self, name: str, network: Classifier, layers: list[Layer], epochs: int, rate: float) -> Phase:
        sources = {"head": self._embeddings, "backbone": self._activations}
        cached = self.recipe.cached_prefix or (name == "head" and self.recipe.augment == "none")
        source = sources[name] if cached else self._images
        train = source(self.recipe.augment, *self._fitted)
        val = None if self._refit else source("none", "val")
        stop = self._refit[name] if self._refit else epochs
        return Phase(name, network, layers, epochs, stop, rate, train, val, self._taught, self._refit is not None)

    @cached_property
    def _taught(self) -> torch.Tensor | None:
        """What the teacher says of the images that are trained on."""
        data = self.data
        if self.recipe.distill is None:
            return None
        first, *more = (data.splits[name] for name in self._fitted)
        rows = first.joined(more[0]) if more else first
        hashes = tuple(data.sha256[row] for row in data.rows(*self._fitted))
        return torch.from_numpy(
            data.teachers[self.recipe.distill].answers(rows, hashes, len(data.classes), self.recipe.seed)
        )

    def _images(self, preset: str, *splits: str) -> Source:
        data = self.data
        return from_pixels(data.pixels, data.rows(*splits), data.labels(*splits), preset, self.recipe.seed, data.device)

    def _embeddings(self, preset: str, *splits: str) -> Source:
        """Return the cached embeddings, which know of no augmentation."""
        del preset
        features = self.data.features(*splits)
        return from_embeddings(features, self.data.labels(*splits))

    def _activations(self, preset: str, *splits: str) -> Source:
        data, recipe = self.data, self.recipe
        assert self.network.cut is not None
        crop = data.preprocess.crop
        probe = torch.zeros(1, 3, crop, crop, dtype=torch.uint8, device=data.device)
        return from_activations(
            load_stem(data.backbone, data.weights, data.preprocess, self.network.cut),
            tuple(self.network.before(probe).shape[1:]),
            data.pixels,
            data.rows(*splits),
            data.labels(*splits),
            preset,
            recipe.seed,
            recipe.views,
            data.device,
            data.activations or cache_folder() / "activations",
        )


def _check_processes(recipe: Recipe, device: str) -> None:
    if recipe.batch_size < 2 * size() * recipe.accumulate:
        parts = f"{size()} processes" if recipe.accumulate == 1 else f"{recipe.accumulate} parts (--accumulate)"
        parts += f" of {size()} processes" if recipe.accumulate > 1 < size() else ""
        raise OptionError(
            f"--batch-size {recipe.batch_size} leaves {parts} less than 2 images each. Give a larger one."
        )
    if recipe.sync_batch_norm and size() > 1 and device == "cpu":
        raise OptionError(
            f"--sync-batch-norm is torch's SyncBatchNorm, which computes on GPUs alone; found {size()} processes on "
            "CPUs. Pass --batch-norm eval instead, which keeps the statistics, or train in one process."
        )


def seconds_of(history: Sequence[Mapping[str, Any]]) -> float:
    """Return what epochs cost, validation included."""
    return float(sum(epoch.get("train_s", 0.0) + epoch["val_s"] for epoch in history))
