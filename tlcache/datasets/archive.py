"""A zip or tar archive, or tar shards, as a dataset: what would lie in folders lies in files; nothing is unpacked."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace

from tlcache.datasets.columns import find_columns
from tlcache.datasets.container import read_member
from tlcache.datasets.folder import rows_below
from tlcache.datasets.keyed import PATH, table_of_keys
from tlcache.datasets.layout import Layout
from tlcache.datasets.manifest import rows_of
from tlcache.datasets.places import there
from tlcache.datasets.rows import Rows
from tlcache.datasets.shards import is_pattern, merged, name_of, open_shards, pattern_of, shards_of, splits_of
from tlcache.datasets.source import Form, Images, Listing, Source
from tlcache.datasets.table import SUFFIXES, Table
from tlcache.datasets.tars import TAR
from tlcache.datasets.tree import Place, Tree, tree_of
from tlcache.datasets.zips import ZIP
from tlcache.errors import DataError

__all__ = ["ARCHIVE", "read_within"]

_KINDS = {kind.name: kind for kind in (ZIP, TAR)}
_WITHIN = re.compile(r"\.(?:zip|tar)/", re.IGNORECASE)


class Archive(Source):
    """A source: archives of folders of classes, of folders of splits above them, or of images with labels beside."""

    forms = (
        Form("archive", "--data photos.zip", "a .zip, or a .tar without compression, of such folders"),
        Form(
            "shards", "--data 'shards/{000..099}.tar'", "1.jpg and 1.cls or 1.json, as WebDataset has them; or folders"
        ),
    )

    def takes(self, data: str) -> bool:
        """Return whether there is such a file, by its ending, a pattern of such, or a folder of tar archives alone."""
        given = pattern_of(data, ".tar")
        return _ending(given) in _KINDS and (is_pattern(given) or there(given))

    def tree(self, data: str, layout: Layout) -> Tree:
        """Return what lies in archives, as `tlcache.datasets.tree.scan` does of folders."""
        return _tree(*merged(_KINDS[_ending(data)], data), layout)

    def find(self, data: str, layout: Layout) -> Listing:
        """Return the members that have a label beside them; where none is, those of every class, as of folders."""
        given = pattern_of(data, ".tar")
        kind = _KINDS[_ending(given)]
        places, passed_over = merged(kind, given)
        images, name = self.images(given), self.name(given)
        splits = splits_of(shards_of(given), layout)
        by_name = {each: splits[path] for each, (path, _) in places.items() if path in splits}
        table = table_of_keys(given, places, layout, images, by_name)
        if table and not layout.unlabelled and _has_labels(table, layout):
            layout.check_has_table(data, has_table=True)
            listed = rows_of(table, replace(layout, path_column=PATH))
            return Listing(name, given, images, listed.rows, passed_over + listed.passed_over, listed.notes)
        layout.check_has_table(data, has_table=False)
        rows, left, warnings = rows_below(Place(given, "", _tree(places, passed_over, layout)), layout)
        if by_name:
            rows = Rows.of(row._replace(split=by_name.get(row.path, row.split)) for row in rows)
        return Listing(name, given, images, rows, left, warnings)

    def tables(self, data: str) -> list[str]:
        """Return the members that may list its images, which are not looked into."""
        return [name for name in self.members(data) if posixpath.splitext(name)[1].lower() in SUFFIXES]

    def members(self, data: str) -> list[str]:
        """Return the names of all members, sorted; without what a Mac packs with them."""
        given = pattern_of(data, ".tar")
        places, _ = merged(_KINDS[_ending(given)], given)
        return [name for name in sorted(places) if not name.startswith("__MACOSX/")]

    def images(self, data: str) -> Images:
        """Return the images in it, whatever their labels."""
        given = pattern_of(data, ".tar")
        return open_shards(_KINDS[_ending(given)], given)

    def name(self, data: str) -> str:
        """Return what a dataset is called: as its archive, as the pattern begins, or as the folder of the shards."""
        return name_of(pattern_of(data, ".tar"))

    def reopen(self, source: str) -> Images | None:
        """Return the images of archives: `zip:/data/photos.zip`, `tar:/data/{000..099}.tar`."""
        name, _, given = source.partition(":")
        return open_shards(_KINDS[name], given) if name in _KINDS else None


ARCHIVE = Archive()


def read_within(path: str) -> bytes | None:
    """Return the bytes of a member whose path goes on that of its archive, `/data/photos.zip/1.jpg`; None: of none.

    Raises
    ------
    OSError, UnreachableError
        It is not there; the store of the archive cannot be reached.
    """
    for found in _WITHIN.finditer(path):
        if there(archive := path[: found.end() - 1]):
            return read_member(_KINDS[_ending(archive)], archive, path[found.end() :])
    return None


def _tree(places: Collection[str], passed_over: Counter[str], layout: Layout) -> Tree:
    tree = tree_of(places, layout)
    tree.passed_over += passed_over
    return tree


def _has_labels(table: Table, layout: Layout) -> bool:
    """Return whether a table has a column of labels; without one the folders may be the classes."""
    with suppress(DataError):
        find_columns(table, replace(layout, path_column=PATH).columns, lambda _: False)
        return True
    return layout.label_column is not None


def _ending(data: str) -> str:
    return posixpath.splitext(data)[1].lower().removeprefix(".")
