"""What is kept on disk, as tables for a terminal: feature files, records, and what of them can go."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import filesize
from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.keys import hash_json, some
from tlcache.report.fitting import FittedTable
from tlcache.report.plain import plain_table
from tlcache.report.reached import COLUMNS
from tlcache.runs.naming import set_apart
from tlcache.runs.record import Run
from tlcache.tasks import CLASSIFY
from tlcache.text import counted, figure_text

if TYPE_CHECKING:
    from tlcache.inventory.checks import Check
    from tlcache.inventory.entries import CacheEntry
    from tlcache.inventory.leftovers import Leftover

__all__ = ["cache_table", "checks_lines", "leftovers_table", "recorded_table"]


def cache_table(entries: Sequence[CacheEntry], folder: Path) -> RenderableType:
    """Return one row per feature file or folder of parts, and below the table what is wrong with any."""
    if not entries:
        return Text(f"Nothing is cached in '{folder}' yet. Begin with: tlcache extract --data FOLDER --model NAME")
    table = FittedTable(
        ("Dataset", "Backbone", "Weights", "State"), ("Rows", "Size", "Age"), ("Age", "Size", "Weights")
    )
    for entry in entries:
        rows = f"{entry.rows:,}"
        if entry.state in ("unfinished", "running") and entry.rows <= entry.images:  # rows of images that went stay
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
        if check.problem and not (check.damaged and check.repaired):  # which says what to do, and it is done
            lines.append(f"{_about(check.path, check.problem)}{end}")
    return lines


def leftovers_table(leftovers: Sequence[Leftover]) -> RenderableType:
    """Return what can be removed, and why."""
    table = plain_table("Size", "Why", numbers=slice(0, 1))
    for leftover in leftovers:
        table.add_row(_size(leftover.size_bytes), Text(f"{leftover.path}: {leftover.why}", overflow="fold"))
    return table


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


def _name(entry: CacheEntry) -> tuple[str, ...]:
    return entry.dataset, entry.backbone, entry.weights


def _embedded(entry: CacheEntry) -> dict[str, Any]:
    return {**entry.identity, "key": hash_json(entry.identity), "weights": entry.weights, "output": entry.output}
