"""What heads learn from: the splits of a feature file, checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tlcache.cache.feature_file import Split
from tlcache.cache.resplit import FeatureSet
from tlcache.errors import CacheError, DataError
from tlcache.evaluation.significance import Units, unit_numbers
from tlcache.evaluation.task import Task, task_on
from tlcache.heads.rows import Array, blocks
from tlcache.heads.uncertainty import Distances
from tlcache.probing.folds import choosing_folds
from tlcache.probing.heldout import distances_of
from tlcache.probing.protocol import SearchProtocol
from tlcache.probing.search import Fold
from tlcache.progress import warn

__all__ = ["Data"]


@dataclass(frozen=True)
class Data:
    """The splits of a feature file; `val` may be empty.

    Parameters
    ----------
    fitting
        Train, and then val.
    train_rows
        How many of them are train.
    test
        The rows that nothing is chosen by.
    classes
        Number of classes, or of columns.
    """

    fitting: Split
    train_rows: int
    test: Split
    classes: int

    @cached_property
    def task(self) -> Task:
        """What is learned."""
        return task_on(self.fitting)

    @property
    def train(self) -> Split:
        """The rows to fit on, which share the memory of `fitting`."""
        return self.fitting.part(slice(self.train_rows))

    @property
    def val(self) -> Split:
        """The rows to choose by, which share the memory of `fitting`."""
        return self.fitting.part(slice(self.train_rows, None))

    @classmethod
    def of(cls, file: FeatureSet) -> Data:
        """Read and check the splits.

        Raises
        ------
        CacheError, DataError
            No rows to train on or to test; features that are not finite.

        Warns
        -----
        All rows are equal.
        """
        fitting, train_rows, test = file.split("train", "val"), int(file.attrs["train_rows"]), file.split("test")
        names = fitting.targets.names if fitting.targets else file.classes
        data = cls(fitting, train_rows, test, len(names))
        for name, split in (("train", data.train), ("val", data.val), ("test", data.test)):
            if not len(split) and name != "val":
                raise DataError(f"'{file.path}' has no {name} images; heads need train and test.")
            if not all(np.isfinite(split.features[some]).all() for some in blocks(len(split))):
                raise CacheError(f"'{file.path}' holds features that are not finite. Extract again.")
        if len(data.val) and not fitting.targets and not np.isin(data.val.labels, data.train.labels).any():
            raise DataError(f"'{file.path}' has no class that is in train and in val; settings cannot be chosen.")
        if _are_equal(data.fitting.features):
            warn(
                f"All embeddings of train and val in '{file.path}' are equal: no head can tell the classes apart. "
                "Look at the weights of the network and at its preprocessing."
            )
        return data

    @cached_property
    def groups(self) -> Units | None:
        """A number for each test image's group (n,); None where there are no groups."""
        return unit_numbers(self.test.groups)

    @cached_property
    def distances(self) -> Distances:
        """How far the rows that are not for testing are from each other."""
        return distances_of(self.fitting)

    def folds(self, protocol: SearchProtocol) -> list[Fold]:
        """Return what settings are chosen by: the validation split, or folds of all rows that are not for testing."""
        return choosing_folds(self.fitting, self.train_rows, protocol.folds, protocol.seed)


def _are_equal(X: Array) -> bool:
    """Return whether rows differ by no more than rounding."""
    return bool(np.ptp(X, axis=0).max() <= 1e-6 * np.abs(X[0]).max())
