"""Is a run as good as another, or not worse, up to a margin? What a test of a difference cannot say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, sqrt
from typing import Any

from tlcache.evaluation.significance import LEVEL, Difference, correct_for_many

__all__ = ["Margin", "margins"]


@dataclass(frozen=True)
class Margin:
    """What a run has over the picked one, against a margin.

    Parameters
    ----------
    name, record
        What the run is called, and its record.
    found
        What it has over the picked one; larger is better, whatever the figure.
    p_worse, p_better
        Of being worse by the margin or more, and of being better by that: one-sided, by the error of the interval
        (Schuirmann, 1987), each corrected for all runs that are held against the picked one (Holm, 1979).
    """

    name: str
    record: str
    found: Difference
    p_worse: float
    p_better: float

    @property
    def not_worse(self) -> bool:
        """Whether it is shown not to be worse by the margin."""
        return self.p_worse < LEVEL / 2

    @property
    def equivalent(self) -> bool:
        """Whether it is shown to be neither worse nor better by the margin."""
        return self.not_worse and self.p_better < LEVEL / 2

    @property
    def words(self) -> str:
        """What is shown."""
        return "equivalent" if self.equivalent else "not worse" if self.not_worse else "not shown"

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        own = {name: getattr(self, name) for name in ("p_worse", "p_better", "not_worse", "equivalent")}
        bounds = {name: getattr(self.found, name) for name in ("difference", "low", "high")}
        return {"record": self.record, **bounds, **own}


def margins(runs: Sequence[tuple[str, str]], differences: Sequence[Difference], margin: float) -> list[Margin]:
    """Hold what runs, names and records, have over the picked one against a margin, in the unit of the figure.

    At 2.5 % to each side, a run alone is called not worse where its 95 % interval lies above minus the margin, and
    equivalent where it lies within both.
    """
    worse = correct_for_many([_beyond(each, margin) for each in differences])
    better = correct_for_many([_beyond(each.reversed(), margin) for each in differences])
    found = zip(runs, differences, worse.tolist(), better.tolist(), strict=True)
    return [Margin(*run, *each) for run, *each in found]


def _beyond(found: Difference, margin: float) -> float:
    """Return p of the difference being minus the margin or less."""
    middle, error = (found.low + found.high) / 2, found.error
    return erfc((middle + margin) / error / sqrt(2)) / 2 if error else float(middle <= -margin)
