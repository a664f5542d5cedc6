"""What large containers hold, kept on disk: read from their headers once for as long as they stay as they are."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from tlcache.datasets.contents import Contents, Member
from tlcache.datasets.places import State
from tlcache.datasets.remote import is_url
from tlcache.datasets.texts import Texts
from tlcache.files import cache_folder, write_whole
from tlcache.keys import hash_json

__all__ = ["kept"]

_LEAST = 256  # members; fewer are listed as quickly as this is read
_DIGEST_BYTES = 32
_WIDTH = len(Member._fields) - 1


def kept(kind: str, place: str, state: State, make: Callable[[], Contents]) -> Contents:
    """Return what a container in this state holds: as it was kept, else as `make` finds, which is kept then.

    An index of another state, or one that is damaged, is made again. There is none for a store that does not say when
    an object changes.

    Raises
    ------
    DataError, OSError
        What `make` raises.
    """
    path = cache_folder() / "indexes" / f"{hash_json([kind, place])[:16]}.index"
    about = [kind, place, *state]
    with suppress(OSError, ValueError, KeyError, TypeError):
        return _unpack(path.read_bytes(), about)
    found = make()
    if (is_url(place) or len(found.names) >= _LEAST) and all(state):
        with suppress(OSError):  # it is made again
            write_whole(path, _pack(found, about))
    return found


def _pack(contents: Contents, about: list[int | str]) -> bytes:
    names = contents.names.stored
    head = {"about": about, "names": [len(names), names.dtype.str], "passed_over": dict(contents.passed_over)}
    data = json.dumps(head).encode() + b"\n" + contents.places.astype("<i8").tobytes() + names.tobytes()
    return hashlib.sha256(data).digest() + data


def _unpack(packed: bytes, about: list[int | str]) -> Contents:
    """Return what `_pack` was given; raises ValueError for anything else."""
    digest, data = packed[:_DIGEST_BYTES], packed[_DIGEST_BYTES:]
    if hashlib.sha256(data).digest() != digest:
        raise ValueError("damaged")
    head, _, arrays = data.partition(b"\n")
    said = json.loads(head)
    if said["about"] != about:
        raise ValueError("of another state")
    count, kind = said["names"]
    places = np.frombuffer(arrays, "<i8", count * _WIDTH).astype(np.int64).reshape(-1, _WIDTH)
    names = np.frombuffer(arrays, kind, count, places.nbytes).copy()
    return Contents(Texts(names), places, Counter(said["passed_over"]))
