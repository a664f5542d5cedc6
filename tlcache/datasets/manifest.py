"""A table as a dataset: path, label and, where it has them, split and group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from tlcache.datasets.columns import NO_LABEL, NO_SPLIT, Columns, find_columns, join_classes, without_labels
from tlcache.datasets.drawing import repeated
from tlcache.datasets.folder import open_folder
from tlcache.datasets.labels import check_numbers, is_missing, is_missing_number, may_be_missing, whole_numbers
from tlcache.datasets.layout import Layout, ignoring, splitting_of
from tlcache.datasets.lookup import find_members, folder_of, locate
from tlcache.datasets.rows import Names, Rows
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


T = TypeVar("T")

Where = Callable[[int], str]  # number of a path -> where it is written
Find = Callable[[Sequence[str], Where], tuple[Sequence[str], tuple[str, ...]]]  # paths as they are written -> as found


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


@dataclass(frozen=True)
class _Lines:
    """The rows that have a label, in columns: lines, paths as they are written and as they were found, and cells."""

    numbers: Sequence[int]
    written: Sequence[str]
    paths: Sequence[str]
    labels: Sequence[str]
    splits: Sequence[str]
    groups: Sequence[str]
    others: Mapping[str, Sequence[str]]

    def __len__(self) -> int:
        return len(self.paths)

    def names(self, row: int) -> tuple[str, ...]:
        """Return what `--ignore` may name of a row."""
        return *self.paths[row].split("/"), self.labels[row], self.splits[row]

    def of(self, rows: Sequence[int]) -> _Lines:
        """Return some of the rows."""

        def some_of(column: Sequence[T]) -> Sequence[T]:
            return [column[row] for row in rows]

        return _Lines(
            some_of(self.numbers),
            some_of(self.written),
            some_of(self.paths),
            some_of(self.labels),
            some_of(self.splits),
            some_of(self.groups),
            {name: some_of(column) for name, column in self.others.items()},
        )


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
    path, listed = table.path, Texts.of(lines.paths)
    patterns = layout.patterns(range(len(lines)), lines.names)
    passed_over = Counter(f"{pattern} file" for pattern in patterns if pattern)
    if passed_over:
        kept = [row for row, pattern in enumerate(patterns) if not pattern]
        if not kept:
            raise DataError(f"{path}: --ignore leaves no row of {len(lines):,}. Leave some of its names out.")
        lines = lines.of(kept)
    if layout.task == MULTILABEL:
        lines = _merged(lines, path)
    _check_once(lines, path)
    check_numbers(lines.labels, str(path), layout.task)
    splits, on_splits = _splits(lines, path, layout, split)
    groups, on_groups = whole_numbers(lines.groups, "group")
    paths = Texts.of(lines.paths) if len(lines) < len(listed) else listed
    rows = Rows(paths, Names.of(lines.labels), Names.of(splits), Names.of(groups), lines.others)
    notes = (*columns.notes, *on_classes, *on_lines, *on_splits, *on_groups, *_perhaps_alone(groups))
    return Listed(rows, listed, passed_over, notes)


def _lines(table: Table, columns: Columns, find: Find, task: str | None) -> tuple[_Lines, tuple[str, ...]]:
    """Return the rows that have a label, and what to tell of those that have none, of their paths and labels."""
    bare, on_bare = _unlabelled(table, columns, task)
    if len(bare) == len(table.lines):
        raise DataError(
            f"{table.path}: no row has a label." if table.lines else f"'{table.path}' has a header and no rows."
        )

    def cells(at: int | None) -> Sequence[str]:
        return [""] * len(table.lines) if at is None else table.cells[at]

    written, labels, splits, groups = map(cells, (columns.path, columns.label, columns.split, columns.group))
    others = {name: table.cells[at] for at, name in columns.others(table.columns)}
    lines = _Lines(table.lines, written, written, labels, splits, groups, others)
    if bare:
        lines = lines.of([row for row in range(len(lines)) if row not in bare])
    paths, on_paths = find(lines.written, lambda row: f"{table.path}:{lines.numbers[row]}")
    labels, on_labels = (lines.labels, ()) if task == REGRESSION else whole_numbers(lines.labels, "class")
    splits, groups = map(_known, (lines.splits, lines.groups))
    lines = replace(lines, paths=paths, labels=labels, splits=splits, groups=groups)
    return lines, (*on_bare, *on_paths, *on_labels)


def _columns(table: Table, layout: Layout) -> Columns:
    def are_splits(at: int) -> bool:
        names = {*table.cells[at]}
        known = layout.named_splits(names)
        return all(name in known or is_missing(name) for name in names)

    return find_columns(table, layout.columns, are_splits)


def _labelled(table: Table, layout: Layout) -> tuple[Table, Layout]:
    """Return a table whose labels are to be left out as one in which all have the same."""
    if not layout.unlabelled:
        return table, layout
    return without_labels(table), replace(layout, unlabelled=False, label_column=NO_LABEL, split_column=NO_SPLIT)


def _paths(table: Table, layout: Layout) -> Sequence[str]:
    table, layout = _labelled(table, layout)
    table, _ = join_classes(table, layout.columns, layout.task)
    return table.cells[_columns(table, layout).path]


def _known(cells: Sequence[str]) -> Sequence[str]:
    """Return cells of which those are empty that say that nothing is known."""
    nothing = {cell for cell in {*cells} - {""} if is_missing(cell)}
    return ["" if cell in nothing else cell for cell in cells] if nothing else cells


def _missing(task: str | None) -> Callable[[str], bool]:
    """Return what tells whether a cell of labels says nothing."""
    return is_missing_number if task == REGRESSION else is_missing


def _unlabelled(table: Table, columns: Columns, task: str | None) -> tuple[Collection[int], list[str]]:
    """Return the rows that are left out because they have no label, and a note on them."""
    missing, labels = _missing(task), table.cells[columns.label]
    words = set(filter(missing, {*labels}))
    if not words:
        return (), []
    bare = {row: table.lines[row] for row, label in enumerate(labels) if label in words}
    written = " or ".join(["empty", *(f"'{printable(word)}'" for word in sorted(words - {""}))])
    shown = ", ".join(map(str, islice(bare.values(), 5))) + (" and more" if len(bare) > 5 else "")
    rows = f"{len(bare):,} of {counted(len(table.lines), 'row')}"
    none = f" An image that is known to have none of the labels has the label '{NONE}'." if task == MULTILABEL else ""
    return bare, [f"{rows} left out, as they have no label ({written}): line {shown}.{none}"]


def _merged(lines: _Lines, table: Path | str) -> _Lines:
    """Return one line for all of an image, each of which has some of its labels, and the same split and group.

    Raises
    ------
    DataError
        The lines of an image have other splits or groups.
    """
    by_path: dict[str, list[int]] = {}
    separator = separator_of(lines.labels)
    for row, path in enumerate(lines.paths):
        by_path.setdefault(path, []).append(row)
    for first, *others in by_path.values():
        known = lines.splits[first], lines.groups[first]
        for other in others:
            if (lines.splits[other], lines.groups[other]) != known:
                raise DataError(
                    f"{table}:{lines.numbers[other]}: '{lines.written[other]}' has the split '{lines.splits[other]}' "
                    f"and the group '{lines.groups[other]}', and '{known[0]}' and '{known[1]}' on line "
                    f"{lines.numbers[first]}. Give all lines of an image the same."
                )
    labels = [separator.join(lines.labels[row] for row in own) for own in by_path.values()]
    return replace(lines.of([own[0] for own in by_path.values()]), labels=labels)


def _check_once(lines: _Lines, table: Path | str) -> None:
    """Raise DataError where two rows are of one image: it has one label, one split and one group."""
    first = dict[str, int]()
    for row in repeated(lines.paths).tolist():
        path, written, label = lines.paths[row], lines.written[row], lines.labels[row]
        if (other := first.setdefault(path, row)) != row:
            same = "" if path == written else f" '{path}', which is"
            labels = (
                f"with another label ('{lines.labels[other]}', and '{label}' here). An image has one label, or with "
                "--task multilabel several: say that, or keep"
                if lines.labels[other] != label
                else "with the same label. Keep"
            )
            raise DataError(
                f"{table}:{lines.numbers[row]}: '{written}' is{same} listed already, on line {lines.numbers[other]}, "
                f"{labels} one of the lines."
            )


def _splits(lines: _Lines, table: Path | str, layout: Layout, default: str) -> tuple[list[str], tuple[str, ...]]:
    """Return which of `SPLITS` the names mean, and a note on the rows that have none."""
    names = lines.splits
    there, found = dict.fromkeys(names), some(sorted({*names} - {""})) or "none"
    if odd := (layout.split_folders or {}).keys() - there.keys():
        raise DataError(f"--split-folders: no image has the split {some(sorted(odd))}. The splits are: {found}.")
    known = {"": default, **layout.named_splits(there)}
    if odd := there.keys() - known.keys():
        line, name = next(each for each in zip(lines.numbers, names, strict=True) if each[1] in odd)
        use, no_use = splitting_of(sorted(odd)[:3]), ignoring([name])
        raise DataError(
            f"{table}:{line}: unknown split '{name}'. Known: {', '.join(SPLITS)}. The column has {found}: "
            f"say which is which with {use}, or leave rows out with {no_use}."
        )
    blank = sum(not name for name in names)
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
