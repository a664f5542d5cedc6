"""The images of embeddings that were made elsewhere: of a dataset, or as the file itself says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tlcache.cache.find import find_dataset
from tlcache.datasets.columns import roles_of
from tlcache.datasets.dataset import Dataset, dataset_of, load_dataset, reopen
from tlcache.datasets.labels import is_missing
from tlcache.datasets.layout import Layout
from tlcache.datasets.manifest import MANIFEST, rows_of
from tlcache.datasets.source import Listing
from tlcache.datasets.table import Table, read_table
from tlcache.errors import DataError
from tlcache.exchange.matching import check_once, places_of
from tlcache.exchange.readers import Found
from tlcache.text import counted

__all__ = ["Matched", "match"]


@dataclass(frozen=True)
class Matched:
    """A dataset and its embeddings.

    Parameters
    ----------
    dataset
        The images.
    rows
        (N,) the row of each image in the file.
    name_of
        Row -> what to call it in a message.
    notes
        How they were matched, where that is not plain.
    """

    dataset: Dataset
    rows: Sequence[int]
    name_of: Callable[[int], str]
    notes: tuple[str, ...] = ()


def match(path: Path, found: Found, data: str | Path | None, folder: Path, layout: Layout) -> Matched:
    """Return the images that the rows of a file are of.

    Raises
    ------
    DataError
        Rows and images are not the same, or cannot be told to be.
    """
    roles = roles_of(path, list(found.columns), {} if data else layout.columns)
    ids = found.columns.get(roles.get("path", ""))
    if data is None:
        return _of_file(path, found, roles, ids, layout)
    dataset, order = _of_data(str(data), folder, layout)
    if ids is None:
        rows = _in_order(path, found, dataset, order)
        first, last = order[0], order[-1]
        note = f"'{path}' has no ids. Its first row is taken as {first}, its last as {last}, in the order of '{data}'."
        return Matched(dataset, rows, lambda row: order[row], (note,))
    return Matched(dataset, places_of(ids, dataset.paths, str(path), str(data)), lambda row: ids[row])


def _in_order(path: Path, found: Found, dataset: Dataset, order: Sequence[str]) -> list[int]:
    if len(order) != len(found.values):
        raise DataError(
            f"'{path}' has {counted(len(found.values), 'row')} without ids, and '{dataset.data}' has "
            f"{counted(len(order), 'image')}: which is which cannot be told. Adopt a file with ids (a column of "
            "paths in .parquet, .csv or .npz), or give the list that the rows were made of."
        )
    places = {each: row for row, each in enumerate(order)}
    return [places[each] for each in dataset.paths]


def _of_data(data: str, folder: Path, layout: Layout) -> tuple[Dataset, Sequence[str]]:
    """Return a dataset, and its paths as they are listed: by the lines of a table, else by themselves.

    The images of a table need not be here.
    """
    place, name, layout = find_dataset(data, None, layout.arguments, folder)
    if not MANIFEST.takes(place):
        dataset = load_dataset(place, name, layout)
        return dataset, sorted(dataset.paths)
    table, path = read_table(Path(place)), Path(place)
    try:
        listing = MANIFEST.of(table, layout)
    except DataError:  # no image is there, or the table cannot be used, which is told by what comes now
        listed = rows_of(table, layout)
        nowhere = reopen(f"given:{path.absolute()}")
        listing = Listing(path.stem, str(path.absolute()), nowhere, listed.rows, listed.passed_over, listed.notes)
    dataset = dataset_of(name, listing, layout)
    kept = {*dataset.paths}
    return dataset, [row.path for row in listing.rows if row.path in kept]


def _of_file(path: Path, found: Found, roles: dict[str, str], ids: Sequence[str] | None, layout: Layout) -> Matched:
    """Return the dataset that a file describes by itself."""
    digits = len(str(len(found.values)))
    notes = () if ids else (f"The rows of '{path}' have no ids; they are called by their numbers, from 0 on.",)
    ids = ids or [f"{row:0{digits}d}" for row in range(len(found.values))]
    check_once(ids, str(path))
    columns = {name: found.columns[roles[name]] for name in ("label", "split", "group") if name in roles}
    if all(map(is_missing, columns.get("label", ()))):
        layout, notes = replace(layout, unlabelled=True), (f"'{path}' has no labels.", *notes)
    table = Table(path, ["path", *columns], range(1, len(ids) + 1), [ids, *columns.values()])
    listed = rows_of(table, _by_these(layout, columns))
    images = reopen(str(found.said.get("source") or f"given:{path.absolute()}"))
    name = str(found.said.get("dataset") or path.stem)
    listing = Listing(name, str(path.absolute()), images, listed.rows, listed.passed_over, (*notes, *listed.notes))
    dataset = dataset_of(None, listing, layout)
    places = {each: row for row, each in enumerate(ids)}
    return Matched(dataset, [places[each] for each in dataset.paths], lambda row: ids[row])


def _by_these(layout: Layout, columns: Collection[str]) -> Layout:
    """Return a layout of a table whose columns are called as what they are."""
    if layout.unlabelled:
        return replace(layout, path_column="path", label_column=None, split_column=None, group_column=None)
    named = {role: role if role in columns else None for role in ("label", "split", "group")}
    label, split, group = named.values()
    return replace(layout, path_column="path", label_column=label, split_column=split, group_column=group)
