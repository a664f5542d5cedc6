"""Comparisons as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from tlcache.auditing.findings import Audit, audit_of
from tlcache.auditing.leakage import LeakageGap
from tlcache.auditing.verdict import alarm, torn_by_folds
from tlcache.cache.resplit import GIVEN
from tlcache.evaluation.across import Across
from tlcache.evaluation.comparison import Comparison, Entry, Pair
from tlcache.evaluation.margins import Margin
from tlcache.evaluation.verdict import verdict
from tlcache.keys import some
from tlcache.report.fitting import FittedTable
from tlcache.report.plain import interval
from tlcache.report.reached import COLUMNS
from tlcache.report.tables import (
    baseline_line,
    group_interval,
    group_name,
    groups_lines,
    heading,
    held_out_lines,
    mark,
    marks,
    per_group_lines,
)
from tlcache.runs.pergroup import PerGroup
from tlcache.tasks import CLASSIFY
from tlcache.text import figure_text, p_text, points

__all__ = [
    "COSTS",
    "FIGURES",
    "LEGEND",
    "columns",
    "comparison_tables",
    "costs",
    "figures",
    "group_figures",
    "leak_line",
    "mark",
    "marks",
    "title",
]

FIGURES = ("Accuracy (95 %)", "Val", "F1", "AUROC", "Loss", "ECE")
_FEWER = ("Accuracy (95 %)", "Val", "F1", "Loss")
_LEAST = ("AUROC", "ECE", "Loss", "Micro F1", "Spearman", "F1", "RMSE", "R2", "Val")  # what is left out first
SECONDS = ("Embed s", "Train s", "Total s")
COSTS = (*SECONDS, "Img/s", "Params")
LEGEND = (
    "Val: on images held out of training, which runs are picked by. F1 and AUROC: means over classes. "
    "Loss: log-loss. Embed: decoding and network, for all images, without what "
    "extract takes to start and to write its file; train: choosing settings and fitting, as for one more head; of a "
    "fine-tuning, also decoding and validation; total: both, from nothing. Img/s: images per second of embed."
)


def comparison_tables(
    comparisons: Sequence[Comparison],
    audits: Sequence[Audit] = (),
    gaps: Sequence[LeakageGap] = (),
    explain: bool = False,
    all_pairs: bool = False,
    over: Across | None = None,
) -> RenderableType:
    """Return the verdict and the table of each comparison: what every run reaches, what it costs, and if it leaks.

    With `explain` it is said at the end what the columns mean; with `all_pairs` every two runs are in a table.
    `over` is what holds over all datasets.
    """
    parts: list[RenderableType] = []
    for found in comparisons:
        notes = [*held_out_lines(found), Text(baseline_line(found.baseline)), *groups_lines(found.groups)]
        notes += per_group_lines(found)
        if _several(found, comparisons):
            notes.append(Text("Runs on other images or splits of this dataset are not compared with these."))
        line, matters = leak_line(found, audits, gaps)
        leak = [Text(line, style="bold red" if matters else "")] if line else []
        parts += [title(found, comparisons), *leak, Text(verdict(found)), Text(), _Wide(found), *notes, Text()]
        parts[-1:] = [Text(marks(found), style="dim"), Text(), *backbones_table(found)]
        parts += [*margins_table(found), *(pairs_table(found) if all_pairs else [])]
    parts += across_table(over, comparisons[0].by) if over else []
    return Group(*parts, Text(LEGEND if explain else "What the columns mean: --verbose.", style="dim"))


def backbones_table(found: Comparison) -> list[RenderableType]:
    """Return a table of the frozen backbones, each by the head that was picked for it, against the first."""
    if len(found.backbones) < 2:
        return []
    first = found.backbones[0]
    table = FittedTable(("Backbone", "Head"), ("Val", _title(found.by), "Against the first", "p"), ("Val",))
    for entry in found.backbones:
        pair = next((each for each in found.between_backbones if (each.a, each.b) == (first, entry)), None)
        against, p = ("", "") if pair is None else (difference(pair, found.by), f"{pair.p_corrected:.3f}")
        reached = interval(*entry.figure(found.by), found.by)
        cells = (entry.backbone, entry.head, _or_none(entry.val_score, found.by), reached)
        table.add_row(*cells, against, p)
    many = found.between_backbones[0].many
    note = [Text(f"p is corrected for {many} pairs (Holm).", style="dim")] if many > 1 else []
    return [Text("Backbones by the heads picked for them", style="bold"), table, *note, Text()]


def margins_table(found: Comparison) -> list[RenderableType]:
    """Return a table of the other runs against the picked one and the margin."""
    if not found.margins:
        return []
    table = FittedTable(("Run",), ("Over the picked", "p worse", "p better", ""))
    for each in found.margins:
        table.add_row(each.name, difference(each, found.by), f"{each.p_worse:.3f}", f"{each.p_better:.3f}", each.words)
    note = "p of being worse, or better, by the margin or more; corrected for all rows (Holm); shown below 0.025."
    head = f"Against {found.picked[0].name}, margin {found.margin:g} points"
    return [Text(head, style="bold"), table, Text(note, style="dim"), Text()]


def across_table(found: Across, by: str) -> list[RenderableType]:
    """Return a table of the runs that are on each of several datasets, by their mean rank."""
    table = FittedTable(("Run",), ("Mean rank", f"Mean {by}", "Against the first, p"))
    for name, rank, value, p in zip(
        found.names, found.mean_ranks, found.mean_values, (None, *found.p_first), strict=True
    ):
        table.add_row(name, f"{rank:.2f}", f"{value:.3f}", "" if p is None else f"{p:.3f}")
    note = f"All equal: {p_text(found.p)} (Friedman). p: Wilcoxon's signed ranks, Holm."
    if not found.can_show:
        note += f" With {len(found.datasets)} datasets and {len(found.names)} runs none of them can be below 0.05."
    head = f"Over {len(found.datasets)} datasets: {some(found.datasets)}"
    return [Text(head, style="bold"), table, Text(note, style="dim"), Text()]


def pairs_table(found: Comparison) -> list[RenderableType]:
    """Return a table of every two runs; p is corrected for all of them."""
    table = FittedTable(("Run", "over"), ("Difference (95 %)", "p", "Corrected"))
    for pair in found.pairs:
        cells = (difference(pair, found.by), f"{pair.found.p:.3f}", f"{pair.p_corrected:.3f}")
        table.add_row(pair.a.name, pair.b.name, *cells)
    return [Text(f"All {len(found.pairs)} pairs of runs", style="bold"), table, Text()]


def difference(pair: Pair | Margin, by: str) -> str:
    """Return what one run has over another with its interval, of an accuracy in points."""
    of = [pair.found.difference, pair.found.low, pair.found.high]
    middle, low, high = map(points, of) if by == "accuracy" else (figure_text(each, by) for each in of)
    return f"{middle} ({low} to {high})"


def _title(by: str) -> str:
    known = {column.name: column.title for each in COLUMNS.values() for column in each[:1]}
    return f"{known.get(by, by)} (95 %)"


def _or_none(value: float | None, name: str = "") -> str:
    return "-" if value is None else figure_text(value, name)


def title(found: Comparison, comparisons: Sequence[Comparison]) -> Text:
    """Return the heading of a comparison, with its split where there are others of the same dataset."""
    which = f", {found.entries[0].run.test_split} split {found.digest[:8]}"
    return heading([entry.run for entry in found.entries], which if _several(found, comparisons) else "")


def _several(found: Comparison, comparisons: Sequence[Comparison]) -> bool:
    return sum(other.dataset == found.dataset for other in comparisons) > 1


def leak_line(found: Comparison, audits: Sequence[Audit], gaps: Sequence[LeakageGap]) -> tuple[str, bool]:
    """Return that the split leaks, where an audit found it, and whether that is a warning; else an empty line."""
    run = found.entries[0].run
    if audit := audit_of(audits, found.digest):
        return alarm(audit, gaps)
    if run.cross_validation and run.split == GIVEN and run.given_digest:
        audit = audit_of(audits, run.given_digest)
    return torn_by_folds(audit, gaps, found.digest) if audit else ("", False)


def columns(by: str = "accuracy", task: str = CLASSIFY) -> tuple[str, ...]:
    """Return the titles of `figures`."""
    if task != CLASSIFY:
        return _title(by), "Val", *(each.title for each in COLUMNS[task] if each.name != by)
    return FIGURES if by == "accuracy" else (_title(by), *FIGURES)


def figures(entry: Entry, by: str = "accuracy") -> tuple[str, ...]:
    """Return what a run reaches: the figure that is compared by, and those of `FIGURES`, or of its task."""
    if (task := entry.run.task) != CLASSIFY:
        others = (each.cell(entry) for each in COLUMNS[task] if each.name != by)
        return interval(*entry.figure(by), by), _or_none(entry.val_score, by), *others
    first = () if by == "accuracy" else (interval(*entry.figure(by)),)
    rest = (entry.val_score, entry.macro_f1, entry.figures.get("auroc"), entry.log_loss, entry.ece)
    return *first, interval(entry.accuracy, entry.low, entry.high), *map(_or_none, rest)


def group_figures(found: PerGroup, by: str = "accuracy") -> tuple[str, ...]:
    """Return what a run reaches by one answer for each group, as `figures`."""
    test = found.test
    known = {**test.others, "log_loss": test.log_loss, "macro_f1": test.macro_f1}
    of = [known[name] for name in (by, f"{by}_low", f"{by}_high") if name in known]
    first = () if by == "accuracy" else (interval(of[0], of[1], of[2]) if len(of) == 3 else "-",)
    rest = (found.validated.get(found.rule), test.macro_f1, test.others.get("auroc"), test.log_loss, test.ece)
    return *first, group_interval(found), *map(_or_none, rest)


def costs(entry: Entry) -> tuple[str, ...]:
    """Return what a run costs, in the order of `COSTS`."""
    seconds = (entry.extract_s, entry.train_s, entry.first_s)
    parameters = f"{entry.parameters / 1e6:.1f} M" if entry.parameters else "-"
    return *(f"{value:,.1f}" for value in seconds), f"{entry.images_per_s:,.0f}", parameters


@dataclass(frozen=True)
class _Wide:
    """A table of entries: with all columns or the most telling, in two parts only where the terminal is very narrow."""

    found: Comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        every = columns(self.found.by, self.found.task)
        fewer = tuple(name for name in every if name in _FEWER or name not in FIGURES)
        for titles, apart in ((every + COSTS, 2), (every + COSTS, 1), (every + SECONDS, 1), (fewer + SECONDS, 1)):
            table = self._table(titles)
            if table.fits(options.max_width, apart):
                yield table
                return
        yield self._table(every, _LEAST)
        yield Text("\nThe same runs, what they cost:\n")
        yield self._table(COSTS, ("Params", "Img/s", "Embed s"))

    def _table(self, titles: Sequence[str], leave_out: Sequence[str] = ()) -> FittedTable:
        table, by = FittedTable(("", "Backbone", "Head"), titles, leave_out), self.found.by
        for entry in self.found.entries:
            titles_of_all = (*columns(by, self.found.task), *COSTS)
            cells = dict(zip(titles_of_all, figures(entry, by) + costs(entry), strict=True))
            names = (mark(entry, self.found), entry.backbone, entry.head)
            table.add_row(*names, *(cells[each] for each in titles), style="bold green" if names[0] == "*" else "")
            if (one := entry.per_group) and not set(titles) <= set(COSTS):
                known = dict(zip(columns(by), group_figures(one, by), strict=True))
                table.add_row("", "", group_name(one), *(known.get(each, "") for each in titles))
        return table
