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
from tlcache.datasets.tasks import Targets, task_of
from tlcache.keys import canonical_json, few, quoted
from tlcache.tasks import CLASSIFY, MULTILABEL, REGRESSION
from tlcache.text import counted, numbers_text

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
        Name -> images; empty where there are no labels, or numbers. An image counts for each of several labels.
    passed_over
        Kind -> how many, as in `tlcache.datasets.dataset.Dataset`; None where that is not known.
    task
        A name of `tlcache.tasks.TASKS`.
    numbers
        The least, the median and the largest of the numbers to be learned; None where there are none.
    """

    splits: Mapping[str, int]
    drawn: tuple[str, ...] | None
    classes: Mapping[str, int]
    passed_over: Mapping[str, int] | None
    task: str = CLASSIFY
    numbers: tuple[float, float, float] | None = None

    @classmethod
    def of(cls, attrs: Mapping[str, Any], labels: NDArray[np.int64], classes: Sequence[str]) -> Overview:
        """Return that of the rows of a feature file, by its attributes; older ones do not say all of it."""
        passed_over = attrs.get("passed_over")
        return cls(
            {name: int(attrs[f"{name}_rows"]) for name in SPLITS},
            drawn_splits(attrs),
            passed_over=None if passed_over is None else json.loads(passed_over),
            **_to_learn(labels, classes, task_of(attrs)),
        )

    @classmethod
    def expected(cls, dataset: Dataset) -> Overview:
        """Return what a dataset will be, before its images are read: which are equal or unusable is not known yet."""
        drawn = draw_splits(dataset.strata, dataset.splits, dataset.groups, dataset.paths, 0, dataset.shares)
        return cls.found(dataset, dataset.splits, Counter(drawn), dataset.labels)

    @classmethod
    def found(
        cls, dataset: Dataset, given: Sequence[str], sizes: Mapping[str, int], labels: NDArray[np.int64]
    ) -> Overview:
        """Return that of images (n,) of a dataset: their splits as given, how many each then has, and their labels."""
        drawn = tuple(name for name in reversed(missing_splits(given)) if dataset.shares[name])
        splits = {name: sizes.get(name, 0) for name in SPLITS}
        learned = _to_learn(labels, dataset.classes, dataset.task)
        return cls(splits, drawn, passed_over=dict(dataset.passed_over), **learned)

    @property
    def attributes(self) -> dict[str, str]:
        """What a feature file says of it beside its rows."""
        known = {"drawn": None if self.drawn is None else ",".join(self.drawn)}
        known["passed_over"] = None if self.passed_over is None else canonical_json(self.passed_over)
        return {name: text for name, text in known.items() if text is not None}

    def __str__(self) -> str:
        splits = ", ".join(f"{name} {count:,}{self._how(name)}" for name, count in self.splits.items() if count)
        images = counted(sum(self.splits.values()), "image")
        labelled = self.classes or self.numbers
        parts = [f"{images}: {splits}" if labelled else images, self._learned()]
        return "; ".join([*parts, _passed_over(self.passed_over)] if self.passed_over else parts)

    def _learned(self) -> str:
        if self.numbers:
            return "numbers from {} to {}, median {}".format(*numbers_text(self.numbers[at] for at in (0, 2, 1)))
        return _classes(self.classes, "labels" if self.task == MULTILABEL else "classes")

    def _how(self, split: str) -> str:
        return " (drawn)" if self.drawn and split in self.drawn else ""


def drawn_splits(attrs: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return which splits of a feature file were drawn, by its attributes; None where it does not say."""
    return tuple(filter(None, attrs["drawn"].split(","))) if "drawn" in attrs else None


def _to_learn(labels: NDArray[np.int64], classes: Sequence[str], task: str) -> dict[str, Any]:
    """Return what an overview says of what is to be learned: `classes`, `task` and `numbers`."""
    targets = Targets.of(task, classes)
    if targets is None:
        counts = np.bincount(labels, minlength=len(classes)).tolist() if classes else []
        return {"classes": dict(zip(classes, counts, strict=True))}
    values = targets.values[labels]
    if task == REGRESSION:
        numbers = tuple(float(np.quantile(values, share)) for share in (0, 0.5, 1))
        return {"classes": {}, "task": task, "numbers": numbers}
    return {"classes": dict(zip(targets.names, values.sum(axis=0, dtype=int).tolist(), strict=True)), "task": task}


def _classes(classes: Mapping[str, int], noun: str) -> str:
    if not classes:
        return "no labels"
    number, counts = f"{len(classes):,} {noun}", sorted(classes.values())
    if len(classes) <= _FEW:
        return f"{number} ({', '.join(f'{quoted(name)} {count:,}' for name, count in classes.items())})"
    spread = f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,}"
    return f"{number}, {spread} {'image' if spread == '1' else 'images'} each"


def _passed_over(kinds: Mapping[str, int]) -> str:
    ranked = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    each = [_of_kind(kind, count) for kind, count in ranked]
    folders = sum(count for kind, count in ranked if kind.endswith("folder"))
    files = sum(kinds.values()) - folders
    parts = [counted(count, noun) for count, noun in ((files, "file"), (folders, "folder")) if count]
    return f"{' and '.join(parts)} passed over ({few(each)})"


def _of_kind(kind: str, count: int) -> str:
    """Return how many of a kind: of `.mat` or `hidden file` that, of `x folder` how many folders are called so."""
    if kind.startswith("."):
        return f"{count:,} {kind}"
    name, is_folder, _ = kind.rpartition(" folder")
    return f"{count:,} called {name}" if is_folder and name != "hidden" else counted(count, kind)
