"""Which images belong together, kept by their content, so that every backbone is split the same way."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlcache.auditing.neighbours import Pairs
from tlcache.errors import CacheError, DataError, UnknownNameError, closest
from tlcache.files import write_whole
from tlcache.keys import slug

__all__ = [
    "GROUP_BY",
    "Grouping",
    "choose_groups",
    "connected",
    "groups_path",
    "matched",
    "read_groups",
    "write_groups",
]

GROUP_BY = ("near-duplicates", "regex", "column")
_FORMAT = "tlcache-groups"


@dataclass(frozen=True)
class Grouping:
    """What must not be torn apart by a split.

    Parameters
    ----------
    dataset
        Its name.
    by
        A name of `GROUP_BY`.
    source
        What they were computed from: the feature file's backbone and threshold, or the pattern.
    groups
        sha256 of an image -> name of its group.
    created
        When, ISO 8601.
    """

    dataset: str
    by: str
    source: str
    groups: Mapping[str, str]
    created: str


def choose_groups(
    by: str | None, regex: str | None, paths: Sequence[str], column: Sequence[str], pairs: Pairs
) -> tuple[str, list[str]]:
    """Return how rows are grouped, and a name for each (n,); a row alone is a group of its own.

    Without a wish: by the dataset's own groups where it has any, otherwise by near-duplicates.

    Raises
    ------
    UnknownNameError, DataError
        No such way; a pattern without a group or that matches no path; no column.
    """
    by = by or ("regex" if regex is not None else "column" if any(column) else "near-duplicates")
    if by not in GROUP_BY:
        raise UnknownNameError(closest("grouping", by, GROUP_BY))
    if (by == "regex") != (regex is not None):
        raise DataError("--group-regex takes the pattern, and groups by it; it goes with no other --group-by.")
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
        raise DataError(f"--group-regex '{regex}' is no regular expression ({error}).") from None
    if not pattern.groups:
        raise DataError(f"--group-regex '{regex}' has no bracket around what names the group, as in '/(p[0-9]+)_'.")
    found = [pattern.search(path) for path in paths]
    if not any(found):
        raise DataError(f"--group-regex '{regex}' matches no path; the first one is '{paths[0]}'.")
    return [match.group(1) or path if match else path for match, path in zip(found, paths, strict=True)]


def groups_path(runs: Path, dataset: str) -> Path:
    """Return where the grouping of a dataset is kept: one for all backbones."""
    return runs / slug(dataset) / "audit" / "groups.json"


def write_groups(path: Path, dataset: str, by: str, source: str, groups: Mapping[str, str]) -> None:
    """Keep a grouping, in place of an earlier one."""
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    fields = {"format": _FORMAT, "format_version": 1, "dataset": dataset, "by": by, "source": source}
    write_whole(path, json.dumps({**fields, "created": created, "groups": dict(groups)}, indent=1).encode() + b"\n")


def read_groups(path: Path, dataset: str) -> Grouping:
    """Read the grouping of a dataset.

    Raises
    ------
    CacheError
        There is none, or the file is not one.
    """
    again = f"Make them with: tlcache audit --data {dataset}"
    try:
        fields = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CacheError(f"No groups are recorded for '{dataset}' ('{path}' is missing). {again}") from None
    except ValueError as error:
        raise CacheError(f"'{path}' is not JSON ({error}). {again}") from None
    if fields.get("format") != _FORMAT or fields.get("format_version") != 1:
        raise CacheError(f"'{path}' holds no groups of this tlcache. {again}")
    return Grouping(*(fields[name] for name in ("dataset", "by", "source", "groups", "created")))
