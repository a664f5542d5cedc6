"""A table as a dataset: path, label and, where it has them, split and group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tlcache.datasets.columns import Columns, find_columns, join_classes
from tlcache.datasets.folder import open_folder
from tlcache.datasets.labels import check_numbers, is_missing, whole_numbers
from tlcache.datasets.layout import Layout
from tlcache.datasets.lookup import locate
from tlcache.datasets.source import Form, Listing, Source
from tlcache.datasets.splits import SPLITS, Row
from tlcache.datasets.table import SUFFIXES, Table, read_table
from tlcache.errors import DataError
from tlcache.keys import some
from tlcache.text import counted

__all__ = ["MANIFEST", "read_rows"]


class Manifest(Source):
    """A source: a table of paths, which start from its own folder or from `--images`."""

    forms = (
        Form(
            "manifest",
            "--data photos.csv",
            "path,label[,split][,group] with a header, or a list of path and label; paths start from its own folder",
        ),
    )

    def takes(self, data: str) -> bool:
        """Return whether there is such a file, by its ending."""
        path = Path(data).expanduser()
        return path.suffix.lower() in SUFFIXES and path.is_file()

    def find(self, data: str, layout: Layout) -> Listing:
        """Return the rows of the table."""
        path = Path(data).expanduser()
        root = Path(layout.images or path.parent).expanduser()
        if not root.is_dir():
            raise DataError(f"--images {layout.images}: there is no such folder.")
        rows, warnings = read_rows(path, root, layout)
        return Listing(path.stem, str(path.absolute()), open_folder(root.resolve()), rows, warnings=warnings)


MANIFEST = Manifest()


def read_rows(path: Path, root: Path, layout: Layout, split: str = "train") -> tuple[list[Row], tuple[str, ...]]:
    """Return the rows of a table, and what a user should know of how it was understood.

    Parameters
    ----------
    path
        The table.
    root
        The folder that all its images are below.
    layout
        Says what the table does not.
    split
        Of rows that have none.

    Raises
    ------
    DataError
        With the line of a fault.
    """
    table, on_classes = join_classes(read_table(path))
    columns = _columns(table, layout)
    listed = [(line, cells) for line, cells in table.rows if not is_missing(cells[columns.label])]
    if not listed:
        raise DataError(f"{path}: no row has a label." if table.rows else f"'{path}' has a header and no rows.")
    wheres = [f"{path}:{line}" for line, _ in listed]
    written = [cells[columns.path] for _, cells in listed]
    paths, on_paths = locate(written, wheres, root, path.parent, layout)
    _check_once(paths, written, wheres)
    labels, on_labels = whole_numbers([cells[columns.label] for _, cells in listed], "class")
    check_numbers(labels, str(path))
    splits, on_splits = _splits([_cell(cells, columns.split) for _, cells in listed], wheres, layout, split)
    groups, on_groups = whole_numbers([_cell(cells, columns.group) for _, cells in listed], "group")
    warnings = (
        *columns.notes,
        *on_classes,
        *_unlabelled(table, columns),
        *on_paths,
        *on_labels,
        *on_splits,
        *on_groups,
    )
    return list(map(Row, paths, labels, splits, groups)), warnings


def _columns(table: Table, layout: Layout) -> Columns:
    def are_splits(at: int) -> bool:
        names = {cells[at] for _, cells in table.rows}
        known = layout.named_splits(names)
        return all(name in known or is_missing(name) for name in names)

    return find_columns(table, layout.columns, are_splits)


def _cell(cells: Sequence[str], at: int | None) -> str:
    return "" if at is None or is_missing(cells[at]) else cells[at]


def _unlabelled(table: Table, columns: Columns) -> list[str]:
    """Return a note on the rows that are left out because they have no label."""
    lines = [line for line, cells in table.rows if is_missing(cells[columns.label])]
    if not lines:
        return []
    shown = ", ".join(map(str, lines[:5])) + (" and more" if len(lines) > 5 else "")
    return [f"{len(lines):,} of {counted(len(table.rows), 'row')} left out, as they have no label: line {shown}."]


def _check_once(paths: Sequence[str], written: Sequence[str], wheres: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for path, name, where in zip(paths, written, wheres, strict=True):
        if path in first:
            line, same = first[path].rpartition(":")[2], "" if name == path else f" '{path}', which is"
            raise DataError(f"{where}: '{name}' is{same} listed already, on line {line}. Remove one of the lines.")
        first[path] = where


def _splits(
    names: Sequence[str], wheres: Sequence[str], layout: Layout, default: str
) -> tuple[list[str], tuple[str, ...]]:
    """Return which of `SPLITS` the names mean, and a note on the rows that have none."""
    there, found = dict.fromkeys(names), some(sorted({*names} - {""})) or "none"
    if odd := (layout.split_folders or {}).keys() - there.keys():
        raise DataError(f"--split-folders: no image has the split {some(sorted(odd))}. The splits are: {found}.")
    known = {"": default, **layout.named_splits(there)}
    if odd := there.keys() - known.keys():
        name, where = next(each for each in zip(names, wheres, strict=True) if each[0] in odd)
        raise DataError(
            f"{where}: unknown split '{name}'. Known: {', '.join(SPLITS)}. The column has {found}: say which is "
            f"which, as in --split-folders {name}=train."
        )
    blank = names.count("")
    note = f"{blank:,} of {counted(len(names), 'row')} have no split and are taken as {default}."
    return [known[name] for name in names], (note,) if 0 < blank < len(names) else ()
