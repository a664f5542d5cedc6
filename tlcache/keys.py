"""Identities: canonical JSON and its hash, and names that are safe as file names and on terminals."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

__all__ = ["canonical_json", "hash_json", "printable", "slug", "some"]


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no spaces: equal values give equal text.

    >>> canonical_json({"b": 1, "a": [0.5, None]})
    '{"a":[0.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def hash_json(value: Any) -> str:
    """Return the sha256 of the canonical JSON of `value`, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def slug(name: str) -> str:
    """Return `name` as one safe path component, never empty, never hidden, never leading elsewhere.

    >>> slug("../My flowers (2024)")
    'My_flowers_2024'
    """
    return re.sub(r"[^\w.-]+", "_", name).strip("._-")[:80] or "unnamed"


def printable(name: str) -> str:
    r"""Return `name` as it is, or escaped when it could harm or confuse a terminal.

    >>> print(printable("a\n.jpg"))
    a\n.jpg
    """
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first of some names, printable, and how many more there are.

    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    shown = ", ".join(printable(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
