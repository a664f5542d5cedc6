"""The feature file: one HDF5 file per dataset and model key, immutable once visible.

This module alone imports h5py, and its child process alone writes. A file is written beside its final name by a
process of its own, so that a crash inside the HDF5 library is an error message; it is then read back, compared row
by row, and renamed over the old one. `features/README.md` shows the schema.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from tlcache.errors import CacheError, first_line
from tlcache.files import sync_folder
from tlcache.parts import read_part
from tlcache.splits import SPLITS

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "QUARANTINE",
    "STAGES",
    "FeatureFile",
    "Plan",
    "Split",
    "open_features",
    "publish",
]

FORMAT = "tlcache-features"
FORMAT_VERSION = 1
STAGES = ("decode_s", "infer_s", "write_s", "wall_s")
QUARANTINE = ("path", "sha256", "code", "message")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Split:
    """The rows of one split, in the file's order.

    Parameters
    ----------
    features
        float32 (n, dim).
    labels
        int64 (n,), indices into the file's classes.
    paths
        n paths relative to the dataset's root; they name the rows across runs.
    groups
        n group names, empty where there is none.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    paths: tuple[str, ...]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


class FeatureFile:
    """A feature file, read lazily: opening reads attributes, `split` reads the rows of that split alone.

    Parameters
    ----------
    path
        A file that `tlcache extract` made.

    Attributes
    ----------
    attrs
        Everything the file says of itself: backbone, weights, key, preprocessing, versions, seconds.

    Raises
    ------
    CacheError
        Missing, unreadable, not a feature file, unfinished, or of a newer format.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            if not self.path.exists():
                raise CacheError(f"Cannot open the feature file '{self.path}': no such file.") from None
            raise CacheError(
                f"Cannot open the feature file '{self.path}': {first_line(error)}. If it is damaged, remove it and "
                "extract again."
            ) from None
        try:
            self.attrs: dict[str, Any] = {name: _plain(value) for name, value in self._file.attrs.items()}
            self._check()
        except BaseException:
            self._file.close()
            raise

    def _check(self) -> None:
        if self.attrs.get("format") != FORMAT:
            raise CacheError(f"'{self.path}' is not a feature file of tlcache (format: {self.attrs.get('format')}).")
        version = self.attrs.get("format_version")
        if version != FORMAT_VERSION:
            raise CacheError(
                f"'{self.path}' has format version {version}; this tlcache reads version {FORMAT_VERSION}. "
                "Upgrade tlcache, or extract again."
            )
        if self.attrs.get("state") != "complete":
            raise CacheError(f"'{self.path}' was not finished. Extract again.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._dataset("features").shape[0])

    def close(self) -> None:
        """Close the HDF5 file; arrays already read stay valid."""
        self._file.close()

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self._dataset("features").shape[1])

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; labels are indices into it."""
        return _decode(self._dataset("classes")[:])

    @cached_property
    def _bounds(self) -> dict[str, slice]:
        """Where each split lies: rows are sorted by split."""
        splits = self._dataset("rows/split")[:]
        edges = np.searchsorted(splits, np.arange(len(SPLITS) + 1))
        return {name: slice(int(edges[i]), int(edges[i + 1])) for i, name in enumerate(SPLITS)}

    def split(self, *names: str) -> Split:
        """Read the rows of `train`, `val` or `test`, or of several joined in that order."""
        unknown = [name for name in names if name not in SPLITS]
        if unknown:
            raise CacheError(f"Unknown split '{unknown[0]}'. Known: {', '.join(SPLITS)}.")
        try:
            parts = [self._bounds[name] for name in names]
            features, labels = self._dataset("features"), self._dataset("labels")
            paths, groups = self._dataset("rows/path"), self._dataset("rows/group")
            return Split(
                np.concatenate([features[part] for part in parts]),
                np.concatenate([labels[part] for part in parts]),
                tuple(path for part in parts for path in _decode(paths[part])),
                tuple(group for part in parts for group in _decode(groups[part])),
            )
        except OSError as error:  # a chunk's checksum
            raise CacheError(
                f"'{self.path}' is damaged ({first_line(error)}). Extract again: only its damaged rows are computed."
            ) from None

    def seconds(self) -> NDArray[np.float64]:
        """Return what all rows cost when they were made: float64 (4,), in the order of `STAGES`."""
        return np.array([self.attrs[stage] for stage in STAGES])

    def hashes(self) -> NDArray[np.bytes_]:
        """Return the sha256 of every row's image, (N,) of `S64`."""
        hashes: NDArray[np.bytes_] = self._dataset("rows/sha256")[:]
        return hashes

    def rows(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return features (n, dim) and sizes (n, 2) of some rows, in the given order."""
        ranked, back = np.unique(indices, return_inverse=True)
        block = slice(int(ranked[0]), int(ranked[-1]) + 1)
        inside = ranked - block.start  # one slice read and a pick: HDF5's own point selection is far slower
        size = np.stack([self._dataset(f"rows/{name}")[block][inside] for name in ("width", "height")], axis=1)
        return self._dataset("features")[block][inside][back], size[back]

    def quarantine(self) -> list[tuple[str, ...]]:
        """Return the images that could not be used: path, sha256 (empty when unreadable), code, message."""
        columns = [_decode(self._dataset(f"quarantine/{name}")[:]) for name in QUARANTINE]
        return list(zip(*columns, strict=True))

    def intact(self) -> NDArray[np.bool_]:
        """Recompute every row's checksum: bool (N,), False where the features are not those that were written."""
        expected = self._dataset("integrity/crc32")[:]
        good = np.zeros(len(expected), bool)
        for block in _blocks(len(expected), self.dim):
            with contextlib.suppress(OSError):  # the chunk's own checksum failed
                good[block] = _checksums(self._dataset("features")[block]) == expected[block]
        return good

    def _dataset(self, name: str) -> Any:
        """Return a dataset that really lies in this file: no links elsewhere, no size beyond what is stored."""
        link = self._file.get(name, getlink=True)
        found = self._file[name] if isinstance(link, h5py.HardLink) else None
        if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
            raise CacheError(f"'{self.path}' has no usable dataset '{name}'. Extract again.")
        if found.nbytes > 4 * self.path.stat().st_size + (1 << 20):
            raise CacheError(f"'{self.path}' claims more data in '{name}' than the file holds. Extract again.")
        return found


def open_features(path: str | Path) -> FeatureFile:
    """Open a feature file; see `FeatureFile`.

    Examples
    --------
    >>> with open_features(feature_file) as features:
    ...     train = features.split("train")
    >>> train.features.shape[1] == features.attrs["dim"]
    True
    """
    return FeatureFile(path)


@dataclass(frozen=True)
class Plan:
    """All that a feature file will hold, its features by reference.

    Parameters
    ----------
    target
        The file to make or replace.
    dim
        Length of an embedding.
    columns
        Per row: `path`, `group`, `sha256` (bytes), `label` (int64), `split` (uint8, index into `SPLITS`, ascending),
        `source` and `index` (which source holds the row, and where in it). Beside them `classes` and
        `quarantine_path`, `quarantine_sha256`, `quarantine_code`, `quarantine_message` (bytes, UTF-8).
    sources
        Parts (`.npz`) and older feature files (`.h5`).
    attrs
        Attributes of the file.
    """

    target: Path
    dim: int
    columns: Mapping[str, NDArray[Any]]
    sources: Sequence[Path]
    attrs: Mapping[str, Any]


def publish(plan: Plan, workspace: Path) -> None:
    """Write the file of `plan` in a child process, check it, and put it in place of the old one.

    Raises
    ------
    CacheError
        The child failed or was killed; the old file and all sources are untouched.
    """
    path = workspace / "plan.npz"
    fields = {
        "target": str(plan.target),
        "dim": plan.dim,
        "sources": [str(source) for source in plan.sources],
        "attrs": dict(plan.attrs),
    }
    arrays: dict[str, Any] = {"plan": np.array(json.dumps(fields)), **plan.columns}
    needed, free = 4 * plan.dim * len(plan.columns["label"]), shutil.disk_usage(workspace).free
    if free < 1.1 * needed:
        raise CacheError(
            f"Publishing '{plan.target}' needs {needed / 1e9:.1f} GB; {free / 1e9:.1f} GB are free there. "
            "Nothing is lost: make room and run the same command again."
        )
    try:
        np.savez(path, **arrays)
    except OSError as error:
        raise CacheError(f"Cannot write to '{workspace}': {error.strerror}. Nothing is lost.") from None
    child = subprocess.run(
        [sys.executable, "-m", "tlcache.store", str(path)], capture_output=True, text=True, check=False
    )
    path.unlink(missing_ok=True)
    if child.returncode:
        reason = child.stderr.strip().splitlines()[-1:] or [f"stopped by signal {-child.returncode}"]
        raise CacheError(
            f"Could not write '{plan.target}': {reason[0]}. Nothing is lost: run the same command again to publish."
        )


def _publish_here(path: Path) -> None:
    """Do the work of `publish`; runs in the child."""
    with np.load(path, allow_pickle=False) as arrays:
        fields = json.loads(str(arrays["plan"]))
        rows = {name: arrays[name] for name in arrays.files if name != "plan"}
    target = Path(fields["target"])
    temporary = target.with_name(f".{target.name}-{os.getpid()}.tmp")
    try:
        checksums = _write(temporary, rows, fields)
        with FeatureFile(temporary) as written:
            if not np.array_equal(written._dataset("integrity/crc32")[:], checksums) or not written.intact().all():
                raise CacheError("the file differs from what was written to it")
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(target)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _write(path: Path, rows: Mapping[str, NDArray[Any]], fields: Mapping[str, Any]) -> NDArray[np.uint32]:
    n, dim = len(rows["path"]), int(fields["dim"])
    sources = [Path(source) for source in fields["sources"]]
    checksums, size = np.empty(n, np.uint32), np.empty((n, 2), np.int32)
    with h5py.File(path, "w") as file:
        chunk = min(n, max(1, _BLOCK_BYTES // (4 * dim)))
        features = file.create_dataset("features", (n, dim), "f4", chunks=(chunk, dim), fletcher32=True)
        for block in _blocks(n, dim):
            values, size[block] = _gather(sources, rows["source"][block], rows["index"][block], dim)
            features[block], checksums[block] = values, _checksums(values)
        columns = {
            "labels": rows["label"],
            "classes": rows["classes"],
            "rows/path": rows["path"],
            "rows/group": rows["group"],
            "rows/sha256": rows["sha256"],
            "rows/split": rows["split"],
            "rows/width": size[:, 0],
            "rows/height": size[:, 1],
            "integrity/crc32": checksums,
            **{f"quarantine/{name}": rows[f"quarantine_{name}"] for name in QUARANTINE},
        }
        for name, column in columns.items():
            if column.dtype.kind == "S":
                column = column.astype(h5py.string_dtype("utf-8", max(1, column.dtype.itemsize)))
            file.create_dataset(name, data=column, chunks=True if len(column) else None, fletcher32=len(column) > 0)
        file.attrs.update(fields["attrs"])
        file.attrs.update(format=FORMAT, format_version=FORMAT_VERSION, dim=dim, state="complete")
    return checksums


def _gather(
    sources: Sequence[Path], source: NDArray[np.int64], index: NDArray[np.int64], dim: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Collect a block of rows from wherever they are."""
    features, size = np.empty((len(source), dim), np.float32), np.empty((len(source), 2), np.int32)
    for number in np.unique(source):
        here = source == number
        features[here], size[here] = _rows_of(sources[number], index[here])
    return features, size


def _rows_of(source: Path, index: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    if source.suffix == ".h5":
        return _open_source(source).rows(index)
    part = _load_part(source)
    return part.features[index], part.size[index]


@lru_cache(maxsize=16)
def _open_source(path: Path) -> FeatureFile:
    return FeatureFile(path)


@lru_cache(maxsize=16)
def _load_part(path: Path) -> Any:
    part = read_part(path)
    if part is None:
        raise CacheError(f"the part '{path.name}' was damaged in the meantime")
    return part


def _blocks(n: int, dim: int) -> Iterator[slice]:
    step = max(1, _BLOCK_BYTES // (4 * dim))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _checksums(features: NDArray[np.float32]) -> NDArray[np.uint32]:
    rows = np.ascontiguousarray(features, "<f4")
    return np.array([zlib.crc32(row) for row in rows], np.uint32)


def _decode(column: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(os.fsdecode(text) for text in column)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


if __name__ == "__main__":
    try:
        _publish_here(Path(sys.argv[1]))
    except (OSError, CacheError, MemoryError) as problem:
        sys.exit(str(problem))
