"""A folder whose images are labelled by a table in it: Hugging Face's `imagefolder` with metadata.csv or .jsonl."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tlcache.datasets.columns import find_columns, join_classes
from tlcache.datasets.folder import FOLDER, open_folder
from tlcache.datasets.layout import Layout
from tlcache.datasets.manifest import read_rows
from tlcache.datasets.source import Form, Listing, Source
from tlcache.datasets.splits import Row, split_names
from tlcache.datasets.table import read_table
from tlcache.datasets.tree import Tree, scan
from tlcache.errors import DataError
from tlcache.keys import some
from tlcache.text import counted

__all__ = ["METADATA"]

_ABOUT = (
    "Labels are those of the metadata in the folder, and folders are no classes; --ignore 'metadata.*' takes these."
)
_NAMES = ("metadata.csv", "metadata.jsonl")


class Metadata(Source):
    """A source: a folder with one such table, or with folders that each have one."""

    forms = (
        Form(
            "folder with metadata",
            "--data photos/",
            "photos/metadata.csv or .jsonl (file_name,label), or one in photos/train/ and photos/test/ each",
        ),
    )

    def takes(self, data: str) -> bool:
        """Return whether there is such a table."""
        return bool(_tables(Path(data).expanduser()))

    def find(self, data: str, layout: Layout) -> Listing:
        """Return the rows of the tables; where none has labels, what the folder has without them."""
        given = Path(data).expanduser()
        tables = [path for path in _tables(given) if not any(map(layout.ignored_by, path.relative_to(given).parts))]
        faults = {path: fault for path in tables if (fault := _fault(path, layout))}
        if len(faults) == len(tables):
            return _without(data, layout, " ".join(faults.values()))
        tables = [path for path in tables if path not in faults]
        splits = _splits([path.parent.name for path in tables if path.parent != given], given, layout)
        inside = replace(layout, split_folders=None) if splits else layout
        rows, warnings = list[Row](), [_ABOUT, *faults.values()]
        for path in tables:
            own, notes = read_rows(path, path.parent, inside, splits.get(path.parent.name, "train"))
            prefix = "" if path.parent == given else f"{path.parent.name}/"
            rows += [row._replace(path=f"{prefix}{row.path}") for row in own]
            warnings += (note for note in notes if note not in warnings)
        root = given.resolve()
        tree = scan(root, layout)
        rows, warnings = _by_folder(rows), warnings + _unlisted(tree, rows)
        images = open_folder(root)
        return Listing(root.name, str(given.absolute()), images, rows, tree.everything(), tuple(warnings))


METADATA = Metadata()


def _tables(root: Path) -> list[Path]:
    """Return the table of a folder, or those of the folders in it."""
    try:
        with os.scandir(root) as entries:
            inner = sorted(entry.path for entry in entries if entry.is_dir())
    except OSError:
        return []
    for folders in ([root], map(Path, inner)):
        tables = (next((path for name in _NAMES if (path := folder / name).is_file()), None) for folder in folders)
        if found := list(filter(None, tables)):
            return found
    return []


def _fault(path: Path, layout: Layout) -> str:
    """Return what keeps a table from labelling images: it may describe them otherwise; empty where nothing does."""
    try:
        find_columns(join_classes(read_table(path, 2))[0], layout.columns, lambda _: False)
    except DataError as error:
        return f"{error} This table is not used."
    return ""


def _without(data: str, layout: Layout, fault: str) -> Listing:
    layout.check_has_table(data, has_table=False)
    try:
        found = FOLDER.find(data, layout)
    except DataError as error:
        raise DataError(f"{error} {fault}".strip()) from None
    return found._replace(warnings=tuple(filter(None, (*found.warnings, fault))))


def _splits(folders: Sequence[str], root: Path, layout: Layout) -> dict[str, str]:
    """Return which split each folder with a table is; nothing where none is called so."""
    named = {**split_names(folders), **(layout.split_folders or {})}
    splits = {folder: named[folder] for folder in folders if folder in named}
    if splits and (odd := [folder for folder in folders if folder not in splits]):
        raise DataError(
            f"'{root}' has folders of splits with metadata, and others: {some(odd)}. Say which split each is, as in "
            f"--split-folders {odd[0]}=train, or leave it out with --ignore {odd[0]}."
        )
    return splits


def _by_folder(rows: list[Row]) -> list[Row]:
    """Return rows that all train in the splits that their folders are called as, where all are."""
    tops = [row.path.partition("/")[0] for row in rows]
    named = split_names(set(tops))
    if "train" not in named.values() or not named.keys() >= set(tops) or any(row.split != "train" for row in rows):
        return rows
    return [row._replace(split=named[top]) for row, top in zip(rows, tops, strict=True)]


def _unlisted(tree: Tree, rows: Iterable[Row]) -> list[str]:
    """Return a warning of images that no table lists."""
    listed = {row.path for row in rows}
    every = (f"{path}/{name}".lstrip("/") for path, each in tree.walk() for name in each.images)
    lost = [path for path in every if path not in listed]
    return [f"{counted(len(lost), 'image')} that the metadata does not list left out: {some(lost)}."] if lost else []
