"""Run records: one JSON file per run, with the test predictions and the fitted head beside it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.errors import CacheError
from tlcache.files import write_whole
from tlcache.keys import hash_json, slug
from tlcache.store import STAGES, Split

__all__ = [
    "Run",
    "identity_of",
    "origin",
    "path_of",
    "read_record",
    "read_runs",
    "recorded",
    "runs_folder",
    "write_run",
]

FORMAT = "tlcache-run"
FORMAT_VERSION = 2
_COMMON = ("dataset", "backbone", "strategy", "head", "chosen", "key", "record", "test")
_CONTRACT = {
    "frozen": (*_COMMON, "fit_s"),
    "finetune": (*_COMMON, "train_s", "epoch_s", "images_per_s", "history"),
}


def runs_folder(runs: str | Path | None = None) -> Path:
    """Return the folder of run records: the argument, else `TLCACHE_RUNS`, else `runs`."""
    return Path(runs or os.environ.get("TLCACHE_RUNS") or "runs").expanduser()


@dataclass(frozen=True)
class Run:
    """One training run: a head on frozen features, or a fine-tuning.

    Parameters
    ----------
    path
        The JSON record. Beside it, with other endings: predictions (`.npz`) and the head (`.safetensors`).
    fields
        What the record holds: dataset and its digest, backbone, weights, key, strategy, head, arguments, chosen
        settings, candidates tried, seconds, figures on validation and test, versions, hardware.
    """

    path: Path
    fields: Mapping[str, Any]

    @property
    def head_path(self) -> Path:
        """The fitted head, for `tlcache.load_head`."""
        return self.path.with_suffix(".safetensors")

    @property
    def train_s(self) -> float:
        """Seconds of choosing settings and fitting, or of fine-tuning."""
        return float(self.fields["fit_s" if self.fields["strategy"] == "frozen" else "train_s"])

    def as_json(self) -> dict[str, Any]:
        """Return the fields that `--json` promises."""
        return {name: self.fields[name] for name in _CONTRACT[self.fields["strategy"]]}

    def predictions(self) -> dict[str, NDArray[Any]]:
        """Return the test predictions: `row` (image paths), `label` (n,), `probabilities` (n, C), `group` (names)."""
        with np.load(self.path.with_suffix(".npz"), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


def identity_of(attrs: Mapping[str, Any], strategy: str, head: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells a run from all others: images and splits, network, and everything that was asked for.

    `attrs` are those of the feature file, `strategy` is `frozen` or `finetune`.
    """
    place = {name: attrs[name] for name in ("dataset", "dataset_digest", "backbone", "key")}
    return {**place, "strategy": strategy, "head": head, "arguments": dict(arguments)}


def path_of(folder: Path, identity: Mapping[str, Any]) -> Path:
    """Return where a run is recorded: the same run, done again, replaces its record.

    `identity` has `dataset`, `backbone` and `head` for people, and whatever else tells two runs apart.
    """
    name = f"{identity['backbone']}-{identity['head']}-{hash_json(identity)[:12]}.json"
    return folder / slug(str(identity["dataset"])) / slug(name)


def origin(attrs: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Return what a record says of the feature file it comes from: images, network, and what embedding them took."""
    embedded = json.loads(attrs["key_json"])
    return {
        "source": attrs["source"],
        "classes": list(classes),
        "weights": attrs["weights"],
        "pool": embedded["pool"],
        "precision": embedded["precision"],
        "preprocess": embedded["preprocess"],
        "extract": {stage: attrs[stage] for stage in STAGES},
        "extract_arguments": json.loads(attrs["arguments"]),
    }


def write_run(path: Path, fields: Mapping[str, Any], test: Split, probabilities: NDArray[np.float32]) -> Run:
    """Write the predictions, then the record: a record that is there is whole."""
    buffer = io.BytesIO()
    row, group = (np.array([os.fsencode(name) for name in names], np.bytes_) for names in (test.paths, test.groups))
    np.savez_compressed(buffer, row=row, label=test.labels, probabilities=probabilities, group=group)
    write_whole(path.with_suffix(".npz"), buffer.getbuffer())
    complete = {"format": FORMAT, "format_version": FORMAT_VERSION, **fields, "record": str(path)}
    write_whole(path, json.dumps(complete, indent=1, allow_nan=False).encode() + b"\n")
    return Run(path, complete)


def recorded(folder: Path, identity: Mapping[str, Any]) -> Run | None:
    """Return the run of this identity when it is recorded and what it fitted is there.

    Raises
    ------
    CacheError
        The record is not JSON or of another format.
    """
    path = path_of(folder, identity)
    if not (path.exists() and path.with_suffix(".safetensors").exists()):
        return None
    return Run(path, read_record(path, "a run record", FORMAT, FORMAT_VERSION))


def read_runs(folder: Path) -> list[Run]:
    """Return all records under a folder, by path.

    Raises
    ------
    CacheError
        A record is not JSON or of another format.
    """
    runs = []
    for path in sorted(folder.glob("*/*.json")):
        runs.append(Run(path, read_record(path, "a run record", FORMAT, FORMAT_VERSION)))
    return runs


def read_record(path: Path, what: str, form: str, version: int) -> dict[str, Any]:
    """Return the fields of a JSON record.

    Raises
    ------
    CacheError
        It is not JSON, or not of this format; `what` says what it should have been.
    """
    try:
        fields = json.loads(path.read_bytes())
    except ValueError as error:
        raise CacheError(f"'{path}' is not {what} ({error}). Remove it.") from None
    if not isinstance(fields, dict) or (fields.get("format"), fields.get("format_version")) != (form, version):
        raise CacheError(f"'{path}' is not {what} by this tlcache. Remove it.")
    return fields
