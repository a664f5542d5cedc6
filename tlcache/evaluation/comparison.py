"""What a comparison is: all runs on the same test images, which of them was picked without these, and every two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from tlcache.datasets.tasks import told_of
from tlcache.evaluation.baseline import Baseline
from tlcache.evaluation.margins import Margin, margins
from tlcache.evaluation.picking import SameImages
from tlcache.evaluation.significance import LEVEL, Difference, Units, correct_for_many, effective_groups, smallest_shown
from tlcache.evaluation.task import larger_is_better
from tlcache.records import as_json
from tlcache.runs.classes import ClassFigures
from tlcache.runs.frozen import FrozenRun
from tlcache.runs.pergroup import PerGroup
from tlcache.runs.predictions import TopPredictions
from tlcache.runs.record import Run
from tlcache.tasks import CLASSIFY, REGRESSION

_OF_CLASSES = ("accuracy", "low", "high", "macro_f1", "log_loss", "ece")  # figures that numbers do not have
__all__ = ["Comparison", "Entry", "Groups", "Pair", "pareto"]


@dataclass(frozen=True)
class Entry:
    """One run among those it is compared with.

    Parameters
    ----------
    run, top
        Its record, and what it said of the test images, sorted by path.
    backbone, head
        What it is called here; together they name one run.
    accuracy, low, high
        On the test split, with the 95 % interval; by group where there are groups.
    macro_f1, log_loss, ece
        On the test split.
    figures
        All others of `tlcache.evaluation.metrics.evaluate`, by their names.
    per_class
        What it reaches on each class.
    val_score
        What runs are compared by, on images that were held out of train; None where the record does not say it.
    extract_s, train_s
        Seconds that embedding all images took, and choosing settings and fitting, or fine-tuning.
    first_s
        Seconds to this result from nothing: `extract_s + train_s`.
    images_per_s
        Images that `extract` embedded per second with this backbone, decoding included.
    parameters
        Of the backbone, or of all that are joined; None where one is an ONNX file.
    best
        Whether it is the one that was picked, or not shown to be worse than that one.
    """

    run: Run
    top: TopPredictions
    backbone: str
    head: str
    accuracy: float
    low: float
    high: float
    macro_f1: float
    log_loss: float
    ece: float
    figures: Mapping[str, float]
    per_class: tuple[ClassFigures, ...]
    val_score: float | None
    extract_s: float
    train_s: float
    first_s: float
    images_per_s: float
    parameters: int | None
    best: bool

    @property
    def name(self) -> str:
        """Head and backbone."""
        return f"{self.head} on {self.backbone}"

    @property
    def frozen(self) -> bool:
        """Whether the backbone was left as it is."""
        return isinstance(self.run, FrozenRun)

    @property
    def tuned(self) -> bool:
        """Whether the backbone is another one than the pretrained: not when no epoch of a fine-tuning was a gain."""
        return not (self.frozen or self.run.untuned)

    @property
    def per_group(self) -> PerGroup | None:
        """What it reaches where each group of images has one answer; None where that was not asked for."""
        return self.run.per_group if isinstance(self.run, FrozenRun) else None

    def figure(self, name: str) -> tuple[float, float, float]:
        """Return a figure of the test split with its interval, by its name in `evaluate`."""
        if name == "accuracy":
            return self.accuracy, self.low, self.high
        known = {**self.figures, "macro_f1": self.macro_f1, "log_loss": self.log_loss}
        return known[name], known[f"{name}_low"], known[f"{name}_high"]

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        figures = {
            name: value for name, value in vars(self).items() if name not in ("run", "top", "figures", "per_class")
        }
        wanted = ("strategy", "weights", "key", "record", "created")
        if self.run.task == REGRESSION:
            figures = {name: value for name, value in figures.items() if name not in _OF_CLASSES}
        return {
            **figures,
            **self.figures,
            "per_class": as_json(self.per_class),
            **({"per_group": self.per_group.as_json()} if self.per_group else {}),
            "one_more_s": self.train_s,
            "tuned": self.tuned,
            **{name: getattr(self.run, name) for name in wanted},
        }


@dataclass(frozen=True)
class Pair:
    """Two runs compared image by image; `p_corrected` is Holm's for `many` comparisons."""

    a: Entry
    b: Entry
    found: Difference
    p_corrected: float
    many: int

    @property
    def shown(self) -> bool:
        """Whether a difference is shown, at the level of 5 %."""
        return self.p_corrected < LEVEL

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        records = {"a": str(self.a.run.path), "b": str(self.b.run.path)}
        return {**records, **as_json(self.found), "p_corrected": self.p_corrected}


@dataclass(frozen=True)
class Groups:
    """The groups of the test images: how many, as how many of one size they count, and the largest one's share."""

    number: int
    effective: float
    largest: float

    @classmethod
    def of(cls, units: Units | None) -> Groups | None:
        """Return them by the number of each image's group (n,); None where there are none."""
        if units is None:
            return None
        sizes = np.bincount(units)
        return cls(len(sizes), effective_groups(sizes), float(sizes.max() / sizes.sum()))


@dataclass(frozen=True)
class Comparison:
    """All runs on the same test images.

    Parameters
    ----------
    dataset, digest
        The dataset's name, and the hash of its rows, labels and splits.
    by
        The figure that runs are compared by.
    entries
        The best on the test images first.
    picked
        The same by what was held out of train and test alike, the best first; by the test images where a record lacks
        that.
    without_test
        Whether it has not been picked by the test images: then what the first of `picked` reaches on them is what can
        be expected of it, and not the luck of the best of many.
    pairs
        Every two of the entries, the better first.
    groups
        The groups that the test images are in, which intervals and tests then count; None where they have none.
    baseline
        What always giving one answer would reach; None where the figure that is compared by says nothing of that.
    same_images
        What decided between the best head and the best fine-tuning, where these were validated on different images.
    margin
        Points up to which runs count as equally good; None where that is not asked.
    """

    dataset: str
    digest: str
    by: str
    entries: tuple[Entry, ...]
    picked: tuple[Entry, ...]
    without_test: bool
    pairs: tuple[Pair, ...]
    groups: Groups | None
    baseline: Baseline | None
    same_images: SameImages | None = None
    margin: float | None = None

    @property
    def task(self) -> str:
        """What was learned, a name of `tlcache.tasks.TASKS`."""
        return self.entries[0].run.task

    def pair(self, a: Entry, b: Entry) -> Pair:
        """Return what `a` has over `b`, corrected for all pairs of runs."""
        found = next(pair for pair in self.pairs if {id(pair.a), id(pair.b)} == {id(a), id(b)})
        return found if found.a is a else replace(found, a=a, b=b, found=found.found.reversed())

    def among(self, pairs: Iterable[tuple[Entry, Entry]]) -> list[Pair]:
        """Return what the first of each has over the second, corrected for these alone.

        That holds where the runs were picked without the test images. Where they were not, every pair of all runs is
        corrected for.
        """
        found = [self.pair(*each) for each in pairs]
        if not self.without_test:
            return found
        corrected = correct_for_many([each.found.p for each in found])
        return [replace(each, p_corrected=float(p), many=len(found)) for each, p in zip(found, corrected, strict=True)]

    def top(self, *strategies: str, backbone: str | None = None) -> Entry | None:
        """Return the run that was picked of some strategies, as records name them; of one backbone or all.

        A fine-tuning that was no gain is of none.
        """
        own = (each for each in self.picked if backbone in (None, each.backbone) and not each.run.untuned)
        return next((each for each in own if each.run.strategy in strategies), None)

    @cached_property
    def backbones(self) -> list[Entry]:
        """The head that was picked of each frozen backbone, the best first."""
        first: dict[str, Entry] = {}
        for entry in self.picked:
            if entry.run.strategy == "frozen":
                first.setdefault(entry.backbone, entry)
        return list(first.values())

    @cached_property
    def between_backbones(self) -> list[Pair]:
        """Every two of `backbones`."""
        return self.among(combinations(self.backbones, 2))

    @cached_property
    def tunings(self) -> list[Pair]:
        """What fine-tuning each backbone adds to the head that was picked on the same one, frozen."""
        names = dict.fromkeys(each.backbone for each in self.picked if each.tuned)
        both = [(self.top("finetune", backbone=name), self.top("frozen", backbone=name)) for name in names]
        return self.among((tuned, frozen) for tuned, frozen in both if tuned and frozen)

    @cached_property
    def layer_choices(self) -> list[Pair]:
        """What choosing among layers adds to each backbone, for the head that was picked of those that chose."""
        first: dict[tuple[str, ...], Entry] = {}
        for entry in self.picked:
            if isinstance(entry.run, FrozenRun) and entry.run.layers:
                first.setdefault(tuple(sorted(each.key for each in entry.run.layers)), entry)
        both = [(entry, self._usual(entry)) for entry in first.values()]
        return self.among((chosen, usual) for chosen, usual in both if usual)

    def _usual(self, chosen: Entry) -> Entry | None:
        """Return the same head on the last of the layers that one chose among."""
        run = chosen.run
        asked = {name: value for name, value in run.arguments.items() if name != "layers"}
        last = run.layers[-1].key if isinstance(run, FrozenRun) else ""
        wanted = (last, run.head, asked)
        return next(
            (each for each in self.entries if (each.run.key, each.run.head, each.run.arguments) == wanted), None
        )

    @cached_property
    def margins(self) -> list[Margin]:
        """What the others have over the first that was picked, against the margin; empty where there is none."""
        if self.margin is None:
            return []
        others = [entry for entry in self.entries if entry is not self.picked[0]]
        found = [self.pair(entry, self.picked[0]).found for entry in others]
        better = larger_is_better(self.by)
        runs = [(entry.name, str(entry.run.path)) for entry in others]
        return margins(runs, [each if better else each.reversed() for each in found], self.margin / 100)

    @property
    def smallest_shown(self) -> float | None:
        """The smallest difference between two backbones, or else two runs, that these test images would show.

        None where there is one run, and in folds, of which the spread decides.
        """
        if self.entries[0].run.cross_validation:
            return None
        own = self.between_backbones or [pair for pair in self.pairs if self.picked[0] in (pair.a, pair.b)]
        found = [pair.found for pair in own]
        images = self.groups.effective if self.groups else self.entries[0].run.test.n
        return smallest_shown(found, images) if found else None

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises, save the sentences of `tlcache.verdict`."""
        return {
            "dataset": self.dataset,
            "digest": self.digest,
            **told_of(self.task),
            "groups": self.groups and self.groups.number,
            "by": self.by,
            "picked": str(self.picked[0].run.path),
            "picked_on": "validation" if self.without_test else "test",
            "smallest_shown": self.smallest_shown,
            "runs": [entry.as_json() for entry in self.entries],
            "pairs": [pair.as_json() for pair in self.pairs],
            "backbones": [pair.as_json() for pair in self.between_backbones],
            "tunings": [pair.as_json() for pair in self.tunings],
            **({"layers": [pair.as_json() for pair in self.layer_choices]} if self.layer_choices else {}),
            **({"margin": self.margin, "margins": [each.as_json() for each in self.margins]} if self.margin else {}),
            **self._of_baseline(),
        }

    def _of_baseline(self) -> dict[str, Any]:
        if self.baseline is None:
            return {}
        if self.task == CLASSIFY:
            return {"baseline_accuracy": self.baseline.accuracy, "baseline_class": self.baseline.answer}
        return {f"baseline_{self.baseline.figure}": self.baseline.accuracy}


def pareto(entries: Sequence[Entry]) -> list[Entry]:
    """Return the runs that no other beats in both accuracy and seconds from nothing, the quickest first."""
    front: list[Entry] = []
    for entry in sorted(entries, key=lambda entry: (entry.first_s, -entry.accuracy)):
        if not front or entry.accuracy > front[-1].accuracy:
            front.append(entry)
    return front
