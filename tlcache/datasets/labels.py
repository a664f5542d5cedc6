"""What labels mean: which are one class, which are none, and which only look like classes."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from tlcache.datasets.layout import ignoring
from tlcache.datasets.tasks import LIST
from tlcache.errors import DataError
from tlcache.keys import few, some
from tlcache.tasks import REGRESSION

if TYPE_CHECKING:
    from tlcache.datasets.rows import Rows

__all__ = [
    "check_numbers",
    "composed",
    "is_missing",
    "is_missing_number",
    "may_be_missing",
    "notes_on",
    "whole_numbers",
]

_NOTHING = {  # what pandas, JSON and spreadsheets write for it
    *("", "nan", "-nan", "<na>", "nat", "null"),
    *("#n/a", "#n/a n/a", "#na", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"),
}
_PERHAPS = {  # what people write for it, and what is a class of some
    *("na", "n/a", "n.a.", "none", "?", "-", "--"),
    *("missing", "not available", "undefined", "unknown", "unlabeled", "unlabelled"),
}
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+(\.0+)?")
_FEW = 20  # so many values may be grades
_SEVERAL = "To learn several labels: --task multilabel; if each is a class: --task classify."
_NUMBERS = "To learn numbers: --task regression; if they are classes: --task classify."


def is_missing(label: str) -> bool:
    """Return whether a cell says that nothing is known.

    >>> is_missing("NaN"), is_missing("none")
    (True, False)
    """
    return label.casefold() in _NOTHING


def may_be_missing(label: str) -> bool:
    """Return whether a name may say that nothing is known, though it may name something, too.

    >>> may_be_missing("N/A"), may_be_missing("None"), may_be_missing("nan")
    (True, True, False)
    """
    return label.casefold() in _PERHAPS


def composed(rows: Rows) -> tuple[Rows, tuple[str, ...]]:
    """Return rows whose labels and groups are in Unicode's composed form, and a note on what has become one.

    A Mac's archives have the decomposed form of accents, and lists that people type have the other.
    """
    labels = rows.labels.names
    forms = {name: unicodedata.normalize("NFC", name) for name in (*labels, *rows.groups.names)}
    if all(name == form for name, form in forms.items()):
        return rows, ()
    doubled = sorted(name for name, count in Counter(forms[label] for label in labels).items() if count > 1)
    notes = (
        (f"Labels that differ only in how Unicode writes accents are one class: {some(doubled)}.",) if doubled else ()
    )
    return rows.renamed(labels=forms, groups=forms), notes


def whole_numbers(labels: Sequence[str], noun: str) -> tuple[Sequence[str], tuple[str, ...]]:
    """Return labels in which a number has one form, as pandas writes 1 and 1.0 into one table, and notes on that.

    >>> whole_numbers(["0", "1.0", "0.0", "1"], "class")
    (['0', '1', '0', '1'], ("'0' and '0.0' are one class, as other numbers are.",))
    """
    known = set(labels) - {""}
    pairs = sorted((label.partition(".")[0], label) for label in known if "." in label)
    if not all(map(_WHOLE.fullmatch, known)) or known.isdisjoint(whole for whole, _ in pairs):
        return labels, ()
    whole, label = next(pair for pair in pairs if pair[0] in known)
    return [each.partition(".")[0] for each in labels], (
        f"'{whole}' and '{label}' are one {noun}, as other numbers are.",
    )


def is_missing_number(label: str) -> bool:
    """Return whether a cell of numbers says that nothing is known: no number is called `NA`, or `unknown`.

    >>> is_missing_number("NaN"), is_missing_number("NA"), is_missing_number("3,5")
    (True, True, False)
    """
    return is_missing(label) or may_be_missing(label)


def check_numbers(labels: Sequence[str], where: str, task: str | None) -> None:
    """Raise DataError where labels are measurements: numbers, and hardly any stands twice; not where a task is told."""
    if task:
        return
    numbers = [label for label in labels if not may_be_missing(label)]
    known = set(numbers)
    if len(known) <= _FEW or not all(map(_NUMBER.fullmatch, known)):
        return
    wanted = 2 if all(map(_WHOLE.fullmatch, known)) else 3
    if len(numbers) < wanted * len(known):
        raise DataError(
            f"{where}: the labels are numbers like {numbers[0]}, {len(known):,} different ones in {len(numbers):,} "
            "rows. To learn numbers: --task regression. To take each as a class: --task classify."
        )


def notes_on(classes: Collection[str], task: str | None = None) -> tuple[str, ...]:
    """Return what should be looked into: classes that may be none, are nearly one, or several; measurements.

    Of classes that were asked for it is not said that they may be something else; of numbers there is nothing to say.
    """
    if task == REGRESSION:
        return ()
    of_names = (*_perhaps_none(classes), *_nearly_one(classes))
    return of_names if task else (*of_names, *_joined(classes), *_lists(classes), *_measured(classes))


def _lists(classes: Iterable[str]) -> list[str]:
    """Return a note on labels that Python or JSON wrote as lists, sets or objects."""
    found = sorted(name for name in classes if LIST.fullmatch(name))
    what = "Labels that are written as lists, each of which is a class by its whole text"
    return [f"{what}: {few(list(map(repr, found)))}. {_SEVERAL}"] if found else []


def _measured(classes: Collection[str]) -> list[str]:
    """Return a note on numbers that count or measure something; numbered classes begin at 0 or 1, or with a zero.

    >>> _measured([str(year) for year in range(18, 24)])
    ['The 6 labels are whole numbers (18 to 23); each is a class, and none is near another. To learn numbers: --task \
regression; if they are classes: --task classify.']
    >>> _measured([str(number) for number in range(10)]), _measured(["003", "007", "012", "019", "020", "033"])
    ([], [])
    """
    units = {_NUMBER.sub("", name, count=1).strip() for name in classes}
    numbers = [name.removesuffix(unit).strip() for unit in units for name in classes] if len(units) == 1 else []
    if not numbers or len(numbers) < (3 if max(units) else 6) or not all(map(_NUMBER.fullmatch, numbers)):
        return []
    values, whole = sorted(map(float, numbers)), all(map(_WHOLE.fullmatch, numbers))
    counted = values[0] in (0, 1) and values[-1] < 2 * len(values)
    if whole and (counted or any(re.match(r"0\d", name) for name in numbers)):
        return []
    what = "whole numbers" if whole else "numbers with fractions"
    of = f"{what} ({values[0]:g} to {values[-1]:g}{' ' if max(units) else ''}{max(units)})"
    return [f"The {len(values):,} labels are {of}; each is a class, and none is near another. {_NUMBERS}"]


def _perhaps_none(classes: Iterable[str]) -> list[str]:
    found = sorted(name for name in classes if may_be_missing(name) or is_missing(name))
    return (
        [
            f"Classes that may mean that the label is not known, by their names: {few(list(map(repr, found)))}. "
            f"If so, leave their images out with {ignoring(found)}."
        ]
        if found
        else []
    )


def _nearly_one(classes: Iterable[str]) -> list[str]:
    alike = defaultdict[str, list[str]](list)
    for name in sorted(classes):
        alike[_key(name)].append(name)
    groups = [" and ".join(map(repr, names)) for names in alike.values() if len(names) > 1]
    return (
        [f"Classes that differ only in case, blanks or zeros: {few(groups)}. Is each of them one class?"]
        if groups
        else []
    )


def _key(name: str) -> str:
    plain = " ".join(name.replace("_", " ").casefold().split())
    return str(float(plain)) if _NUMBER.fullmatch(plain) else plain


def _joined(classes: Collection[str]) -> list[str]:
    """Return a note where all that a label joins stands in other labels, too."""
    for separator in "|;,":
        parts = {name: [part.strip() for part in name.split(separator)] for name in classes}
        holders = defaultdict[str, set[str]](set)
        for name, each in parts.items():
            for part in each:
                holders[part].add(name)
        several = sorted(
            n for n, each in parts.items() if len(each) > 1 and all(len(holders[part]) > 1 for part in each)
        )
        if several:
            return [
                f"Labels that seem to be several in one: {few(list(map(repr, several)))}. Each is a class of its own "
                f"here. {_SEVERAL}"
            ]
    return []
