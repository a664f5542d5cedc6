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
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

__all__ = ["canonical_json", "hash_json", "native", "portable", "printable", "slug", "some"]


_OURS = sys.getfilesystemencoding()


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


def slug(name: str) -> str:
    """Return `name` as one safe path component, never empty, never hidden, never leading elsewhere.

    >>> slug("../My flowers (2024)")
    'My_flowers_2024'
    """
    return str(native(re.sub(r"[^\w.-]+", "_", portable(name)).strip("._-")[:80])) or "unnamed"


def printable(name: str) -> str:
    r"""Return `name` as it is, or escaped when it could harm or confuse a terminal.

    >>> print(printable("a\n.jpg"))
    a\n.jpg
    """
    with suppress(UnicodeError):
        name = os.fsencode(name).decode()  # another locale may have made something else of it
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first of some names, printable, and how many more there are.

    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    shown = ", ".join(printable(name) for name in names[:most])
    return shown + (f" and {len(names) - most:,} more" if len(names) > most else "")
