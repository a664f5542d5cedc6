"""Comparisons as tables for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tlcache.auditing.findings import Audit, audit_of
from tlcache.comparison import Comparison, Entry
from tlcache.report.tables import BEST, groups_lines, heading, interval, plain_table
from tlcache.resplit import GIVEN

__all__ = ["COSTS", "FIGURES", "comparison_tables", "costs", "figures"]

FIGURES = ("Accuracy (95 %)", "F1", "Recall", "Loss", "ECE")
COSTS = ("Embed s", "Train s", "Total s", "Img/s", "Params")
LEGEND = (
    "F1 and recall: means over classes. Loss: log-loss. Train: choosing settings and fitting, as for one more head; "
    "total: from nothing. Img/s: images per second of extract, decoding included."
)


def comparison_tables(comparisons: Sequence[Comparison], audits: Sequence[Audit] = ()) -> RenderableType:
    """Return the verdict and the table of each comparison: what every run reaches, what it costs, and if it leaks."""
    parts: list[RenderableType] = []
    for found in comparisons:
        several = sum(other.dataset == found.dataset for other in comparisons) > 1
        note = f"{BEST} {LEGEND}"
        if several:
            note += " Runs on other images or splits of this dataset are not compared with these."
        which = f", {found.entries[0].run.fields.get('split', GIVEN)} split {found.digest[:8]}" if several else ""
        title = heading([entry.run for entry in found.entries], which)
        notes = (*groups_lines(found.groups), Text(note, style="dim"))
        audit = audit_of(audits, found.digest)
        leak = [Text(f"The split leaks. {audit.verdict}", style="bold red")] if audit and audit.leaks else []
        parts += [title, Text(found.verdict), *leak, Text(), _Wide(found.entries), *notes, Text()]
    return Group(*parts[:-1])


def figures(entry: Entry) -> tuple[str, ...]:
    """Return what a run reaches, in the order of `FIGURES`."""
    rest = (entry.macro_f1, entry.balanced_accuracy, entry.log_loss, entry.ece)
    return interval(entry.accuracy, entry.low, entry.high), *(f"{value:.3f}" for value in rest)


def costs(entry: Entry) -> tuple[str, ...]:
    """Return what a run costs, in the order of `COSTS`."""
    seconds = (entry.extract_s, entry.train_s, entry.first_s)
    parameters = f"{entry.parameters / 1e6:.1f} M" if entry.parameters else "-"
    return *(f"{value:,.1f}" for value in seconds), f"{entry.images_per_s:,.0f}", parameters


@dataclass(frozen=True)
class _Wide:
    """A table of entries: in two parts, one under the other, where the terminal is too narrow for one."""

    entries: Sequence[Entry]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = self._table((*FIGURES, *COSTS), lambda entry: figures(entry) + costs(entry))
        if Measurement.get(console, options.update(width=1000), whole).maximum <= options.max_width:
            yield whole
        else:
            yield from (self._table(FIGURES, figures, apart=1), Text(), self._table(COSTS, costs, apart=1))

    def _table(self, columns: Sequence[str], cells: Callable[[Entry], tuple[str, ...]], apart: int = 2) -> Table:
        table = plain_table("", "Backbone", "Head", *columns, numbers=slice(3, 3 + len(columns)), apart=apart)
        for entry in self.entries:
            style = "bold green" if entry.best else ""
            table.add_row("*" if entry.best else "", entry.backbone, entry.head, *cells(entry), style=style)
        return table
