"""What the columns of a table mean, by the names that people give them."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tlcache.datasets.table import Table, column_of
from tlcache.errors import DataError
from tlcache.tasks import MULTILABEL, joined_label

__all__ = [
    "NO_LABEL",
    "NO_SPLIT",
    "Columns",
    "find_columns",
    "find_images",
    "join_classes",
    "roles_of",
    "without_labels",
]

_NAMES = {  # of every role, without blanks and underscores: the sure ones first
    role: [set(names.split()) for names in tiers]
    for role, tiers in {
        "path": (
            "path",
            "paths file filename filenames filepath filepaths image images imagefile imagefilename imagename imagepath "
            "img imgfile imgname imgpath photo picture",
            "id idcode imageid imageindex imgid name",
        ),
        "label": (
            "label",
            "breed category categoryname class classname diagnosis dx findinglabels labelname labels species",
            "categoryid classid classindex labelid target y",
        ),
        "split": ("split", "dataset fold partition phase set subset usage"),
        "group": ("group", "groupid groups participant participantid patient patientid subject subjectid"),
    }.items()
}


MOST_OTHERS = 256  # columns; a table with more has features in them
NO_LABEL, NO_SPLIT = "label of none", "split of none"
_ONE, _ZERO = {"1", "1.0"}, {"0", "0.0"}
_HEADLESS = "The table has no header; its first column is taken as the {}, its second as the {}."


class Columns(NamedTuple):
    """Where a table has what: indices of its columns, None where it has none; and what to tell of the choice."""

    path: int
    label: int
    split: int | None
    group: int | None
    notes: tuple[str, ...] = ()

    def others(self, names: Sequence[str]) -> list[tuple[int, str]]:
        """Return the columns that are none of these and have a name of their own, each with its index.

        A table with more than `MOST_OTHERS` has features in them, and none is returned.
        """
        used, counts = {self.path, self.label, self.split, self.group}, Counter(names)
        found = [(at, name) for at, name in enumerate(names) if at not in used and name and counts[name] == 1]
        return found if len(found) <= MOST_OTHERS else []


def without_labels(table: Table) -> Table:
    """Return a table with a label and a split that say nothing, in columns that are called as no other is."""
    cells = [*table.cells, ["-"] * len(table.lines), [""] * len(table.lines)]
    return table._replace(columns=[*table.columns, NO_LABEL, NO_SPLIT], cells=cells)


def find_columns(table: Table, asked: Mapping[str, str], are_splits: Callable[[int], bool]) -> Columns:
    """Find the columns of a table.

    Parameters
    ----------
    table
        Its header counts.
    asked
        Path, label, split or group -> the name of its column, where the user says it.
    are_splits
        Whether a column holds names of splits: one that is called `fold` or `set` may hold anything.

    Raises
    ------
    DataError
        There is no column of paths or of labels, or several may equally well be one of these or the split or group.
    """
    columns = table.columns
    plain = ["" if name in asked.values() else _plain(name) for name in columns]
    ranked = {role: _ranked(plain, role, are_splits) for role in _NAMES}
    ranked |= {role: _named(columns, name) for role, name in asked.items()}
    _check(table, {role: ranks[0] if ranks else [] for role, ranks in ranked.items()}, asked)
    found = {role: ranks[0][0] for role, ranks in ranked.items() if ranks}
    others = {role: [columns[at] for rank in ranks[1:] for at in rank] for role, ranks in ranked.items()}
    unused = [name for name, word in zip(columns, plain, strict=True) if _looks_used(word, found)]
    taken = _taken({role: columns[at] for role, at in found.items() if role not in asked}, others)
    notes = (taken, _unused(unused), "" if table.has_header else _HEADLESS.format(*columns))
    return Columns(found["path"], found["label"], found.get("split"), found.get("group"), tuple(filter(None, notes)))


def find_images(table: Table) -> tuple[int, int | None]:
    """Return the column of paths by its name, and that of labels, None where none is or several may be it.

    Raises
    ------
    DataError
        There is no column of paths, or several may equally well be it.
    """
    plain = list(map(_plain, table.columns))
    paths, labels = (next(iter(_ranked(plain, role, lambda _: False)), []) for role in ("path", "label"))
    if len(paths) == 1:
        return paths[0], labels[0] if len(labels) == 1 else None
    named = [table.columns[at] for at in paths] or table.columns
    what = "several columns may be the path" if paths else "no column is the path by its name"
    raise DataError(f"{table.path}:1: {what}: {_quoted(named)}. Call the one with the paths of images 'path'.")


def roles_of(path: Path, names: Sequence[str], asked: Mapping[str, str]) -> dict[str, str]:
    """Return path, label, split or group -> the column that is it by its name; none where none is.

    Raises
    ------
    DataError
        Several may equally well be one, or one that is asked for is not there.
    """
    plain = [_plain(name) for name in names]
    ranked = {role: _ranked(plain, role, lambda _: True) for role in _NAMES}
    ranked |= {role: _named(names, name) for role, name in asked.items()}
    for role, ranks in ranked.items():
        if role in asked and not ranks:
            raise DataError(f"'{path}': no column '{asked[role]}' (--{role}-column); there are {_quoted(names)}.")
        if ranks and len(ranks[0]) > 1:
            several = _quoted([names[at] for at in ranks[0]])
            raise DataError(f"'{path}': several columns may be the {role}: {several}. Say which with --{role}-column.")
    return {role: names[ranks[0][0]] for role, ranks in ranked.items() if ranks}


def join_classes(table: Table, asked: Mapping[str, str], task: str | None = None) -> tuple[Table, tuple[str, ...]]:
    """Return a table with labels instead of a column of 0 and 1 for every class, where it has such; and a note on that.

    `asked` is as for `find_columns`; where the `task` is `multilabel`, a row may have any number of 1.

    Raises
    ------
    DataError
        There are such columns and no labels, and a row has several 1 or none.
    """
    columns, known = table.columns, {role: set().union(*ranks) for role, ranks in _NAMES.items()}
    if "label" in asked or not table.lines or known["label"].intersection(map(_plain, columns)):
        return table, ()
    used = set(asked.values()).union(name for name in columns if _plain(name) in set().union(*known.values()))
    free = [n for n, name in enumerate(columns) if name not in used and not _looks_used(_plain(name), ())]
    at = [n for n in free if {*table.cells[n]} <= _ONE | _ZERO]
    if len(at) < 2:
        return table, ()
    names, joined = _quoted([columns[n] for n in at]), list[str]()
    for line, cells in zip(table.lines, zip(*(table.cells[n] for n in at), strict=True), strict=True):
        labels = [columns[n] for n, cell in zip(at, cells, strict=True) if cell in _ONE]
        if len(labels) != 1 and task != MULTILABEL:
            raise DataError(
                f"{table.path}:{line}: no column is the label by its name, and of those of 0 and 1 ({names}) "
                f"{len(labels) or 'none'} are 1. An image has one label: name its column with --label-column, leave "
                "such rows out, or say --task multilabel, where an image has any number of labels."
            )
        joined.append(joined_label(labels))
    note = f"Each of these columns is a {'label' if task == MULTILABEL else 'class'}, 1 in its images: {names}."
    kept = [n for n in range(len(columns)) if n not in at]
    left = [*(table.cells[n] for n in kept), column_of(joined)]
    return table._replace(columns=[*(columns[n] for n in kept), "label"], cells=left), (note,)


def _check(table: Table, places: Mapping[str, Sequence[int]], asked: Mapping[str, str]) -> None:
    if not any(table.columns):
        raise DataError(f"'{table.path}' has no header. Its first line names the columns, as in path,label.")
    others = _quoted([name for name in table.columns if name != asked.get("path")])
    there = f"there are {others}" if others else "there is no other"
    if not table.has_header:
        there = "the table has no header, so add one"
    for role, name in asked.items():
        if not places[role]:
            raise DataError(f"{table.path}:1: no column '{name}' (--{role}-column); {there}.")
    if missing := [role for role in ("path", "label") if not places[role]]:
        options = " and ".join(f"--{role}-column NAME" for role in missing)
        what = f"no column is the {' or the '.join(missing)} by its name"
        advice = f"Say which it is with {options}." if others else "To take images without labels: --unlabelled."
        raise DataError(f"{table.path}:1: {what}; {there}. {advice}")
    for role, several in places.items():
        if len(several) > 1:
            names = _quoted([table.columns[at] for at in several])
            raise DataError(
                f"{table.path}:1: several columns may be the {role}: {names}. Say which with --{role}-column, or give "
                "each a name of its own."
            )


def _named(columns: Sequence[str], name: str) -> list[list[int]]:
    found = [at for at, column in enumerate(columns) if column == name]
    return [found] if found else []


def _ranked(plain: Sequence[str], role: str, are_splits: Callable[[int], bool]) -> list[list[int]]:
    """Return the columns that may be it by their names, those of the surest names first."""
    ranks = ([at for at, name in enumerate(plain) if name in names] for names in _NAMES[role])
    certain = (
        [at for at in rank if role != "split" or not number or are_splits(at)] for number, rank in enumerate(ranks)
    )
    return list(filter(None, certain))


def _taken(found: Mapping[str, str], others: Mapping[str, Sequence[str]]) -> str:
    """Return a note on the columns that are not called as what they are, or beside which others may be that."""
    told = [
        f"'{name}' is the {role}{f' (not {_quoted(others[role])})' if others[role] else ''}"
        for role, name in found.items()
        if others[role] or name.lower() != role
    ]
    options = " or ".join(f"--{role}-column" for role in found if others[role])
    other = f" Name another with {options}." if options else ""
    return f"Of the columns, {' and '.join(told)}.{other}" if told else ""


def _looks_used(word: str, found: Iterable[str]) -> bool:
    """Return whether a column has nearly the name of a split or a group, and no other one is that."""
    roles = [role for role in ("split", "group") if role not in found]
    known = {name for role in roles for names in _NAMES[role] for name in names}
    flag = "split" in roles and re.fullmatch(
        r"(is)?(train|training|val|valid|validation|test|testing)(image|set)?", word
    )
    return bool(flag or ("group" in roles and word == "grp") or difflib.get_close_matches(word, known, 1, 0.8))


def _unused(names: Sequence[str]) -> str:
    return (
        f"Columns that are not used: {_quoted(names)}. If one says which images train or test, or which "
        "belong together (a patient, a video), name it with --split-column or --group-column."
        if names
        else ""
    )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names if name)
