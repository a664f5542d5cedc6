"""HDF5 files of others: which arrays they have, read a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from tlcache.cache.feature_file import FORMAT
from tlcache.errors import DataError

__all__ = ["open_arrays"]


@contextmanager
def open_arrays(path: Path) -> Iterator[dict[str, Any]]:
    """Open an HDF5 file: yield name -> array-like (shape, dtype, slices), of all that lies in it.

    Raises
    ------
    DataError
        It is one of tlcache's own feature files, which need not be adopted.
    OSError, RuntimeError
        It is damaged.
    """
    with h5py.File(path, "r", locking=False) as file:
        if file.attrs.get("format") in (FORMAT, FORMAT.encode()):
            raise DataError(f"'{path}' is a feature file already: put it below the folder of features as it is.")
        found: dict[str, Any] = {}
        file.visititems(lambda name, item: found.update({name: item} if isinstance(item, h5py.Dataset) else {}))
        yield found
