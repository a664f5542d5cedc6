"""What fine-tuning learns from: the rows of a feature file, their images, and the backbone that embedded them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tlcache.backbones.backbone import Backbone, Weights
from tlcache.backbones.sources import find
from tlcache.backbones.weights import resolve
from tlcache.cache.attributes import extract_arguments, identity_of
from tlcache.cache.feature_file import Split
from tlcache.cache.resplit import FeatureSet
from tlcache.datasets.dataset import reopen
from tlcache.datasets.splits import SPLITS
from tlcache.datasets.texts import Texts
from tlcache.errors import DataError
from tlcache.evaluation.task import Task, task_on
from tlcache.finetuning.heads import cached_head
from tlcache.finetuning.live import Live
from tlcache.finetuning.pixels import Pixels, open_pixels
from tlcache.finetuning.teacher import Teacher
from tlcache.images import MAX_PIXELS, Preprocess
from tlcache.progress import say

__all__ = ["TuningData"]


@dataclass(frozen=True)
class TuningData:
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
    def of(cls, file: FeatureSet, weights: str | None, device: str) -> TuningData:
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

    def dealt(self, images: Split, **numbers: NDArray[np.int64]) -> TuningData:
        """Return the same with other rows in its splits, by their numbers in the file, which begins with `images`.

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
    def target(self) -> Task:
        """What is learned of the labels; numbers are standardised by those of train."""
        return task_on(self.splits["train"])

    def labels(self, *names: str) -> NDArray[Any]:
        """Return what is wanted of the rows of some splits: labels (n,), or columns (n, C)."""
        return np.concatenate([self.splits[name].wanted[self._kept(name)] for name in names])

    def features(self, *names: str) -> NDArray[np.float32]:
        """Return the cached embeddings of the rows of some splits."""
        return np.concatenate([self.splits[name].features[self._kept(name)] for name in names])

    def sampled(self, seed: int, **images: int) -> TuningData:
        """Return the same with at most so many images of some splits, which have all classes in their proportions.

        Of several labels, all combinations of them.
        """
        kept = {name: _sample(self.splits[name].labels, count, seed) for name, count in images.items()}
        return replace(self, kept=kept)

    def told_as(self, training: str) -> TuningData:
        """Return the same, whose epochs are told as those of one of several trainings."""
        return replace(self, live=self.live.of(training))

    def head(self, kind: str, seed: int, refit: bool, class_weight: str | None) -> nn.Sequential:
        """Return a head that was fitted on the cached embeddings, of all images; it is fitted once."""
        asked = (kind, seed, refit, class_weight)
        if asked not in self.heads:
            say("fitting the head that training begins with ...")
            train, val, classes = self.splits["train"], self.splits["val"], len(self.classes)
            self.heads[asked] = cached_head(kind, train, val, classes, seed, refit, class_weight, self.target)
        return deepcopy(self.heads[asked])

    def _kept(self, name: str) -> NDArray[np.int64]:
        return self.kept.get(name, np.arange(len(self.splits[name])))

    @cached_property
    def pixels(self) -> Pixels:
        """The images, decoded when they are first asked for."""
        return open_pixels(reopen(self.attrs["source"]), self.paths, self.sha256, self.preprocess)


def _judged(splits: Mapping[str, Split], where: str, advice: str = "") -> Task:
    """Return what is learned; there is something to judge epochs by."""
    target = task_on(splits["train"])
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
