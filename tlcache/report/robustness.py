"""What runs reach on images that are made worse, as tables for a terminal, and as a part of a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.keys import printable
from tlcache.report.plain import interval, plain_table
from tlcache.robustness.records import Gains, Robustness, RobustRun
from tlcache.text import counted

__all__ = ["GAINS", "RUNS", "Worse", "robustness_tables", "worse"]

RUNS = ("Run", "As they are", "Made worse (95 %)", "Least")
GAINS = ("Made worse by", "Points gained (95 %)", "p")
_LINES = 4  # runs in a figure


@dataclass(frozen=True)
class Worse:
    """What a page shows of it: a figure, and all figures as rows of texts."""

    figure: str
    runs: Sequence[Sequence[str]]
    gains: Sequence[tuple[str, str, Sequence[Sequence[str]]]]  # tuned, frozen, rows
    summary: str


def worse(name: str, found: Sequence[Robustness], digest: str) -> Worse | None:
    """Return what a page shows of the robustness of runs on a dataset and split; None where that is not recorded."""
    from tlcache.report.figures import severity_figure
    from tlcache.report.inline import inline_svg

    own = next((each for each in found if each.digest == digest), None)
    if own is None:
        return None
    first = {(run.backbone, run.strategy): run for run in reversed(own.runs)}
    drawn = [run for run in own.runs if run in first.values()][:_LINES]
    means = "; ".join(f"{run.name} {run.clean.accuracy:.3f}, made worse {run.mean.accuracy:.3f}" for run in drawn)
    figure = inline_svg(severity_figure(drawn), f"{name}-worse", f"Accuracy against severity. Mean: {means}.")
    gains = [(each.tuned, each.frozen, _gain_rows(each)) for each in own.tunings]
    return Worse(figure, [_cells(run) for run in own.runs], gains, summary(own))


def robustness_tables(found: Sequence[Robustness]) -> RenderableType:
    """Return what each run reaches, and what fine-tuning gains, for every dataset."""
    return Group(*(part for each in found for part in _parts(each)))


def _parts(found: Robustness) -> Iterator[RenderableType]:
    yield Text(printable(found.dataset), style="bold")
    runs = plain_table(*RUNS, numbers=slice(1, 3))
    for run in found.runs:
        runs.add_row(*_cells(run))
    yield runs
    first = found.runs[0]
    for gains in found.tunings:
        yield Text(f"\n{printable(gains.tuned)} against {printable(gains.frozen)}")
        table = plain_table(*GAINS, numbers=slice(1, 3))
        for row in _gain_rows(gains):
            table.add_row(*row)
        yield table
    if not found.tunings:
        yield Text(f"\n{printable(first.name)}")
        each = plain_table("Made worse by", "Accuracy (95 %)", numbers=slice(1, 2))
        for one in (first.clean, *first.reached):
            each.add_row(one.corruption, interval(one.accuracy, one.low, one.high))
        yield each
    yield Text(f"{summary(found)} {found.embedded:,} embedded now.", style="dim")


def _cells(run: RobustRun) -> tuple[str, ...]:
    mean, least = run.mean, run.worst
    on_all = interval(mean.accuracy, mean.low, mean.high)
    return printable(run.name), f"{run.clean.accuracy:.3f}", on_all, f"{least.accuracy:.3f} {least.corruption}"


def _gain_rows(gains: Gains) -> list[tuple[str, str, str]]:
    """Return each corruption and the mean: a difference of accuracies in points with its interval, and p."""
    rows = []
    for one in (*gains.each, gains.mean):
        low, high = 100 * one.low, 100 * one.high
        points = f"{100 * one.difference:+.1f} ({low:+.1f} to {high:+.1f})"
        rows.append((one.corruption, points, f"{one.p_corrected:.3g}"))
    return rows


def summary(found: Robustness) -> str:
    """Return what was judged, in a sentence or two."""
    line = f"{counted(found.images, 'test image')}, each made worse in {counted(len(found.corruptions), 'way')}."
    lost = f" {counted(found.unusable, 'image')} cannot be used any more." if found.unusable else ""
    return line + lost
