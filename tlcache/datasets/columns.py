"""What the columns of a table mean, by the names that people give them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from tlcache.datasets.table import Table
from tlcache.errors import DataError

__all__ = ["Columns", "find_columns", "join_classes"]

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


_HEADLESS = "The table has no header; its first column is taken as the {}, its second as the {}."


class Columns(NamedTuple):
    """Where a table has what: indices of its columns, None where it has none; and what to tell of the choice."""

    path: int
    label: int
    split: int | None
    group: int | None
    notes: tuple[str, ...] = ()


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
        There is no column of paths or of labels, or several may be it.
    """
    columns = table.columns
    plain = [_plain(name) for name in columns]
    places = {role: _places(plain, role, are_splits) for role in _NAMES}
    places |= {role: [at for at, column in enumerate(columns) if column == name] for role, name in asked.items()}
    _check(table, places, asked)
    found = {role: each[0] for role, each in places.items() if len(each) == 1}
    usual = {role: columns[at] for role, at in found.items() if role not in asked and columns[at].lower() != role}
    unused = [name for name, word in zip(columns, plain, strict=True) if _looks_used(word, found)]
    notes = (_taken(usual), _unused(unused), "" if table.has_header else _HEADLESS.format(*columns))
    return Columns(found["path"], found["label"], found.get("split"), found.get("group"), tuple(filter(None, notes)))


def join_classes(table: Table) -> tuple[Table, tuple[str, ...]]:
    """Return a table with a column of labels, where it has a column of 0 and 1 for every class; and a note on that."""
    known = set().union(*_NAMES["label"])
    if not table.rows or known.intersection(map(_plain, table.columns)):
        return table, ()
    one, other = {"1", "1.0"}, {"0", "0.0"}
    free = [n for n, name in enumerate(table.columns) if not _looks_used(_plain(name), ())]
    at = [n for n in free if all(cells[n] in one or cells[n] in other for _, cells in table.rows)]
    chosen = [[table.columns[n] for n in at if cells[n] in one] for _, cells in table.rows]
    if len(at) < 2 or any(len(each) != 1 for each in chosen):
        return table, ()
    rows = [(line, [*cells, label]) for (line, cells), (label,) in zip(table.rows, chosen, strict=True)]
    note = f"Each of these columns is a class, 1 in its images: {_quoted([table.columns[n] for n in at])}."
    return table._replace(columns=[*table.columns, "label"], rows=rows), (note,)


def _check(table: Table, places: Mapping[str, Sequence[int]], asked: Mapping[str, str]) -> None:
    if missing := [role for role in _NAMES if not places[role] and (role in ("path", "label") or role in asked)]:
        names = " and ".join(f"{role} (--{role}-column {asked.get(role, 'NAME')})" for role in missing)
        raise DataError(f"{table.path}:1: no column {names}; found {_quoted(table.columns) or 'nothing'}.")
    for role, several in places.items():
        names = _quoted([table.columns[at] for at in several])
        unsure = role == "group" and role not in asked and any(_plain(table.columns[at]) != role for at in several)
        if len(several) > 1 and not unsure:
            raise DataError(
                f"{table.path}:1: several columns may be the {role}: {names}. Say which with --{role}-column, or give "
                "each a name of its own."
            )


def _places(plain: Sequence[str], role: str, are_splits: Callable[[int], bool]) -> list[int]:
    """Return the columns that have the surest of the names that any has."""
    for rank, names in enumerate(_NAMES[role]):
        at = [number for number, name in enumerate(plain) if name in names]
        if found := [number for number in at if role != "split" or not rank or are_splits(number)]:
            return found
    return []


def _taken(others: dict[str, str]) -> str:
    return (
        f"Of the columns, {' and '.join(f'{name!r} is the {role}' for role, name in others.items())}." if others else ""
    )


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
