"""What tables for a terminal are made of; it loads nothing of what they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from tlcache.text import figure_text

if TYPE_CHECKING:
    from tlcache.runs.classes import Share

__all__ = ["interval", "plain_table", "share_text"]


def interval(middle: float, low: float, high: float, name: str = "") -> str:
    """Return a figure of this name with its interval."""
    value, least, most = (figure_text(each, name) for each in (middle, low, high))
    return f"{value} ({least}{'-' if low >= 0 else ' to '}{most})"


def share_text(found: Share | None) -> str:
    """Return a share with its interval, if there is one."""
    return "-" if found is None else interval(found.value, found.low, found.high)


def plain_table(*columns: str, numbers: slice = slice(0), apart: int = 2) -> Table:
    """Return an empty table without lines; columns in `numbers` are aligned to the right and never broken."""
    right = set(range(len(columns))[numbers])
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, apart, 0, 0))
    for number, name in enumerate(columns):
        figures = number in right
        table.add_column(name, justify="right" if figures else "left", no_wrap=figures, overflow="fold")
    return table
