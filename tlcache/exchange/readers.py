"""Files of embeddings that were made elsewhere: NumPy, HDF5, Parquet and CSV, as people and other tools have them."""

from __future__ import annotations

import csv
import errno
import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.cache.foreign import open_arrays
from tlcache.datasets.columns import roles_of
from tlcache.errors import DataError, OptionError, first_line
from tlcache.exchange.arrays import flattened
from tlcache.exchange.tables import read_csv, read_parquet
from tlcache.exchange.writers import FORMAT
from tlcache.keys import some

__all__ = ["READERS", "Found", "read"]

_BLOCK = 4096
_DAMAGE = (  # what numpy, zipfile, h5py, pyarrow and csv raise of it
    *(OSError, ValueError, RuntimeError, LookupError, TypeError, ArithmeticError, MemoryError, EOFError, SyntaxError),
    *(csv.Error, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
_OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES)
_NAMES = "file_names.txt"  # which thingsvision writes beside its features


@dataclass(frozen=True)
class Found:
    """What a file has.

    Parameters
    ----------
    values
        (n, dim) of a float type, mapped from a file.
    columns
        What else is known of each row: name -> (n,) texts.
    said
        What `tlcache.dump` wrote of where they are from; empty in files of others.
    notes
        How it was understood, where that is not plain.
    """

    values: NDArray[Any]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    said: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read(path: Path, key: str | None, spool: Path) -> Found:
    """Read a file of embeddings; what cannot be mapped as it lies is copied to `spool`, a block at a time.

    Raises
    ------
    OptionError, DataError
        Another ending; a damaged file; none or several arrays that may be the embeddings.
    """
    if path.suffix.lower() not in READERS:
        raise OptionError(f"'{path}' is of no kind known here. Known: {', '.join(READERS)}.")
    if not path.is_file():
        raise DataError(f"There is no file '{path}'.")
    try:
        return READERS[path.suffix.lower()](path, key, spool)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno in _OF_DISK:
            raise
        kind = path.suffix.lower()
        raise DataError(
            f"'{path}' is no whole {kind} file of numbers: {first_line(error).rstrip('.')}. Copy it again."
        ) from None


def _npy(path: Path, key: str | None, spool: Path) -> Found:
    del key, spool
    values: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    values = values.reshape(flattened(values.shape, values.dtype, path, path.name))
    names = path.with_name(_NAMES)
    if not names.is_file():
        return Found(values)
    lines = names.read_text("utf-8", "surrogateescape").splitlines()
    if len(lines) != len(values):
        raise DataError(
            f"'{names}' beside '{path.name}' has {len(lines):,} lines for {len(values):,} embeddings. Remove it, or "
            "bring the one that belongs to them."
        )
    return Found(values, {"path": lines}, notes=(f"Rows are called as '{names}' says.",))


def _npz(path: Path, key: str | None, spool: Path) -> Found:
    with zipfile.ZipFile(path) as archive:
        heads = {info.filename.removesuffix(".npy"): _head(archive, info) for info in archive.infolist()}
        name = _chosen(path, key, {each: (shape, dtype) for each, (shape, _, dtype) in heads.items()})
        shape, fortran, dtype = heads[name]
        wanted = flattened(shape, dtype, path, name)
        others = {each: _member(archive, each) for each, (own, _, kind) in heads.items() if _is_column(own, kind)}
        info = archive.getinfo(f"{name}.npy")
        if info.compress_type == zipfile.ZIP_STORED:
            _check(archive, info)
            start = _start(path, info)
            values: NDArray[Any] = np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
        else:
            with archive.open(info) as member:
                _skip_head(member)
                values = _spooled(spool, shape, dtype, fortran, member.read)
    said = json.loads(str(others.pop(FORMAT))) if FORMAT in others else {}
    return Found(values.reshape(wanted), _columns(path, others, wanted[0]), said)


def _h5(path: Path, key: str | None, spool: Path) -> Found:
    with open_arrays(path) as arrays:
        name = _chosen(path, key, {each: (array.shape, array.dtype) for each, array in arrays.items()})
        rows, dim = flattened(arrays[name].shape, arrays[name].dtype, path, name)
        values = np.lib.format.open_memmap(spool, "w+", arrays[name].dtype, (rows, dim))
        array, long = arrays[name], arrays[name].shape.index(rows)
        for start in range(0, rows, _BLOCK):
            block = tuple(slice(start, start + _BLOCK) if axis == long else slice(None) for axis in range(array.ndim))
            part = array[block]
            values[start : start + _BLOCK] = part.reshape(-1, dim)
        others = {each: item[:] for each, item in arrays.items() if _is_column(item.shape, item.dtype)}
        coords = arrays.get("coords")
        columns = _columns(path, others, rows)
        if (
            "path" not in columns and coords is not None and coords.shape == (rows, 2)
        ):  # as TRIDENT and CLAM write patches
            columns = {**columns, "path": [f"{path.stem}/{x}_{y}" for x, y in coords[:].tolist()]}
    return Found(values, columns)


def _table(read: Callable[..., Any]) -> Callable[[Path, str | None, Path], Found]:
    def found(path: Path, key: str | None, spool: Path) -> Found:
        values, columns, said = read(path, key, spool)
        return Found(values, columns, said)

    return found


READERS: Mapping[str, Callable[[Path, str | None, Path], Found]] = {
    ".parquet": _table(read_parquet),
    ".npz": _npz,
    ".npy": _npy,
    ".h5": _h5,
    ".hdf5": _h5,
    ".csv": _table(read_csv),
}


def _chosen(path: Path, key: str | None, arrays: Mapping[str, tuple[tuple[int, ...], Any]]) -> str:
    """Return the name of the array of embeddings: as asked, or the only one that can be it."""
    fitting = [name for name, (shape, dtype) in arrays.items() if len(shape) > 1 and np.dtype(dtype).kind == "f"]
    there = some([f"{name} {shape}" for name, (shape, _) in arrays.items()], 10) or "nothing"
    if key is not None:
        if key not in arrays:
            raise OptionError(f"--features-key {key}: '{path}' has no such array. It has {there}.")
        return key
    if len(fitting) != 1:
        what = "several arrays that may be embeddings" if fitting else "no array of embeddings"
        raise DataError(f"'{path}' has {what}: it has {there}. Say which with --features-key NAME.")
    return fitting[0]


def _is_column(shape: tuple[int, ...], dtype: Any) -> bool:
    return len(shape) < 2 and np.dtype(dtype).kind in "USOiub"


def _columns(path: Path, arrays: Mapping[str, Any], rows: int) -> dict[str, list[str]]:
    """Return the arrays that have a text or whole number for each row, as texts; numbers of classes by their names."""
    texts = {
        name: [_text(value) for value in np.asarray(array).tolist()] for name, array in arrays.items() if np.ndim(array)
    }
    classes = next((texts[name] for name in ("classes", "class_names") if name in texts), None)
    found = {name: column for name, column in texts.items() if len(column) == rows}
    for role, name in roles_of(
        path, [each for each in texts if each not in (*found, "classes", "class_names")], {}
    ).items():
        raise DataError(
            f"'{path}': {name}, the {role} of each row, has {len(texts[name]):,} entries for {rows:,} rows."
        )
    labels = next((name for name in ("labels", "label", "y", "targets") if name in found), "")
    if classes and labels and all(each.isdecimal() and int(each) < len(classes) for each in found[labels]):
        found[labels] = [classes[int(each)] for each in found[labels]]
    return found


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _head(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    with archive.open(info) as member:
        return _skip_head(member)


def _skip_head(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    found: tuple[tuple[int, ...], bool, np.dtype[Any]] = reader(member)
    return found


def _check(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Read a member to its end, where its checksum is compared: what is mapped is read past that."""
    with archive.open(info) as member:
        while member.read(1 << 20):
            pass


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    with archive.open(f"{name}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _start(path: Path, info: zipfile.ZipInfo) -> int:
    """Return where the numbers of a stored member begin in the archive."""
    with path.open("rb") as stream:
        stream.seek(info.header_offset)
        name, extra = struct.unpack("<HH", stream.read(30)[26:])
        stream.seek(info.header_offset + 30 + name + extra)
        _skip_head(stream)
        return stream.tell()


def _spooled(
    spool: Path, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool, read: Callable[[int], bytes]
) -> NDArray[Any]:
    values = np.lib.format.open_memmap(spool, "w+", dtype, shape, fortran)
    flat = values.T.reshape(-1) if fortran else values.reshape(-1)
    for start in range(0, len(flat), 1 << 20):
        part = np.frombuffer(read(min(1 << 20, len(flat) - start) * dtype.itemsize), dtype)
        flat[start : start + len(part)] = part
    return values
