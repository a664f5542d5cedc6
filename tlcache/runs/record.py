"""Run records: one JSON file per run, with the test predictions and the fitted head beside it."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.cache.feature_file import STAGES, Split
from tlcache.errors import CacheError, first_line
from tlcache.files import write_whole
from tlcache.keys import hash_json, slug
from tlcache.progress import warn

__all__ = [
    "Run",
    "identity_of",
    "origin",
    "path_of",
    "read_predictions",
    "read_record",
    "read_records",
    "read_runs",
    "recorded",
    "runs_folder",
    "write_run",
]

FORMAT = "tlcache-run"
FORMAT_VERSION = 2
_WHAT = "a run record"
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

    @property
    def untuned(self) -> bool:
        """Whether this is a fine-tuning of which no epoch was better on validation than the head it began with.

        The network is then the pretrained one with that head.
        """
        return self.fields["strategy"] == "finetune" and not self.fields["chosen"]["epochs"]["backbone"]

    def as_json(self) -> dict[str, Any]:
        """Return the fields that `--json` promises."""
        return {name: self.fields[name] for name in _CONTRACT[self.fields["strategy"]]}

    def predictions(self) -> dict[str, NDArray[Any]]:
        """Return the test predictions: `row` (image paths), `label` (n,), `probabilities` (n, C), `group` (names).

        Raises
        ------
        CacheError
            They are missing or damaged.
        """
        path = self.path.with_suffix(".npz")
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in ("row", "label", "probabilities", "group")}
        except Exception as error:  # of a damaged file numpy, zipfile and zlib raise half a dozen kinds
            what = f"is damaged ({first_line(error)})" if path.exists() else "is missing"
            raise CacheError(
                f"'{path}', the predictions of a run, {what}. Remove its record, '{self.path}', and do that run again."
            ) from None


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
    """Return the run of this identity when it is recorded, and what it fitted and predicted is there.

    None when any of these is damaged, too: to do the run again replaces it.
    """
    path = path_of(folder, identity)
    if path.with_suffix(".safetensors").exists() and zipfile.is_zipfile(path.with_suffix(".npz")):
        with suppress(CacheError):
            return Run(path, read_record(path, _WHAT, FORMAT, FORMAT_VERSION))
    return None


def read_runs(folder: Path, tell: Callable[[str], None] = warn, only: Collection[str] | None = None) -> list[Run]:
    """Return all records under a folder, by path; those that cannot be read are left out, and `tell` is told why.

    `only` names the folders of the datasets that are wanted, as `tlcache.keys.slug` has them; None: all.
    """
    paths = (path for path in folder.glob("*/*.json") if only is None or path.parent.name in only)
    return [Run(*found) for found in read_records(paths, _WHAT, FORMAT, FORMAT_VERSION, tell)]


def read_predictions(
    runs: Iterable[Run], tell: Callable[[str], None] = warn
) -> Iterator[tuple[Run, dict[str, NDArray[Any]]]]:
    """Yield each run with its predictions; those that cannot be read are left out, and `tell` is told why."""
    for run in runs:
        try:
            found = run.predictions()
        except CacheError as error:
            tell(f"{error} Until then it is left out.")
        else:
            yield run, found


def read_records(
    paths: Iterable[Path], what: str, form: str, version: int, tell: Callable[[str], None] = warn
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield JSON records, by path; those that cannot be read are left out, and `tell` is told why."""
    for path in sorted(paths):
        try:
            fields = read_record(path, what, form, version)
        except CacheError as error:
            tell(f"{error} Until then it is left out.")
        else:
            yield path, fields


def read_record(path: Path, what: str, form: str, version: int) -> dict[str, Any]:
    """Return the fields of a JSON record.

    Raises
    ------
    CacheError
        It cannot be read, or is not JSON, or not of this format; `what` says what it should have been.
    """
    try:
        fields = json.loads(path.read_bytes())
    except OSError as error:
        raise CacheError(f"'{path}' cannot be read ({error.strerror}). Make it readable or remove it.") from None
    except ValueError as error:
        raise CacheError(f"'{path}' is not {what} ({error}). Remove it.") from None
    if not isinstance(fields, dict) or (fields.get("format"), fields.get("format_version")) != (form, version):
        raise CacheError(f"'{path}' is not {what} by this tlcache. Remove it.")
    return fields
