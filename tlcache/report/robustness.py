"""What runs reach on images that are made worse, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.keys import printable
from tlcache.report.plain import interval, plain_table
from tlcache.robustness.records import Gain, Gains, Robustness
from tlcache.text import counted

__all__ = ["gain_cells", "robustness_tables", "summary"]


def robustness_tables(found: Sequence[Robustness]) -> RenderableType:
    """Return what each run reaches, and what fine-tuning gains, for every dataset."""
    return Group(*(part for each in found for part in _parts(each)))


def _parts(found: Robustness) -> Iterator[RenderableType]:
    yield Text(printable(found.dataset), style="bold")
    runs = plain_table("Run", "As they are", "Made worse (95 %)", "Least", numbers=slice(1, 3))
    for run in found.runs:
        mean, worst = run.mean, run.worst
        least = f"{worst.accuracy:.3f} {worst.corruption}"
        runs.add_row(
            printable(run.name), f"{run.clean.accuracy:.3f}", interval(mean.accuracy, mean.low, mean.high), least
        )
    yield runs
    first = found.runs[0]
    for gains in found.tunings:
        yield Text(f"\n{printable(gains.tuned)} against {printable(gains.frozen)}")
        yield _gains_table(gains)
    if not found.tunings:
        yield Text(f"\n{printable(first.name)}")
        each = plain_table("Made worse by", "Accuracy (95 %)", numbers=slice(1, 2))
        for one in (first.clean, *first.reached):
            each.add_row(one.corruption, interval(one.accuracy, one.low, one.high))
        yield each
    yield Text(summary(found), style="dim")


def _gains_table(gains: Gains) -> RenderableType:
    table = plain_table("Made worse by", "Points gained (95 %)", "p", numbers=slice(1, 3))
    for one in (*gains.each, gains.mean):
        table.add_row(one.corruption, *gain_cells(one))
    return table


def gain_cells(gain: Gain) -> tuple[str, str]:
    """Return a difference of accuracies in points with its interval, and p."""
    low, high = 100 * gain.low, 100 * gain.high
    return f"{100 * gain.difference:+.1f} ({low:+.1f} to {high:+.1f})", f"{gain.p_corrected:.3g}"


def summary(found: Robustness) -> str:
    """Return what was judged, in a sentence or two."""
    ways = counted(len(found.corruptions), "way")
    line = f"{counted(found.images, 'test image')}, each made worse in {ways}; {found.embedded:,} embedded now."
    lost = f" {counted(found.unusable, 'image')} cannot be used any more." if found.unusable else ""
    return line + lost
