"""Audits on disk: one JSON record for each feature file and split, and a CSV beside it."""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from tlcache.auditing.calibration import Calibration
from tlcache.auditing.findings import Audit, Doubt, Leak, Pair
from tlcache.auditing.labels import Telltale
from tlcache.files import write_whole
from tlcache.keys import slug
from tlcache.machine import hardware, versions
from tlcache.progress import warn
from tlcache.runs.record import read_records

__all__ = ["LISTED", "read_audits", "record_path", "write_audit"]

FORMAT = "tlcache-audit"
FORMAT_VERSION = 3
LISTED = 5000  # pairs of a kind in a record: the closest, and those under two labels; the CSV has all


def record_path(runs: Path, attrs: Mapping[str, Any]) -> Path:
    """Return where the audit of a feature file is recorded; another one of the same rows replaces it."""
    name = f"{attrs['backbone']}-{attrs['key'][:12]}-{attrs['dataset_digest'][:8]}.json"
    return runs / slug(str(attrs["dataset"])) / "audit" / slug(name)


def write_audit(audit: Audit) -> None:
    """Write the CSV, then the record."""
    write_whole(audit.record.with_suffix(".csv"), os.fsencode(_csv(audit)))
    stated = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **asdict(replace(audit, near=_listed(audit.near), alike=_listed(audit.alike))),
        "record": str(audit.record),
        "versions": versions(),
        "hardware": hardware(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_whole(audit.record, json.dumps(stated, indent=1).encode() + b"\n")


def _listed(near: Sequence[Pair]) -> tuple[Pair, ...]:
    rest = sorted(near, key=lambda pair: -pair.cosine)
    return (*rest[:LISTED], *(pair for pair in rest[LISTED:] if pair.conflict))


def read_audits(runs: Path, tell: Callable[[str], None] = warn) -> list[Audit]:
    """Return all recorded audits under a folder of runs, by dataset; `tell` is told of those that cannot be read."""
    paths = (path for path in runs.glob("*/audit/*.json") if path.name != "groups.json")
    return [_audit(*found) for found in read_records(paths, "the record of an audit", FORMAT, FORMAT_VERSION, tell)]


def _audit(path: Path, stated: Mapping[str, Any]) -> Audit:
    values = {field.name: stated[field.name] for field in fields(Audit)}
    values |= {name: tuple(Pair(**pair) for pair in stated[name]) for name in ("exact", "near", "alike")}
    values |= {name: tuple(stated[name]) for name in ("small", "outliers")}
    values["doubts"] = tuple(Doubt(**doubt) for doubt in stated["doubts"])
    values["telltale"] = stated["telltale"] and Telltale(**stated["telltale"])
    values |= {"leak": Leak(**stated["leak"]), "calibration": Calibration(**stated["calibration"])}
    return Audit(**{**values, "record": path})


def _csv(audit: Audit) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("finding", "path", "other", "value", "split", "other_split", "label", "other_label"))
    writer.writerows(_lines(audit))
    return buffer.getvalue()


def _lines(audit: Audit) -> Iterator[tuple[str, ...]]:
    kinds = {"exact": audit.exact, "near": audit.near, "alike": audit.alike}
    for kind, pair in ((kind, pair) for kind, pairs in kinds.items() for pair in pairs):
        ends = (pair.first_split, pair.second_split, pair.first_label, pair.second_label)
        yield kind, pair.first, pair.second, f"{pair.cosine:.4f}", *ends
    for doubt in audit.doubts:
        yield "label", doubt.path, "", f"{doubt.confidence:.4f}", doubt.split, "", doubt.label, doubt.predicted
    for path in audit.outliers:
        yield "outlier", path, "", "", "", "", "", ""
