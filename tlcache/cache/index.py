"""Where the embeddings of one model key are: in shards, in the file to be replaced, in files of other datasets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlcache.cache.feature_file import open_remains, stage_seconds
from tlcache.cache.find import kept_folder
from tlcache.cache.pieces import ENDING
from tlcache.cache.pieces import SUFFIX as PIECES
from tlcache.cache.shards import Rejected, Shard, find_shards, read_shard
from tlcache.datasets.hashes import Hashes, Places
from tlcache.errors import CacheError, DamagedError, OutdatedError
from tlcache.images import REVISION

__all__ = ["Index"]

_MAY_CHANGE = {"too-large", "unsupported"}  # the limit, and the packages that are installed
_DECODER_SAYS = {"damaged", "not-an-image", "too-large", "truncated", "unsupported"}


class Index:
    """Which images are embedded already, by the sha256 of their bytes.

    Parameters
    ----------
    key
        The model key; files and parts of other keys are not used.
    unrounded
        The key of the same embeddings before they were rounded, from which they are had as well; empty: there is none.

    Attributes
    ----------
    rows
        Hash -> (number of the source, row in it); only rows whose checksum is right.
    bad
        Hash -> why the image cannot be used.
    outdated
        Those of `rows` that an earlier revision of the decoder made, and no later one.
    noted
        What a user should know of images that were decoded and are in parts: words of `tlcache.images.notes`, and
        the hashes of which each is true.
    several
        Hashes of images with several frames or pages, of which the first is used.
    sources
        The files that `rows` refers to.
    dim, provider
        Length of an embedding and the execution provider of the newest source; 0 and empty while there is none.
    dropped
        Parts that were damaged and have been removed, and damaged rows of this dataset's file.
    """

    def __init__(self, key: str, unrounded: str = "") -> None:
        self.key, self.unrounded = key, unrounded
        self.rows = Places()
        self.bad: dict[str, Rejected] = {}
        self.outdated: set[str] = set()
        self.noted: dict[str, set[str]] = {}
        self.several: set[str] = set()
        self.sources: list[Path] = []
        self.dim = 0
        self.provider = ""
        self.dropped = 0
        self._lost: list[str] = []
        self._stored: list[NDArray[np.int32]] = []  # of every source, as in `Shard`
        self._seconds: list[NDArray[np.float64]] = []  # per row of every source

    def add_target(self, path: Path) -> None:
        """Take what is intact in the file that is to be replaced, if it is there; damage is counted in `dropped`.

        Raises
        ------
        CacheError
            The file cannot be read, is not a feature file, or is of another key or a newer format.
        """
        if not path.exists():
            return
        try:
            self.dropped += self._add_file(path)
        except DamagedError:
            self.dropped += 1
            self._lost.append(f"'{path}' was damaged and its header lost. It is made anew.")
        except OutdatedError as error:
            self.dropped += 1
            self._lost.append(f"{error} It is made anew.")

    def warnings(self) -> list[str]:
        """Return what a user should know of damage that was found."""
        if self.dropped > len(self._lost):
            count = self.dropped - len(self._lost)
            return [*self._lost, f"Damaged parts or rows in the cache, made good now: {count:,}."]
        return self._lost

    def _add_file(self, path: Path) -> int:
        """Take the intact rows of a feature file and return the number of damaged ones."""
        with open_remains(path) as file:
            if file.attrs["key"] not in (self.key, self.unrounded):
                raise CacheError(f"'{path}' holds features of another key. Move it away and extract again.")
            intact = np.concatenate([good for _, good in file.intact()])
            stored = file.stored()
            decoder = int(file.attrs.get("decoder", 1))
            provider = str(file.attrs["provider"])
            self.add(path, file.hashes(), intact, stored, file.dim, file.seconds(), provider, decoder)
            bad = [tuple(row[1:]) for row in file.quarantine if row[1]]
            self.bad = {**_lasting(bad, decoder), **self.bad}
            return int((~intact).sum()) or int(file.salvaged)

    def add_others(self, features: Path, stem: str) -> None:
        """Take what usable files of that name of other datasets have, and what `ImageEmbedder` keeps."""
        for path in sorted(features.glob(f"*/{stem}.h5")):
            with contextlib.suppress(CacheError):
                if path not in self.sources:
                    self._add_file(path)
        for path in sorted(features.glob(f"*/{stem}{PIECES}/*{ENDING}")):
            with contextlib.suppress(CacheError):
                if path.parent.with_suffix(".h5") not in self.sources:  # which is lost, or its header is
                    self._add_file(path)
        self.add_shards(kept_folder(features) / stem)

    def add_shards(self, workspace: Path) -> None:
        """Take every part in a folder that is not taken yet; damaged ones are removed."""
        for path in sorted(set(find_shards(workspace)) - set(self.sources)):
            part = read_shard(path)
            if part is None:
                self.dropped += 1
                path.unlink()
                continue
            whole = np.ones(len(part.sha256), bool)
            dim = part.features.shape[1]
            self.add(path, part.sha256, whole, part.stored, dim, part.seconds, part.provider, part.decoder)
            self.bad |= _lasting(part.bad, part.decoder)
            self.note(part)

    def note(self, part: Shard) -> None:
        """Take what a user should know of the images of a part."""
        for word, hashes in part.notes.items():
            self.noted.setdefault(word, set()).update(hashes)

    def stored(self, places: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return width, height and frames of the images at these places (source, row): int32 (n, 3) for (n, 2)."""
        starts = np.cumsum([0, *map(len, self._stored)])
        together: NDArray[np.int32] = np.concatenate(self._stored)
        return together[starts[places[:, 0]] + places[:, 1]]

    def seconds(self, sources: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return what the rows from these sources (N,) cost when they were made: float64 (4,) as in `Shard`."""
        counts = np.bincount(sources, minlength=len(self.sources))
        return sum((n * each for n, each in zip(counts, self._seconds, strict=True)), stage_seconds())

    def add(
        self,
        path: Path,
        hashes: NDArray[np.bytes_],
        good: NDArray[np.bool_],
        stored: NDArray[np.int32],
        dim: int,
        seconds: NDArray[np.float64],
        provider: str,
        decoder: int,
    ) -> None:
        """Take the rows of a source that are `good`: hashes (n,) of `S64`, bool (n,), and all else as in `Shard`."""
        number = len(self.sources)
        self.sources.append(path)
        self._stored.append(stored)
        self._seconds.append(seconds / max(1, len(hashes)))
        names = Hashes.of(hashes[good])
        if decoder < REVISION:
            self.outdated |= {sha256 for sha256 in names if sha256 not in self.rows}
        elif self.outdated:
            self._forget(self.outdated.intersection(names))
        self.rows.add(names, number, np.flatnonzero(good))
        self.several |= {sha256.decode() for sha256 in hashes[good & (stored[:, 2] > 1)]}
        if len(hashes):
            self.dim, self.provider = dim, provider or self.provider

    def _forget(self, outdated: set[str]) -> None:
        """Make room for rows of this revision of the decoder."""
        self.outdated -= outdated
        self.several -= outdated
        self.rows.drop(outdated)


def _lasting(bad: Iterable[Sequence[str]], decoder: int) -> dict[str, Rejected]:
    """Return what is known of unusable images by their hash, without what has to be judged again.

    That is what an earlier revision of the decoder refused; the size, whose limit may be another one now; and formats,
    which another package may read now.
    """
    again = _MAY_CHANGE if decoder == REVISION else _DECODER_SAYS
    return {sha256: Rejected(code, message) for sha256, code, message in bad if code not in again}
