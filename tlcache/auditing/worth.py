"""What a leak was worth: the same heads under the given split and under the group split."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import hypot
from typing import Any

from tlcache.cache.resplit import GIVEN
from tlcache.evaluation.significance import clustered_interval, unit_numbers
from tlcache.runs.naming import backbone_label, head_label
from tlcache.runs.record import Run

__all__ = ["Worth", "leak_worth"]

_SAME = ("dataset", "key", "strategy", "head", "arguments")


@dataclass(frozen=True)
class Worth:
    """A head's accuracy under both splits, each with its 95 % interval.

    `difference` is given minus group; its interval adds theirs in squares (Newcombe, 1998), as the test images are
    others. It is also the chance of a draw: another group split would give another one.
    """

    dataset: str
    backbone: str
    head: str
    given: tuple[float, float, float]
    group: tuple[float, float, float]
    difference: tuple[float, float, float]

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        names = ("accuracy", "accuracy_low", "accuracy_high")
        splits = {
            "given": dict(zip(names, self.given, strict=True)),
            "group": dict(zip(names, self.group, strict=True)),
        }
        difference = dict(zip(("difference", "low", "high"), self.difference, strict=True))
        return {"dataset": self.dataset, "backbone": self.backbone, "head": self.head, **splits, **difference}


def leak_worth(runs: Iterable[Run]) -> list[Worth]:
    """Pair the runs that differ in nothing but the split; by dataset, the most accurate under the group split first.

    Where a dataset was split several times, the run made last counts.
    """
    newest = sorted(runs, key=lambda run: run.fields["created"])
    splits: dict[str, dict[str, Run]] = {GIVEN: {}, "group": {}}
    for run in newest:
        splits[run.fields.get("split", GIVEN)][_identity(run)] = run
    pairs = [(splits[GIVEN][name], run) for name, run in splits["group"].items() if name in splits[GIVEN]]
    together = [run for _, run in pairs]
    found = [_worth(given, group, together) for given, group in pairs]
    return sorted(found, key=lambda each: (each.dataset, -each.group[0], each.backbone, each.head))


def _identity(run: Run) -> str:
    fields = run.fields
    given = fields.get("given_digest", fields["dataset_digest"])
    return repr([given, *(fields[name] for name in _SAME)])


def _worth(given: Run, group: Run, runs: list[Run]) -> Worth:
    one, other = _accuracy(given), _accuracy(group)
    middle = one[0] - other[0]
    low = middle - hypot(one[0] - one[1], other[2] - other[0])
    high = middle + hypot(one[2] - one[0], other[0] - other[1])
    names = (str(group.fields["dataset"]), backbone_label(group, runs), head_label(group, runs))
    return Worth(*names, one, other, (middle, low, high))


def _accuracy(run: Run) -> tuple[float, float, float]:
    stored = run.predictions()
    right = stored["probabilities"].argmax(axis=1) == stored["label"]
    low, high = clustered_interval(right, unit_numbers(stored["group"]))
    return float(right.mean()), low, high
