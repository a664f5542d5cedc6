"""Which images belong together: near-duplicates, what a pattern finds in their paths, or the dataset's own groups."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tlcache.auditing.neighbours import Pairs
from tlcache.errors import DataError, OptionError, UnknownNameError, closest

__all__ = [
    "GROUP_BY",
    "choose_groups",
    "connected",
    "matched",
]

GROUP_BY = ("near-duplicates", "regex", "column")


def choose_groups(
    by: str | None, regex: str | None, paths: Sequence[str], column: Sequence[str], pairs: Pairs
) -> tuple[str, list[str]]:
    """Return how rows are grouped, and a name for each (n,); a row alone is a group of its own.

    Without a wish: by the dataset's own groups where it has any, otherwise by near-duplicates.

    Raises
    ------
    OptionError, DataError
        No such way, a pattern without a group or that matches no path; no column.
    """
    by = by or ("regex" if regex is not None else "column" if any(column) else "near-duplicates")
    if by not in GROUP_BY:
        raise UnknownNameError(closest("grouping", by, GROUP_BY))
    if (by == "regex") != (regex is not None):
        raise OptionError("--group-regex takes the pattern, and groups by it; it goes with no other --group-by.")
    if by == "near-duplicates":
        return by, connected(paths, pairs)
    if regex is not None:
        return by, matched(paths, regex)
    if not any(column):
        raise DataError(
            "The dataset has no groups of its own. Give a manifest with a column 'group', or --group-regex."
        )
    return by, [group or path for group, path in zip(column, paths, strict=True)]


def connected(paths: Sequence[str], pairs: Pairs) -> list[str]:
    """Return for each row (n,) the first path of its connected component: near-duplicates of near-duplicates too."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(paths)
    links = coo_matrix((np.ones(len(pairs.first), np.int8), (pairs.first, pairs.second)), (n, n))
    _, numbers = connected_components(links, directed=False)
    first: dict[int, str] = {}
    return [first.setdefault(number, path) for number, path in zip(numbers.tolist(), paths, strict=True)]


def matched(paths: Sequence[str], regex: str) -> list[str]:
    r"""Return what the first bracket of a pattern finds in each path; a path that does not match is its own group.

    >>> matched(["a/p1_01.png", "a/p1_02.png", "b/odd.png"], r"/(p\d+)_")
    ['p1', 'p1', 'b/odd.png']
    """
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise OptionError(f"--group-regex '{regex}' is no regular expression ({error}).") from None
    if not pattern.groups:
        raise OptionError(f"--group-regex '{regex}' has no bracket around what names the group, as in '/(p[0-9]+)_'.")
    found = [pattern.search(path) for path in paths]
    if not any(found):
        raise OptionError(f"--group-regex '{regex}' matches no path; the first one is '{paths[0]}'.")
    return [match.group(1) or path if match else path for match, path in zip(found, paths, strict=True)]
