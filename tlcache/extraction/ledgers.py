"""The shards of a dataset on disk, and what came of each: what many processes share, and one publishes from.

A shard is a stretch of the images in their order. Whoever does one writes parts into its folder, as every extraction
does, and then its ledger: what each image hashes to, or why it cannot be used. A ledger is a promise that all its rows
are on disk, so whoever finds the ledgers of all shards can publish the file without reading an image again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np

from tlcache.cache.feature_file import stage_seconds
from tlcache.cache.shards import SHARD_FOLDERS, Rejected
from tlcache.datasets.hashes import Hashes
from tlcache.datasets.source import ImageList
from tlcache.errors import CacheError, ImageReadError, UnreachableError
from tlcache.extraction.claims import Claimant, claimed, is_held
from tlcache.extraction.job import EmbedResult
from tlcache.files import write_whole, writing_to
from tlcache.text import counted

__all__ = [
    "Ledger",
    "Ledgers",
    "Progress",
    "has_ledgers",
    "is_worked_on",
    "progress_of",
    "shards_of",
    "write_ledger",
]

_LIST = "shards.json"  # in a folder of parts: which ledgers count


def shards_of(images: int) -> list[range]:
    """Return the shards of so many images: each has a power of two of them, about as many as there are shards.

    >>> [len(shards_of(count)) for count in (24, 10_000, 1_600_000)]
    [3, 79, 782]
    """
    size = 1 << ((max(1, images) - 1).bit_length() + 1) // 2
    return [range(start, min(start + size, images)) for start in range(0, images, size)]


@dataclass(frozen=True)
class Ledger:
    """What came of the images of a shard.

    Parameters
    ----------
    sha256
        Of each image; empty where it could not be read.
    bad, unreadable
        Why images cannot be used, by their hash, and by their place in the shard.
    embedded, seconds
        As in `EmbedResult`.
    """

    sha256: Sequence[str]
    bad: Mapping[str, Rejected] = field(default_factory=dict)
    unreadable: Mapping[int, Rejected] = field(default_factory=dict)
    embedded: int = 0
    seconds: Sequence[float] = ()


def write_ledger(path: Path, ledger: Ledger) -> None:
    """Say that a shard is done, whose parts are on disk; raises CacheError where that cannot be written."""
    with writing_to(path.parent):
        write_whole(path, msgspec.json.encode(ledger))


@dataclass(frozen=True)
class Progress:
    """How far the shards of a list of images are.

    Parameters
    ----------
    total
        How many there are.
    missing
        The numbers of those that are not done.
    changed
        Those of `missing` that were done, and of which the images are others now.
    free
        Those of `missing` that nobody is at.
    shares
        In how many shares they are done; 0 where only `--claim` was given.
    """

    total: int
    missing: Sequence[int]
    changed: Sequence[int]
    free: Sequence[int]
    shares: int

    @property
    def done(self) -> int:
        """How many are done."""
        return self.total - len(self.missing)

    def __str__(self) -> str:
        changed = f"; the images of {len(self.changed):,} more have changed since" if self.changed else ""
        return f"{self.done:,} of {counted(self.total, 'shard')}{changed}"

    def shares_of(self, shards: Iterable[int]) -> tuple[str, ...] | None:
        """Return whose these shards are, like `3/16`; None where there are no shares."""
        if not self.shares:
            return None
        return tuple(f"{number + 1}/{self.shares}" for number in sorted({shard % self.shares for shard in shards}))


@dataclass(frozen=True)
class _Listed:
    """The names of the ledgers of all shards in order, and the number of shares."""

    ledgers: list[str]
    shares: int = 0


class Ledgers:
    """The shards of what one network makes of a dataset.

    Parameters
    ----------
    workspace
        Folder of the parts.
    key
        The model key.
    paths
        Of the images, in order. A ledger is of these images and this key: of others it does not count.
    """

    def __init__(self, workspace: Path, key: str, paths: Sequence[str]) -> None:
        self._workspace = workspace
        self.shards = shards_of(len(paths))
        self._names = [f"{_digest(key, paths[each.start : each.stop])}.json" for each in self.shards]

    def folder(self, number: int) -> Path:
        """Return where the parts of a shard are."""
        return _folder(self._workspace, number)

    def path(self, number: int) -> Path:
        """Return the ledger of a shard, which is there when the shard is done; its parts are beside it."""
        return self.folder(number) / self._names[number]

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not done."""
        return [number for number in range(len(self.shards)) if not self.has(number)]

    def has(self, number: int) -> bool:
        """Return whether a shard is done."""
        return self.path(number).exists()

    def progress(self) -> Progress:
        """Return how far they are."""
        return _progress(self._workspace, _Listed(self._names, _listed(self._workspace).shares))

    def leave_list(self, shares: int = 0) -> None:
        """Leave word of which shards there are, for who does not list the images; 0 `shares`: as many as before."""
        before = _listed(self._workspace)
        listed = _Listed(self._names, shares or before.shares)
        if listed != before:
            with writing_to(self._workspace):
                write_whole(self._workspace / _LIST, msgspec.json.encode(listed))

    def update_list(self) -> None:
        """Leave word where the images are others than those of the last word; not where somebody has published."""
        if _listed(self._workspace).ledgers not in ([], self._names):
            with suppress(CacheError):
                self.leave_list()

    def unusable(self, numbers: Iterable[int]) -> dict[int, Rejected]:
        """Return which images of shards that are done cannot be used, by their place in the list, and why."""
        found = dict[int, Rejected]()
        for number in numbers:
            if ledger := self._read(number):
                for place, sha256 in enumerate(ledger.sha256):
                    if why := ledger.unreadable.get(place) or ledger.bad.get(sha256):
                        found[self.shards[number].start + place] = why
        return found

    def claimed(self, number: int, me: Claimant) -> AbstractContextManager[bool]:
        """Have a shard to oneself for a while; False where somebody else is at it."""
        return claimed(self.folder(number), me)

    def result(self) -> EmbedResult | None:
        """Return what the ledgers of all shards say together; None where one is missing. One that is damaged goes."""
        total, hashes = EmbedResult(), [np.empty((0, 32), np.uint8)]
        for number, shard in enumerate(self.shards):
            if (ledger := self._read(number)) is None:
                return None
            hashes.append(Hashes.of(ledger.sha256).digests)
            unreadable = {shard.start + place: why for place, why in ledger.unreadable.items()}
            seconds = stage_seconds() + ledger.seconds
            total.add(EmbedResult((), {**ledger.bad}, unreadable, ledger.embedded, seconds))
        return replace(total, sha256=Hashes(np.concatenate(hashes)))

    def broken(self, result: EmbedResult, rows: Collection[str]) -> list[int]:
        """Return the numbers of shards of whose images some have no row any more; `rows` are the hashes of those."""
        parts = (result.sha256[each.start : each.stop] for each in self.shards)
        return [number for number, part in enumerate(parts) if _is_broken(part, result.bad, rows)]

    def drop(self, numbers: Sequence[int]) -> None:
        """Let shards be done again; their parts stay."""
        for number in numbers:
            self.path(number).unlink(missing_ok=True)

    def drop_broken(self, rows: Collection[str]) -> None:
        """Let shards be done again of which an image could not be read, or of whose rows one is gone.

        `rows` are the hashes of those that are there.
        """
        for number in range(len(self.shards)):
            ledger = self._read(number)
            if ledger and (ledger.unreadable or _is_broken(ledger.sha256, ledger.bad, rows)):
                self.drop([number])

    def drop_mended(self, numbers: Iterable[int], images: ImageList) -> None:
        """Let shards be done again of which an image could not be used, and is there or is another one now.

        Parameters
        ----------
        numbers
            Of the shards to look at; of their images those that could not be used are read, and no other.
        images
            All images.
        """
        for number in numbers:
            if (ledger := self._read(number)) and any(
                _is_other(images, row, sha256)
                for row, sha256 in zip(self.shards[number], ledger.sha256, strict=True)
                if not sha256 or sha256 in ledger.bad
            ):
                self.drop([number])

    def _read(self, number: int) -> Ledger | None:
        try:
            return msgspec.json.decode(self.path(number).read_bytes(), type=Ledger)
        except FileNotFoundError:
            return None
        except (ValueError, msgspec.DecodeError):  # it is damaged
            self.drop([number])
            return None


def has_ledgers(workspace: Path) -> bool:
    """Return whether a shard in a folder of parts is done, if only of images that are others now."""
    return any(workspace.glob(f"{SHARD_FOLDERS}/*.json"))


def progress_of(workspace: Path) -> Progress:
    """Return how far the shards in a folder of parts are, of the images that whoever listed them last has found."""
    return _progress(workspace, _listed(workspace))


def is_worked_on(workspace: Path) -> bool:
    """Return whether somebody is at a shard in a folder of parts."""
    return any(map(is_held, workspace.glob(SHARD_FOLDERS)))


def _folder(workspace: Path, number: int) -> Path:
    return workspace / f"shard-{number:06d}"


def _listed(workspace: Path) -> _Listed:
    with suppress(FileNotFoundError, ValueError, msgspec.DecodeError):  # nobody has left it yet, or it is damaged
        return msgspec.json.decode((workspace / _LIST).read_bytes(), type=_Listed)
    return _Listed([])


def _progress(workspace: Path, listed: _Listed) -> Progress:
    folders = [_folder(workspace, number) for number in range(len(listed.ledgers))]
    missing = [place for place, name in enumerate(listed.ledgers) if not (folders[place] / name).exists()]
    changed = [place for place in missing if any(folders[place].glob("*.json"))]
    free = [place for place in missing if not is_held(folders[place])]
    return Progress(len(folders), missing, changed, free, listed.shares)


def _is_other(images: ImageList, row: int, sha256: str) -> bool:
    """Return whether an image can be read and has another hash than that, which is empty where it could not be read."""
    try:
        return hashlib.sha256(images.read(row)).hexdigest() != sha256
    except UnreachableError:
        raise
    except ImageReadError:
        return False


def _is_broken(sha256: Sequence[str], bad: Collection[str], rows: Collection[str]) -> bool:
    """Return whether a row is gone of images that were read, by their hashes, and can be used."""
    return any(each and each not in rows and each not in bad for each in sha256)


def _digest(key: str, paths: Sequence[str]) -> str:
    digest = hashlib.sha256(key.encode())
    for path in paths:
        digest.update(os.fsencode(path) + b"\0")
    return digest.hexdigest()[:16]
