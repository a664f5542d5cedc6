"""Sources of images and of backbones that are not tlcache's own, on their way to the process that extracts."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tlcache.backbones import sources
from tlcache.datasets import dataset
from tlcache.errors import DataError, first_line

__all__ = ["pack_sources", "unpack_sources"]

_TABLES: tuple[Any, ...] = (dataset, sources)  # each with its `SOURCES`


def pack_sources() -> str:
    """Return the sources from outside the package as text; empty where there are none, as usual.

    Raises
    ------
    DataError
        Another process could not import them.
    """
    outside = [[each for each in table.SOURCES if not _is_ours(each)] for table in _TABLES]
    if not any(outside):
        return ""
    with _importable():
        return base64.b64encode(pickle.dumps(outside)).decode()


def unpack_sources(packed: str) -> None:
    """Add sources to the tables of this process.

    Raises
    ------
    DataError
        They cannot be imported here.
    """
    if not packed:
        return
    with _importable():
        outside = pickle.loads(base64.b64decode(packed))
    for table, added in zip(_TABLES, outside, strict=True):
        table.SOURCES = (*table.SOURCES, *added)


@contextmanager
def _importable() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever importing somebody's module raises
        raise DataError(
            f"A source cannot be imported by the process that extracts ({first_line(error)}). "
            "Define its class in a module, not in a function, a script or a notebook."
        ) from None


def _is_ours(source: object) -> bool:
    return type(source).__module__.startswith("tlcache.")
