"""Files that hold many images, on a disk or in a store: whether they are there, what state they are in, their bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import BinaryIO

from tlcache.datasets import remote
from tlcache.datasets.far import FarImages
from tlcache.datasets.remote import is_url
from tlcache.datasets.source import Images
from tlcache.errors import DataError

__all__ = ["State", "images_in", "open_at", "state_of", "stem_of", "there"]

State = tuple[int | str, ...]  # the size of a file, then what differs once it is changed or another takes its place


def there(place: str) -> bool:
    """Return whether there is such a file; of one in a store that is found out when it is read."""
    return is_url(place) or os.path.isfile(place)  # noqa: PTH113  a text


def stem_of(place: str) -> str:
    """Return the last part of a name without its ending.

    >>> stem_of("/data/photos.zip"), stem_of("s3://bucket/a/photos.tar")
    ('photos', 'photos')
    """
    return os.path.splitext(os.path.basename(place))[0]  # noqa: PTH119, PTH122  a text


def state_of(place: str, asking: bool = True) -> State:
    """Return the state that a file is in now, or, without `asking` its store, was in when this was last asked.

    Raises
    ------
    OSError, UnreachableError
        It is not there; its store cannot be reached.
    """
    if is_url(place):
        return remote.look_at(place) if asking else remote.seen(place)
    return _state(os.stat(place))  # noqa: PTH116


def open_at(place: str) -> tuple[BinaryIO, State]:
    """Return an open file of its own, as threads and forked processes share no place in one, and its state.

    Raises
    ------
    OSError, UnreachableError
        It cannot be opened; its store cannot be reached.
    """
    if is_url(place):
        return remote.open_object(place)
    file = open(place, "rb", buffering=0)  # noqa: PTH123, SIM115  a Path costs more
    return file, _state(os.fstat(file.fileno()))


def _state(status: os.stat_result) -> State:
    return status.st_size, status.st_mtime_ns, status.st_ino


def images_in(
    source: str,
    read: Callable[[str], bytes],
    files: Callable[[], list[str]],
    places: Callable[[], Mapping[str, str]],
) -> Images:
    """Return the images that lie in files, on a disk or in a store.

    Parameters
    ----------
    source, read
        As for `Images`.
    files
        Which files these are; raises DataError.
    places
        Name of an image -> file that it is in.
    """
    exists = partial(_all_there, files)
    if not is_url(source.partition(":")[2]):
        return Images(source, read, exists)
    return FarImages(source, read, exists, partial(_stamps, places))


def _all_there(files: Callable[[], list[str]]) -> bool:
    try:
        return all(bool(state_of(each)) for each in files())
    except (DataError, OSError):
        return False


def _stamps(places: Callable[[], Mapping[str, str]]) -> dict[str, str]:
    """Return what says that an image is what it was: the state of the file that it is in."""
    found = places()
    states = {place: state_of(place) for place in set(found.values())}
    return {name: " ".join(map(str, states[place])) for name, place in found.items() if all(states[place])}
