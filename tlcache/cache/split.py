"""The rows of a split, as whatever learns from embeddings takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.datasets.tasks import Targets
from tlcache.datasets.texts import Texts, picked
from tlcache.heads.rows import View

__all__ = ["Split"]


@dataclass(frozen=True)
class Split:
    """The rows of one split, in the file's order.

    Parameters
    ----------
    features
        float32 (n, dim).
    labels
        int64 (n,), indices into the file's classes.
    paths
        n paths relative to the dataset's root; they name the rows across runs.
    groups
        n group names, empty where there is none.
    widths
        Of the embeddings that are joined in a row of features; empty where there is one.
    targets
        What the file's classes say, where they are several labels or a number each; None where they are classes.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    paths: Sequence[str]
    groups: Sequence[str]
    widths: tuple[int, ...] = ()
    targets: Targets | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def joined(self, other: Split) -> Split:
        """Return these rows and then those of `other`."""
        return replace(
            self,
            features=np.concatenate([self.features, other.features]),
            labels=np.concatenate([self.labels, other.labels]),
            paths=Texts.of(self.paths) + other.paths,
            groups=Texts.of(self.groups) + other.groups,
        )

    def part(self, rows: slice) -> Split:
        """Return the rows of a slice, which share the memory of these."""
        return Split(
            self.features[rows],
            self.labels[rows],
            self.paths[rows],
            self.groups[rows],
            self.widths,
            self.targets,
        )

    def of(self, rows: NDArray[np.int64]) -> Split:
        """Return some of the rows, by their numbers."""
        paths, groups = (picked(names, rows) for names in (self.paths, self.groups))
        return Split(self.features[rows], self.labels[rows], paths, groups, self.widths, self.targets)

    @property
    def wanted(self) -> NDArray[Any]:
        """What heads are to answer: labels (n,), or of several labels 0 and 1, of numbers these, (n, C)."""
        return self.labels if self.targets is None else self.targets.values[self.labels]

    @property
    def strata(self) -> NDArray[Any]:
        """What splits are to have alike: labels (n,), or what `Targets.strata` returns."""
        return self.labels if self.targets is None else self.targets.strata(self.labels)

    def view(self, rows: NDArray[np.int64] | None = None) -> View:
        """Return the features of some rows, by their numbers, or of all, as heads read them."""
        return View(self.features, rows, widths=self.widths)
