"""What a table says of images beside their labels, as feature files keep it: numbers or texts, and their hashes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.datasets.labels import is_missing
from tlcache.keys import canonical_json, portable

__all__ = ["ATTRIBUTE", "COLUMNS", "LONGEST", "Values", "as_attribute", "digest_of", "place_of", "values_of"]

COLUMNS = "columns/"  # the group that they lie in
ATTRIBUTE = "columns"  # of a feature file: JSON, name -> hash of the values, in the order of the table
LONGEST = 256  # bytes; longer texts are no categories
Values = NDArray[np.float64] | NDArray[np.bytes_]
_NUMBER = re.compile(r"[+-]?(?!0\d)(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)  # 007 is a name
_COMMA = re.compile(r"[+-]?\d+,\d+")


def values_of(cells: Sequence[str]) -> Values | None:
    """Return a column as float64 (n,), NaN where nothing is known, or as UTF-8; None where its texts are too long.

    >>> values_of(["3", "NaN", "1e2"]), values_of(["B", "007", ""])
    (array([  3.,  nan, 100.]), array([b'B', b'007', b''], dtype='|S3'))
    """
    texts = _with_points(["" if is_missing(cell) else cell for cell in cells])
    known = set(texts) - {""}
    if known and all(map(_NUMBER.fullmatch, known)):
        return np.array([float(text or "nan") for text in texts])
    encoded = [os.fsencode(text) for text in texts]
    return None if max(map(len, encoded), default=0) > LONGEST else np.array(encoded, np.bytes_)


def _with_points(texts: list[str]) -> list[str]:
    """Return numbers with decimal commas, as spreadsheets of half the world have them, with points.

    `1,234` may be a thousand: where all that have a comma have three digits after it, they stay as they are.
    """
    written = [text for text in set(texts) if "," in text]
    plain = all(_COMMA.fullmatch(text) or text.lstrip("+-").isdecimal() for text in set(texts) - {""})
    if not plain or not any(len(text.partition(",")[2]) != 3 for text in written):
        return texts
    return [text.replace(",", ".") for text in texts]


def place_of(name: str) -> str:
    """Return where a column lies in a feature file.

    >>> place_of("site"), place_of("mg/l"), place_of(".")
    ('columns/site', 'columns/mg%2Fl', 'columns/%2E')
    """
    own = str(portable(name)).replace("%", "%25").replace("/", "%2F")
    return f"{COLUMNS}{'%2E' + own[1:] if own.startswith('.') else own}"


def digest_of(values: Values) -> str:
    """Return the sha256 of a column: its type and its bytes."""
    if values.dtype.kind == "S":  # HDF5 gives at least a byte
        values = values.astype(f"S{max(1, values.dtype.itemsize)}")
    return hashlib.sha256(values.dtype.str.encode() + np.ascontiguousarray(values).tobytes()).hexdigest()


def as_attribute(columns: Mapping[str, Values]) -> dict[str, Any]:
    """Return what the header of a feature file says of its columns; nothing where it has none."""
    return (
        {ATTRIBUTE: canonical_json([[name, digest_of(values)] for name, values in columns.items()])} if columns else {}
    )
