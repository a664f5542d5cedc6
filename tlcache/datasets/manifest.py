"""A table as a dataset: path, label and, where it has them, split and group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from tlcache.datasets.columns import NO_LABEL, NO_SPLIT, Columns, find_columns, join_classes, without_labels
from tlcache.datasets.folder import open_folder
from tlcache.datasets.labels import check_numbers, is_missing, is_missing_number, may_be_missing, whole_numbers
from tlcache.datasets.layout import Layout, ignoring, splitting_of
from tlcache.datasets.lookup import find_members, folder_of, locate
from tlcache.datasets.rows import Rows
from tlcache.datasets.source import Form, Images, Listing, Source
from tlcache.datasets.splits import SPLITS, Row
from tlcache.datasets.table import SUFFIXES, Table, read_table
from tlcache.datasets.tasks import separator_of
from tlcache.datasets.texts import Texts
from tlcache.errors import DataError
from tlcache.keys import printable, some
from tlcache.tasks import MULTILABEL, NONE, REGRESSION
from tlcache.text import counted

__all__ = ["MANIFEST", "Listed", "read_rows", "rows_of"]


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
        return path.suffix.lower() in (*SUFFIXES, ".parquet") and path.is_file()

    def find(self, data: str, layout: Layout) -> Listing:
        """Return the rows of the table."""
        return self.of(read_table(Path(data).expanduser()), layout)

    def of(self, table: Table, layout: Layout) -> Listing:
        """Return the rows of a table that has been read from a file."""
        path = Path(table.path)
        root = Path(layout.images).expanduser() if layout.images else folder_of(_paths(table, layout), path.parent)
        if not root.is_dir():
            raise DataError(f"--images {layout.images}: there is no such folder or archive.")
        found = rows_of(table, layout, find=partial(locate, root=root, listed_in=path.parent, layout=layout))
        images, data = open_folder(root.resolve()), str(path.absolute())
        return Listing(path.stem, data, images, found.rows, found.passed_over, found.notes)

    def among(self, data: str, layout: Layout, images: Images, names: Collection[str] = ()) -> Listing:
        """Return the rows of a table whose paths are those of images elsewhere: of the members of an archive.

        `names` are those of all members, where they are known: a list may leave out folders and endings.
        """
        path = Path(data).expanduser()
        found = rows_of(read_table(path), layout, find=lambda written, _: find_members(written, names))
        return Listing(path.stem, str(path.absolute()), images, found.rows, found.passed_over, found.notes)


MANIFEST = Manifest()


Where = Callable[[int], str]  # number of a path -> where it is written
Find = Callable[[list[str], Where], tuple[list[str], tuple[str, ...]]]  # paths as they are written -> as found


class Listed(NamedTuple):
    """What a table lists.

    Parameters
    ----------
    rows
        Its images.
    paths
        Those of its images and of those that are ignored.
    passed_over
        As in `Listing`.
    notes
        What a user should know of how it was understood.
    """

    rows: Sequence[Row]
    paths: Sequence[str]
    passed_over: Counter[str]
    notes: tuple[str, ...]


class _Line(NamedTuple):
    """A row with a label: its line, the path as it is written and as it was found, and the other cells."""

    number: int
    written: str
    path: str
    label: str
    split: str
    group: str
    cells: tuple[tuple[str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What `--ignore` may name."""
        return *self.path.split("/"), self.label, self.split


def read_rows(path: Path, root: Path, layout: Layout, split: str = "train") -> Listed:
    """Read a table and find its images.

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
    return rows_of(read_table(path), layout, split, partial(locate, root=root, listed_in=path.parent, layout=layout))


def rows_of(
    table: Table, layout: Layout, split: str = "train", find: Find = lambda written, _: (written, ())
) -> Listed:
    """Return what a table lists; `find` returns the paths of images as they are written, and notes on them.

    Raises
    ------
    DataError
        With the line of a fault.
    """
    table, layout = _labelled(table, layout)
    table, on_classes = join_classes(table, layout.columns, layout.task)
    columns = _columns(table, layout)
    lines, on_lines = _lines(table, columns, find, layout.task)
    path = table.path
    patterns = layout.patterns(lines, attrgetter("names"))
    kept = [line for line, pattern in zip(lines, patterns, strict=True) if not pattern]
    if not kept:
        raise DataError(f"{path}: --ignore leaves no row of {len(lines):,}. Leave some of its names out.")
    if layout.task == MULTILABEL:
        kept = _merged(kept, path)
    _check_once(kept, path)
    check_numbers([line.label for line in kept], str(path), layout.task)
    splits, on_splits = _splits(kept, path, layout, split)
    groups, on_groups = whole_numbers([line.group for line in kept], "group")
    rows = Rows.of(
        Row(line.path, line.label, split, group, line.cells)
        for line, split, group in zip(kept, splits, groups, strict=True)
    )
    notes = (*columns.notes, *on_classes, *on_lines, *on_splits, *on_groups, *_perhaps_alone(groups))
    passed_over = Counter(f"{pattern} file" for pattern in patterns if pattern)
    return Listed(rows, Texts.of([line.path for line in lines]), passed_over, notes)


def _lines(table: Table, columns: Columns, find: Find, task: str | None) -> tuple[list[_Line], tuple[str, ...]]:
    """Return the rows that have a label, and what to tell of those that have none, of their paths and labels."""
    missing = _missing(task)
    listed = [(line, cells) for line, cells in table.rows if not missing(cells[columns.label])]
    if not listed:
        raise DataError(
            f"{table.path}: no row has a label." if table.rows else f"'{table.path}' has a header and no rows."
        )
    written = [cells[columns.path] for _, cells in listed]
    paths, on_paths = find(written, lambda row: f"{table.path}:{listed[row][0]}")
    said = [cells[columns.label] for _, cells in listed]
    labels, on_labels = (said, ()) if task == REGRESSION else whole_numbers(said, "class")
    splits, groups = ([_cell(cells, at) for _, cells in listed] for at in (columns.split, columns.group))
    others = columns.others(table.columns)
    cells = [tuple((name, cells[at]) for at, name in others) for _, cells in listed]
    lines = list(map(_Line, (line for line, _ in listed), written, paths, labels, splits, groups, cells))
    return lines, (*_unlabelled(table, columns, task), *on_paths, *on_labels)


def _columns(table: Table, layout: Layout) -> Columns:
    def are_splits(at: int) -> bool:
        names = {cells[at] for _, cells in table.rows}
        known = layout.named_splits(names)
        return all(name in known or is_missing(name) for name in names)

    return find_columns(table, layout.columns, are_splits)


def _labelled(table: Table, layout: Layout) -> tuple[Table, Layout]:
    """Return a table whose labels are to be left out as one in which all have the same."""
    if not layout.unlabelled:
        return table, layout
    return without_labels(table), replace(layout, unlabelled=False, label_column=NO_LABEL, split_column=NO_SPLIT)


def _paths(table: Table, layout: Layout) -> list[str]:
    table, layout = _labelled(table, layout)
    at = _columns(join_classes(table, layout.columns, layout.task)[0], layout).path
    return [cells[at] for _, cells in table.rows]


def _cell(cells: Sequence[str], at: int | None) -> str:
    return "" if at is None or is_missing(cells[at]) else cells[at]


def _missing(task: str | None) -> Callable[[str], bool]:
    """Return what tells whether a cell of labels says nothing."""
    return is_missing_number if task == REGRESSION else is_missing


def _unlabelled(table: Table, columns: Columns, task: str | None) -> list[str]:
    """Return a note on the rows that are left out because they have no label."""
    missing = _missing(task)
    lines = {line: cells[columns.label] for line, cells in table.rows if missing(cells[columns.label])}
    if not lines:
        return []
    written = " or ".join(["empty", *(f"'{printable(word)}'" for word in sorted({*lines.values()} - {""}))])
    shown = ", ".join(map(str, [*lines][:5])) + (" and more" if len(lines) > 5 else "")
    rows = f"{len(lines):,} of {counted(len(table.rows), 'row')}"
    none = f" An image that is known to have none of the labels has the label '{NONE}'." if task == MULTILABEL else ""
    return [f"{rows} left out, as they have no label ({written}): line {shown}.{none}"]


def _merged(lines: Sequence[_Line], table: Path | str) -> list[_Line]:
    """Return one line for all of an image, each of which has some of its labels, and the same split and group.

    Raises
    ------
    DataError
        The lines of an image have other splits or groups.
    """
    by_path: dict[str, list[_Line]] = {}
    separator = separator_of(line.label for line in lines)
    for line in lines:
        by_path.setdefault(line.path, []).append(line)
    for first, *others in by_path.values():
        for other in others:
            if (other.split, other.group) != (first.split, first.group):
                raise DataError(
                    f"{table}:{other.number}: '{other.written}' has the split '{other.split}' and the group "
                    f"'{other.group}', and '{first.split}' and '{first.group}' on line {first.number}. Give all lines "
                    "of an image the same."
                )
    return [own[0]._replace(label=separator.join(line.label for line in own)) for own in by_path.values()]


def _check_once(lines: Iterable[_Line], table: Path | str) -> None:
    """Raise DataError where two rows are of one image: it has one label, one split and one group."""
    first: dict[str, _Line] = {}
    for line in lines:
        if (other := first.setdefault(line.path, line)) is not line:
            same = "" if line.path == line.written else f" '{line.path}', which is"
            labels = (
                f"with another label ('{other.label}', and '{line.label}' here). An image has one label, or with "
                "--task multilabel several: say that, or keep"
                if other.label != line.label
                else "with the same label. Keep"
            )
            raise DataError(
                f"{table}:{line.number}: '{line.written}' is{same} listed already, on line {other.number}, {labels} "
                "one of the lines."
            )


def _splits(
    lines: Sequence[_Line], table: Path | str, layout: Layout, default: str
) -> tuple[list[str], tuple[str, ...]]:
    """Return which of `SPLITS` the names mean, and a note on the rows that have none."""
    names = [line.split for line in lines]
    there, found = dict.fromkeys(names), some(sorted({*names} - {""})) or "none"
    if odd := (layout.split_folders or {}).keys() - there.keys():
        raise DataError(f"--split-folders: no image has the split {some(sorted(odd))}. The splits are: {found}.")
    known = {"": default, **layout.named_splits(there)}
    if odd := there.keys() - known.keys():
        line = next(line for line in lines if line.split in odd)
        use, no_use = splitting_of(sorted(odd)[:3]), ignoring([line.split])
        raise DataError(
            f"{table}:{line.number}: unknown split '{line.split}'. Known: {', '.join(SPLITS)}. The column has {found}: "
            f"say which is which with {use}, or leave rows out with {no_use}."
        )
    blank = names.count("")
    note = f"{blank:,} of {counted(len(names), 'row')} have no split and are taken as {default}."
    return [known[name] for name in names], (note,) if 0 < blank < len(names) else ()


def _perhaps_alone(groups: Sequence[str]) -> list[str]:
    """Return a note on groups of images of which it may not be known what they belong to."""
    counts = Counter(filter(may_be_missing, groups))
    found = [f"'{printable(name)}' ({counted(count, 'image')})" for name, count in sorted(counts.items()) if count > 1]
    return (
        [f"Groups that may mean that the group is not known: {', '.join(found)}. If so, leave these cells empty."]
        if found
        else []
    )
