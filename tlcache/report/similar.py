"""Similar images, as tables for a terminal and as a page of small pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.keys import few, printable
from tlcache.pictures.found import Asked, Neighbour, Similar
from tlcache.report.cards import Card, Part, write_cards
from tlcache.report.plain import plain_table
from tlcache.report.thumbnails import Thumbnails
from tlcache.text import counted

__all__ = ["errors_line", "similar_tables", "write_similar"]

_SHOWN = 5  # images that were asked for


def similar_tables(found: Similar) -> RenderableType:
    """Return a table for each of the first images, and in a line what was searched."""
    parts: list[RenderableType] = []
    for each in found.asked[:_SHOWN]:
        table = plain_table("Cosine", "Split", "Label", "Image", numbers=slice(0, 1))
        for near in each.similar:
            table.add_row(_close(near), near.split, printable(near.label), printable(near.path))
        parts += [Text(printable(each.path), style="bold"), table, Text()]
    if len(found.asked) > _SHOWN:
        parts.append(Text(f"and {len(found.asked) - _SHOWN:,} images more: --json FILE or --page FILE.html"))
    return Group(*parts, Text(_summary(found), style="dim"))


def _close(near: Neighbour) -> str:
    return "equal" if near.same else f"{near.cosine:.3f}"


def _summary(found: Similar) -> str:
    return (
        f"Of all {counted(found.searched, 'image')} of {found.dataset}, by cosines of whitened embeddings of "
        f"{found.backbone}; equal: the same bytes."
    )


def errors_line(errors: Mapping[str, str], used: int) -> str:
    """Return which images cannot be used, and why, beside so many that can."""
    asked = len(errors) + used
    why = few([f"{printable(path)} ({why})" for path, why in errors.items()])
    return f"{len(errors):,} of {counted(asked, 'image')} cannot be used: {why}."


def write_similar(found: Similar, page: Path, thumbnails: int) -> None:
    """Write the same as a page that needs no other file, with small pictures of so many bytes in all."""
    room = Thumbnails(thumbnails)
    parts = [_part(each, found, room) for each in found.asked]
    lacking = f" {counted(room.left_out, 'picture')} had no room: --thumbnails gives more." if room.left_out else ""
    write_cards(page, f"similar images of {found.dataset}", _summary(found) + lacking, parts)


def _part(asked: Asked, found: Similar, room: Thumbnails) -> Part:
    own = room.one(asked.images, asked.path)
    pictures = room.of(found.images, [near.path for near in asked.similar])
    cards = [
        Card(near.path, picture, [f"{_close(near)} {near.split} {near.label}"])
        for near, picture in zip(asked.similar, pictures, strict=True)
    ]
    return Part(cards, f"Most similar to {asked.path}", own)
