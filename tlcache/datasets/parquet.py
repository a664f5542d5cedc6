"""Parquet files with images in a column, as Hugging Face writes data sets, read by pyarrow alone."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

from tlcache.datasets.columns import find_columns
from tlcache.datasets.hub import files_of, is_of_hub
from tlcache.datasets.layout import Layout
from tlcache.datasets.manifest import rows_of
from tlcache.datasets.parquet_rows import (
    features_of,
    forget_rows,
    has_images,
    names_of_rows,
    open_file,
    open_rows,
)
from tlcache.datasets.places import there
from tlcache.datasets.remote import is_url
from tlcache.datasets.shards import is_pattern, name_of, pattern_of, shards_of, splits_of
from tlcache.datasets.source import Form, Images, Listing, Source
from tlcache.datasets.table import Table, column_of
from tlcache.datasets.texts import Texts, filled
from tlcache.errors import DataError
from tlcache.keys import some

__all__ = ["PARQUET"]

_PATH = "image of the row"  # the column of names, which is called as no column of a file is
_TEXTS = ("string", "large_string", "bool", "double", "float", "int8", "int16", "int32", "int64", "uint8", "uint16")


class Parquet(Source):
    """A source: parquet files in which a column has the images and others what is known of them."""

    forms = (
        Form("parquet", "--data photos.parquet", "a column of images, one of labels: a Hugging Face data set on disk"),
        Form("Hugging Face", "--data hf:org/photos", "a data set of parquet files in the local cache of Hugging Face"),
        Form("parquet", "--data data/", "train-00000-of-00002.parquet, test-00000-of-00001.parquet: files by split"),
    )

    def takes(self, data: str) -> bool:
        """Return whether there is such a file, by its ending, a pattern of such, or a folder of such files alone.

        One file here without any images is a manifest.
        """
        if is_of_hub(data):
            return True
        given = pattern_of(data, ".parquet")
        if not given.lower().endswith(".parquet"):
            return False
        return is_pattern(given) or (there(given) and (is_url(given) or has_images(given)))

    def find(self, data: str, layout: Layout) -> Listing:
        """Return the rows of all files; names of classes are those that the files have for their numbers."""
        given = _given(data)
        forget_rows()
        paths = shards_of(given)
        table, named = _table(paths, splits_of(paths, layout))
        listed = rows_of(table, replace(layout, path_column=_PATH, label_column=_label(table, named, layout)))
        return Listing(self.name(data), given, self.images(data), listed.rows, listed.passed_over, listed.notes)

    def images(self, data: str) -> Images:
        """Return the images in it, whatever their labels."""
        return open_rows(_given(data))

    def name(self, data: str) -> str:
        """Return what a dataset is called."""
        return Path(data).stem if is_of_hub(data) else name_of(pattern_of(data, ".parquet"))

    def reopen(self, source: str) -> Images | None:
        """Return the images of parquet files: `parquet:/data/photos.parquet`."""
        return open_rows(source.removeprefix("parquet:")) if source.startswith("parquet:") else None


PARQUET = Parquet()


def _given(data: str) -> str:
    return files_of(data) if is_of_hub(data) else pattern_of(data, ".parquet")


def _table(paths: Sequence[str], splits: Mapping[str, str]) -> tuple[Table, list[str]]:
    """Return what is known of all rows, and the columns of numbered classes."""
    cells, named, count = dict[str, list[str]](), dict[str, None](), 0
    names_of = names_of_rows(paths, splits)
    for path, names in names_of.items():
        file = open_file(path)
        features, kinds = features_of(file), {field.name: _kind(field.type) for field in file.schema_arrow}
        if len(kinds) < len(file.schema_arrow):
            again = some([name for name, times in Counter(file.schema_arrow.names).items() if times > 1])
            raise DataError(f"'{path}' has several columns of one name: {again}. Give each a name of its own.")
        classes = {name: each["names"] for name, each in features.items() if _is_classes(each)}
        named |= dict.fromkeys(classes)
        if not names:
            continue
        own: dict[str, Iterable[str]] = {"split": repeat(splits[path], len(names))} if path in splits else {}
        own |= {name: _cells(file, name, classes.get(name)) for name, kind in kinds.items() if kind in _TEXTS}
        for name, column in own.items():
            filled(cells.setdefault(name, []), count).extend(column)
        count += len(names)
    where = paths[0] if len(paths) == 1 else posixpath.dirname(paths[0])
    if not count:
        raise DataError(f"'{where}' has no rows.")
    columns = [*(filled(column, count) for column in cells.values()), Texts.joined(names_of.values())]
    return Table(where, [*cells, _PATH], range(1, count + 1), columns), list(named)


def _kind(of: Any) -> str:
    """Return what the cells of a column are; of categories, as pandas writes them, what these are."""
    return str(getattr(of, "value_type", of) if str(of).startswith("dictionary") else of)


def _is_classes(feature: Any) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and bool(feature.get("names"))


def _cells(file: Any, name: str, classes: Sequence[str] | None) -> list[str]:
    return column_of(_cell(value, classes) for value in file.read([name])[name].to_pylist())


def _cell(value: Any, classes: Sequence[str] | None) -> str:
    """Return a cell as a text; of numbered classes the name, and nothing for -1, which stands for an unknown one."""
    if classes is not None and isinstance(value, int):
        return classes[value] if 0 <= value < len(classes) else ""
    return "" if value is None else str(value)


def _label(table: Table, named: Sequence[str], layout: Layout) -> str | None:
    """Return the column of labels: as asked, or the one of numbered classes; None where names are to tell it."""
    if layout.label_column or layout.unlabelled or not named:
        return layout.label_column
    try:
        find_columns(table, replace(layout, path_column=_PATH).columns, lambda _: False)
    except DataError:
        if len(named) > 1:
            raise DataError(
                f"'{table.path}' has several columns of classes: {some(named)}. Say which: --label-column {named[0]}."
            ) from None
        return named[0]
    return None
