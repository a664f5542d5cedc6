"""Kinds of values: what they are called, how they are read from text, and what is one."""

from __future__ import annotations

import importlib
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = [
    "LARGEST",
    "PATH",
    "RATE",
    "SECONDS",
    "SHARE",
    "SIZE",
    "SWITCH",
    "Kind",
    "choice",
    "chosen_from",
    "listed",
    "listing",
    "number",
    "numbers",
    "pattern",
    "several",
    "text",
    "whole",
]


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Parameters
    ----------
    takes
        What it is, in words: "a whole number from 1 on".
    shown
        What stands for it in help texts: "N".
    type
        What Python calls it in docstrings: "int".
    read
        Text to value; a ValueError is raised where it is none.
    allows
        Whether something is such a value.
    choices
        The names to choose from; empty where any will do.
    gather
        All texts of a repeated option to one value; None where an option is to be given once.
    """

    takes: str
    shown: str
    type: str
    read: Callable[[str], Any]
    allows: Callable[[Any], bool]
    choices: Callable[[], Iterable[str]] = tuple
    gather: Callable[[Sequence[str]], Any] | None = None

    def value(self, word: str) -> Any:
        """Return the value that a word says; raises ValueError where it says none."""
        value = self.read(word)
        if not self.allows(value):
            raise ValueError(word)
        return value


def _within(least: float | None, most: float | None, above: float | None, below: float | None) -> str:
    first = f"above {above}" if above is not None else f"from {least}" if least is not None else ""
    last = f"to below {below}" if below is not None else f"to {most}" if most is not None else ""
    return f"{first} {last}".strip() if last or above is not None else f"{first} on" if first else ""


def whole(least: int | None = None, most: int | None = None, why: str = "") -> Kind:
    """Return whole numbers from `least` to `most`, both included; `why` says where the bounds come from."""

    def allows(value: Any) -> bool:
        return type(value) is int and (least is None or value >= least) and (most is None or value <= most)

    takes = " ".join(filter(None, ["a whole number", _within(least, most, None, None)])) + (f", {why}" if why else "")
    return Kind(takes, "N", "int", int, allows)


def number(
    least: float | None = None, most: float | None = None, above: float | None = None, below: float | None = None
) -> Kind:
    """Return finite numbers within bounds, `above` and `below` excluded."""

    def allows(value: Any) -> bool:
        return (
            isinstance(value, int | float)
            and type(value) is not bool
            and math.isfinite(value)
            and (least is None or value >= least)
            and (most is None or value <= most)
            and (above is None or value > above)
            and (below is None or value < below)
        )

    takes = " ".join(filter(None, ["a number", _within(least, most, above, below)]))
    return Kind(takes, "X", "float", float, allows)


def choice(names: Sequence[str]) -> Kind:
    """Return one of some names."""
    type = f"{{{', '.join(map(repr, names))}}}"
    return Kind("one of its choices", "NAME", type, str, names.__contains__, lambda: names)


def chosen_from(table: str) -> Kind:
    """Return one of the names in a table, `module:NAME`, which is imported when it is needed, and may grow."""

    def known() -> Iterable[str]:
        module, _, name = table.partition(":")
        found = getattr(importlib.import_module(module), name)
        return list(found() if callable(found) else found)

    return Kind(f"a name of `{table.replace(':', '.')}`", "NAME", "str", str, lambda value: value in known(), known)


def text(shown: str, takes: str = "text") -> Kind:
    """Return any text; what it may be is for who uses it to say."""
    return Kind(takes, shown, "str", str, lambda value: isinstance(value, str))


def pattern(regex: str, shown: str, takes: str) -> Kind:
    """Return text of a form."""
    return Kind(takes, shown, "str", str, lambda value: bool(re.fullmatch(regex, str(value))))


def _switch(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise ValueError(word)
    return word.lower() == "true"


def _seconds(word: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    return float(word[:-1]) * units[word[-1]] if word[-1:] in units else float(word)


def _size(word: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([kmgt])(i?))?b?", word, re.IGNORECASE)
    if not found:
        raise ValueError(word)
    unit: int = (1024 if found[3] else 1000) ** " kmgt".index((found[2] or " ").lower())
    return round(float(found[1]) * unit)


def _rate(word: str) -> tuple[str, float]:
    name, _, value = word.partition("=")
    return name.strip(), float(value)


def _is_rate(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == 2
        and value[0] in ("specificity", "sensitivity")
        and number(above=0, most=1).allows(value[1])
    )


def _is_share(value: Any) -> bool:
    found = re.fullmatch("([1-9][0-9]*)/([1-9][0-9]*)", str(value))
    return found is not None and int(found[1]) <= int(found[2])


RATE = Kind("specificity=X or sensitivity=X, X above 0 to 1", "RATE=X", "tuple of str and float", _rate, _is_rate)
PATH = Kind("a path", "PATH", "str or Path", Path, lambda value: isinstance(value, str | os.PathLike))
PLACE = Kind(
    "a path", "PATH", "str or Path", str, PATH.allows
)  # as it is written: an address would not survive as a path
SHARE = Kind("a share and how many there are, from 1/1 on, like 3/16", "I/N", "str", str, _is_share)
SWITCH = Kind("true or false", "", "bool", _switch, lambda value: type(value) is bool)
SECONDS = Kind(
    "a time above 0 like 90s, 30m or 2h (a number alone: seconds)", "TIME", "float", _seconds, number(above=0).allows
)


SIZE = Kind(
    "a size like 500kB, 20MB or 2GiB (a number alone: bytes)",
    "SIZE",
    "int",
    _size,
    lambda value: type(value) is int and value >= 0,
)
LARGEST = replace(SIZE, takes="a size above 0 like 500MB, 32GB or 1TB (a number alone: bytes)", allows=whole(1).allows)


def listed(texts: Sequence[str]) -> list[str]:
    """Return what is listed: an option is repeated, or has commas, save where the whole is a path that exists.

    >>> listed(["ridge, knn", "svm"])
    ['ridge', 'knn', 'svm']
    """
    parts = [[each] if Path(each).exists() else each.split(",") for each in texts]
    return [part for own in parts for each in own if (part := each.strip())]


def listing(value: Any) -> list[Any]:
    """Return one value or several as a list.

    >>> listing("photos"), listing(("a", "b"))
    (['photos'], ['a', 'b'])
    """
    return [value] if isinstance(value, str | os.PathLike) else list(value)


def several(kind: Kind) -> Kind:
    """Return one or more values of a kind: on a command line the option is repeated, or has commas."""

    def allows(value: Any) -> bool:
        return isinstance(value, str | os.PathLike | Iterable) and all(map(kind.allows, listing(value)))

    def gather(texts: Sequence[str]) -> list[Any]:
        return list(dict.fromkeys(kind.value(each) for each in listed(texts)))

    return Kind(kind.takes, f"{kind.shown},...", f"{kind.type}, or several", kind.read, allows, kind.choices, gather)


def numbers(count: int, example: str) -> Kind:
    """Return so many numbers, which commas part."""

    def read(word: str) -> tuple[float, ...]:
        return tuple(float(part) for part in word.split(","))

    def allows(value: Any) -> bool:
        return isinstance(value, Sequence) and len(value) == count and all(map(number().allows, value))

    return Kind(f"{count} numbers like {example}", ",".join("X" * count), f"tuple of {count} floats", read, allows)
