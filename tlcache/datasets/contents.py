"""What a container holds: the name of each member and where it lies."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.datasets.texts import Texts

__all__ = ["Contents", "Member", "gathered"]

_BLOCK = 2048  # members at a time


class Member(NamedTuple):
    """A file in a container; or a folder, whose name ends with `/`.

    Parameters
    ----------
    name
        What it is called there, with `/`.
    offset
        Bytes before it, or before the header that is read with it.
    packed
        Bytes that it takes in the container.
    size
        Bytes of the file itself.
    crc
        Its CRC-32, -1 where the container has none.
    mark
        CRC-32 of the name that it has in the header before it, -1 where that is not known.
    """

    name: str
    offset: int = 0
    packed: int = 0
    size: int = 0
    crc: int = -1
    mark: int = -1


@dataclass(frozen=True)
class Contents:
    """What a container holds.

    Parameters
    ----------
    names
        (N,) of its members, sorted by their bytes; of members of one name it is the last, which unpacking leaves.
    places
        (N, 5) int64: offset, packed, size, crc and mark of a `Member`.
    passed_over
        What else is in it, by kind.
    """

    names: Texts
    places: NDArray[np.int64]
    passed_over: Counter[str]

    def find(self, name: str) -> Member | None:
        """Return the member of a name, if there is one."""
        place = bisect_left(self.names.stored, os.fsencode(name))
        is_there = place < len(self.names) and self.names[place] == name
        return Member(name, *self.places[place].tolist()) if is_there else None


def gathered(members: Iterable[Member], passed_over: Counter[str]) -> Contents:
    """Return the contents that have these members; what is counted as passed over may grow while they come."""
    names, places = [np.empty(0, "S1")], [np.empty((0, len(Member._fields) - 1), np.int64)]
    left = iter(members)
    while block := list(islice(left, _BLOCK)):
        names.append(Texts.of([_plain(member.name) for member in block]).stored)
        places.append(np.array([member[1:] for member in block], np.int64))
    stored = np.concatenate(names)
    order = np.argsort(stored, kind="stable")
    stored = stored[order]
    is_last = np.append(stored[1:] != stored[:-1], True)[: len(stored)]
    kept = is_last & (stored != b"")
    return Contents(Texts(stored[kept]), np.concatenate(places)[order[kept]], passed_over)


def _plain(name: str) -> str:
    """Return a name without what says nothing, `./` and `//`.

    >>> _plain("./photos//cat/1.jpg"), _plain("photos/cat/"), _plain("./")
    ('photos/cat/1.jpg', 'photos/cat/', '')
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(parts) + ("/" if parts and name.endswith("/") else "")
