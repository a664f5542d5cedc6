"""Comparisons of images with columns of their table as a table for a terminal, and the shortcut named in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.evaluation.significance import LEVEL, Difference, correct_for_many
from tlcache.keys import printable
from tlcache.report.fitting import FittedTable
from tlcache.text import p_text, points

if TYPE_CHECKING:
    from tlcache.probing.columns import ColumnComparison

__all__ = ["columns_tables", "shortcut", "shortcuts"]

_OVER, _ALL = ("Both over image (95 %)", "p"), ""


def columns_tables(found: Sequence[ColumnComparison]) -> RenderableType:
    """Return one table per dataset and backbone: heads by the image, by the columns, by both; and what it means."""
    parts: list[RenderableType] = []
    for _, group in groupby(found, key=lambda each: (each.dataset, each.digest, each.backbone, tuple(each.columns))):
        alike = sorted(group, key=lambda each: -each.image.accuracy)
        first, table = alike[0], FittedTable(("Head",), ("Image", "Columns", "Both", *_OVER), _OVER[1:])
        for each, p in zip(alike, correct_for_many([each.both_over_image.p for each in alike]), strict=True):
            reached = (f"{part.accuracy:.3f}" for part in (each.image, each.alone, each.both))
            table.add_row(each.head, *reached, _points(each.both_over_image), f"{p:.3f}")
        about = f"{first.dataset}, {first.backbone}, accuracy on {first.n:,} test images: {_named(first)}"
        many = " p is corrected for the number of heads (Holm)." if len(alike) > 1 else ""
        parts += [Text(about, style="bold"), table, Text(f"Differences are in points.{many}", style="dim")]
        parts += [Text(shortcut(alike)), Text()]
    return Group(*parts[:-1])


def shortcuts(found: Sequence[ColumnComparison]) -> list[str]:
    """Return what each set of columns tells, beside the embeddings of each backbone, of one dataset."""
    ranked = sorted(found, key=_set)
    return [f"{backbone}, {named}: {shortcut(list(group))}" for (backbone, named), group in groupby(ranked, key=_set)]


def _set(found: ColumnComparison) -> tuple[str, str]:
    return found.backbone, _named(found)


def shortcut(found: Sequence[ColumnComparison]) -> str:
    """Return what columns alone tell of the labels, of one dataset by several heads, in a sentence or two.

    The head is the one that gets furthest by them; p is corrected for the number of heads and of columns.
    """
    best = max(found, key=lambda each: each.alone.accuracy)
    constant = f"always answering '{best.baseline.answer}' {best.baseline.accuracy:.3f}"
    several = len(best.columns) > 1
    subject = f"{'The columns' if several else printable(next(iter(best.columns)))} alone"
    over = best.over_baseline[_ALL]
    p = min(1.0, over.p * len(found))
    if over.difference <= 0 or p >= LEVEL:
        tell = "tell" if several else "tells"
        return f"{subject} {tell} nothing that can be shown: {best.alone.accuracy:.3f} ({best.head}), {constant}."
    telling = _telling(best)
    predict = f"{' and '.join(telling)} predict{'s' if len(telling) == 1 else ''} the label"
    reach = "reach" if several else "reaches"
    against = best.alone_over_image
    image = "more than" if against.low > 0 else "less than" if against.high < 0 else "as much as"
    apart = f"{best.image.accuracy:.3f}, {points(against.low)} to {points(against.high)} points of difference"
    return (
        f"{subject} {reach} {best.alone.accuracy:.3f} ({best.head}), {constant} ({p_text(p)}): {predict}. That is "
        f"{image} the images alone ({apart}). What heads on images reach may rest on the same: a shortcut. That shows "
        "on images for which it does not hold, as where whole groups are tested (extract --group-column)."
    )


def _telling(best: ColumnComparison) -> list[str]:
    """Return the columns that tell something by themselves, those that tell most first; all where none does."""
    single = {name: each for name, each in best.over_baseline.items() if name != _ALL}
    ranked = sorted(single, key=lambda name: -single[name].difference)
    shown = [name for name in ranked if single[name].difference > 0 and single[name].p * len(single) < LEVEL]
    return [printable(name) for name in shown or best.columns]


def _named(found: ColumnComparison) -> str:
    return ", ".join(map(printable, found.columns))


def _points(found: Difference) -> str:
    return f"{points(found.difference)} ({points(found.low)} to {points(found.high)})"
