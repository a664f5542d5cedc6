"""A table of images that need not be labelled."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tlcache.datasets.columns import find_images, join_classes
from tlcache.datasets.labels import is_missing, whole_numbers
from tlcache.datasets.layout import Layout
from tlcache.datasets.lookup import locate
from tlcache.datasets.table import read_table
from tlcache.errors import DataError
from tlcache.tasks import MULTILABEL

__all__ = ["read_paths"]


def read_paths(path: Path) -> list[tuple[str, str]]:
    """Return the paths that a table lists, from the current folder, and the labels; empty where it says none.

    Raises
    ------
    DataError
        With the line of a fault, or because no listed image is there.
    """
    table, _ = join_classes(read_table(path), {}, MULTILABEL)  # of which any row is sound
    if not table.lines:
        raise DataError(f"'{path}' lists no image.")
    image, label = find_images(table)
    places = _places(path, table.cells[image], table.lines)
    cells = [""] * len(places) if label is None else table.cells[label]
    labels, _ = whole_numbers(["" if is_missing(cell) else cell for cell in cells], "class")
    return list(zip(places, labels, strict=True))


def _places(table: Path, written: Sequence[str], lines: Sequence[int]) -> list[str]:
    """Return where listed images are: below the table's folder as `locate` finds them, or just where the paths say."""
    start = partial(os.path.join, os.path.dirname(table))  # noqa: PTH120  empty of the current folder

    def where(row: int) -> str:
        return f"{table}:{lines[row]}"

    try:
        return list(map(start, locate(written, where, table.parent, table.parent, Layout())[0]))
    except DataError:
        places = list(map(start, written))
        if not any(map(os.path.lexists, places)):
            raise
        return places
