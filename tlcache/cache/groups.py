"""Which images belong together, kept by their content, so that every backbone is split the same way."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tlcache.errors import CacheError
from tlcache.files import write_whole
from tlcache.keys import slug

__all__ = ["Grouping", "groups_path", "read_groups", "write_groups"]


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
