"""What a dataset was understood to be: images, splits, classes, and what was passed over, in one line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.datasets.dataset import Dataset
from tlcache.datasets.splits import SPLITS, draw_splits, missing_splits
from tlcache.keys import canonical_json, few, quoted
from tlcache.text import counted

__all__ = ["Overview", "drawn_splits"]

_FEW = 6  # classes that are all named


@dataclass(frozen=True)
class Overview:
    """What a dataset was understood to be.

    Parameters
    ----------
    splits
        `train`, `val` and `test` -> images.
    drawn
        Those of them that were drawn from train; None where that is not known.
    classes
        Name -> images; empty where there are no labels.
    passed_over
        Kind -> how many, as in `tlcache.datasets.dataset.Dataset`; None where that is not known.
    """

    splits: Mapping[str, int]
    drawn: tuple[str, ...] | None
    classes: Mapping[str, int]
    passed_over: Mapping[str, int] | None

    @classmethod
    def of(cls, attrs: Mapping[str, Any], labels: NDArray[np.int64], classes: Sequence[str]) -> Overview:
        """Return that of the rows of a feature file, by its attributes; older ones do not say all of it."""
        passed_over = attrs.get("passed_over")
        return cls(
            {name: int(attrs[f"{name}_rows"]) for name in SPLITS},
            drawn_splits(attrs),
            _by_class(labels, classes),
            None if passed_over is None else json.loads(passed_over),
        )

    @classmethod
    def expected(cls, dataset: Dataset) -> Overview:
        """Return what a dataset will be, before its images are read: which are equal or unusable is not known yet."""
        drawn = draw_splits(dataset.labels, dataset.splits, dataset.groups, dataset.paths, 0, dataset.shares)
        return cls.found(dataset, dataset.splits, Counter(drawn), dataset.labels)

    @classmethod
    def found(
        cls, dataset: Dataset, given: Sequence[str], sizes: Mapping[str, int], labels: NDArray[np.int64]
    ) -> Overview:
        """Return that of images (n,) of a dataset: their splits as given, how many each then has, and their labels."""
        drawn = tuple(name for name in reversed(missing_splits(given)) if dataset.shares[name])
        splits = {name: sizes.get(name, 0) for name in SPLITS}
        return cls(splits, drawn, _by_class(labels, dataset.classes), dict(dataset.passed_over))

    @property
    def attributes(self) -> dict[str, str]:
        """What a feature file says of it beside its rows."""
        known = {"drawn": None if self.drawn is None else ",".join(self.drawn)}
        known["passed_over"] = None if self.passed_over is None else canonical_json(self.passed_over)
        return {name: text for name, text in known.items() if text is not None}

    def __str__(self) -> str:
        splits = ", ".join(f"{name} {count:,}{self._how(name)}" for name, count in self.splits.items() if count)
        images = counted(sum(self.splits.values()), "image")
        parts = [f"{images}: {splits}" if self.classes else images, _classes(self.classes)]
        return "; ".join([*parts, _passed_over(self.passed_over)] if self.passed_over else parts)

    def _how(self, split: str) -> str:
        return " (drawn)" if self.drawn and split in self.drawn else ""


def drawn_splits(attrs: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return which splits of a feature file were drawn, by its attributes; None where it does not say."""
    return tuple(filter(None, attrs["drawn"].split(","))) if "drawn" in attrs else None


def _by_class(labels: NDArray[np.int64], classes: Sequence[str]) -> dict[str, int]:
    counts = np.bincount(labels, minlength=len(classes)).tolist() if classes else []
    return dict(zip(classes, counts, strict=True))


def _classes(classes: Mapping[str, int]) -> str:
    if not classes:
        return "no labels"
    number, counts = f"{len(classes):,} classes", sorted(classes.values())
    if len(classes) <= _FEW:
        return f"{number} ({', '.join(f'{quoted(name)} {count:,}' for name, count in classes.items())})"
    spread = f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,}"
    return f"{number}, {spread} {'image' if spread == '1' else 'images'} each"


def _passed_over(kinds: Mapping[str, int]) -> str:
    ranked = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    each = [f"{count:,} {kind}" if kind.startswith(".") else counted(count, kind) for kind, count in ranked]
    folders = sum(count for kind, count in ranked if kind.endswith("folder"))
    files = sum(kinds.values()) - folders
    parts = [counted(count, noun) for count, noun in ((files, "file"), (folders, "folder")) if count]
    return f"{' and '.join(parts)} passed over ({few(each)})"
