"""Audits on disk: one JSON record for each feature file and split, and a CSV beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlcache.auditing.calibration import of_version_1
from tlcache.auditing.findings import Audit, DuplicatePair
from tlcache.files import write_whole
from tlcache.keys import slug
from tlcache.machine import provenance
from tlcache.progress import warn
from tlcache.records import Form, renamed
from tlcache.text import as_csv

__all__ = ["LISTED", "read_audits", "record_path", "write_audit"]


def _of_version_3(fields: dict[str, Any]) -> dict[str, Any]:
    current = renamed({"telltale": "neighbour_gap", "doubts": "label_issues"})(fields)
    return {**current, "calibration": of_version_1(fields["calibration"])}


AUDITS: Form[Audit] = Form(
    "tlcache-audit", 4, "the record of an audit", Audit, earlier={3: _of_version_3}, places=("source",)
)
LISTED = 5000  # pairs of a kind in a record: the closest, and those under two labels; the CSV has all


def record_path(runs: Path, attrs: Mapping[str, Any]) -> Path:
    """Return where the audit of a feature file is recorded; another one of the same rows replaces it."""
    ending = f"-{attrs['key'][:12]}-{attrs['dataset_digest'][:8]}.json"
    return runs / slug(str(attrs["dataset"])) / "audit" / slug(str(attrs["backbone"]), ending)


def write_audit(audit: Audit) -> None:
    """Write the CSV, then the record."""
    write_whole(audit.record.with_suffix(".csv"), os.fsencode(_csv(audit)))
    listed = replace(audit, near=_listed(audit.near), alike=_listed(audit.alike))
    AUDITS.write(audit.record, listed, **provenance())


def _listed(near: Sequence[DuplicatePair]) -> tuple[DuplicatePair, ...]:
    rest = sorted(near, key=lambda pair: -pair.cosine)
    return (*rest[:LISTED], *(pair for pair in rest[LISTED:] if pair.conflict))


def read_audits(runs: Path, on_warning: Callable[[str], None] = warn) -> list[Audit]:
    """Return all recorded audits under a folder of runs; `on_warning` is called for each that cannot be read."""
    paths = (path for path in runs.glob("*/audit/*.json") if path.name != "groups.json")
    return AUDITS.read_all(paths, on_warning)


def _csv(audit: Audit) -> str:
    names = ("finding", "path", "other", "value", "split", "other_split", "label", "other_label")
    return as_csv([names, *_lines(audit)])


def _lines(audit: Audit) -> Iterator[tuple[str, ...]]:
    kinds = {"exact": audit.exact, "near": audit.near, "alike": audit.alike}
    for kind, pair in ((kind, pair) for kind, pairs in kinds.items() for pair in pairs):
        ends = (pair.first_split, pair.second_split, pair.first_label, pair.second_label)
        yield kind, pair.first, pair.second, f"{pair.cosine:.4f}", *ends
    for issue in audit.label_issues:
        yield "label", issue.path, "", f"{issue.confidence:.4f}", issue.split, "", issue.label, issue.predicted
    for path in audit.outliers:
        yield "outlier", path, "", "", "", "", "", ""
    for image in audit.odd or ():
        yield "odd", image.path, "", "; ".join(image.findings), image.split, "", image.label, ""
