"""The feature file: one HDF5 file per dataset and model key, immutable once visible.

This module alone imports h5py. A file is written beside its final name, read back and compared row by row, and
renamed over the old one. `features/README.md` shows the schema.

HDF5 alone does not notice everything: a chunk of zeros passes its fletcher32 checksum, and attributes have none. So
every row carries a crc32 over all that is known of it, and all attributes, classes and quarantined images are covered
by one sha256, which opening a file checks.
"""

from __future__ import annotations

import itertools
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from tlcache.cache.attributes import extract_arguments, identity_of
from tlcache.cache.columns import ATTRIBUTE, Values, digest_of, place_of
from tlcache.cache.pieces import ATTRIBUTE as FILES
from tlcache.cache.pieces import NAME, SUFFIX, Pieces, Read, is_piece, pieces_folder
from tlcache.cache.salvage import Padded, salvaged
from tlcache.cache.split import Split
from tlcache.datasets.overview import Overview
from tlcache.datasets.splits import SPLITS
from tlcache.datasets.tasks import Targets, task_of
from tlcache.datasets.texts import Texts
from tlcache.errors import CacheError, DamagedError, OutdatedError, UnknownNameError, closest
from tlcache.heads.large import empty
from tlcache.heads.rows import blocks
from tlcache.keys import hash_json, native

__all__ = [
    "CRC",
    "FILES_VERSION",
    "FORMAT",
    "FORMAT_VERSION",
    "QUARANTINE",
    "STAGES",
    "FeatureFile",
    "Split",
    "open_features",
    "open_remains",
    "stage_seconds",
]

FORMAT = "tlcache-features"
FORMAT_VERSION = 2
FILES_VERSION = 3  # of a feature file that has its rows in several others
STAGES = ("decode_s", "infer_s", "write_s", "wall_s")
QUARANTINE = ("path", "sha256", "code", "message")
_ROW = ("labels", "rows/path", "rows/sha256", "rows/split", "rows/group", "rows/width", "rows/height", "rows/frames")
_STORED = ("width", "height", "frames")
CRC = "integrity/crc32"
_CHUNK_BYTES = 1 << 20
_AT_ONCE = 32_768  # rows of which more are read at a time only where a chunk has more
_ENCODINGS = (  # of names in headers: UTF-8, and what early versions took from their locale
    *("utf-8", "ascii", "iso8859-1", "iso8859-15", "iso8859-2", "iso8859-5", "iso8859-7", "iso8859-9", "cp1251"),
    *("cp1252", "koi8-r", "koi8-u", "euc_jp", "euc_kr", "gb2312", "gbk", "gb18030", "big5", "tis-620"),
)
_UNREADABLE = "it was cut off, or its header cannot be read"
_MEND = "Extract again, or run tlcache verify --repair: only what is damaged is computed."


def stage_seconds(**spent: float) -> NDArray[np.float64]:
    """Return seconds in the order of `STAGES`, as shards hold them; 0 for a stage that is not named."""
    return np.array([spent.get(stage, 0.0) for stage in STAGES])


class FeatureFile:
    """A feature file, read lazily: opening reads attributes, `split` reads the rows of that split alone.

    Parameters
    ----------
    path
        A file that `tlcache extract` made.
    cut
        Read what is left of a file that has lost its end.

    Attributes
    ----------
    attrs
        Everything the file says of itself: backbone, weights, key, preprocessing, versions, seconds.
    files
        What it consists of: itself, and the files that have its rows where these are too many for one.
    classes
        Names of the classes; labels are indices into it. Where these are not classes, texts that `targets` reads.
    quarantine
        The images that could not be used: path, sha256 (empty when unreadable), code, message.
    salvaged
        Something had to be read past a checksum of HDF5's own that is wrong; other readers will refuse it.

    Raises
    ------
    DamagedError
        Not HDF5, or not what was written.
    OutdatedError
        A format of an earlier version.
    CacheError
        Missing, unreadable, not a feature file, or of a newer format.
    """

    attrs: dict[str, Any]
    classes: tuple[str, ...]
    quarantine: list[tuple[str, ...]]
    salvaged = False
    _beside: Pieces | None = None

    def __init__(self, path: str | Path, *, cut: bool = False) -> None:
        self.path = Path(path)
        self.files = [self.path]
        self._datasets: dict[str, Any] = {}  # that were looked up, which takes h5py longer than to read some rows
        with ExitStack() as undo:
            self._file = _open(self.path, cut, undo)
            try:
                self._read_header()
            except (OSError, RuntimeError, KeyError, ValueError, TypeError):
                raise self._damaged(_UNREADABLE) from None
            if listed := json.loads(self.attrs.get(FILES, "[]")):
                self._beside = self._together(listed, cut, undo)
            self._open = undo.pop_all()

    def _read_header(self) -> None:
        self.attrs = {name: _plain(self._attribute(name)) for name in self._file.attrs}
        if self.attrs.get("format") != FORMAT:
            if "header_sha256" in self.attrs:
                raise self._damaged("its header is not what was written")
            if self.attrs.get("format_version") != 1:
                raise CacheError(f"'{self.path}' is not a feature file of tlcache.")
        version = self.attrs.get("format_version")
        found = f"'{self.path}' has format version {version}; this tlcache reads version {FORMAT_VERSION}."
        if not isinstance(version, int) or version > FILES_VERSION:
            raise CacheError(f"{found} Upgrade tlcache.")
        if version < FORMAT_VERSION:
            raise OutdatedError(f"{found} Extract again.")
        self.classes = _decode(self._dataset("classes")[:])
        self.quarantine = self._read_quarantine()
        stated, header = self.attrs.pop("header_sha256", ""), (self.attrs, self.classes, self.quarantine)
        if all(stated != _hash_header(*header, encoding) for encoding in _ENCODINGS):
            raise self._damaged("its header is not what was written")

    def _together(self, listed: Sequence[tuple[str, int]], cut: bool, undo: ExitStack) -> Pieces:
        """Open the files that have the rows; those that are damaged are named, or what is left of them is taken."""
        readers, lost, counts = list[Read](), list[str](), [rows for _, rows in listed]
        for (place, rows), start in zip(listed, itertools.accumulate(counts, initial=0), strict=False):
            read, why = self._piece(place, rows, cut, undo)
            readers.append(read)
            if why:
                lost.append(f"'{place}' {why}: {_named(start, rows)}")
        if lost and not cut:
            folder = (self.path.parent / listed[0][0]).parent
            raise self._damaged("; ".join(lost)) if folder.is_dir() else self._alone(folder.name)
        return Pieces(counts, readers)

    def _piece(self, place: str, rows: int, cut: bool, undo: ExitStack) -> tuple[Read, str]:
        """Open one of the files that have the rows, and say what is wrong with it; all of its rows may be lost."""
        if not is_piece(place):
            raise self._damaged(f"it names '{place}' as one of its files")
        path, file = self.path.parent / place, None
        with suppress(CacheError):
            file = undo.enter_context((open_remains if cut else FeatureFile)(path))
        if file and (file.attrs.get(NAME), len(file)) == (path.name, rows):
            self.files.append(path)
            return partial(self._read_piece, file), ""
        if file:
            return self._lost, "has been replaced by another file"
        return self._lost, "is damaged" if path.exists() else "is missing"

    def _alone(self, folder: str) -> DamagedError:
        """Return what to say where the folder of its files is not beside it."""
        own, told = pieces_folder(self.path), "Copy or move that folder here, too; where it is gone, extract again."
        if own.is_dir():
            name = folder.removesuffix(SUFFIX)
            told = f"Give '{self.path.name}' and '{own.name}' their names back: '{name}.h5' and '{folder}'."
        return DamagedError(f"'{self.path}' has its rows in the folder '{folder}', which is missing beside it. {told}")

    def _read_piece(self, file: FeatureFile, name: str, block: slice) -> NDArray[Any]:
        values = file._column(name, block)
        self.salvaged = self.salvaged or file.salvaged
        return values

    def _lost(self, name: str, block: slice) -> NDArray[Any]:
        """Return rows of a file that is gone: zeros, which their checksum then tells."""
        stated = self._file[name]
        return np.zeros((block.stop - block.start, *stated.shape[1:]), stated.dtype)

    def _attribute(self, name: str) -> Any:
        """Read an attribute that is stored in place; HDF5 may hang on a damaged heap of strings elsewhere."""
        return self._file.attrs[name] if self._file.attrs.get_id(name).dtype.kind != "O" else None

    def _read_quarantine(self) -> list[tuple[str, ...]]:
        columns = [_decode(self._dataset(f"quarantine/{name}")[:]) for name in QUARANTINE]
        return list(zip(*columns, strict=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._beside) if self._beside else int(self._dataset("features").shape[0])

    def close(self) -> None:
        """Close the HDF5 file; arrays already read stay valid."""
        self._open.close()

    @property
    def label(self) -> str:
        """Its backbone for people, with layer and pooling, as the table of `tlcache extract` has them."""
        made, asked = identity_of(self.attrs), extract_arguments(self.attrs)
        return " ".join(filter(None, (self.attrs["backbone"], asked.get("output"), made.get("pool"))))

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.attrs["dim"])

    @cached_property
    def targets(self) -> Targets | None:
        """What the texts of `classes` say, where they are several labels or a number each; None of classes."""
        return Targets.of(task_of(self.attrs), self.classes)

    @cached_property
    def _bounds(self) -> dict[str, slice]:
        """Where each split lies: rows are sorted by split."""
        edges = list(itertools.accumulate((self.attrs[f"{name}_rows"] for name in SPLITS), initial=0))
        return {name: slice(edges[i], edges[i + 1]) for i, name in enumerate(SPLITS)}

    def split(self, *names: str) -> Split:
        """Read the rows of `train`, `val` or `test`, or of several joined in that order.

        Raises
        ------
        DamagedError, UnknownNameError
            A row is not what was written (rows of other splits are not looked at); no such split.
        """
        unknown = [name for name in names if name not in SPLITS]
        if unknown:
            raise UnknownNameError(closest("split", unknown[0], SPLITS))
        pieces = self._pieces(names)
        features = empty((sum(piece.stop - piece.start for piece in pieces), self.dim))
        known, damaged, start = list[tuple[NDArray[Any], ...]](), 0, 0
        for block in itertools.chain.from_iterable(_cut(piece, self.dim) for piece in pieces):
            part = self._rows(block)
            known.append(tuple(part.columns[name] for name in ("labels", "rows/path", "rows/group")))
            damaged += int((~part.intact).sum())
            features[start : start + len(part.intact)] = part.features
            start += len(part.intact)
        if damaged:
            raise self._damaged(f"rows that are not what was written: {damaged:,}")
        empty_columns = np.empty(0, np.int64), np.empty(0, "S1"), np.empty(0, "S1")
        labels, paths, groups = map(np.concatenate, zip(*(known or [empty_columns]), strict=True))
        return Split(features, labels, Texts(paths), Texts(groups), targets=self.targets)

    def _pieces(self, names: Sequence[str]) -> list[slice]:
        """Return where these splits lie, neighbours in one piece."""
        pieces: list[slice] = []
        for block in (self._bounds[name] for name in names):
            if pieces and pieces[-1].stop == block.start:
                block = slice(pieces.pop().start, block.stop)
            pieces.append(block)
        return pieces

    def seconds(self) -> NDArray[np.float64]:
        """Return what all rows cost when they were made: float64 (4,), in the order of `STAGES`."""
        return np.array([self.attrs[stage] for stage in STAGES])

    def hashes(self) -> NDArray[np.bytes_]:
        """Return the sha256 of every row's image, (N,) of `S64`; of use only for rows that are intact."""
        return self._column("rows/sha256", slice(0, len(self)))

    def paths(self) -> Texts:
        """Return the path of every row; of use only for rows that are intact."""
        return Texts(self._column("rows/path", slice(0, len(self))))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """What the table of its images says of them beside their labels: the names of its other columns."""
        return tuple(self._column_hashes)

    @cached_property
    def _column_hashes(self) -> dict[str, str]:
        return dict(native(json.loads(self.attrs.get(ATTRIBUTE, "[]"))))

    def column(self, name: str) -> Values:
        """Return one of `columns` for all rows (n,): float64, NaN where nothing is known, or UTF-8.

        Raises
        ------
        DamagedError
            It is not what was written.
        """
        values = self._column(place_of(name), slice(0, len(self)))
        if digest_of(values) != self._column_hashes[name]:
            raise self._damaged(f"its column '{name}' is not what was written")
        return values

    def check_columns(self) -> None:
        """Compare `columns` with their hashes; raises DamagedError."""
        for name in self.columns:
            self.column(name)

    def split_numbers(self) -> NDArray[np.uint8]:
        """Return the split of every row, an index into `SPLITS`: uint8 (N,)."""
        return np.repeat(np.arange(len(SPLITS), dtype=np.uint8), [self.attrs[f"{name}_rows"] for name in SPLITS])

    def overview(self) -> Overview:
        """Return what the dataset was understood to be."""
        return Overview.of(self.attrs, self._column("labels", slice(0, len(self))), self.classes)

    def stored(self) -> NDArray[np.int32]:
        """Return width and height in pixels and frames of every image: int32 (n, 3)."""
        whole = slice(0, len(self))
        return np.stack([self._column(f"rows/{name}", whole) for name in _STORED], axis=1)

    def features(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the embeddings of some rows, float32 (n, dim), in the given order."""
        ranked, back = np.unique(rows, return_inverse=True)
        block = slice(int(ranked[0]), int(ranked[-1]) + 1)  # a slice and a pick: HDF5's point selection is far slower
        return self._embeddings(block)[ranked - block.start][back]

    def is_constant(self) -> bool:
        """Return whether all rows are equal up to rounding; no more are read than up to the first difference."""
        first = self._embeddings(slice(0, 1))
        least = 1e-6 * np.abs(first).max(initial=0)
        blocks = _blocks(len(self), self.dim)
        equal = all(np.abs(self._embeddings(block) - first).max() <= least for block in blocks)
        return equal and len(set(self.hashes())) > 1

    def intact(self) -> Iterator[tuple[slice, NDArray[np.bool_]]]:
        """Check every row, a block at a time: yield the block and, per row, whether it is what was written."""
        return ((block, self._rows(block).intact) for block in _blocks(len(self), self.dim))

    def blocks(self) -> Iterator[dict[str, Any]]:
        """Yield all rows, a block at a time: `path`, `sha256`, `group` (texts), `label`, `split`, ..., `features`.

        Raises
        ------
        DamagedError
            A row is not what was written.
        """
        for block in _blocks(len(self), self.dim):
            rows = self._rows(block)
            if not rows.intact.all():
                raise self._damaged(f"rows that are not what was written, among {block.start:,} to {block.stop:,}")
            columns = {name.removeprefix("rows/"): column for name, column in rows.columns.items()}
            texts = {name: _decode(columns[name]) for name in ("path", "sha256", "group")}
            yield {**columns, **texts, "label": columns["labels"], "features": rows.features}

    def _rows(self, block: slice) -> _Rows:
        columns = {name: self._column(name, block) for name in _ROW}
        features, expected = self._column("features", block), self._column(CRC, block)
        intact = _checksums(features, [columns[name] for name in _ROW]) == expected
        return _Rows(features.astype(np.float32, copy=False), columns, intact)

    def _embeddings(self, block: slice) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._column("features", block).astype(np.float32, copy=False)
        return found

    def _column(self, name: str, block: slice) -> NDArray[Any]:
        """Read rows of a dataset; where HDF5 refuses a damaged chunk, take what bytes there are."""
        if self._beside:
            return self._beside.read(name, block)
        dataset = self._dataset(name)
        try:
            values: NDArray[Any] = dataset[block]
        except (OSError, RuntimeError):
            self.salvaged, values = True, salvaged(dataset, block)
        if len(values) != block.stop - block.start:
            raise self._damaged(f"'{name}' has {len(dataset)} rows")
        return values

    def _dataset(self, name: str) -> Any:
        """Return a dataset that really lies in this file: no links elsewhere, no size beyond what is stored."""
        if name in self._datasets:
            return self._datasets[name]
        try:
            link = self._file.get(name, getlink=True)
            found = self._file[name] if isinstance(link, h5py.HardLink) else None
        except (OSError, RuntimeError, KeyError):
            raise self._damaged(f"'{name}' cannot be read") from None
        if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
            raise self._damaged(f"it has no usable dataset '{name}'")
        if found.nbytes > 4 * self._stored_bytes + (1 << 20):
            raise self._damaged(f"it claims more data in '{name}' than the file holds")
        self._datasets[name] = found
        return found

    @cached_property
    def _stored_bytes(self) -> int:
        return int(self._file.id.get_filesize())

    def _damaged(self, why: str) -> DamagedError:
        return DamagedError(f"'{self.path}' is damaged ({why}). {_MEND}")


def open_features(path: str | Path) -> FeatureFile:
    """Open a feature file; see `FeatureFile`.

    Examples
    --------
    >>> with open_features(feature_file) as features:
    ...     train = features.split("train")
    >>> train.features.shape[1] == features.attrs["dim"]
    True
    """
    return FeatureFile(path)


def open_remains(path: Path) -> FeatureFile:
    """Open a feature file, or what is left of one that has lost its end; errors as of `FeatureFile`."""
    try:
        return FeatureFile(path)
    except DamagedError as error:
        with suppress(CacheError):
            return FeatureFile(path, cut=True)
        raise error


def _open(path: Path, cut: bool, opened: ExitStack) -> h5py.File:
    try:
        source = opened.enter_context(Padded(path)) if cut else path
        return opened.enter_context(h5py.File(source, "r", locking=False))  # what is there is not written to
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise CacheError(f"Cannot open the feature file '{path}': {os.strerror(error.errno).lower()}.") from None
        raise DamagedError(f"'{path}' is damaged ({_UNREADABLE}). {_MEND}") from None


@dataclass(frozen=True)
class _Rows:
    features: NDArray[np.float32]
    columns: dict[str, NDArray[Any]]
    intact: NDArray[np.bool_]


def _chunk_rows(dim: int) -> int:
    return max(1, _CHUNK_BYTES // (4 * dim))


def _blocks(n: int, dim: int) -> Iterator[slice]:
    step = _chunk_rows(dim)
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _checksums(features: NDArray[Any], columns: Sequence[NDArray[Any]]) -> NDArray[np.uint32]:
    """Return the crc32 of each row: the bytes of its columns in the order of `_ROW`, then of its features."""
    n = len(features)
    known = [np.ascontiguousarray(column).view(np.uint8).reshape(n, column.dtype.itemsize) for column in columns]
    stored = np.ascontiguousarray(features, features.dtype.newbyteorder("<"))
    pairs = zip(np.concatenate(known, axis=1), stored, strict=True)
    return np.array([zlib.crc32(values, zlib.crc32(row)) for row, values in pairs], np.uint32)


def _hash_header(
    attrs: Mapping[str, Any], classes: Sequence[str], quarantine: Sequence[tuple[str, ...]], encoding: str = "utf-8"
) -> str:
    return hash_json({"attributes": attrs, "classes": classes, "quarantine": quarantine}, encoding)


def _cut(piece: slice, dim: int) -> Iterator[slice]:
    """Return a slice in parts that are read at once, of some 64 MB, and of short embeddings a part that is checked."""
    parts = blocks(piece.stop - piece.start, max(_chunk_rows(dim), min(64 * _chunk_rows(dim), _AT_ONCE)))
    return (slice(piece.start + part.start, piece.start + part.stop) for part in parts)


def _named(start: int, count: int) -> str:
    return f"row {start:,}" if count == 1 else f"rows {start:,} to {start + count - 1:,}"


def _decode(column: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(os.fsdecode(text) for text in column)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return os.fsdecode(value)
    return value.item() if isinstance(value, np.generic) else value
