"""The leakage gap: the same heads under the given split and under one that tears no group apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import Any

from tlcache.cache.resplit import GIVEN
from tlcache.evaluation.compare import compare
from tlcache.evaluation.comparison import Comparison, Entry
from tlcache.runs.naming import backbone_label, head_label
from tlcache.runs.record import Run
from tlcache.tasks import CLASSIFY

__all__ = ["LeakageGap", "leakage_gaps", "leakage_gaps_of"]


@dataclass(frozen=True)
class LeakageGap:
    """A head's accuracy under both splits, each with its 95 % interval.

    `given` is of the dataset's own split, whose digest is `digest`, and which may have been drawn, too. `difference` is
    given minus group; its interval adds theirs in squares (Newcombe, 1998), as the test images are others. It is also
    the chance of a draw: another group split would give another one.
    """

    dataset: str
    backbone: str
    head: str
    given: tuple[float, float, float]
    group: tuple[float, float, float]
    difference: tuple[float, float, float]
    digest: str
    given_is_drawn: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        names = ("accuracy", "accuracy_low", "accuracy_high")
        splits = {
            "given": dict(zip(names, self.given, strict=True)),
            "group": dict(zip(names, self.group, strict=True)),
        }
        difference = dict(zip(("difference", "low", "high"), self.difference, strict=True))
        return {"dataset": self.dataset, "backbone": self.backbone, "head": self.head, **splits, **difference}


def leakage_gaps(comparisons: Iterable[Comparison]) -> list[LeakageGap]:
    """Pair runs of classes that differ in nothing but the split; by dataset, the best under the group split first.

    Where a dataset was split several times, the run made last counts.

    Examples
    --------
    >>> runs = fit_heads([feature_file], heads=["ridge"], runs=folder)
    >>> leakage_gaps(compare(folder))  # none of them is of the group split
    []
    """
    splits: dict[str, dict[str, Entry]] = {GIVEN: {}, "group": {}}
    entries = (entry for found in comparisons for entry in found.entries if entry.run.task == CLASSIFY)
    for entry in sorted(entries, key=lambda entry: entry.run.created):
        splits[entry.run.split][_identity(entry.run)] = entry
    pairs = [(splits[GIVEN][name], entry) for name, entry in splits["group"].items() if name in splits[GIVEN]]
    together = [group.run for _, group in pairs]
    found = [_gap(given, group, together) for given, group in pairs]
    return sorted(found, key=lambda each: (each.dataset, -each.group[0], each.backbone, each.head))


def leakage_gaps_of(runs: Iterable[Run], folder: str | Path | None = None) -> list[LeakageGap]:
    """Return the leakage gap on the datasets of which some of these runs are of the group split.

    `folder` is that of all run records, as for `tlcache.compare`.
    """
    datasets = sorted({run.dataset for run in runs if run.split == "group"})
    return leakage_gaps(found for dataset in datasets for found in compare(folder, dataset))


def _identity(run: Run) -> str:
    given = run.given_digest or run.dataset_digest
    return repr([given, run.dataset, run.key, run.strategy, run.head, run.arguments])


def _gap(given: Entry, group: Entry, runs: list[Run]) -> LeakageGap:
    one, other = ((entry.accuracy, entry.low, entry.high) for entry in (given, group))
    middle = one[0] - other[0]
    low = middle - hypot(one[0] - one[1], other[2] - other[0])
    high = middle + hypot(one[2] - one[0], other[0] - other[1])
    names = (group.run.dataset, backbone_label(group.run, runs), head_label(group.run, runs))
    drawn = given.run.test_split == "drawn"
    return LeakageGap(*names, one, other, (middle, low, high), given.run.dataset_digest, drawn)
