"""Images in a column of parquet files: what each row is called, and its bytes, read by groups of rows."""

from __future__ import annotations

import errno
import json
import posixpath
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from threading import Lock
from typing import Any, overload

import numpy as np

from tlcache.datasets.layout import Layout
from tlcache.datasets.places import State, images_in, open_at, state_of
from tlcache.datasets.remote import is_url
from tlcache.datasets.shards import shards_of, splits_of
from tlcache.datasets.source import Images
from tlcache.datasets.texts import Texts
from tlcache.errors import DataError, OptionError, UnreachableError
from tlcache.extras import extra
from tlcache.keys import some

__all__ = ["RowNames", "features_of", "forget_rows", "has_images", "names_of_rows", "open_file", "open_rows"]


def open_rows(given: str) -> Images:
    """Return the images of the rows of a file, or of all files that a pattern means."""

    def places() -> dict[str, str]:
        return {name: path for path, names in _places(given).names.items() for name in names}

    return images_in(f"parquet:{given}", partial(_read, given), partial(shards_of, given), places)


def open_file(path: str, metadata: Any = None) -> Any:
    """Return an open file, whose metadata are read where they are not given; raises DataError."""
    arrow, far = extra("pyarrow.parquet", "Parquet files need pyarrow, which", "'tlcache[parquet]'"), is_url(path)
    try:
        return arrow.parquet.ParquetFile(open_at(path)[0] if far else path, metadata=metadata, pre_buffer=far)
    except FileNotFoundError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror}.") from None
    except (OSError, ValueError) as error:  # what pyarrow raises is one of these
        raise DataError(
            f"'{path}' is no whole parquet file ({error}): it is cut off or damaged. Copy it again."
        ) from None


def features_of(file: Any) -> dict[str, Any]:
    """Return what Hugging Face says of the columns: name -> {"_type": ..., ...}; nothing where it says nothing."""
    said = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    found: dict[str, Any] = json.loads(said).get("info", {}).get("features", {})
    return found


def has_images(path: str) -> bool:
    """Return whether a file has a column that may be of images, or cannot be looked into; without one it is a table."""
    try:
        file = open_file(path)
    except (DataError, OptionError):  # which reading it tells
        return True
    return bool(features_of(file)) or any(_has_bytes(field.type) for field in file.schema_arrow)


def _image_column(path: str, file: Any) -> str:
    """Return the column of images: as the metadata says, or the one that has bytes."""
    schema, features = file.schema_arrow, features_of(file)
    said = [name for name, kind in features.items() if isinstance(kind, dict) and kind.get("_type") == "Image"]
    found = said or [field.name for field in schema if _has_bytes(field.type)]
    if len(found) != 1:
        what = (
            f"several columns of images: {some(found)}" if found else f"no column of images, but {some(schema.names)}"
        )
        raise DataError(f"'{path}' has {what}. One is needed, of bytes or of a struct of bytes and path.")
    return found[0]


def _has_bytes(kind: Any) -> bool:
    fields = {field.name: str(field.type) for field in kind} if str(kind).startswith("struct") else {}
    return str(kind) in ("binary", "large_binary") or fields.get("bytes") in ("binary", "large_binary")


@dataclass(frozen=True)
class RowNames(Sequence[str]):
    """The names of the rows of a file: split, number in it, and the last part of the path that the row says.

    Parameters
    ----------
    split
        Of the file; empty where its name says none.
    start
        Number of its first row.
    said
        (N,) parts of paths, empty where a row says none.
    """

    split: str
    start: int
    said: Sequence[str]

    def __len__(self) -> int:
        return len(self.said)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[each] for each in range(len(self))[row]]
        return "/".join(filter(None, (self.split, f"{self.start + row:07d}", self.said[row])))


def names_of_rows(paths: Sequence[str], splits: Mapping[str, str]) -> dict[str, RowNames]:
    """Return the names of the rows of each file."""
    counts, found = Counter[str](), dict[str, RowNames]()
    for path in paths:
        split, said = splits.get(path, ""), _paths(path)
        found[path] = RowNames(split, counts[split], said)
        counts[split] += len(said)
    return found


def _paths(path: str) -> Sequence[str]:
    with suppress(OSError):  # which opening it tells
        state_of(path)
    file = open_file(path)
    column = _image_column(path, file)
    if "path" not in {field.name for field in _fields(file.schema_arrow.field(column).type)}:
        return Texts(np.zeros(file.metadata.num_rows, "S1"))
    told = file.read([f"{column}.path"])[column].combine_chunks().field("path").to_pylist()
    return Texts.of([posixpath.basename(each) if each else "" for each in told])


def _fields(kind: Any) -> Iterator[Any]:
    return iter(kind) if str(kind).startswith("struct") else iter(())


class _Places:
    """Where the row of a name is, by the number in it."""

    def __init__(self, names: Mapping[str, RowNames], states: Mapping[str, State]) -> None:
        self.names, self.states = names, states
        self._of_split: dict[str, tuple[list[int], list[str]]] = {}
        for path, own in names.items():
            if len(own):
                starts, paths = self._of_split.setdefault(own.split, ([], []))
                starts.append(own.start)
                paths.append(path)

    def find(self, name: str) -> tuple[str, State, int]:
        """Return a file, as it was when it was listed, and a row of it; raises KeyError."""
        first, _, rest = name.partition("/")
        split, number = ("", first) if "" in self._of_split and first.isdecimal() else (first, rest.partition("/")[0])
        starts, paths = self._of_split[split]
        if number.isdecimal() and (file := bisect_right(starts, int(number))):
            path = paths[file - 1]
            row = int(number) - starts[file - 1]
            if row < len(self.names[path]) and self.names[path][row] == name:
                return path, self.states[path], row
        raise KeyError(name)


@lru_cache(maxsize=8)
def _places(given: str) -> _Places:
    """Return where rows are in files as these are now."""
    paths = shards_of(given)
    return _Places(names_of_rows(paths, splits_of(paths, Layout())), _states(paths))


def forget_rows() -> None:
    """List files anew when a row is next read: of more files, or in another order, a name may be another row's."""
    _places.cache_clear()


def _states(paths: Iterable[str]) -> dict[str, State]:
    return {path: state_of(path, asking=False) for path in paths}


def _place(given: str, name: str) -> tuple[str, State, int]:
    """Return where a row is in files as these are now; raises KeyError."""
    known = _places(given)
    with suppress(KeyError, OSError):  # of a file that has another name now, or is gone
        path, listed, row = known.find(name)
        if state_of(path, asking=False) == listed:
            return path, listed, row
    if _states(shards_of(given)) == known.states:
        raise KeyError(name)
    forget_rows()
    return _places(given).find(name)


def _read(given: str, name: str) -> bytes:
    """Return the bytes of a row; raises OSError, or UnreachableError for its store."""
    try:
        path, listed, row = _place(given, name)
        data: bytes | None = _column(path, listed).read(row)
    except UnreachableError:
        raise
    except (DataError, OptionError) as error:
        raise OSError(str(error)) from None
    except KeyError:
        raise FileNotFoundError(errno.ENOENT, "no such image in the parquet files") from None
    if data is None:
        raise OSError("the row has no bytes in the parquet file")
    return data


@lru_cache(maxsize=4096)
def _column(path: str, state: State) -> _Column:
    del state
    return _Column(path)


class _Column:
    """The images of a file, read by groups of rows, of which the last few are kept."""

    def __init__(self, path: str) -> None:
        self._path = path
        file = open_file(path)
        self._metadata, self._name = file.metadata, _image_column(path, file)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        self._ends = list(accumulate(sizes))
        self._lock = Lock()  # a group that several threads ask for is read once

    def read(self, row: int) -> bytes | None:
        """Return the bytes of a row; None where it has none."""
        group = bisect_right(self._ends, row)
        with self._lock:
            values = _GROUPS.of(self, group)
        found: bytes | None = values[row - (self._ends[group - 1] if group else 0)].as_py()
        return found

    def group(self, group: int) -> Any:
        """Return the images of a group of rows; the file is opened anew, as forked processes may read it, too."""
        try:
            file = open_file(self._path, self._metadata)
            values = file.read_row_group(group, [self._name], use_threads=False)[self._name].combine_chunks()
        except (OSError, ValueError) as error:
            raise OSError(f"its rows in the parquet file are damaged ({error})") from None
        return values.field("bytes") if str(values.type).startswith("struct") else values


class _Groups:
    """Groups of rows that were read lately: the last one of every file, and others while they take little memory.

    In order a group is read once. In random order, as in training, all are wanted all the time.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._kept: OrderedDict[tuple[_Column, int], Any] = OrderedDict()
        self._bytes, self._lock = 0, Lock()

    def of(self, column: _Column, group: int) -> Any:
        """Return the images of a group."""
        key = column, group
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        values = column.group(group)
        with self._lock:
            self._kept[key] = values
            self._bytes += values.nbytes
            while self._bytes > self.most_bytes and len(self._kept) > _LEAST:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return values


_LEAST = 8  # groups
_GROUPS = _Groups(256 << 20)
