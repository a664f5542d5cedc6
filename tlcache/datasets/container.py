"""A file that holds many images: where each one lies in it, listed once, and its bytes, read by themselves."""

from __future__ import annotations

import errno
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from io import DEFAULT_BUFFER_SIZE, BufferedReader, RawIOBase
from typing import BinaryIO, cast

from tlcache.datasets.contents import Contents, Member
from tlcache.datasets.indexes import kept
from tlcache.datasets.places import State, open_at, state_of
from tlcache.datasets.remote import is_url
from tlcache.errors import DataError, UnreachableError

__all__ = ["Container", "contents_of", "read_member"]

_AT_ONCE = 4 << 20  # bytes that a request asks for where headers are read


@dataclass(frozen=True)
class Container:
    """A kind of file that holds others.

    Parameters
    ----------
    name
        What it is called, which is also the ending of its files, and what begins the `source` of its images.
    contents
        The file and what to call it -> what it holds, read from its headers alone; raises DataError.
    read
        The file and a member of it -> the bytes of that; raises OSError.
    """

    name: str
    contents: Callable[[BinaryIO, str], Contents]
    read: Callable[[BinaryIO, Member], bytes]


def read_member(kind: Container, place: str, name: str) -> bytes:
    """Return the bytes of a member; raises OSError, or UnreachableError for its store."""
    file, state = open_at(place)
    with file:
        contents = _listed(kind, place, state)
        member = contents.find(name)
        if member is None:
            raise FileNotFoundError(errno.ENOENT, f"no such image in the {kind.name} file")
        data = kind.read(file, member) if member.offset + member.packed <= int(state[0]) else b""
    if len(data) != member.size or member.crc not in (-1, zlib.crc32(data)):
        raise OSError(f"its bytes in the {kind.name} file are cut off or damaged")
    return data


@lru_cache(maxsize=4096)
def _listed(kind: Container, place: str, state: State) -> Contents:
    try:
        return kept(kind.name, place, state, partial(_contents, kind, place))
    except DataError as error:
        raise (error if isinstance(error, UnreachableError) else OSError(str(error))) from None


def _contents(kind: Container, place: str) -> Contents:
    raw = cast("RawIOBase", open_at(place)[0])
    with BufferedReader(raw, _AT_ONCE if is_url(place) else DEFAULT_BUFFER_SIZE) as file:
        return kind.contents(file, place)


def contents_of(kind: Container, place: str) -> Contents:
    """Return what a container holds, listed once for as long as it stays as it is.

    Raises
    ------
    DataError
        It cannot be read, is cut off, or is of another kind.
    """
    try:
        return _listed(kind, place, state_of(place))
    except OSError as error:
        raise DataError(f"Cannot read '{place}': {error.strerror}." if error.strerror else str(error)) from None
