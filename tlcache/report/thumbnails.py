"""Small pictures for a page, as many as it has room for."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from tlcache.datasets.source import Images
from tlcache.report.inline import inline_image
from tlcache.threads import in_threads

__all__ = ["Listed", "Picture", "Shown", "Thumbnails"]

_AT_A_TIME = 256


class Picture(NamedTuple):
    """A small picture as a data address; where it is empty, `lacking` says why."""

    address: str
    lacking: str = ""


class Shown(NamedTuple):
    """A picture with what is said of it: a line, and the path of the image."""

    picture: Picture
    line: str
    path: str


class Listed(NamedTuple):
    """Something that a page lists: a row of a CSV, what is said of it, and its images."""

    row: tuple[str, ...]
    line: str
    shown: tuple[Shown, ...]


class Thumbnails:
    """The pictures of one page, which together take at most so many bytes of it.

    Parameters
    ----------
    most
        Bytes.

    Attributes
    ----------
    left_out
        How many had no room.
    """

    def __init__(self, most: int) -> None:
        self.left_out = 0
        self._left = most

    def of(self, images: Images, paths: Iterable[str]) -> list[Picture]:
        """Return a picture of each image, in their order; those that come first have room first."""
        wanted, found = list(paths), list[Picture]()
        while self._left > 0 and len(found) < len(wanted):
            some = wanted[len(found) : len(found) + _AT_A_TIME]
            found += map(self.place, in_threads(partial(inline_image, images), some))
        return found + [self._no_room() for _ in wanted[len(found) :]]

    def one(self, images: Images, path: str) -> Picture:
        """Return the picture of an image."""
        return self.of(images, [path])[0]

    def place(self, address: str) -> Picture:
        """Return a picture that is given as a data address, which may be empty."""
        if not address:
            return Picture("", "not there any more")
        if len(address) > self._left:
            self._left = 0
            return self._no_room()
        self._left -= len(address)
        return Picture(address)

    def _no_room(self) -> Picture:
        self.left_out += 1
        return Picture("", "no room on this page")
