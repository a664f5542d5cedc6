"""Shards and older files -> one feature file: written beside its final name, read back and compared, renamed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from tlcache.cache.feature_file import (
    _ROW,
    CRC,
    FILES_VERSION,
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
from tlcache.cache.pieces import ATTRIBUTE as FILES
from tlcache.cache.pieces import ENDING, NAME, pieces_folder, stale_pieces
from tlcache.cache.plan import Plan, RowSource
from tlcache.cache.rounding import rounded
from tlcache.cache.shards import read_shard
from tlcache.datasets.hashes import Hashes
from tlcache.datasets.splits import SPLITS
from tlcache.errors import CacheError, first_line
from tlcache.files import reserve, sync_folder
from tlcache.heads.rows import blocks

__all__ = ["publish", "read_rows"]


_AT_ONCE = 65_536  # rows of a column


def publish(plan: Plan) -> None:
    """Write the file of `plan`, check it, and put it in place of the old one; first those that have its rows, if any.

    Raises
    ------
    CacheError
        The file cannot be written; the old file and all sources are untouched.
    """
    parts = plan.parts()
    for part in parts:
        if not _is_there(part):
            _replace(part, _write)
    if parts:
        whole = replace(plan, attrs={**plan.attrs, FILES: json.dumps([(_place(part), len(part)) for part in parts])})
        _replace(whole, partial(_write_names, parts=parts))
    else:
        _replace(plan, _write)
    for path in stale_pieces(plan.target, [part.target for part in parts]):
        path.unlink(missing_ok=True)
    if not parts and pieces_folder(plan.target).is_dir():
        pieces_folder(plan.target).rmdir()


def _place(part: Plan) -> str:
    """Return what a feature file calls one of its files."""
    return f"{part.target.parent.name}/{part.target.name}"


def _is_there(part: Plan) -> bool:
    """Return whether a file is there that has these rows, and is sound; its name says what it has."""
    with suppress(CacheError), FeatureFile(part.target) as file:
        _check(file)
        return (file.attrs.get(NAME), len(file)) == (part.target.name, len(part))
    return False


def _check(file: FeatureFile) -> None:
    """Read all of a file; raises CacheError where it is not what was written."""
    file.check_columns()
    if not all(good.all() for _, good in file.intact()):
        raise CacheError(f"'{file.path}' differs from what was written to it. Is its disk sound?")


def _replace(plan: Plan, write: Callable[[Path, int, Plan], None]) -> None:
    """Let a file be written beside its final name, check it, and put it in place of the old one."""
    temporary = None
    try:
        plan.target.parent.mkdir(exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{plan.target.name}-", suffix=".tmp", dir=plan.target.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "r+b", 0):
            os.fchmod(descriptor, 0o644)
            write(temporary, descriptor, plan)
        with FeatureFile(temporary) as written:
            if write is _write:  # else its files are checked
                _check(written)
        temporary.replace(plan.target)
        sync_folder(plan.target.parent)
    except (OSError, RuntimeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
        raise CacheError(
            f"Could not write '{plan.target}': {reason}. Nothing is lost: mend that and run the same command again."
        ) from None
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def _write(path: Path, descriptor: int, plan: Plan) -> None:
    """Write everything but the features first, so that a file that loses its end loses rows and no more."""
    n, known, chunk = len(plan), plan.datasets, _chunk_rows(plan.dim)
    said = sum(len(os.fsencode(str(value))) for value in plan.attrs.values())  # twice, as HDF5's heaps grow by doubling
    metadata_bytes = 2 * said + 8 * 1024 + (24 * n // chunk + 1024) * (len(known) + 10)
    text_bytes = sum(column.nbytes for column in plan.columns.values()) + 32 * n  # of hashes, which are written in hex
    layout = {"libver": ("v110", "v110"), "meta_block_size": metadata_bytes}  # v110: metadata has checksums
    with _Sources(plan.sources) as sources, h5py.File(path, "w", locking=False, **layout) as file:
        reserve(descriptor, n * (plan.row_bytes + 32) + text_bytes + 2 * metadata_bytes)  # HDF5 may die on a full disk
        for name, column in known.items():
            _create(file, name, column, chunk)
        _create(file, CRC, np.zeros(n, np.uint32), chunk)
        shape = n, plan.dim
        file.create_dataset("features", shape, plan.dtype, chunks=(min(n, chunk), plan.dim), fletcher32=True)
        _write_header(file, plan)
        file.flush()
        _write_features(file, plan, sources)
        file.flush()
        written = int(file.id.get_filesize())
    os.truncate(descriptor, written)
    os.fsync(descriptor)


def _write_names(path: Path, descriptor: int, plan: Plan, parts: Sequence[Plan]) -> None:
    """Write a file that has its rows in others; other readers find them as virtual datasets."""
    kinds = {name: _kind(column) for name, column in plan.datasets.items()}
    kinds |= {CRC: np.dtype(np.uint32), "features": plan.dtype}
    with h5py.File(path, "w", locking=False, libver=("v110", "v110")) as file:
        for name, kind in kinds.items():
            width = (plan.dim,) if name == "features" else ()
            layout, start = h5py.VirtualLayout((len(plan), *width), kind), 0
            for part in parts:
                rows = h5py.VirtualSource(_place(part), name, (len(part), *width), kind)
                layout[start : start + len(part)] = rows
                start += len(part)
            file.create_virtual_dataset(name, layout)
        _write_header(file, plan)
    os.fsync(descriptor)


def _write_header(file: h5py.File, plan: Plan) -> None:
    columns = plan.columns
    _create(file, "classes", columns["classes"], len(columns["classes"]))
    for name in QUARANTINE:
        _create(file, f"quarantine/{name}", columns[f"quarantine_{name}"], _chunk_rows(32))
    version = FILES_VERSION if FILES in plan.attrs else FORMAT_VERSION
    attrs = {**plan.attrs, "format": FORMAT, "format_version": version, "dim": plan.dim, "state": "complete"}
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
    features, crc32, rows = file["features"], file[CRC], plan.columns
    known = [file[name] for name in _ROW]
    for block in _blocks(len(features), plan.dim):
        values = rounded(sources.features(rows["source"][block], rows["index"][block]), plan.dtype)
        features[block], crc32[block] = values, _checksums(values, [column[block] for column in known])


def _create(file: h5py.File, name: str, column: NDArray[Any], chunk: int) -> None:
    kind, n = _kind(column), len(column)
    made = file.create_dataset(name, (n,), kind, chunks=(min(n, chunk),) if n else None, fletcher32=n > 0)
    for block in blocks(n, _AT_ONCE):
        part = column[block]
        made[block] = (Hashes(part).stored if part.ndim == 2 else part).astype(kind)


def _kind(column: NDArray[Any]) -> np.dtype[Any]:
    """Return the type of a column in a file."""
    if column.ndim == 1 and column.dtype.kind != "S":
        return column.dtype
    kind: np.dtype[Any] = h5py.string_dtype("utf-8", 64 if column.ndim == 2 else max(1, column.dtype.itemsize))
    return kind


def read_rows(sources: Sequence[Path], places: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """Return embeddings from parts and feature files, float32 (n, dim), in the given order.

    Parameters
    ----------
    sources
        Parts (`.safetensors`) and feature files (`.h5`, `.hdf5`).
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
        self._part = lru_cache(maxsize=64)(_rows_of)

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
                found = self._file(own).features(picked) if _is_file(own) else self._part(own)[picked]
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
    return path.suffix in (".h5", ENDING)


def _rows_of(path: Path) -> NDArray[Any]:
    part = read_shard(path)
    if part is None:
        raise CacheError(f"The part '{path}' was damaged in the meantime. Run the same command again.")
    return part.features
