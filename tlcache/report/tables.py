"""Records and registries as tables for a terminal, readable at 80 columns."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import filesize
from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.backbones.backbone import Backbone
from tlcache.backbones.sources import forms
from tlcache.datasets.source import Form
from tlcache.extraction.job import Extraction
from tlcache.heads.table import HeadRow
from tlcache.inventory import CacheEntry, Check, Leftover
from tlcache.keys import hash_json, some
from tlcache.report.fitting import FittedTable
from tlcache.report.plain import interval, plain_table
from tlcache.report.reached import COLUMNS
from tlcache.runs.naming import set_apart
from tlcache.runs.pergroup import PerGroup
from tlcache.runs.record import Run
from tlcache.tasks import CLASSIFY, MULTILABEL, REGRESSION
from tlcache.text import counted, figure_text

if TYPE_CHECKING:
    from tlcache.evaluation.baseline import Baseline
    from tlcache.evaluation.comparison import Comparison, Entry, Groups
    from tlcache.probing.shots import Curve, Point

__all__ = [
    "baseline_line",
    "cache_table",
    "checks_lines",
    "curves_table",
    "datasets_table",
    "extractions_table",
    "group_interval",
    "group_name",
    "groups_lines",
    "mark",
    "marks",
    "heading",
    "heads_table",
    "learned",
    "leftovers_table",
    "models_table",
    "per_group_lines",
    "provider_words",
    "recorded_table",
    "runs_tables",
]

_WEIGHTS = 60  # characters
_LARGE = 0.25  # share of the images in one group, from which on that is said

_SPARE = ("Top-1", "Weights here", "Input")  # columns of backbones


def models_table(models: Sequence[Backbone]) -> RenderableType:
    """Return the backbones with what a user needs to choose one."""
    rated = [row for row in models if _top1(row) != "-"]  # timm says of none
    figures = ("Dim", "Parameters", "Input", *(("Top-1",) if rated else ()))
    table = FittedTable(("Backbone", "Weights here", "Licence"), figures, _SPARE if rated else _SPARE[1:])
    for row in models:
        here, licences = ", ".join(row.at_hand) or "-", {each.licence for each in row.checkpoints.values()}
        cells = [f"{row.dim}", f"{row.parameters / 1e6:.1f} M", f"{row.preprocess().crop}", _top1(row)][: len(figures)]
        table.add_row(row.name, here, ", ".join(sorted(licences)) or "-", *cells)
    top1 = "Top-1: on ImageNet where nothing else is said; two figures: --weights imagenet / imagenet_v2. "
    note = f"{top1 if rated else ''}--model also takes {forms()}."
    return Group(table, Text(note, style="dim"))


def _top1(row: Backbone) -> str:
    best = " / ".join(f"{each.top1:.1f}" for each in row.checkpoints.values() if each.top1 is not None)
    tasks = {each.task for each in row.checkpoints.values()} - {"ImageNet"}
    return f"{': '.join([*tasks, best])} %" if best else "-"


def heads_table(heads: Sequence[HeadRow]) -> RenderableType:
    """Return the heads and the settings each chooses from."""
    table = plain_table("Head", "What it is", "Chooses from")
    for row in heads:
        space = "; ".join(f"{name} {', '.join(map(_setting, values))}" for name, values in row.quick.items())
        table.add_row(row.name, row.about, space)
    return table


def _setting(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def datasets_table(forms: Sequence[Form]) -> RenderableType:
    """Return the forms of `--data` with an example each."""
    table = plain_table("Form", "Example", "Looks like")
    for form in forms:
        table.add_row(form.name, Text(form.example, no_wrap=True), form.looks_like)
    rules = (
        "A split that is not given is drawn from train: 20 % each for val and test (--val, --test), stratified, seeded "
        "(--split-seed). "
        "Images of one group, and byte-identical images, always go to one split."
    )
    return Group(table, Text(rules, style="dim"))


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
        return f"not yet, {shards_words(*done.shards)} done"
    if done.up_to_date:
        return "up to date"
    where = {"CPUExecutionProvider": "on the CPU", "CUDAExecutionProvider": "on the GPU"}
    return f"written, {counted(done.embedded, 'image')} embedded {where.get(done.provider, f'by {done.provider}')}"


def shards_words(count: int, total: int) -> str:
    """Return how many shards of a dataset."""
    return f"{count:,} of {counted(total, 'shard')}"


def cache_table(entries: Sequence[CacheEntry], folder: Path) -> RenderableType:
    """Return one row per feature file or folder of parts, and below the table what is wrong with any."""
    if not entries:
        return Text(f"Nothing is cached in '{folder}' yet. Begin with: tlcache extract --data FOLDER --model NAME")
    table = FittedTable(
        ("Dataset", "Backbone", "Weights", "State"), ("Rows", "Size", "Age"), ("Age", "Size", "Weights")
    )
    for entry in entries:
        rows = f"{entry.rows:,}"
        if entry.state in ("unfinished", "running"):
            rows += f" of {entry.images:,}"
        style = {"complete": "", "kept": "", "damaged": "bold red", "lost": "bold red"}.get(entry.state, "magenta")
        alike = [_embedded(other) for other in entries if other.identity and _name(other) == _name(entry)]
        backbone = set_apart(entry.backbone, _embedded(entry), alike) if entry.identity else entry.backbone
        kept = entry.state == "kept" and entry.detail
        state = f"{entry.state}, {entry.detail}" if kept else entry.state
        cells = (entry.dataset or "(no dataset)", backbone, entry.weights, state)
        table.add_row(*cells, rows, _size(entry.size_bytes), _age(entry.created), style=style)
    told = [entry for entry in entries if entry.detail and entry.state != "kept"]
    notes = [Text(_about(entry.path, entry.detail), style="dim") for entry in told]
    total = sum(entry.size_bytes for entry in entries)
    return Group(table, *notes, Text(f"{len(entries)} in '{folder}', {_size(total)}", style="dim"))


def checks_lines(checks: Sequence[Check]) -> list[str]:
    """Return a line or two per file: whole, damaged and where, repaired."""
    lines = []
    for check in checks:
        if not (check.damaged or check.problem):
            lines.append(f"{check.path}: {check.rows:,} rows, all as written")
            continue
        end = " (repaired: extracted again from the dataset as it is now)" if check.repaired else ""
        if check.damaged:
            lost = len(check.damaged)
            count = f"{lost:,} of {counted(check.rows, 'row')} {'is' if lost == 1 else 'are'} damaged"
            lines.append(f"{check.path}: {count}: {some(check.damaged, 10)}{end}")
            end = ""
        if check.problem:
            lines.append(f"{_about(check.path, check.problem)}{end}")
    return lines


def leftovers_table(leftovers: Sequence[Leftover]) -> RenderableType:
    """Return what can be removed, and why."""
    table = plain_table("Size", "Why", numbers=slice(0, 1))
    for leftover in leftovers:
        table.add_row(_size(leftover.size_bytes), Text(f"{leftover.path}: {leftover.why}", overflow="fold"))
    return table


def _about(path: Path, what: str) -> str:
    """Return what there is to say of a file, with its path unless that is part of it."""
    return what if str(path) in what else f"{path}: {what}"


def _size(count: int) -> str:
    return str(filesize.decimal(count))


def _age(created: str) -> str:
    """Return how long ago that was, in its largest unit."""
    if not created:
        return "-"
    seconds = (datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(created)).total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def recorded_table(runs: Sequence[Run], folder: Path) -> RenderableType:
    """Return one row per run: what its files are called, what it reached, how old it is."""
    table = FittedTable(("Dataset", "Run"), ("Accuracy", "Age"))
    for run in runs:
        table.add_row(run.dataset, run.path.stem, _reached(run), _age(run.created))
    note = f"{counted(len(runs), 'run')} in '{folder}'; a name with .json is its record"
    return Group(table, Text(note, style="dim"))


def _reached(run: Run) -> str:
    """Return the accuracy of a run, or with its name the usual figure of its task."""
    first = COLUMNS[run.task][0]
    usual = f"{first.title} {figure_text(run.test.others.get(first.name, math.nan), first.name)}"
    return f"{run.test.accuracy:.3f}" if run.task == CLASSIFY else usual


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


def _name(entry: CacheEntry) -> tuple[str, ...]:
    return entry.dataset, entry.backbone, entry.weights


def _embedded(entry: CacheEntry) -> dict[str, Any]:
    return {**entry.identity, "key": hash_json(entry.identity), "weights": entry.weights, "output": entry.output}
