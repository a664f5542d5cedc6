"""A folder of images as a dataset: a folder for every class, with or without folders of splits above them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit

from tlcache.datasets.checks import flat_words, notes_on_folders
from tlcache.datasets.classes import ClassFolder, class_folders
from tlcache.datasets.layout import Layout
from tlcache.datasets.leftover import Leftover
from tlcache.datasets.rows import Rows
from tlcache.datasets.source import Form, Images, Listing, Source
from tlcache.datasets.splits import Row
from tlcache.datasets.tree import Place, describe_data, scan
from tlcache.errors import DataError, ImageReadError
from tlcache.threads import available_cpus

__all__ = ["FOLDER", "FileImages", "open_folder", "read_file", "rows_below"]

_AT_ONCE = 16  # files that a thread has open, where the system allows so many
_BEGINNING = 32 << 10  # bytes of a file; what follows them the system itself fetches ahead


class Folder(Source):
    """A source: a folder of classes, or one of splits above classes."""

    forms = (
        Form("folder of classes", "--data photos/", "photos/cat/1.jpg, photos/dog/7.png: a folder for every class"),
        Form(
            "folder of splits",
            "--data photos/",
            "photos/train/cat/1.jpg, photos/test/dog/7.png: train, val and test, by any usual name, above the classes",
        ),
    )

    def takes(self, data: str) -> bool:
        """Return whether there is such a folder."""
        return Path(data).expanduser().is_dir()

    def find(self, data: str, layout: Layout) -> Listing:
        """Return the files of every class, whatever lies between."""
        given = Path(data).expanduser()
        root = given.resolve()
        found = rows_below(Place(str(root), "", scan(root, layout)), layout)
        return Listing(root.name, str(given.absolute()), open_folder(root), *found)

    def reopen(self, source: str) -> Images | None:
        """Return the images below an absolute path."""
        return open_folder(Path(source)) if os.path.isabs(source) else None  # noqa: PTH117  it need not be a path


FOLDER = Folder()


def rows_below(top: Place, layout: Layout) -> tuple[Rows, Mapping[str, int], tuple[str, ...]]:
    """Return the images of the classes below a folder; what is passed over, and warnings, as a `Listing` has them.

    Where there are no folders of classes, the labels are empty, and the first warning says why.

    Raises
    ------
    DataError
        There are none, or what is there has no meaning, or several.
    """
    classes, splits = class_folders(top, layout)
    rows = Rows.of(row for each in classes for row in _rows(each))
    if not rows:
        raise DataError(
            f"No class folders with images in '{top}'. Expected one for every class, as in {Path(top.root).name}/cat/"
            f"1.jpg. {describe_data(top.tree.everything())}".strip()
        )
    left = Leftover(top, classes, splits)
    if not (layout.unlabelled or classes[0].label):
        return (
            rows,
            left.passed_over,
            (f"{flat_words(classes[0].place)} Until then they have no labels.", *left.warnings()),
        )
    notes = [] if layout.class_level else notes_on_folders({each.label: each.place.tree for each in classes})
    return rows, left.passed_over, (*left.warnings(), *notes)


def _rows(found: ClassFolder) -> Iterator[Row]:
    for path, tree in found.place.tree.walk(found.place.path):
        yield from (Row(f"{path}/{name}".lstrip("/"), found.label, found.split) for name in tree.images)


def open_folder(root: Path | None = None) -> Images:
    """Return the images below a folder; without one, all that have a path."""
    top = "" if root is None else str(root)
    return FileImages(top, partial(read_file, top), partial(os.path.isdir, top), top)


class FileImages(Images):
    """Images that are files: several are open at a time, and asked for, so that a disk reads them side by side.

    Parameters
    ----------
    source, read, exists
        As for `Images`.
    root
        Where paths begin.
    """

    def __init__(self, source: str, read: Callable[[str], bytes], exists: Callable[[], bool], root: str) -> None:
        super().__init__(source, read, exists)
        self._root = root
        self._at_once = max(1, min(_AT_ONCE, getrlimit(RLIMIT_NOFILE)[0] // (4 * available_cpus())))

    def read_several(self, paths: Sequence[str]) -> Iterator[bytes | ImageReadError]:
        """Yield the bytes of images, or why one of them cannot be read."""
        for start in range(0, len(paths), self._at_once):
            some = paths[start : start + self._at_once]
            opened = [self._asked_for(path) for path in some]
            try:
                for path, descriptor in zip(some, opened, strict=True):
                    yield self._read_open(path, descriptor)
            finally:
                for descriptor in opened:
                    if descriptor is not None:
                        os.close(descriptor)

    def _asked_for(self, path: str) -> int | None:
        """Return a file that is open and whose beginning the system fetches meanwhile; None where it cannot be."""
        try:
            descriptor = _open(self._root, path)
        except (OSError, ValueError):
            return None
        if hasattr(os, "posix_fadvise"):  # not on macOS
            with suppress(OSError):  # not of a pipe
                os.posix_fadvise(descriptor, 0, _BEGINNING, os.POSIX_FADV_WILLNEED)
        return descriptor

    def _read_open(self, path: str, descriptor: int | None) -> bytes | ImageReadError:
        if descriptor is not None:
            with suppress(OSError):
                return _contents(descriptor)
        return self._attempt(path)  # which says why


def read_file(root: str, path: str) -> bytes:
    """Return the bytes of a regular file; raises OSError for anything else, as reading a pipe would wait for ever."""
    descriptor = _open(root, path)
    try:
        return _contents(descriptor)
    finally:
        os.close(descriptor)


def _open(root: str, path: str) -> int:
    place = os.path.join(root, path)  # noqa: PTH118
    try:
        return os.open(place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        if os.path.islink(place):  # noqa: PTH114
            raise OSError(f"a link to '{os.readlink(place)}', which is not there") from None  # noqa: PTH115
        raise


def _contents(descriptor: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    data = os.read(descriptor, status.st_size + 1)  # one call; the byte more tells that the end was reached
    while data and len(data) != status.st_size:  # it grows, or came in pieces
        more = os.read(descriptor, 1 << 20)
        if not more:
            break
        data += more
    return data
