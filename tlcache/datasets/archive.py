"""A zip or tar archive as a dataset: what would lie in a folder lies in one file, and nothing is unpacked."""

from __future__ import annotations

from pathlib import Path

from tlcache.datasets.container import contents_of, open_container
from tlcache.datasets.folder import rows_below
from tlcache.datasets.layout import Layout
from tlcache.datasets.source import Form, Images, Listing, Source
from tlcache.datasets.tars import TAR
from tlcache.datasets.tree import Place, tree_of
from tlcache.datasets.zips import ZIP

__all__ = ["ARCHIVE"]

_KINDS = {kind.name: kind for kind in (ZIP, TAR)}


class Archive(Source):
    """A source: an archive of folders of classes, or of folders of splits above them."""

    forms = (Form("archive", "--data photos.zip", "a .zip, or a .tar without compression, of such folders"),)

    def takes(self, data: str) -> bool:
        """Return whether there is such a file, by its ending."""
        return _ending(data) in _KINDS and Path(data).expanduser().is_file()

    def find(self, data: str, layout: Layout) -> Listing:
        """Return the members of every class, understood as the files of folders are."""
        given, kind = Path(data).expanduser(), _KINDS[_ending(data)]
        path = given.resolve()
        contents = contents_of(kind, path)
        tree = tree_of(contents.rows, layout)
        tree.passed_over += contents.passed_over
        found = rows_below(Place(str(path), "", tree), layout)
        return Listing(given.stem, str(given.absolute()), open_container(kind, path), *found)

    def reopen(self, source: str) -> Images | None:
        """Return the images of an archive: `zip:/data/photos.zip`."""
        name, _, path = source.partition(":")
        return open_container(_KINDS[name], Path(path)) if name in _KINDS else None


ARCHIVE = Archive()


def _ending(data: str) -> str:
    return Path(data).suffix.lower().removeprefix(".")
