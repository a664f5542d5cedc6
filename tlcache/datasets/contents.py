"""What a container holds: the name of each member and where it lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Contents", "Member", "gathered"]


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
    rows
        Name -> row of `places`; of members of one name the last, which is the one that unpacking leaves.
    places
        (N, 5) int64: offset, packed, size, crc and mark of a `Member`.
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
    return Contents(rows, np.array(places, np.int64).reshape(-1, len(Member._fields) - 1), passed_over)


def _plain(name: str) -> str:
    """Return a name without what says nothing, `./` and `//`.

    >>> _plain("./photos//cat/1.jpg"), _plain("photos/cat/"), _plain("./")
    ('photos/cat/1.jpg', 'photos/cat/', '')
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(parts) + ("/" if parts and name.endswith("/") else "")
