"""Thresholds, and what they reach on the test images, as a table for a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.evaluation.operating import Rates
from tlcache.keys import printable, some
from tlcache.report.fitting import FittedTable
from tlcache.report.plain import interval
from tlcache.runs.classes import Share

__all__ = ["rates_table"]


def rates_table(found: Rates) -> RenderableType:
    """Return a row for each run: its threshold, and both rates on the test images with their intervals."""
    wanted, points, without = found
    names = ("Backbone", "Head")
    table = FittedTable(names, ("Threshold", "Sensitivity (95 %)", "Specificity (95 %)"))
    for point in points:
        rates = (_share(point.sensitivity), _share(point.specificity))
        table.add_row(point.entry.backbone, point.entry.head, f"{point.threshold:.4f}", *rates)
    title = f"'{printable(wanted.positive)}' against the rest, {wanted.rate} of {wanted.least:g} held on validation"
    notes = []
    if points:
        first = points[0]
        from_ = f"{first.positives:,} images of the class and {first.negatives:,} others"
        notes.append(Text(f"Thresholds are from {from_}; what they reach is of the test images.", style="dim"))
    if without:
        left = some([entry.name for entry in without])
        notes.append(
            Text(f"Left out, as their records hold nothing to choose a threshold by: {left}. Do them again: --force")
        )
    return Group(Text(), Text(title, style="bold"), *([table] if points else []), *notes)


def _share(found: Share | None) -> str:
    return "-" if found is None else interval(found.value, found.low, found.high)
