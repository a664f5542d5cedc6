"""What was said of images, as people read it: a line for each of a few, and how many of each class of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.deploying.predicted import Predicted
from tlcache.deploying.rows import PredictedRow
from tlcache.heads.answering import Answering
from tlcache.keys import printable, some
from tlcache.report.plain import interval, plain_table
from tlcache.tasks import REGRESSION
from tlcache.text import counted, numbers_text

__all__ = ["predictions_lines", "predictions_table", "unusable_line"]

_FEW = 20  # images
_CLASSES = 3  # of each


def predictions_table(found: Predicted) -> RenderableType:
    """Return a line for each image if there are a few, else how many are taken for each class."""
    if found.answering is not None:
        return _answers(found, found.answering)
    if len(found) > _FEW:
        return _counts(found)
    columns = found.columns
    classes = min(columns.top, _CLASSES)
    shown = {"Set": columns.sets, "Unusual": columns.unusual, "Error": bool(found.errors)}
    further = [*(f"Label {place}" for place in range(2, classes + 1)), *(name for name in shown if shown[name])]
    table = plain_table("Path", "Label", "Confidence", *further, numbers=slice(2, 3))
    for row in found.rows():
        likely = [(printable(name), f"{each:.3f}") for name, each in zip(row.labels, row.confidences, strict=True)]
        first, *others = likely[:classes] or [("", "")] * classes
        unusual = "" if row.unusual is None else f"{row.unusual:.3f}"
        more = {"Set": printable("; ".join(row.set or ())), "Unusual": unusual, "Error": row.error}
        cells = (more[name] for name in shown if shown[name])
        table.add_row(printable(row.path), *first, *map(" ".join, others), *cells)
    if columns.top == classes:
        return table
    return Group(table, Text(f"Of the {columns.top:,} likeliest classes {classes} are shown; --out has all.", "dim"))


def _answers(found: Predicted, answering: Answering) -> RenderableType:
    """Return a line for each image if there are a few, of many labels how many have each, of many numbers the range."""
    if len(found) <= _FEW:
        ends = answering.further if answering.task == REGRESSION else ()
        table = plain_table("Path", "Label", *map(str.capitalize, ends), "Error", numbers=slice(2, 2 + len(ends)))
        for row in found.rows():
            cells = _ends(row, ends, answering.spread)
            said = "".join(row.labels)
            shown = numbers_text([float(said)], answering.spread)[0] if said and answering.are_numbers else said
            table.add_row(printable(row.path), printable(shown), *cells, row.error)
        return table
    usable = [number for number in range(len(found)) if number not in found.errors]
    answers = found.confidences[usable]
    if answering.task == REGRESSION:
        table = plain_table("Images", "Least", "Median", "Largest", numbers=slice(0, 4))
        table.add_row(f"{len(usable):,}", *numbers_text(np.quantile(answers, (0, 0.5, 1)).tolist()))
        return table
    table = plain_table("Label", "Images", numbers=slice(1, 2))
    for name, count in zip(answering.names, (answers >= answering.thresholds).sum(axis=0), strict=True):
        table.add_row(printable(name), f"{count:,}")
    return table


def _ends(row: PredictedRow, names: Sequence[str], spread: float) -> list[str]:
    return numbers_text([row.each[name] for name in names], spread) if row.each and names else ["" for _ in names]


def _counts(found: Predicted) -> RenderableType:
    table, counts = plain_table("Class", "Images", numbers=slice(1, 2)), list(found.counts.items())
    for name, count in counts[:_FEW]:
        table.add_row(printable(name), f"{count:,}")
    if rest := counts[_FEW:]:
        table.add_row(f"{len(rest):,} more", f"{sum(count for _, count in rest):,}")
    return table


def predictions_lines(found: Predicted) -> list[str]:
    """Return how many images there were, how long it took, and how often it is right."""
    origin = f"{found.embedded:,} embedded, {found.reused:,} from the cache"
    took = f"{found.seconds:.1f} s, {len(found) / found.seconds:,.0f} images/s"
    lines = [f"{counted(len(found), 'image')} by {found.model}: {origin}; {took}"]
    if found.withheld:
        counts = Counter(found.withheld.values()).most_common()
        lines.append(f"Not answered: {', '.join(f'{count:,} {word}' for word, count in counts)}")
    if checked := found.checked:
        if checked.n:
            figures = interval(checked.accuracy, checked.low, checked.high)
            lines.append(f"Accuracy (95 %): {figures} on {counted(checked.n, 'labelled image')}")
        if checked.covered is not None:
            figures = interval(checked.covered, checked.covered_low or 0.0, checked.covered_high or 1.0)
            lines.append(f"Sets hold the label (95 %): {figures}")
        if checked.unknown:
            names = some(list(checked.unknown))
            count = counted(sum(checked.unknown.values()), "image")
            lines.append(f"Left out of that: {count} with labels that are no class of the model: {names}")
    return lines


def unusable_line(found: Predicted) -> str:
    """Return which images cannot be used."""
    names = some([found.paths[number] for number in found.errors])
    return f"{len(found.errors):,} of {counted(len(found), 'image')} cannot be used: {names}."
