"""The folds that all images are tested in, one after the other, and what comes of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tlcache.arguments import folds_of, spelled
from tlcache.cache.feature_file import Split
from tlcache.cache.resplit import FeatureSet
from tlcache.errors import DataError
from tlcache.evaluation.metrics import evaluate
from tlcache.evaluation.perclass import class_figures
from tlcache.evaluation.resampled import error_of, resampled, within
from tlcache.evaluation.significance import Units, unit_numbers
from tlcache.heads.rows import Array, Indices
from tlcache.keys import hash_json
from tlcache.probing.folds import split_folds
from tlcache.runs.base import Figures
from tlcache.runs.classes import ClassFigures
from tlcache.runs.folds import CrossValidation

__all__ = ["OuterFold", "Tested", "in_folds", "outer_folds", "images_in_turn"]


def in_folds(attrs: Mapping[str, Any], cv: str, seed: int) -> dict[str, Any]:
    """Return the attributes of a feature file, with a digest for these folds, as they are other test images."""
    own = attrs["dataset_digest"]
    return {"given_digest": own, **attrs, "dataset_digest": hash_json({"digest": own, "cv": spelled(cv), "seed": seed})}


def images_in_turn(file: FeatureSet) -> Split:
    """Return the first rows of a file, those that are tested in turn: all, save a test split of the dataset itself.

    Raises
    ------
    DataError
        Features that are not finite.
    """
    drawn = "test" in str(file.attrs.get("drawn", "")).split(",")
    images = file.split("train", "val", *(["test"] if drawn else []))
    if not np.isfinite(images.features).all():
        raise DataError(f"'{file.path}' holds features that are not finite. Extract again.")
    return images


@dataclass(frozen=True)
class OuterFold:
    """One fold of one repetition, by the numbers of its images.

    Parameters
    ----------
    repeat
        Which repetition, from 0 on.
    fit, held
        Images to choose and to fit on, and images to test.
    """

    repeat: int
    fit: Indices
    held: Indices


def outer_folds(images: Split, cv: str, seed: int) -> list[OuterFold]:
    """Return every fold of every repetition: stratified, groups and byte-identical images whole.

    Raises
    ------
    DataError
        There are fewer groups of images than folds, or no class has as many images.
    """
    folds, repeats = folds_of(cv)
    return [OuterFold(n, fit, held) for n in range(repeats) for fit, held in split_folds(images, folds, seed + n)]


@dataclass(frozen=True)
class Tested:
    """What was said of every image, once for each repetition.

    Parameters
    ----------
    images, probabilities, fold
        (n,) images without their features, (n, C) and (n,): which fold of all repetitions.
    repeat
        (J,) the repetition of each fold.
    share
        Images of a fold, to those that were fitted on.
    """

    images: Split
    probabilities: Array
    fold: Indices
    repeat: Indices
    share: float

    @classmethod
    def of(cls, images: Split, folds: Sequence[OuterFold], probabilities: Sequence[Array]) -> Tested:
        """Return what was said in each fold of its held images, in their order."""
        rows = np.concatenate([each.held for each in folds])
        found = replace(images, features=images.features[:, :0]).of(rows)
        fold = np.repeat(np.arange(len(folds)), [len(each.held) for each in folds])
        share = len(rows) / sum(len(each.fit) for each in folds)
        return cls(found, np.concatenate(probabilities), fold, np.array([each.repeat for each in folds]), share)

    @property
    def units(self) -> Units | None:
        """A number for each image, or group of images (n,)."""
        return unit_numbers([group or path for group, path in zip(self.images.groups, self.images.paths, strict=True)])

    @property
    def by_fold(self) -> NDArray[np.float64]:
        """Accuracy of every fold (J,)."""
        return np.bincount(self.fold, self._right) / np.bincount(self.fold)

    @property
    def _right(self) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = self.probabilities.argmax(axis=1) == self.images.labels
        return right

    @property
    def repeats(self) -> int:
        """How often every image was tested."""
        return int(self.repeat[-1]) + 1

    @property
    def by_repeat(self) -> NDArray[np.float64]:
        """Accuracy of every repetition."""
        sizes = np.bincount(self.fold)
        return np.bincount(self.repeat, self.by_fold * sizes) / np.bincount(self.repeat, sizes)

    @cached_property
    def figures(self) -> Figures:
        """What is reached, the interval of the accuracy by the corrected resampled test."""
        found = evaluate(self.images.labels, self.probabilities, self.units)
        low, high = within(resampled(self.by_fold, self.share, error_of(self._right)))
        n = len(set(self.images.paths))
        return msgspec.structs.replace(found, n=n, accuracy_low=low, accuracy_high=high)

    def classes(self, names: Sequence[str]) -> tuple[ClassFigures, ...]:
        """Return what is reached on each class, of its images, which were tested several times."""
        found = class_figures(names, self.images.labels, self.probabilities, self.units)
        return tuple(msgspec.structs.replace(each, n=each.n // self.repeats) for each in found)

    def described(self, chosen: Sequence[Mapping[str, Any]]) -> CrossValidation:
        """Return the folds as records have them, with what was chosen in each."""
        return CrossValidation(
            folds=len(self.repeat) // self.repeats,
            repeats=self.repeats,
            share=self.share,
            accuracy=tuple(self.by_fold.tolist()),
            chosen=tuple(chosen),
        )
