"""One recipe on one task: its network, the phases, and what each is fed with."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tlcache.backbones.backbone import Backbone, Layer, Weights
from tlcache.backbones.exported import load_stem
from tlcache.backbones.sources import find
from tlcache.backbones.torch_network import pretrained
from tlcache.backbones.weights import load_state, resolve
from tlcache.cache.attributes import extract_arguments, identity_of
from tlcache.cache.feature_file import Split
from tlcache.cache.resplit import FeatureSet
from tlcache.datasets.dataset import reopen
from tlcache.datasets.splits import SPLITS
from tlcache.datasets.texts import Texts
from tlcache.errors import DataError, OptionError
from tlcache.evaluation import task as tasks
from tlcache.files import cache_folder
from tlcache.finetuning.checkpoints import Checkpoints
from tlcache.finetuning.classifier import Classifier, trained_layers
from tlcache.finetuning.heads import cached_head, fresh_head
from tlcache.finetuning.live import Live
from tlcache.finetuning.methods import layers_to_train, merge
from tlcache.finetuning.pixels import Pixels, open_pixels
from tlcache.finetuning.ranks import first_alone, shared, size
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.sources import Source, from_activations, from_embeddings, from_pixels
from tlcache.finetuning.speed import ComputeFormat, choose_format, forget_peak, peak_bytes
from tlcache.finetuning.teacher import Teacher
from tlcache.finetuning.training import Late, Phase, State, Tell, Training, logits_of
from tlcache.images import MAX_PIXELS, Preprocess
from tlcache.progress import say

__all__ = ["Task", "Trial", "seconds_of"]


@dataclass(frozen=True)
class Task:
    """What there is to train: the rows of a feature file, and the backbone whose embeddings it holds.

    Parameters
    ----------
    attrs
        As in `tlcache.cache.feature_file.FeatureFile`.
    classes
        Names of the classes, or of the columns where labels are several or numbers.
    splits, numbers
        The rows of each split, and their numbers in the file.
    paths, sha256
        Of every row's image, in the order of the file.
    backbone, weights, preprocess
        The network and how its images are prepared.
    device
        `cpu` or `cuda`.
    activations
        Where those of frozen layers are kept; in the cache unless something else is said.
    kept
        Of splits that are trained and judged on in part, the numbers of the rows that are.
    teachers
        Whose answers may be learned beside the labels, by the names of their runs.
    heads
        Heads to begin with that were fitted already.
    live
        Who is told of every epoch.
    """

    attrs: Mapping[str, Any]
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    numbers: Mapping[str, NDArray[np.int64]]
    paths: Sequence[str]
    sha256: tuple[str, ...]
    backbone: Backbone
    weights: Weights
    preprocess: Preprocess
    device: str
    activations: Path | None = None
    kept: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    teachers: Mapping[str, Teacher] = field(default_factory=dict)
    heads: dict[Any, nn.Sequential] = field(default_factory=dict, compare=False, repr=False)
    live: Live = field(default_factory=Live, compare=False)

    @classmethod
    def of(cls, file: FeatureSet, weights: str | None, device: str) -> Task:
        """Read all of a feature file's rows.

        Raises
        ------
        DataError
            A split is empty, or train and val have no class in common.
        """
        splits = {name: file.split(name) for name in SPLITS}
        for name, split in splits.items():
            if not len(split):
                raise DataError(f"'{file.path}' has no {name} images; fine-tuning needs train, val and test.")
        target = _judged(splits, f"'{file.path}'")
        backbone, sha256 = find(file.attrs["backbone"]), tuple(sha256.decode() for sha256 in file.hashes())
        preprocess = Preprocess.from_json(identity_of(file.attrs)["preprocess"])
        allowed = extract_arguments(file.attrs).get("max_pixels") or MAX_PIXELS
        preprocess = replace(preprocess, max_pixels=allowed)
        names = target.answering.names if target.answering else file.classes
        edges = np.cumsum([0, *map(len, splits.values())])  # in the file, splits follow each other
        numbers = {name: np.arange(*edges[n : n + 2]) for n, name in enumerate(splits)}
        paths = reduce(add, (Texts.of(split.paths) for split in splits.values()))
        found = resolve(backbone, weights)
        return cls(file.attrs, names, splits, numbers, paths, sha256, backbone, found, preprocess, device)

    def dealt(self, images: Split, **numbers: NDArray[np.int64]) -> Task:
        """Return the task with other rows in its splits, by their numbers in the file, which begins with `images`.

        Nothing that was fitted on the rows before goes with it.

        Raises
        ------
        DataError
            Train and val have no class in common.
        """
        splits = {name: images.of(rows) for name, rows in numbers.items()}
        _judged(splits, "A fold", " Take fewer folds, or more images of each class.")
        return replace(self, splits=splits, numbers=numbers, heads={})

    def rows(self, *names: str) -> NDArray[np.int64]:
        """Return the numbers of the rows of some splits."""
        return np.concatenate([self.numbers[name][self._kept(name)] for name in names])

    @cached_property
    def target(self) -> tasks.Task:
        """What is learned of the labels; numbers are standardised by those of train."""
        return tasks.task_on(self.splits["train"])

    def labels(self, *names: str) -> NDArray[Any]:
        """Return what is wanted of the rows of some splits: labels (n,), or columns (n, C)."""
        return np.concatenate([self.splits[name].wanted[self._kept(name)] for name in names])

    def features(self, *names: str) -> NDArray[np.float32]:
        """Return the cached embeddings of the rows of some splits."""
        return np.concatenate([self.splits[name].features[self._kept(name)] for name in names])

    def sampled(self, seed: int, **images: int) -> Task:
        """Return the task with at most so many images of some splits, which have all classes in their proportions.

        Of several labels, all combinations of them.
        """
        kept = {name: _sample(self.splits[name].labels, count, seed) for name, count in images.items()}
        return replace(self, kept=kept)

    def told_as(self, training: str) -> Task:
        """Return the task whose epochs are told as those of one of several trainings."""
        return replace(self, live=self.live.of(training))

    def head(self, kind: str, seed: int, refit: bool, class_weight: str | None) -> nn.Sequential:
        """Return a head that was fitted on the cached embeddings, of all images; it is fitted once."""
        asked = (kind, seed, refit, class_weight)
        if asked not in self.heads:
            train, val, classes = self.splits["train"], self.splits["val"], len(self.classes)
            self.heads[asked] = cached_head(kind, train, val, classes, seed, refit, class_weight, self.target)
        return deepcopy(self.heads[asked])

    def _kept(self, name: str) -> NDArray[np.int64]:
        return self.kept.get(name, np.arange(len(self.splits[name])))

    @cached_property
    def pixels(self) -> Pixels:
        """The images, decoded when they are first asked for."""
        return open_pixels(reopen(self.attrs["source"]), self.paths, self.sha256, self.preprocess)


class Trial:
    """A network that is trained by a recipe.

    Parameters
    ----------
    task, recipe
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

    def __init__(self, task: Task, recipe: Recipe, refit: Mapping[str, int] | None = None) -> None:
        _check_processes(recipe, task.device)
        started, self.peak_bytes = time.perf_counter(), 0
        self.task, self.recipe, self._refit = task, recipe, refit
        self._fitted = ("train",) if refit is None else ("train", "val")
        backbone = task.backbone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.head = self._head().to(task.device)
        state = load_state(task.weights)
        self._network = pretrained(backbone, state, task.weights.label, task.preprocess)
        self.model = self._network.module.to(task.device)
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
        task, recipe, started = self.task, self.recipe, time.perf_counter()
        training = Training(
            self.model,
            self.head,
            recipe,
            task.target,
            len(task.classes),
            task.device,
            checkpoints,
            tell,
            late,
            task.live,
        )
        with torch.random.fork_rng():
            state = shared(lambda: self._begin(training.both, checkpoints, way))
            known = len(state.history)
            phases = first_alone(self._phases)
            forget_peak(task.device)
            found = training.run(phases, state)
            self.peak_bytes = peak_bytes(task.device)
        merge(self.model)
        self.setup_s += time.perf_counter() - started - seconds_of(found.history[known:])
        return found

    def _begin(self, both: nn.Module, checkpoints: Checkpoints, way: ComputeFormat | None) -> State:
        saved = checkpoints.latest()
        if saved and (saved["average"] is None or "n_averaged" in saved["average"]):  # earlier versions kept another
            return State(**saved)
        recipe, task, rates = self.recipe, self.task, dict[str, float]()
        if way is None:
            way, rates = choose_format(recipe.precision, recipe.layout, self.network, task.preprocess.crop, task.device)
        return State(way.precision, way.layout, rates, both.state_dict())

    def logits(self, split: str, way: ComputeFormat) -> NDArray[np.float32]:
        """Return logits (n, C) of the images of a split as they are; -inf for classes without an image to train on."""
        images = self._images("none", split)
        logits = shared(lambda: logits_of(self.network, images, self.task.device, way))
        logits[:, ~self.task.target.seen(self.task.labels(*self._fitted), np.arange(logits.shape[1]))] = -np.inf
        return logits

    def _head(self) -> nn.Sequential:
        recipe, task = self.recipe, self.task
        if recipe.init_head == "scratch":
            return fresh_head(recipe.head, task.splits["train"].features.shape[1], len(task.classes))
        return task.head(recipe.head, recipe.seed, self._refit is not None, recipe.class_weight)

    def classifier(self, unfreeze: str) -> Classifier:
        """Return the network with these layers to train."""
        return self._classifier(trained_layers(self.task.backbone, self._network, unfreeze))

    def suits(self, unfreeze: str) -> bool:
        """Return whether these are layers of the network, and not all of them unless `all` is asked."""
        kind, _, number = unfreeze.partition(":")
        return kind == "all" or int(number) < self.layers[-1].stage

    def _classifier(self, layers: list[Layer]) -> Classifier:
        task = self.task
        still = self.recipe.batch_norm == "eval"
        return Classifier(task.backbone, self._network, self.head, task.preprocess, layers, still).to(task.device)

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
        task = self.task
        if self.recipe.distill is None:
            return None
        first, *more = (task.splits[name] for name in self._fitted)
        rows = first.joined(more[0]) if more else first
        hashes = tuple(task.sha256[row] for row in task.rows(*self._fitted))
        return torch.from_numpy(
            task.teachers[self.recipe.distill].answers(rows, hashes, len(task.classes), self.recipe.seed)
        )

    def _images(self, preset: str, *splits: str) -> Source:
        task = self.task
        return from_pixels(task.pixels, task.rows(*splits), task.labels(*splits), preset, self.recipe.seed, task.device)

    def _embeddings(self, preset: str, *splits: str) -> Source:
        """Return the cached embeddings, which know of no augmentation."""
        del preset
        features = self.task.features(*splits)
        return from_embeddings(features, self.task.labels(*splits))

    def _activations(self, preset: str, *splits: str) -> Source:
        task, recipe = self.task, self.recipe
        assert self.network.cut is not None
        crop = task.preprocess.crop
        probe = torch.zeros(1, 3, crop, crop, dtype=torch.uint8, device=task.device)
        return from_activations(
            load_stem(task.backbone, task.weights, task.preprocess, self.network.cut),
            tuple(self.network.before(probe).shape[1:]),
            task.pixels,
            task.rows(*splits),
            task.labels(*splits),
            preset,
            recipe.seed,
            recipe.views,
            task.device,
            task.activations or cache_folder() / "activations",
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


def _judged(splits: Mapping[str, Split], where: str, advice: str = "") -> tasks.Task:
    """Return what is learned; there is something to judge epochs by."""
    target = tasks.task_on(splits["train"])
    if not target.seen(splits["train"].wanted, splits["val"].wanted).any():
        raise DataError(f"{where} has no class that is in train and in val; epochs cannot be judged.{advice}")
    return target


def _sample(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return the numbers of at most so many rows: one of every class first, then each class by its share."""
    order = np.random.default_rng(seed).permutation(len(labels))
    turns = np.zeros(len(labels))
    for label in np.unique(labels):
        own = order[labels[order] == label]
        turns[own] = np.where(np.arange(len(own)) == 0, 0.0, (np.arange(len(own)) + 0.5) / len(own))
    return np.sort(order[np.argsort(turns[order], kind="stable")][:count])


def seconds_of(history: Sequence[Mapping[str, Any]]) -> float:
    """Return what epochs cost, validation included."""
    return float(sum(epoch.get("train_s", 0.0) + epoch["val_s"] for epoch in history))
