"""Extractions and comparisons of runs as tables for a terminal, readable at 80 columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.extraction.job import Extraction
from tlcache.keys import few
from tlcache.report.fitting import FittedTable
from tlcache.report.plain import interval, plain_table
from tlcache.report.reached import COLUMNS
from tlcache.runs.finetuned import FinetunedRun
from tlcache.runs.pergroup import PerGroup
from tlcache.runs.record import Run
from tlcache.tasks import MULTILABEL, REGRESSION
from tlcache.text import counted, figure_text

if TYPE_CHECKING:
    from tlcache.evaluation.baseline import Baseline
    from tlcache.evaluation.comparison import Comparison, Entry, Groups
    from tlcache.probing.shots import Curve, Point

__all__ = [
    "baseline_line",
    "curves_table",
    "extractions_table",
    "group_interval",
    "group_name",
    "groups_lines",
    "held_out_lines",
    "mark",
    "missing_words",
    "marks",
    "heading",
    "learned",
    "per_group_lines",
    "provider_words",
    "runs_tables",
]

_WEIGHTS = 60  # characters
_LARGE = 0.25  # share of the images in one group, from which on that is said


def extractions_table(done: Sequence[Extraction], explain: bool = False) -> RenderableType:
    """Return one row per feature file."""
    figures = ("Rows", "Embedded", "Reused", "Bad", "Images/s", "Seconds")
    table = FittedTable(("Backbone",), figures, ("Bad", "Reused"))
    for each in done:
        rate = f"{each.images_per_s:,.0f}" if each.embedded else "up to date" if each.up_to_date else "-"
        counts = (each.rows, each.embedded, each.reused, each.quarantined)
        name = " ".join(filter(None, [each.backbone, each.output, each.pool]))
        table.add_row(name, *(f"{count:,}" for count in counts), rate, f"{each.seconds['wall_s']:.1f}")
    note = "Images/s and seconds are of the whole command; in comparisons, embed is decoding and network alone."
    return Group(table, Text(note, style="dim")) if explain else table


def provider_words(done: Extraction) -> str:
    """Return what was done, and where the network ran, in plain words."""
    if done.shards:
        count, total = done.shards
        state = "as it was before" if done.path.exists() else "not yet"
        return f"{state}, {count:,} of {counted(total, 'shard')} done"
    if done.up_to_date:
        return "up to date"
    where = {"CPUExecutionProvider": "on the CPU", "CUDAExecutionProvider": "on the GPU"}
    return f"written, {counted(done.embedded, 'image')} embedded {where.get(done.provider, f'by {done.provider}')}"


def missing_words(done: Extraction) -> str:
    """Return which shares are missing of what is not published yet, and what to do."""
    shares = done.missing_shares
    if shares is None:
        return "the rest is missing: give the command again with --claim"
    if not shares:
        return "others are at what is missing"
    one = len(shares) == 1
    again = "its command" if one else "their commands"
    return (
        f"{'share' if one else 'shares'} {few(shares, 10)} {'is' if one else 'are'} missing: give {again} again, or "
        "one with --claim in place of --shard"
    )


def runs_tables(comparisons: Sequence[Comparison]) -> RenderableType:
    """Return a table of each comparison: what its runs reach, the most accurate first, and how long training took."""
    tables = [part for found in comparisons for part in (_runs_table(found), Text())]
    return Group(*tables[:-1])


def _runs_table(found: Comparison) -> RenderableType:
    first, *others = COLUMNS[found.task]
    titles = (f"{first.title} (95 %)", *(each.title for each in others), "Train s")
    table = FittedTable(("", "Backbone", "Head"), titles, (*(each.title for each in reversed(others)), "Train s"))
    for entry in found.entries:
        figures = (interval(*entry.figure(first.name), first.name), *(each.cell(entry) for each in others))
        cells = (*figures, f"{entry.train_s:,.1f}")
        sign = mark(entry, found)
        table.add_row(sign, entry.backbone, entry.head, *cells, style="bold green" if sign == "*" else "")
        if one := entry.per_group:
            cells = (group_interval(one), f"{one.test.macro_f1:.3f}", f"{one.test.log_loss:.3f}", "")
            table.add_row("", "", group_name(one), *cells)
    notes = (
        Text(baseline_line(found.baseline)),
        *groups_lines(found.groups),
        *per_group_lines(found),
        Text(marks(found), style="dim"),
    )
    return Group(heading([entry.run for entry in found.entries]), table, *notes)


def curves_table(curves: Sequence[Curve]) -> RenderableType:
    """Return one table per dataset and backbone: heads against labelled images per class."""
    parts: list[RenderableType] = []
    ordered = sorted(curves, key=lambda curve: (curve.dataset, curve.backbone, -curve.points[-1].mean))
    for (dataset, backbone), group in groupby(ordered, key=lambda curve: (curve.dataset, curve.backbone)):
        alike = list(group)
        counts = sorted({point.shots for curve in alike for point in curve.points}, key=lambda count: count or math.inf)
        table = plain_table("Head", *(f"{count or 'all'}" for count in counts), numbers=slice(1, None))
        for curve in alike:
            found = {point.shots: _spread(point) for point in curve.points}
            table.add_row(curve.head, *(found.get(count, "-") for count in counts))
        parts += [
            Text(f"{dataset}, {backbone}: test accuracy by labelled images per class", style="bold"),
            table,
            Text(),
        ]
    note = "Mean and standard deviation over random samples; settings are chosen within each sample."
    return Group(*parts, Text(note, style="dim"))


def _spread(point: Point) -> str:
    return f"{point.mean:.3f}" + (f" +-{point.std:.3f}" if len(point.accuracy) > 1 else "")


def mark(entry: Entry, found: Comparison) -> str:
    """Return the sign of a run in tables, which `marks` explains."""
    return "*" if entry is found.picked[0] else "~" if entry.best else ""


def marks(found: Comparison) -> str:
    """Return what the signs in a table mean."""
    picked = "picked on validation" if found.without_test else "the best on the test images"
    resampled = found.entries[0].run.test_split.endswith("cross-validation")
    test = found.by if found.by != "accuracy" else "Nadeau and Bengio" if resampled else "McNemar"
    return f"* {picked}, ~ not shown to be worse ({test}, Holm, 5 %)."


def groups_lines(groups: Groups | None) -> list[Text]:
    """Return a line that says what intervals count, where the test images have groups."""
    if groups is None:
        return []
    line = f"Intervals and tests count the {counted(groups.number, 'group')} of the test images, not the images."
    if groups.number > 1 and groups.largest > _LARGE:
        line += (
            f" One of them has {groups.largest:.0%} of the images: together they tell no more than "
            f"{groups.effective:.1f} groups of one size, and intervals are as wide as that."
        )
    return [Text(line)]


def group_name(found: PerGroup) -> str:
    """Return what the row of one answer for each group is called."""
    return f"per group, {found.rule}"


def group_interval(found: PerGroup) -> str:
    """Return the accuracy of one answer for each group."""
    return interval(found.test.accuracy, found.test.accuracy_low, found.test.accuracy_high)


def per_group_lines(found: Comparison) -> list[Text]:
    """Return what the rows of one answer for each group are of, where there are any."""
    lines = {
        f"Per group: one answer for each of {counted(one.test.n, 'group')}, joined in the way that was best on "
        f"validation{f'; {one.mixed} of several classes are left out' if one.mixed else ''}."
        for entry in found.entries
        if (one := entry.per_group)
    }
    return [Text(line) for line in sorted(lines)]


def held_out_lines(found: Comparison) -> list[Text]:
    """Return which images runs were validated on, where heads and fine-tunings were on different ones."""
    frozen, tuned = (
        next((each.run for each in found.picked if isinstance(each.run, FinetunedRun) == tuned), None)
        for tuned in (False, True)
    )
    if not (frozen and tuned and found.without_test) or frozen.validated_on == tuned.validated_on:
        return []
    line = (
        f"Val of heads is of the {frozen.validated_on:,} images of train and val, in folds, that of fine-tunings of "
        f"the {tuned.validated_on:,} of val."
    )
    if same := found.same_images:
        head, best = (figure_text(each, found.by) for each in (same.head, same.tuned))
        line += f" On the {same.n:,} that both held out the best head has {head}, the best fine-tuning {best}."
    return [Text(line)]


def baseline_line(found: Baseline | None) -> str:
    """Return what to hold figures against; nothing where there is no such thing."""
    return str(found or "")


def heading(runs: Sequence[Run], more: str = "") -> Text:
    """Return what these runs are about: dataset, test images, classes, weights."""
    first = runs[0]
    each = sorted({(run.backbone, run.weights) for run in runs})
    names = sorted({weights for _, weights in each})
    weights = names[0] if len(names) == 1 else ", ".join(f"{backbone} {name}" for backbone, name in each)
    if len(weights) > _WEIGHTS:
        weights = f"{counted(len(names), 'kind')} (see tlcache ls)"
    title = f"{first.dataset}: {tested(first)}{_drawn(first)}, {learned(first)}"
    return Text(f"{title}{more}, weights: {weights}", style="bold")


def tested(run: Run) -> str:
    """Return which images a run was tested on: those of the test split, or all of them in folds."""
    if run.cross_validation:
        return f"{counted(run.test.n, 'image')} tested by {run.test_split}"
    return counted(run.test.n, "test image")


def learned(run: Run) -> str:
    """Return what a run learned."""
    known = {REGRESSION: "numbers", MULTILABEL: counted(len(run.classes), "label")}
    return known.get(run.task, f"{len(run.classes)} classes")


def _drawn(run: Run) -> str:
    """Return what to say of splits that were drawn, where their names are read."""
    drawn = () if run.cross_validation else run.drawn or ()
    return " (drawn)" if "test" in drawn else ", val drawn" if drawn else ""
