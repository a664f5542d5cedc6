"""A folder of images as a dataset: a folder for every class, with or without folders of splits above them."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tlcache.datasets.layout import Layout
from tlcache.datasets.source import Form, Images, Listing, Source
from tlcache.datasets.splits import SPLIT_FOLDERS, Row
from tlcache.errors import DataError
from tlcache.keys import some

__all__ = ["FOLDER", "open_folder"]

_CLUTTER = {"thumbs.db", "desktop.ini"}
_SIDECARS = {".csv", ".json", ".mat", ".md", ".npy", ".tsv", ".txt", ".xml", ".yaml", ".yml"}


class Folder(Source):
    """A source: a folder of classes, or one of splits above classes."""

    forms = (
        Form("folder of classes", "--data photos/", "photos/cat/1.jpg, photos/dog/7.png: a folder for every class"),
        Form(
            "folder of splits",
            "--data photos/",
            "photos/train/cat/1.jpg, photos/test/dog/7.png: train, val and test above the classes (val may be missing)",
        ),
    )

    def takes(self, data: str) -> bool:
        """Return whether there is such a folder."""
        return Path(data).expanduser().is_dir()

    def find(self, data: str, layout: Layout) -> Listing:
        """Return the files of every class, whatever lies between."""
        given = Path(data).expanduser()
        root, (rows, ignored, empty) = given.resolve(), _walk(given, layout)
        if not rows:
            raise DataError(
                f"No class folders with images in '{root}'. Expected one for every class, as in {root.name}/cat/1.jpg."
            )
        return Listing(root.name, str(given.absolute()), open_folder(root), rows, {"file": ignored}, _warnings(empty))

    def reopen(self, source: str) -> Images | None:
        """Return the images below an absolute path."""
        return open_folder(Path(source)) if os.path.isabs(source) else None  # noqa: PTH117  it need not be a path


FOLDER = Folder()


def _warnings(empty: Sequence[str]) -> tuple[str, ...]:
    return (f"No images in {some(empty)}; these are not classes here.",) if empty else ()


def open_folder(root: Path | None = None) -> Images:
    """Return the images below a folder; without one, all that have a path."""
    top = "" if root is None else str(root)
    return Images(top, partial(_read, top), partial(os.path.isdir, top))


def _read(root: str, path: str) -> bytes:
    """Return the bytes of a regular file; raises OSError for anything else, as reading a pipe would wait for ever."""
    descriptor = os.open(os.path.join(root, path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # noqa: PTH118
    try:
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
    finally:
        os.close(descriptor)


def _walk(root: Path, layout: Layout) -> tuple[list[Row], int, tuple[str, ...]]:
    folders = [folder for folder in _folders(root) if not layout.ignores(folder.name)]
    uses = layout.split_folders or {}
    named = {folder: uses.get(folder.name) or SPLIT_FOLDERS.get(folder.name.lower()) for folder in folders}
    parts = {folder: split for folder, split in named.items() if split}
    if "train" not in parts.values():
        parts = {root: "train"}
    elif len(parts) < len(folders):
        odd = [folder.name for folder in folders if folder not in parts]
        raise DataError(f"'{root}' has a train folder and others beside it that are no split: {', '.join(odd[:5])}.")
    rows: list[Row] = []
    ignored, empty = 0, []
    for top in {root, *parts}:
        ignored += sum(not entry.is_dir() for entry in _entries(top))
    for top, split in parts.items():
        for folder in _folders(top):
            images, other = _images(root, folder)
            ignored += other
            rows += [Row(image, folder.name, split) for image in images]
            if not images:
                empty.append(folder.relative_to(root).as_posix())
    return rows, ignored, tuple(empty)


def _folders(folder: Path) -> list[Path]:
    return [folder / entry.name for entry in _entries(folder) if entry.is_dir() and not entry.name.startswith(".")]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, by name; raises DataError when it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"Cannot read the folder '{folder}': {error.strerror}. Mend that or move it away.") from None


def _images(root: Path, folder: Path) -> tuple[list[str], int]:
    """Return the files below a class folder, relative to `root`, and how many were passed over; none comes twice."""
    images, ignored, seen, left = list[str](), 0, set[Path](), [folder]
    while left:
        here = left.pop()
        if (real := here.resolve()) in seen:
            continue
        seen.add(real)
        prefix = here.relative_to(root).as_posix()
        for entry in reversed(_entries(here)):
            if entry.is_dir():
                if not entry.name.startswith("."):
                    left.append(here / entry.name)
            elif _is_image(entry):
                images.append(f"{prefix}/{entry.name}")
            else:
                ignored += 1
    return images, ignored


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Return whether a file may be an image; no pipe or socket is, and a dangling link is, to be reported."""
    name = entry.name.lower()
    clutter = name.startswith(".") or name in _CLUTTER or os.path.splitext(name)[1] in _SIDECARS  # noqa: PTH122  fast
    return not clutter and (entry.is_file() or entry.is_symlink())
