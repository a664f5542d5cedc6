"""Rows by their numbers -> pairs, label issues and odd images by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tlcache.auditing.findings import DuplicatePair, LabelIssue, OddImage
from tlcache.auditing.labels import FlaggedRow
from tlcache.auditing.neighbours import Pairs
from tlcache.cache.feature_file import Split
from tlcache.datasets.splits import SPLITS
from tlcache.tasks import REGRESSION

__all__ = ["Listing"]

_APART = 0.5  # of the standard deviation of all numbers, between those of copies


class Listing:
    """Names of the rows of a feature file.

    Parameters
    ----------
    rows
        All of them.
    splits
        uint8 (n,), indices into `SPLITS`.
    classes
        Names of the classes.
    """

    def __init__(self, rows: Split, splits: NDArray[np.uint8], classes: Sequence[str]) -> None:
        self._rows, self._splits, self._classes = rows, splits, classes

    def pair(self, first: int, second: int, cosine: float, exact: bool) -> DuplicatePair:
        """Return two rows as a pair."""
        return DuplicatePair(
            first=self._rows.paths[first],
            second=self._rows.paths[second],
            cosine=cosine,
            exact=exact,
            first_split=self.split(first),
            second_split=self.split(second),
            first_label=self.label(first),
            second_label=self.label(second),
            apart=self._apart(first, second),
        )

    def _apart(self, first: int, second: int) -> bool | None:
        """Return whether the numbers of two rows differ by more than half of their standard deviation."""
        if self._rows.targets is None or self._rows.targets.task != REGRESSION:
            return None
        one, other = (float(self._numbers[row]) for row in (first, second))
        return abs(one - other) > _APART * float(self._numbers.std())

    @cached_property
    def _numbers(self) -> NDArray[np.float64]:
        return self._rows.wanted.astype(np.float64).ravel()

    def exact(self, hashes: NDArray[np.bytes_]) -> tuple[DuplicatePair, ...]:
        """Return every further copy of an image with the first one."""
        first: dict[bytes, int] = {}
        found = ((first.setdefault(digest, row), row) for row, digest in enumerate(hashes.tolist()))
        return tuple(self.pair(one, other, 1.0, True) for one, other in found if one != other)

    def near(self, pairs: Pairs, hashes: NDArray[np.bytes_]) -> tuple[DuplicatePair, ...]:
        """Return the pairs that are not exact."""
        some = np.flatnonzero(hashes[pairs.first] != hashes[pairs.second])
        columns = (pairs.first[some].tolist(), pairs.second[some].tolist(), pairs.cosine[some].tolist())
        return tuple(self.pair(one, other, cosine, False) for one, other, cosine in zip(*columns, strict=True))

    def without(self, all_of: Pairs, some: Pairs) -> tuple[DuplicatePair, ...]:
        """Return the pairs of one that the other lacks."""
        known = set(zip(some.first.tolist(), some.second.tolist(), strict=True))
        columns = zip(all_of.first.tolist(), all_of.second.tolist(), all_of.cosine.tolist(), strict=True)
        return tuple(self.pair(*each, False) for each in columns if each[:2] not in known)

    def odd(self, found: Mapping[int, tuple[str, ...]]) -> tuple[OddImage, ...]:
        """Return images that are odd, by row and in what."""
        rows, paths = found.items(), self._rows.paths
        return tuple(OddImage(paths[row], self.split(row), self.label(row), words) for row, words in rows)

    def split(self, row: int) -> str:
        """Return the name of a row's split."""
        return SPLITS[self._splits[row]]

    def label(self, row: int) -> str:
        """Return the name of a row's class; nothing where there are none."""
        return self._classes[int(self._rows.labels[row])] if self._classes else ""

    def label_issues(self, issues: Sequence[FlaggedRow]) -> tuple[LabelIssue, ...]:
        """Return probable label errors."""
        return tuple(
            LabelIssue(
                self._rows.paths[each.row],
                self.split(each.row),
                self.label(each.row),
                each.predicted if isinstance(each.predicted, str) else self._classes[each.predicted],
                each.confidence,
            )
            for each in issues
        )
