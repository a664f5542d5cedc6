"""A folder whose images are labelled by a table in it: Hugging Face's `imagefolder` with metadata.csv or .jsonl."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tlcache.datasets.columns import find_columns, join_classes
from tlcache.datasets.folder import FOLDER, open_folder
from tlcache.datasets.layout import Layout, ignoring, splitting_of
from tlcache.datasets.manifest import Listed, read_rows
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
_DEEPEST = 5  # folders that hold one folder only, as archives do
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
        return bool(_found(Path(data).expanduser())[1])

    def find(self, data: str, layout: Layout) -> Listing:
        """Return the rows of the tables; where none has labels, what the folder has without them."""
        if layout.unlabelled:
            return FOLDER.find(data, layout)
        whole = Path(data).expanduser()
        top, found = _found(whole)
        tables = [path for path in found if not any(map(layout.ignored_by, path.relative_to(top).parts))]
        faults = {path: fault for path in tables if (fault := _fault(path, layout))}
        if len(faults) == len(tables):
            return _without(data, layout, " ".join(faults.values()))
        listed = _listed([path for path in tables if path not in faults], top, layout)
        tree = scan(top, layout)
        warnings = (_ABOUT, *faults.values(), *listed.notes, *_unlisted(tree, listed.paths))
        passed_over = tree.everything() | listed.passed_over  # an image that is ignored is counted by both
        images, name = open_folder(top.resolve()), whole.resolve().name
        return Listing(name, str(whole.absolute()), images, _by_folder(listed.rows), passed_over, warnings)


METADATA = Metadata()


def _found(root: Path) -> tuple[Path, list[Path]]:
    """Return the folder that has a table, or folders with one each, and these; a single folder is gone into."""
    for _ in range(_DEEPEST):
        try:
            with os.scandir(root) as entries:
                inner = [Path(each.path) for each in entries if each.is_dir() and not each.name.startswith(".")]
        except OSError:
            break
        if tables := _tables([root]) or _tables(sorted(inner)):
            return root, tables
        if len(inner) != 1:
            break
        (root,) = inner
    return root, []


def _tables(folders: Iterable[Path]) -> list[Path]:
    tables = (next((path for name in _NAMES if (path := folder / name).is_file()), None) for folder in folders)
    return list(filter(None, tables))


def _fault(path: Path, layout: Layout) -> str:
    """Return what keeps a table from labelling images: it may describe them otherwise; empty where nothing does."""
    try:
        find_columns(join_classes(read_table(path, 2), layout.columns, layout.task)[0], layout.columns, lambda _: False)
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


def _listed(tables: Sequence[Path], top: Path, layout: Layout) -> Listed:
    """Return what all tables list, with paths from the top folder, and what to tell of them."""
    splits = _splits([path.parent.name for path in tables if path.parent != top], top, layout)
    inside = replace(layout, split_folders=None) if splits else layout
    rows, paths, passed_over, notes = list[Row](), list[str](), Counter[str](), dict[str, None]()
    for path in tables:
        own = read_rows(path, path.parent, inside, splits.get(path.parent.name, "train"))
        prefix = "" if path.parent == top else f"{path.parent.name}/"
        rows += [row._replace(path=f"{prefix}{row.path}") for row in own.rows]
        paths += [f"{prefix}{each}" for each in own.paths]
        passed_over += own.passed_over
        notes |= dict.fromkeys(own.notes)
    return Listed(rows, paths, passed_over, tuple(notes))


def _splits(folders: Sequence[str], root: Path, layout: Layout) -> dict[str, str]:
    """Return which split each folder with a table is; nothing where none is called so."""
    splits = layout.named_splits(folders)
    if splits and (odd := [folder for folder in folders if folder not in splits]):
        raise DataError(
            f"'{root}' has folders of splits with metadata, and others: {some(odd)}. Say which split each is "
            f"with {splitting_of(odd)}, or leave them out with {ignoring(odd)}."
        )
    return splits


def _by_folder(rows: Sequence[Row]) -> Sequence[Row]:
    """Return rows that all train in the splits that their folders are called as, where all are."""
    tops = [row.path.partition("/")[0] for row in rows]
    named = split_names(set(tops))
    if "train" not in named.values() or not named.keys() >= set(tops) or any(row.split != "train" for row in rows):
        return rows
    return [row._replace(split=named[top]) for row, top in zip(rows, tops, strict=True)]


def _unlisted(tree: Tree, listed: Iterable[str]) -> list[str]:
    """Return a warning of images that no table lists."""
    known = set(listed)
    lost = [path for path in tree.paths() if path not in known]
    return [f"{counted(len(lost), 'image')} that the metadata does not list left out: {some(lost)}."] if lost else []
