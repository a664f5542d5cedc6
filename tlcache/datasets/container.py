"""A file that holds many images: where each one lies in it, listed once, and its bytes, read by themselves."""

from __future__ import annotations

import errno
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.errors import DataError

__all__ = ["Container", "Contents", "Member", "contents_of", "gathered", "read_member"]


class Member(NamedTuple):
    """A file in a container; or a folder, whose name ends with `/`.

    Parameters
    ----------
    name
        What it is called there, with `/`.
    offset
        Bytes before what `Container.read` is given.
    packed
        Bytes that it takes in the container.
    size
        Bytes of the file itself.
    crc
        Its CRC-32, -1 where the container has none.
    """

    name: str
    offset: int = 0
    packed: int = 0
    size: int = 0
    crc: int = -1


@dataclass(frozen=True)
class Contents:
    """What a container holds.

    Parameters
    ----------
    rows
        Name -> row of `places`; of members of one name the last, which is the one that unpacking leaves.
    places
        (N, 4) int64: offset, packed, size and crc of a `Member`.
    passed_over
        What else is in it, by kind.
    """

    rows: Mapping[str, int]
    places: NDArray[np.int64]
    passed_over: Counter[str]


def gathered(members: Iterable[Member], passed_over: Counter[str]) -> Contents:
    """Return the contents that have these members; what is counted as passed over may grow while they come."""
    names, places = list[str](), list[tuple[int, ...]]()
    for name, *place in members:
        names.append(_plain(name))
        places.append(tuple(place))
    rows = {name: row for row, name in enumerate(names) if name}
    return Contents(rows, np.array(places, np.int64).reshape(-1, 4), passed_over)


def _plain(name: str) -> str:
    """Return a name without what says nothing, `./` and `//`.

    >>> _plain("./photos//cat/1.jpg"), _plain("photos/cat/"), _plain("./")
    ('photos/cat/1.jpg', 'photos/cat/', '')
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(parts) + ("/" if parts and name.endswith("/") else "")


@dataclass(frozen=True)
class Container:
    """A kind of file that holds others.

    Parameters
    ----------
    name
        What it is called, which is also the ending of its files, and what begins the `source` of its images.
    contents
        Path -> what it holds, read from its headers alone; raises DataError.
    read
        The file, the offset and the packed bytes of a member -> its bytes; raises OSError.
    """

    name: str
    contents: Callable[[Path], Contents]
    read: Callable[[BinaryIO, int, int, int], bytes]


def read_member(kind: Container, path: str, name: str) -> bytes:
    """Return the bytes of a member; raises OSError.

    The file is opened anew: threads and forked processes share no place in it.
    """
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  a Path costs more
        status = os.fstat(file.fileno())
        contents = _listed(kind, path, _state(status))
        row = contents.rows.get(name)
        if row is None:
            raise FileNotFoundError(errno.ENOENT, f"no such image in the {kind.name} file")
        offset, packed, size, crc = contents.places[row].tolist()
        data = kind.read(file, offset, packed, size) if offset + packed <= status.st_size else b""
    if len(data) != size or crc not in (-1, zlib.crc32(data)):
        raise OSError(f"its bytes in the {kind.name} file are cut off or damaged")
    return data


_State = tuple[int, int, int]


def _state(status: os.stat_result) -> _State:
    """Return what differs once a file has been changed, or another has taken its place."""
    return status.st_size, status.st_mtime_ns, status.st_ino


@lru_cache(maxsize=4096)
def _listed(kind: Container, path: str, state: _State) -> Contents:
    del state  # contents are those of the file in this state
    try:
        return kind.contents(Path(path))
    except DataError as error:
        raise OSError(str(error)) from None


def contents_of(kind: Container, path: Path) -> Contents:
    """Return what a container holds, listed once for as long as it stays as it is.

    Raises
    ------
    DataError
        It cannot be read, is cut off, or is of another kind.
    """
    try:
        return _listed(kind, str(path), _state(path.stat()))
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror}." if error.strerror else str(error)) from None
