"""Identities: canonical JSON and its hash, and names that are safe as file names and on terminals.

Names of files and classes are bytes, and Python makes texts of them by the locale. What is written or hashed as text
has them as UTF-8 says, so that a process with another locale finds the same names.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

__all__ = [
    "canonical_json",
    "few",
    "hash_json",
    "hash_rows",
    "native",
    "portable",
    "printable",
    "quoted",
    "slug",
    "some",
]


_OURS = sys.getfilesystemencoding()
_LONGEST = 80  # characters of a path component
_ROWS = 4096  # that are hashed at once


def portable(value: Any, encoding: str = "utf-8", ours: str = _OURS) -> Any:
    """Return a JSON value with its texts as a process has them whose names are in `encoding`.

    >>> portable({"name": "chÃªne"}, ours="iso8859-1")
    {'name': 'chêne'}
    """
    if encoding == ours:
        return value
    try:
        known = json.dumps(value, ensure_ascii=False).encode(ours, "surrogateescape")
    except UnicodeEncodeError:  # no name: it has letters that names here cannot have
        return value
    return json.loads(known.decode(encoding, "surrogateescape"))


def native(value: Any) -> Any:
    """Return what `portable` was given: texts as this process has them."""
    return portable(value, _OURS, "utf-8")


def canonical_json(value: Any, encoding: str = "utf-8") -> str:
    """Return `value` as JSON with sorted keys and no spaces: equal values give equal text, in every locale.

    `encoding` is that of names in the process whose text this is to be.

    >>> canonical_json({"b": 1, "a": [0.5, None]})
    '{"a":[0.5,null],"b":1}'
    """
    return json.dumps(portable(value, encoding), sort_keys=True, separators=(",", ":"), allow_nan=False)


def hash_json(value: Any, encoding: str = "utf-8") -> str:
    """Return the sha256 of the canonical JSON of `value`, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value, encoding).encode()).hexdigest()


def hash_rows(value: Mapping[str, Any], name: str, rows: Iterable[Any]) -> str:
    """Return the `hash_json` of `value` with rows in its empty list `name`, of which some are in memory at a time."""
    if _OURS != "utf-8":  # texts of all rows together decide how they are taken
        return hash_json({**value, name: list(rows)})
    mark = f'"{name}":['
    before, _, after = canonical_json(value).partition(f"{mark}]")
    digest, rows, comma = hashlib.sha256(f"{before}{mark}".encode()), iter(rows), ""
    while some_rows := list(islice(rows, _ROWS)):
        digest.update(f"{comma}{canonical_json(some_rows)[1:-1]}".encode())
        comma = ","
    digest.update(f"]{after}".encode())
    return digest.hexdigest()


def slug(name: str, ending: str = "") -> str:
    """Return `name` as one safe path component, never empty, never hidden, never leading elsewhere.

    `ending`, which is safe already, comes after it and is there however long the name is.

    >>> slug("../My flowers (2024)", "-1c9be2c3.json")
    'My_flowers_2024_-1c9be2c3.json'
    """
    whole = re.sub(r"[^\w.-]+", "_", portable(name) + ending).strip("._-")
    return str(native(whole if len(whole) <= _LONGEST else whole[: _LONGEST - len(ending)] + ending)) or "unnamed"


def printable(name: str) -> str:
    r"""Return `name` as it is, or escaped when it could harm or confuse a terminal.

    >>> print(printable("a\n.jpg"))
    a\n.jpg
    """
    with suppress(UnicodeError):
        name = os.fsencode(name).decode()  # another locale may have made something else of it
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def quoted(name: str) -> str:
    """Return `name` printable, and in quotes where one could not see in a list or sentence where it ends.

    >>> print(quoted("red fox"), quoted("fox, red"), quoted(" fox"), quoted(""))
    red fox 'fox, red' ' fox' ''
    """
    shown = printable(name)
    return f"'{shown}'" if not name or name != name.strip() or any(mark in name for mark in ",;") else shown


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first of some names, each to be told from the next, and how many more there are.

    >>> some(["a", "b, c", "d"], 2)
    "a, 'b, c' and 1 more"
    """
    return few([quoted(name) for name in names[:most]], most, len(names))


def few(phrases: Sequence[str], most: int = 5, count: int | None = None) -> str:
    """Return the first of some phrases, and how many more there are; `count` where not all are given.

    >>> few(["2 (1, 3)", "1 (4, 4)"], 1)
    '2 (1, 3) and 1 more'
    """
    more = (len(phrases) if count is None else count) - most
    return ", ".join(printable(each) for each in phrases[:most]) + (f" and {more:,} more" if more > 0 else "")
