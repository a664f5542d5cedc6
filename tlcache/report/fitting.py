"""Tables as wide as the terminal: names go on below at the end of a part, and what tells least is left out first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

__all__ = ["FittedTable", "wrap"]

_PART = re.compile(r"[^\s_\-/:.,=]*[\s_\-/:.,=]+|[^\s_\-/:.,=]+")
_LINES = 2  # that the name of anything may take


def wrap(name: str, width: int) -> list[str]:
    """Return a name in lines of at most so many characters, broken after `_`, `-` and the like as far as can be.

    >>> wrap("mobilenetv3_small", 12), wrap("file:mobilenet_v2.pth", 15)
    (['mobilenetv3_', 'small'], ['file:mobilenet_', 'v2.pth'])
    """
    lines = [""]
    for part in _PART.findall(name):
        if len(lines[-1]) + len(part.rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += part
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines]


@dataclass(frozen=True)
class FittedTable:
    """A table of names and of figures beside them.

    Parameters
    ----------
    names, figures
        Titles of the columns. Figures stand to the right and are never broken.
    leave_out
        Titles of columns that are left out, the first of these first, until the names of a row fit in two lines.
    rows
        Cells, and a style for all of them.
    """

    names: Sequence[str]
    figures: Sequence[str]
    leave_out: Sequence[str] = ()
    rows: list[tuple[Sequence[str], str]] = field(default_factory=list)

    def add_row(self, *cells: str, style: str = "") -> None:
        """Add a row, the names first."""
        self.rows.append((cells, style))

    def fits(self, width: int, apart: int = 1, lines: int = _LINES, without: int = 0) -> bool:
        """Return whether every name needs no more than so many lines, with the first of `leave_out` left out."""
        return self._widths(width, apart, lines, without) is not None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it with what fits in."""
        width = options.max_width
        layouts = [(2, 1, 0), (1, 1, 0), *((1, _LINES, count) for count in range(len(self.leave_out) + 1))]
        apart, lines, without = next((each for each in layouts if self.fits(width, *each)), (1, 0, len(self.leave_out)))
        widths = self._widths(width, apart, lines, without) if lines else self._even(width, without)
        yield self._table(widths or {}, apart, without)
        if without:
            left = ", ".join(title for title in (*self.names, *self.figures) if title in self.leave_out[:without])
            yield Text(f"Left out, as there is no room: {left}.", style="dim")

    def _shown(self, without: int) -> list[int]:
        """Return the numbers of the columns that are not left out."""
        titles = (*self.names, *self.figures)
        return [number for number, title in enumerate(titles) if title not in self.leave_out[:without]]

    def _cells(self, number: int) -> list[str]:
        return [(*self.names, *self.figures)[number], *(cells[number] for cells, _ in self.rows)]

    def _widths(self, width: int, apart: int, lines: int, without: int) -> dict[int, int] | None:
        """Return the width of every column of names; None where they do not fit in."""
        shown = self._shown(without)
        names = [number for number in shown if number < len(self.names)]
        taken = sum(max(map(len, self._cells(number))) for number in shown if number not in names)
        left = width - taken - apart * (len(shown) - 1)
        found = {number: _least(self._cells(number), lines) for number in names}
        left -= sum(found.values())
        if left < 0:
            return None
        for number in sorted(names, key=found.__getitem__):  # the narrow ones may have what they want
            more = min(left, max(map(len, self._cells(number))) - found[number])
            found[number], left = found[number] + more, left - more
        return found

    def _even(self, width: int, without: int) -> dict[int, int]:
        """Return widths where nothing fits: names are broken anywhere."""
        shown = self._shown(without)
        names = [number for number in shown if number < len(self.names)]
        taken = sum(max(map(len, self._cells(number))) for number in shown if number not in names)
        return dict.fromkeys(names, max(4, (width - taken - len(shown) + 1) // len(names)))

    def _table(self, widths: dict[int, int], apart: int, without: int) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, apart, 0, 0))
        shown, titles = self._shown(without), (*self.names, *self.figures)
        for number in shown:
            title = _wrapped(titles, widths, number)
            table.add_column(title, justify="left" if number < len(self.names) else "right", no_wrap=True)
        for cells, style in self.rows:
            table.add_row(*(Text(_wrapped(cells, widths, number)) for number in shown), style=style)
        return table


def _wrapped(cells: Sequence[str], widths: Mapping[int, int], number: int) -> str:
    return "\n".join(wrap(cells[number], widths[number])) if number in widths else cells[number]


def _least(cells: Sequence[str], lines: int) -> int:
    """Return the smallest width that breaks none of these names within a part, or into more lines than these."""
    parts = [len(part.rstrip()) for cell in cells for part in _PART.findall(cell)]
    width = max(parts, default=0)
    while any(len(wrap(cell, width)) > lines for cell in cells):
        width += 1
    return width
