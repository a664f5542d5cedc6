"""What a comparison is: all runs on the same test images, and every two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlcache.evaluation.baseline import Baseline
from tlcache.evaluation.significance import Difference
from tlcache.records import as_json
from tlcache.runs.frozen import FrozenRun
from tlcache.runs.predictions import TopPredictions
from tlcache.runs.record import Run

__all__ = ["Comparison", "Entry", "Pair", "pareto"]


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
    extract_s, train_s
        Seconds that embedding all images took, and choosing settings and fitting, or fine-tuning.
    first_s
        Seconds to this result from nothing: `extract_s + train_s`.
    images_per_s
        Images that `extract` embedded per second with this backbone, decoding included.
    parameters
        Of the backbone; None for an ONNX file.
    best
        Whether it is the most accurate, or not shown to be less accurate than that one.
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

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        figures = {name: value for name, value in vars(self).items() if name not in ("run", "top", "figures")}
        wanted = ("strategy", "weights", "key", "record", "created")
        return {
            **figures,
            **self.figures,
            "one_more_s": self.train_s,
            "tuned": self.tuned,
            **{name: getattr(self.run, name) for name in wanted},
        }


@dataclass(frozen=True)
class Pair:
    """Two runs compared image by image; `p_corrected` is Holm's for all pairs of the comparison."""

    a: Entry
    b: Entry
    found: Difference
    p_corrected: float

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        records = {"a": str(self.a.run.path), "b": str(self.b.run.path)}
        return {**records, **as_json(self.found), "p_corrected": self.p_corrected}


@dataclass(frozen=True)
class Comparison:
    """All runs on the same test images.

    Parameters
    ----------
    dataset, digest
        The dataset's name, and the hash of its rows, labels and splits.
    entries
        The most accurate first.
    pairs
        Every two of them, the more accurate first.
    groups
        How many groups the test images are in, which intervals and tests then count; None where they have none.
    baseline
        What always answering the largest class of the test images would reach.
    """

    dataset: str
    digest: str
    entries: tuple[Entry, ...]
    pairs: tuple[Pair, ...]
    groups: int | None
    baseline: Baseline

    def pair(self, a: Entry, b: Entry) -> Pair:
        """Return what `a` has over `b`."""
        found = next(pair for pair in self.pairs if {id(pair.a), id(pair.b)} == {id(a), id(b)})
        return found if found.a is a else Pair(a, b, found.found.reversed(), found.p_corrected)

    def top(self, frozen: bool) -> Entry | None:
        """Return the most accurate head on a frozen backbone, or the most accurate backbone that is fine-tuned."""
        return next((entry for entry in self.entries if (entry.frozen if frozen else entry.tuned)), None)

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises, save the sentences of `tlcache.verdict`."""
        return {
            "dataset": self.dataset,
            "digest": self.digest,
            "groups": self.groups,
            "runs": [entry.as_json() for entry in self.entries],
            "pairs": [pair.as_json() for pair in self.pairs],
            "baseline_accuracy": self.baseline.accuracy,
            "baseline_class": self.baseline.answer,
        }


def pareto(entries: Sequence[Entry]) -> list[Entry]:
    """Return the runs that no other beats in both accuracy and seconds from nothing, the quickest first."""
    front: list[Entry] = []
    for entry in sorted(entries, key=lambda entry: (entry.first_s, -entry.accuracy)):
        if not front or entry.accuracy > front[-1].accuracy:
            front.append(entry)
    return front
