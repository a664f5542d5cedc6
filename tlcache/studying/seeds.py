"""A study with several seeds: other splits, heads and fine-tunings, and what they say of frozen against fine-tuned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from tlcache.arguments import Runs
from tlcache.evaluation.compare import compare_runs
from tlcache.evaluation.comparison import Comparison, Entry, Pair
from tlcache.evaluation.resampled import Resampled, resampled
from tlcache.evaluation.task import larger_is_better
from tlcache.evaluation.verdict import interval_of
from tlcache.runs.folder import read_runs, runs_folder
from tlcache.studying.run import run_study, take
from tlcache.studying.steps import EXTRACT, FAILED, FINETUNE, FIT, JOIN, REPORT, Step, StudyPlan
from tlcache.tasks import CLASSIFY, USUAL
from tlcache.text import counted, figure_text, points

__all__ = ["Spread", "run_seeds", "spreads"]


def run_seeds(plan: StudyPlan, only_plan: bool, budget_s: float | None, seeds: int) -> list[Step]:
    """Do a study with so many seeds, one after the other, and then its report; feature files end as they began."""
    if seeds == 1:
        return run_study(plan, only_plan, budget_s)
    if only_plan:
        *steps, report = run_study(plan, True, budget_s)
        again = [step for step in steps if step.kind in (FIT, JOIN, FINETUNE)]
        return [*steps, *(replace(step, seed=n) for n in range(1, seeds) for step in again), report]
    alone, done = replace(plan, reports=False), list[Step]()
    try:
        for number in range(seeds):
            left_s = budget_s and max(1e-9, budget_s - sum(step.seconds for step in done))
            found = run_study(alone.again(number), False, left_s)
            own = (step for step in found if not number or step.kind != EXTRACT or step.state == FAILED)
            done += [replace(step, seed=number) for step in own]
    finally:  # the splits of the first seed are those of the feature files again
        for step in (step for step in alone.steps() if step.kind == EXTRACT):
            take(plan, step)
    return [*done, *(take(plan, step) for step in plan.steps() if step.kind == REPORT)]


@dataclass(frozen=True)
class Spread:
    """What the picked fine-tuning has over the picked frozen head, with each seed.

    Parameters
    ----------
    dataset
        Its name.
    differences
        (K,) of the figure that is compared by on the test images.
    drawn
        Whether each seed has test images of its own.
    over
        Their mean with its interval: the corrected resampled t-test (Nadeau and Bengio, 2003) where splits were drawn.
    first
        The same pair on the first seed's test images.
    by
        The figure.
    """

    dataset: str
    differences: tuple[float, ...]
    drawn: bool
    over: Resampled
    first: Pair
    by: str = USUAL[CLASSIFY]

    @property
    def disagrees(self) -> bool:
        """Whether the images of one split and the seeds show different things."""
        opposite = self.first.found.difference * self.over.mean < 0
        return self.first.shown != self._by_seeds or (self.first.shown and opposite)

    def __str__(self) -> str:
        """Return it as a sentence."""
        what = "other splits, heads and fine-tunings" if self.drawn else "the same splits, other fine-tunings"
        told = points if self.by == USUAL[CLASSIFY] else partial(figure_text, name=self.by)
        each, unit = np.array(self.differences), "points" if self.by == USUAL[CLASSIFY] else f"of {self.by}"
        spread = f"sd {told(float(each.std(ddof=1)))}, {told(each.min())} to {told(each.max())}"
        ahead = int((each > 0 if larger_is_better(self.by) else each < 0).sum())
        text = (
            f"Over {len(each)} seeds ({what}) fine-tuning has {told(self.over.mean)} {unit} over the frozen head on "
            f"average ({spread}; 95 % CI of the mean {told(self.over.low)} to {told(self.over.high)}), and is "
            f"ahead in {counted(ahead, 'seed')}. On the first split alone it has "
            f"{told(self.first.found.difference)} ({interval_of(self.first, self.by)})."
        )
        return f"{text}{self._disagreement}"

    @property
    def _disagreement(self) -> str:
        if not self.disagrees:
            return ""
        if not self.first.shown:
            return " The two disagree: the seeds show a difference that the first split alone does not."
        if self._by_seeds:
            return " The two disagree about which of them is better."
        return (
            " The two disagree: the first split shows a difference, the seeds do not; it may be the luck of that split."
        )

    @property
    def _by_seeds(self) -> bool:
        """Whether the seeds show a difference."""
        return self.over.low > 0 or self.over.high < 0

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        own = {name: getattr(self, name) for name in ("dataset", "differences", "drawn", "disagrees")}
        return {**own, **self.over._asdict(), "first": self.first.as_json()}


def spreads(steps: Sequence[Step], runs: Runs = None) -> list[Spread]:
    """Return what the seeds of a study say, of each dataset on which both strategies are there with every seed."""
    seeds = sorted({step.seed for step in steps})
    recorded = read_runs(runs_folder(runs), lambda _: None)  # the report tells of records that are damaged
    each = []
    for seed in seeds:
        own = {record for step in steps if step.seed == seed for record in step.records}
        each.append({found.dataset: found for found in compare_runs(run for run in recorded if str(run.path) in own)})
    names = (name for name in each[0] if len(each) > 1 and all(name in found for found in each))
    return list(_spreads([[found[name] for found in each] for name in names]))


def _spreads(datasets: Sequence[Sequence[Comparison]]) -> Iterator[Spread]:
    for comparisons in datasets:
        both = [_both(found) for found in comparisons]
        pairs = [found.among([each])[0] for found, each in zip(comparisons, both, strict=True) if each]
        if len(pairs) < len(comparisons):
            continue
        first, values = comparisons[0], np.array([pair.found.difference for pair in pairs])
        drawn = len({found.digest for found in comparisons}) > 1
        rows = first.entries[0].run.rows
        over = resampled(values, rows.test / (rows.train + rows.val) if drawn else 0.0)
        yield Spread(first.dataset, tuple(values.tolist()), drawn, over, pairs[0], first.by)


def _both(found: Comparison) -> tuple[Entry, Entry] | None:
    """Return the fine-tuning and the frozen head that were picked; a fine-tuning that was no gain, too."""
    tuned, frozen = (
        next((entry for entry in found.picked if entry.frozen == frozen), None) for frozen in (False, True)
    )
    return (tuned, frozen) if tuned and frozen else None
