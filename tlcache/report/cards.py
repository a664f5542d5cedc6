"""A page of small pictures: under headings, one after the other, each with what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tlcache.errors import OptionError
from tlcache.files import check_folder, write_whole
from tlcache.keys import printable
from tlcache.report.inline import rendered
from tlcache.report.thumbnails import Picture

__all__ = ["Card", "Part", "check_cards", "write_cards"]


class Card(NamedTuple):
    """An image by its path, its picture, and lines about it."""

    path: str
    picture: Picture
    lines: Sequence[str]


@dataclass(frozen=True)
class Part:
    """Cards, and the heading above them with a picture of its own, where there is one."""

    cards: Sequence[Card]
    name: str = ""
    picture: Picture | None = None


def check_cards(page: Path) -> None:
    """Raise OptionError where this is no page, and CacheError where it cannot be written."""
    if page.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"--page '{page}' is no .html file.")
    check_folder(page.expanduser().parent, "--page")


def write_cards(page: Path, title: str, summary: str, parts: Sequence[Part], wide: bool = False) -> None:
    """Write a page that needs no other file; a picture is left out where an image is gone or there is no room.

    With `wide`, pictures are twice as wide as high.
    """
    values = {"title": title, "summary": summary, "parts": parts, "wide": wide}
    text = rendered("cards.html.j2", {"printable": printable}, **values)
    write_whole(page.expanduser(), text.encode("utf-8", "replace"))
