"""Thresholds, and what they reach on the test images, as a table for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.evaluation.operating import Rates
from tlcache.keys import printable, some
from tlcache.report.fitting import FittedTable
from tlcache.report.plain import share_text

__all__ = ["RATES", "rates_notes", "rates_rows", "rates_table", "rates_title"]

_NAMES, _FIGURES = ("Backbone", "Head"), ("Threshold", "Sensitivity (95 %)", "Specificity (95 %)")
RATES = (*_NAMES, *_FIGURES)  # the columns of `rates_rows`


def rates_table(found: Rates) -> RenderableType:
    """Return a row for each run: its threshold, and both rates on the test images with their intervals."""
    table = FittedTable(_NAMES, _FIGURES)
    for row in rates_rows(found):
        table.add_row(*row)
    notes = [Text(note, style="dim") for note in rates_notes(found)]
    return Group(Text(), Text(rates_title(found), style="bold"), *([table] if found.points else []), *notes)


def rates_title(found: Rates) -> str:
    """Return what is to be found, and what is held."""
    wanted = found.wanted
    return f"'{printable(wanted.positive)}' against the rest, {wanted.rate} of {wanted.least:g} held on validation"


def rates_rows(found: Rates) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each run, as `RATES` calls them."""
    for point in found.points:
        rates = (share_text(point.sensitivity), share_text(point.specificity))
        yield point.entry.backbone, point.entry.head, f"{point.threshold:.4f}", *rates


def rates_notes(found: Rates) -> list[str]:
    """Return what thresholds are from, and which runs have none."""
    notes = []
    if found.points:
        first = found.points[0]
        from_ = f"{first.positives:,} images of the class and {first.negatives:,} others"
        notes.append(f"Thresholds are from {from_}; what they reach is of the test images.")
    folds, old = ([each for each in found.without if bool(each.run.cross_validation) is own] for own in (True, False))
    for left, why in ((old, "Do them again: --force"), (folds, "They were tested in folds; do them without --cv.")):
        if left:
            names = some([entry.name for entry in left])
            notes.append(f"Left out, as their records hold nothing to choose a threshold by: {names}. {why}")
    return notes
