"""Which images belong together, kept by their content, so that every backbone is split the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tlcache.errors import CacheError
from tlcache.keys import slug
from tlcache.machine import now
from tlcache.records import Form

__all__ = ["Grouping", "groups_path", "read_groups", "write_groups"]


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


GROUPINGS: Form[Grouping] = Form("tlcache-groups", 1, "a record of groups", Grouping)


def groups_path(runs: Path, dataset: str) -> Path:
    """Return where the grouping of a dataset is kept: one for all backbones."""
    return runs / slug(dataset) / "audit" / "groups.json"


def write_groups(path: Path, dataset: str, by: str, source: str, groups: Mapping[str, str]) -> None:
    """Keep a grouping, in place of an earlier one."""
    GROUPINGS.write(path, Grouping(dataset, by, source, groups, now()))


def read_groups(path: Path, dataset: str) -> Grouping:
    """Read the grouping of a dataset.

    Raises
    ------
    CacheError
        There is none, or the file is not one.
    """
    again = f"Make them with: tlcache audit --data {dataset}"
    if not path.exists():
        raise CacheError(f"No groups are recorded for '{dataset}' ('{path}' is missing). {again}")
    try:
        return GROUPINGS.read(path)
    except CacheError as error:
        raise CacheError(f"{error} {again}") from None
