"""Comparisons as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from tlcache.auditing.findings import Audit, audit_of
from tlcache.auditing.leakage import LeakageGap
from tlcache.auditing.verdict import alarm
from tlcache.evaluation.comparison import Comparison, Entry
from tlcache.evaluation.verdict import verdict
from tlcache.report.fitting import FittedTable
from tlcache.report.plain import interval
from tlcache.report.tables import BEST, baseline_line, groups_lines, heading

__all__ = ["COSTS", "FIGURES", "LEGEND", "comparison_tables", "costs", "figures", "leak_line", "title"]

FIGURES = ("Accuracy (95 %)", "F1", "Recall", "Loss", "ECE")
SECONDS = ("Embed s", "Train s", "Total s")
COSTS = (*SECONDS, "Img/s", "Params")
LEGEND = (
    "F1 and recall: means over classes. Loss: log-loss. Embed: decoding and network, for all images, without what "
    "extract takes to start and to write its file; train: choosing settings and fitting, as for one more head; of a "
    "fine-tuning, also decoding and validation; total: both, from nothing. Img/s: images per second of embed."
)


def comparison_tables(
    comparisons: Sequence[Comparison],
    audits: Sequence[Audit] = (),
    gaps: Sequence[LeakageGap] = (),
    explain: bool = False,
) -> RenderableType:
    """Return the verdict and the table of each comparison: what every run reaches, what it costs, and if it leaks.

    With `explain` it is said at the end what the columns mean.
    """
    parts: list[RenderableType] = []
    for found in comparisons:
        notes = [Text(baseline_line(found.baseline)), *groups_lines(found.groups)]
        if _several(found, comparisons):
            notes.append(Text("Runs on other images or splits of this dataset are not compared with these."))
        line, matters = leak_line(found, audits, gaps)
        leak = [Text(line, style="bold red" if matters else "")] if line else []
        parts += [title(found, comparisons), *leak, Text(verdict(found)), Text(), _Wide(found.entries), *notes, Text()]
    return Group(*parts, Text(f"{BEST} {LEGEND if explain else 'What the columns mean: --verbose.'}", style="dim"))


def title(found: Comparison, comparisons: Sequence[Comparison]) -> Text:
    """Return the heading of a comparison, with its split where there are others of the same dataset."""
    which = f", {found.entries[0].run.test_split} split {found.digest[:8]}"
    return heading([entry.run for entry in found.entries], which if _several(found, comparisons) else "")


def _several(found: Comparison, comparisons: Sequence[Comparison]) -> bool:
    return sum(other.dataset == found.dataset for other in comparisons) > 1


def leak_line(found: Comparison, audits: Sequence[Audit], gaps: Sequence[LeakageGap]) -> tuple[str, bool]:
    """Return that the split leaks, where an audit found it, and whether that is a warning; else an empty line."""
    audit = audit_of(audits, found.digest)
    return alarm(audit, gaps) if audit else ("", False)


def figures(entry: Entry) -> tuple[str, ...]:
    """Return what a run reaches, in the order of `FIGURES`."""
    rest = (entry.macro_f1, entry.figures["balanced_accuracy"], entry.log_loss, entry.ece)
    return interval(entry.accuracy, entry.low, entry.high), *(f"{value:.3f}" for value in rest)


def costs(entry: Entry) -> tuple[str, ...]:
    """Return what a run costs, in the order of `COSTS`."""
    seconds = (entry.extract_s, entry.train_s, entry.first_s)
    parameters = f"{entry.parameters / 1e6:.1f} M" if entry.parameters else "-"
    return *(f"{value:,.1f}" for value in seconds), f"{entry.images_per_s:,.0f}", parameters


@dataclass(frozen=True)
class _Wide:
    """A table of entries: with all columns or the most telling, in two parts only where the terminal is very narrow."""

    entries: Sequence[Entry]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for columns, apart in ((FIGURES + COSTS, 2), (FIGURES + COSTS, 1), (FIGURES + SECONDS, 1)):
            table = self._table(columns)
            if table.fits(options.max_width, apart):
                yield table
                return
        yield self._table(FIGURES, ("ECE", "Recall", "Loss", "F1"))
        yield Text("\nThe same runs, what they cost:\n")
        yield self._table(COSTS, ("Params", "Img/s", "Embed s"))

    def _table(self, columns: Sequence[str], leave_out: Sequence[str] = ()) -> FittedTable:
        table = FittedTable(("", "Backbone", "Head"), columns, leave_out)
        for entry in self.entries:
            cells = dict(zip((*FIGURES, *COSTS), figures(entry) + costs(entry), strict=True))
            names = ("*" if entry.best else "", entry.backbone, entry.head)
            table.add_row(*names, *(cells[name] for name in columns), style="bold green" if entry.best else "")
        return table
