"""What tables for a terminal are made of; it loads nothing of what they are about."""

from __future__ import annotations

from rich.table import Table

__all__ = ["interval", "plain_table"]


def interval(middle: float, low: float, high: float) -> str:
    """Return a figure with its interval."""
    return f"{middle:.3f} ({low:.3f}{'-' if low >= 0 else ' to '}{high:.3f})"


def plain_table(*columns: str, numbers: slice = slice(0), apart: int = 2) -> Table:
    """Return an empty table without lines; columns in `numbers` are aligned to the right and never broken."""
    right = set(range(len(columns))[numbers])
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, apart, 0, 0))
    for number, name in enumerate(columns):
        figures = number in right
        table.add_column(name, justify="right" if figures else "left", no_wrap=figures, overflow="fold")
    return table
