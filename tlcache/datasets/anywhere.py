"""Images by where they are, whatever they lie in: files, members of archives, objects in stores."""

from __future__ import annotations

import os
from collections.abc import Iterable

from tlcache.datasets.archive import read_within
from tlcache.datasets.far import FarImages
from tlcache.datasets.folder import FileImages, read_file
from tlcache.datasets.layout import Layout
from tlcache.datasets.remote import get, is_url
from tlcache.datasets.source import Form, Images, Listing, Source
from tlcache.errors import DataError

__all__ = ["ANYWHERE", "absolute", "open_anywhere"]

_SOURCE = "anywhere:"


class Anywhere(Source):
    """A source that finds images again whose paths are absolute, and may go on in an archive: `/data/a.zip/1.jpg`."""

    forms: tuple[Form, ...] = ()

    def takes(self, data: str) -> bool:
        """Return False: what is given is of another source."""
        del data
        return False

    def find(self, data: str, layout: Layout) -> Listing:
        """Raise DataError: nothing is listed here."""
        del layout
        raise DataError(f"'{data}' is no dataset.")

    def reopen(self, source: str) -> Images | None:
        """Return all images that have a path."""
        return open_anywhere(()) if source == _SOURCE else None


ANYWHERE = Anywhere()


def absolute(path: str) -> str:
    """Return what finds an image from any folder: its absolute path, or its address."""
    return path if is_url(path) else os.path.abspath(path)  # noqa: PTH100  fast


def open_anywhere(paths: Iterable[str]) -> Images:
    """Return the images that have a path; some of these may be far away."""
    far = any(map(is_url, paths))
    return FarImages(_SOURCE, _read, _exists, dict) if far else FileImages(_SOURCE, _read, _exists, "")


def _exists() -> bool:
    return True


def _read(path: str) -> bytes:
    """Return the bytes of an image; raises OSError or UnreachableError."""
    if is_url(path):
        data = read_within(path)
        return get(path) if data is None else data
    try:
        return read_file("", path)
    except NotADirectoryError:
        if (data := read_within(path)) is None:
            raise
        return data
