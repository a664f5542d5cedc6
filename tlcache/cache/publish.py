"""Shards and older files -> one feature file: written beside its final name, read back and compared, renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from tlcache.cache.columns import COLUMNS
from tlcache.cache.feature_file import (
    _ROW,
    _STORED,
    FORMAT,
    FORMAT_VERSION,
    QUARANTINE,
    FeatureFile,
    _blocks,
    _checksums,
    _chunk_rows,
    _decode,
    _hash_header,
    open_remains,
)
from tlcache.cache.rounding import rounded
from tlcache.cache.shards import Shard, read_shard
from tlcache.datasets.hashes import Hashes
from tlcache.datasets.splits import SPLITS
from tlcache.errors import CacheError, first_line
from tlcache.files import reserve, sync_folder
from tlcache.heads.rows import blocks

__all__ = ["Plan", "RowSource", "publish", "read_rows"]


_AT_ONCE = 65_536  # rows of a column


class RowSource(Protocol):
    """What has rows that a feature file is made of."""

    def features(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return some rows, by their numbers: float32 (n, dim)."""
        ...


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
        Per row: `path`, `group` (bytes), `sha256` (bytes, or uint8 (N, 32) as of `Hashes`), `label` (int64),
        `split` (uint8, index into `SPLITS`, ascending),
        `width`, `height`, `frames` (int32, what the image's header says),
        `source` and `index` (which source holds the row, and where in it). Beside them `classes` and
        `quarantine_path`, `quarantine_sha256`, `quarantine_code`, `quarantine_message` (bytes, UTF-8), and per row
        what a table says beside that, as `tlcache.cache.columns.place_of` calls it.
    sources
        Parts (`.safetensors`) and older feature files (`.h5`), or what has the rows itself.
    attrs
        Attributes of the file.
    dtype
        Of the features in it.
    """

    target: Path
    dim: int
    columns: Mapping[str, NDArray[Any]]
    sources: Sequence[Path | RowSource]
    attrs: Mapping[str, Any]
    dtype: np.dtype[Any] = np.dtype(np.float32)  # noqa: RUF009

    @property
    def row_bytes(self) -> int:
        """What the features of a row take."""
        return self.dim * self.dtype.itemsize


def publish(plan: Plan) -> None:
    """Write the file of `plan`, check it, and put it in place of the old one.

    Raises
    ------
    CacheError
        The file cannot be written; the old file and all sources are untouched.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{plan.target.name}-", suffix=".tmp", dir=plan.target.parent)
    temporary = Path(name)
    try:
        os.fchmod(descriptor, 0o644)
        _write(temporary, descriptor, plan)
        with FeatureFile(temporary) as written:
            written.check_columns()
            if not all(good.all() for _, good in written.intact()):
                raise CacheError(f"'{plan.target}' differs from what was written to it. Is its disk sound?")
        temporary.replace(plan.target)
        sync_folder(plan.target.parent)
    except (OSError, RuntimeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
        raise CacheError(
            f"Could not write '{plan.target}': {reason}. Nothing is lost: mend that and run the same command again."
        ) from None
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


def _write(path: Path, descriptor: int, plan: Plan) -> None:
    """Write everything but the features first, so that a file that loses its end loses rows and no more."""
    n = len(plan.columns["label"])
    metadata_bytes = 64 * 1024 + (24 * n // _chunk_rows(plan.dim) + 1024) * (len(plan.columns) + 2)
    text_bytes = sum(column.nbytes for column in plan.columns.values()) + 32 * n  # of hashes, which are written in hex
    layout = {"libver": ("v110", "v110"), "meta_block_size": metadata_bytes}  # v110: metadata has checksums
    with _Sources(plan.sources) as sources, h5py.File(path, "w", locking=False, **layout) as file:
        reserve(descriptor, n * (plan.row_bytes + 32) + text_bytes + 2 * metadata_bytes)  # HDF5 may die on a full disk
        _write_columns(file, plan)
        _write_header(file, plan)
        file.flush()
        _write_features(file, plan, sources)
        file.flush()
        written = int(file.id.get_filesize())
    os.truncate(descriptor, written)
    os.fsync(descriptor)


def _write_columns(file: h5py.File, plan: Plan) -> None:
    """Write what is known of every row, and make room for the rest."""
    rows, chunk = plan.columns, _chunk_rows(plan.dim)
    others = {name: column for name, column in rows.items() if name.startswith(COLUMNS)}
    columns = {
        "labels": rows["label"],
        **{f"rows/{name}": rows[name] for name in ("path", "sha256", "split", "group", *_STORED)},
    }
    n = len(rows["label"])
    for name in _ROW:
        _create(file, name, columns[name], chunk)
    for name, column in others.items():
        _create(file, name, column, chunk)
    _create(file, "integrity/crc32", np.zeros(n, np.uint32), chunk)
    file.create_dataset("features", (n, plan.dim), plan.dtype, chunks=(min(n, chunk), plan.dim), fletcher32=True)


def _write_header(file: h5py.File, plan: Plan) -> None:
    columns = plan.columns
    _create(file, "classes", columns["classes"], len(columns["classes"]))
    for name in QUARANTINE:
        _create(file, f"quarantine/{name}", columns[f"quarantine_{name}"], _chunk_rows(32))
    attrs = {**plan.attrs, "format": FORMAT, "format_version": FORMAT_VERSION, "dim": plan.dim, "state": "complete"}
    attrs |= {f"{name}_rows": int((columns["split"] == number).sum()) for number, name in enumerate(SPLITS)}
    quarantine = list(zip(*(_decode(columns[f"quarantine_{name}"]) for name in QUARANTINE), strict=True))
    attrs["header_sha256"] = _hash_header(attrs, _decode(columns["classes"]), quarantine)
    for name, value in attrs.items():
        if isinstance(value, str):
            text = os.fsencode(value)
            file.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", max(1, len(text))))
        else:
            file.attrs[name] = value


def _write_features(file: h5py.File, plan: Plan, sources: _Sources) -> None:
    features, crc32, rows = file["features"], file["integrity/crc32"], plan.columns
    known = [file[name] for name in _ROW]
    for block in _blocks(len(features), plan.dim):
        values = rounded(sources.features(rows["source"][block], rows["index"][block]), plan.dtype)
        features[block], crc32[block] = values, _checksums(values, [column[block] for column in known])


def _create(file: h5py.File, name: str, column: NDArray[Any], chunk: int) -> None:
    kind, n = column.dtype, len(column)
    if kind.kind == "S" or column.ndim == 2:
        kind = h5py.string_dtype("utf-8", 64 if column.ndim == 2 else max(1, kind.itemsize))
    made = file.create_dataset(name, (n,), kind, chunks=(min(n, chunk),) if n else None, fletcher32=n > 0)
    for block in blocks(n, _AT_ONCE):
        part = column[block]
        made[block] = (Hashes(part).stored if part.ndim == 2 else part).astype(kind)


def read_rows(sources: Sequence[Path], places: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """Return embeddings from parts and feature files, float32 (n, dim), in the given order.

    Parameters
    ----------
    sources
        Parts (`.safetensors`) and feature files (`.h5`).
    places
        For each row, the number of its source and the row in it.
    """
    if not places:
        return np.empty((0, 0), np.float32)
    source, index = np.array(places, np.int64).T
    with _Sources(sources) as opened:
        return np.concatenate([opened.features(source[block], index[block]) for block in _blocks(len(places), 1024)])


class _Sources:
    """The parts and older files that rows come from; what was opened lately stays at hand."""

    def __init__(self, sources: Sequence[Path | RowSource]) -> None:
        self._sources = sources
        self._files: dict[Path, FeatureFile] = {}
        self._part = lru_cache(maxsize=64)(_whole_shard)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def features(self, source: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.float32]:
        rows: NDArray[np.float32] | None = None
        for own, here in self._grouped(source):
            picked = index[here]
            if isinstance(own, Path):
                found = self._file(own).features(picked) if _is_file(own) else self._part(own).features[picked]
            else:
                found = own.features(picked)
            if rows is None:
                rows = np.empty((len(source), found.shape[1]), np.float32)
            rows[here] = found
        return np.empty((0, 0), np.float32) if rows is None else rows

    def _grouped(self, source: NDArray[np.int64]) -> Iterator[tuple[Path | RowSource, NDArray[np.bool_]]]:
        return ((self._sources[number], source == number) for number in np.unique(source))

    def _file(self, path: Path) -> FeatureFile:
        if path not in self._files:
            self._files[path] = open_remains(path)
        return self._files[path]


def _is_file(path: Path) -> bool:
    return path.suffix == ".h5"


def _whole_shard(path: Path) -> Shard:
    part = read_shard(path)
    if part is None:
        raise CacheError(f"The part '{path}' was damaged in the meantime. Run the same command again.")
    return part
