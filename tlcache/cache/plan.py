"""All that a feature file will hold, before it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tlcache.cache.columns import ATTRIBUTE, COLUMNS, as_attribute, place_of
from tlcache.cache.feature_file import QUARANTINE, STAGES
from tlcache.cache.pieces import NAME, piece_name, pieces_folder
from tlcache.heads.rows import blocks
from tlcache.keys import native

__all__ = ["Plan", "RowSource"]

_MOST = 200  # files, all of which a reader has open
_KNOWN = ("path", "sha256", "split", "group", "width", "height", "frames")  # of every row, beside its label


class RowSource(Protocol):
    """What has rows that a feature file is made of."""

    def features(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return some rows, by their numbers: float32 (n, dim)."""
        ...


@dataclass(frozen=True)
class Plan:
    """All that a feature file will hold, its features by reference.

    Parameters
    ----------
    target
        The file to make or replace.
    dim
        Length of an embedding.
    columns
        Per row: `path`, `group` (bytes), `sha256` (bytes, or uint8 (N, 32) as of `Hashes`), `label` (int64),
        `split` (uint8, index into `SPLITS`, ascending),
        `width`, `height`, `frames` (int32, what the image's header says),
        `source` and `index` (which source holds the row, and where in it). Beside them `classes` and
        `quarantine_path`, `quarantine_sha256`, `quarantine_code`, `quarantine_message` (bytes, UTF-8), and per row
        what a table says beside that, as `tlcache.cache.columns.place_of` calls it.
    sources
        Parts (`.safetensors`) and older feature files (`.h5`), or what has the rows itself.
    attrs
        Attributes of the file.
    dtype
        Of the features in it.
    file_bytes
        About how large a file may be; what is more is in several beside it. None: however large it is.
    """

    target: Path
    dim: int
    columns: Mapping[str, NDArray[Any]]
    sources: Sequence[Path | RowSource]
    attrs: Mapping[str, Any]
    dtype: np.dtype[Any] = np.dtype(np.float32)  # noqa: RUF009
    file_bytes: int | None = None

    def __len__(self) -> int:
        return len(self.columns["label"])

    @property
    def row_bytes(self) -> int:
        """What the features of a row take."""
        return self.dim * self.dtype.itemsize

    @property
    def datasets(self) -> dict[str, NDArray[Any]]:
        """What is known of the rows, by its place in the file."""
        others = {name: column for name, column in self.columns.items() if name.startswith(COLUMNS)}
        return {"labels": self.columns["label"], **{f"rows/{name}": self.columns[name] for name in _KNOWN}, **others}

    def parts(self) -> list[Plan]:
        """Return the files that have the rows, where these are too many for one."""
        known = sum(64 if values.ndim == 2 else values.dtype.itemsize for values in self.datasets.values())
        most = max((self.file_bytes or 0) // (self.row_bytes + known + 4), -(-len(self) // _MOST))
        if not self.file_bytes or len(self) <= most:
            return []
        return [self._part(number, rows) for number, rows in enumerate(blocks(len(self), most))]

    def _part(self, number: int, rows: slice) -> Plan:
        """Return the file of some of the rows, which says nothing of images that could not be used."""
        columns = {name: values[rows] for name, values in self.columns.items() if len(values) == len(self)}
        columns |= {f"quarantine_{name}": np.empty(0, "S1") for name in QUARANTINE}
        columns["classes"] = self.columns["classes"]
        others = [name for name, _ in native(json.loads(self.attrs.get(ATTRIBUTE, "[]")))]
        attrs = {**self.attrs, **as_attribute({name: columns[place_of(name)] for name in others})}
        attrs |= {stage: attrs[stage] * len(columns["label"]) / len(self) for stage in STAGES if stage in attrs}
        part = replace(self, columns=columns, attrs=attrs, file_bytes=None)
        name = piece_name(number, self.attrs["key"], part.datasets)
        return replace(part, target=pieces_folder(self.target) / name, attrs={**attrs, NAME: name})
