"""What to label next, as a table for a terminal and as a page of small pictures."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.keys import printable
from tlcache.report.cards import Card, Part, write_cards
from tlcache.report.plain import plain_table
from tlcache.report.thumbnails import Thumbnails
from tlcache.suggesting.suggest import Suggestions
from tlcache.text import counted

__all__ = ["suggestions_table", "write_page"]

_SHOWN = 20


def suggestions_table(found: Suggestions) -> RenderableType:
    """Return the first of the list, and in a line what it is."""
    table = plain_table("Rank", "Image", "Looks like", "Why", numbers=slice(0, 1))
    for row in found.rows[:_SHOWN]:
        table.add_row(str(row.rank), printable(row.path), printable(row.predicted), row.why)
    more = [Text(f"and {len(found.rows) - _SHOWN:,} more: --out FILE.csv")] if len(found.rows) > _SHOWN else []
    return Group(table, *more, Text(summary(found), style="dim"))


def summary(found: Suggestions) -> str:
    """Return what the list is, in a sentence or two."""
    by = f"{found.strategy} on {found.backbone}" + (f" and the doubts of {found.run}" if found.run else "")
    line = f"{counted(len(found.rows), 'image')} to label of {found.images:,} of {found.dataset}, by {by}."
    lacking = found.asked - len(found.rows)
    why = f" There are {lacking:,} fewer than asked: all others are labelled or nearly one of these."
    return line + (why if lacking else "")


def write_page(found: Suggestions, page: Path, thumbnails: int) -> None:
    """Write the list as a page that needs no other file, with small pictures of so many bytes in all."""
    pictures = Thumbnails(thumbnails).of(found.source, [row.path for row in found.rows])
    looks = ([f"looks like {row.predicted}"] if row.predicted else [] for row in found.rows)
    cards = [
        Card(row.path, picture, [*line, row.why])
        for row, picture, line in zip(found.rows, pictures, looks, strict=True)
    ]
    write_cards(page, f"what to label next of {found.dataset}", summary(found), [Part(cards)])
