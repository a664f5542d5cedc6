"""Rows of a listing in columns: what goes in comes out, in order, and costs little memory."""

import os
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlcache.datasets.contents import Member, gathered
from tlcache.datasets.dataset import Dataset, dataset_of, load_dataset
from tlcache.datasets.folder import open_folder
from tlcache.datasets.layout import Layout
from tlcache.datasets.rows import Names, Rows
from tlcache.datasets.source import Listing
from tlcache.datasets.splits import SPLITS, Row
from tlcache.datasets.table import read_table

ROWS = [
    Row("b.png", "ant", "test", "nest 1"),
    Row("ä/\udce4.png", "bee", cells=(("site", "north"),)),
    Row("a.png", "ant", "train", "nest 1", cells=(("age", "3"), ("site", "south"))),
    Row("c.png", "", "val"),
]
MANY = 40_000


def made(rows: int) -> Iterator[Row]:
    return (Row(f"class_{row % 10}/{row:012d}.png", f"class_{row % 10}") for row in range(rows))


def bytes_a_row(make: Callable[[], Any]) -> tuple[float, float]:
    """Return what is allocated for `MANY` rows at most, and what stays, by row."""
    tracemalloc.start()
    try:
        kept = make()
        live, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(kept) == MANY
    return peak / MANY, live / MANY


def test_rows_are_those_that_were_given() -> None:
    rows = Rows.of(iter(ROWS))
    assert [row._replace(cells=()) for row in rows] == [row._replace(cells=()) for row in ROWS]
    assert [dict(row.cells) for row in rows] == [
        {"site": "", "age": ""},
        {"site": "north", "age": ""},
        {"site": "south", "age": "3"},
        {"site": "", "age": ""},
    ]
    assert [rows[number] for number in range(4)] == list(rows) == [*rows[:2], *rows[2:]]
    assert Rows.of(rows) is rows
    assert len(Rows.of([])) == len([*Rows.of([])]) == 0


def test_rows_are_picked_renamed_and_put_in_order() -> None:
    rows = Rows.of(ROWS)
    assert rows.picked(np.array([2, 0])).labels.names == ("ant",)
    assert rows.renamed(labels={"bee": "ant"}).labels.counts() == {"ant": 3, "": 1}
    assert [row.path for row in rows.ordered(SPLITS)] == ["a.png", "ä/\udce4.png", "c.png", "b.png"]
    assert [*rows.ordered(SPLITS).cells["site"]] == ["south", "north", "", ""]


def test_names_are_numbered_as_one_likes() -> None:
    names = Names(np.array([1, 0, 1], np.int32), ["b", "a"])
    assert (list(names), names[2], names.numbered({"a": 7}, -1).tolist()) == (["a", "b", "a"], "a", [7, -1, 7])
    assert names[np.array([0, 2])].names == ("a",)


def test_paths_of_a_split_are_in_order_whatever_the_source_has(tmp_path: Path) -> None:
    listed = [Row(path, "ab"[place % 2]) for place, path in enumerate(["b-1", "b/1", "a", "é", "z", "🙂"])]
    dataset = dataset_of(None, Listing("few", "few", open_folder(tmp_path), listed), Layout())
    assert [*dataset.paths] == sorted(row.path for row in listed)


def test_memory_of_a_row_that_is_listed() -> None:
    peak, live = bytes_a_row(lambda: Rows.of(made(MANY)))
    assert peak < 150
    assert live < 50


def test_memory_of_a_line_that_is_read(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text("path,label\n" + "".join(f"{row.path},{row.label}\n" for row in made(MANY)))
    peak, _ = bytes_a_row(lambda: read_table(table).cells[0])
    assert peak < 250


def test_memory_of_a_row_of_a_parquet_file(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    labels = [row.label for row in made(MANY)]
    table = arrow.table({"image": arrow.array([b"image"] * MANY, arrow.binary()), "label": labels})
    parquet.write_table(table, tmp_path / "list.parquet")

    def listed() -> Dataset:
        data = load_dataset(tmp_path / "list.parquet")
        assert data.images.read(data.paths[MANY - 1]) == b"image"  # and where each row is, is known
        return data

    listed()  # imports, which are no rows
    peak, live = bytes_a_row(listed)
    assert peak < 150
    assert live < 60


def test_lines_end_as_systems_have_it(tmp_path: Path) -> None:
    for end in ("\n", "\r\n", "\r"):
        table = tmp_path / "list.csv"
        table.write_bytes(os.fsencode(end.join(["path,label", 'a.png,"ant', 'or bee"', "", "b.png,\u2028wasp"])))
        read = read_table(table)
        assert [*zip(read.lines, zip(*read.cells, strict=True), strict=True)] == [
            (3, ("a.png", f"ant{end}or bee")),
            (5, ("b.png", "wasp")),
        ]


def test_memory_of_a_member_of_an_archive() -> None:
    members = (Member(row.path, number, 10, 10, 0, 0) for number, row in enumerate(made(MANY)))
    peak, live = bytes_a_row(lambda: gathered(members, Counter()).names)
    assert peak < 300
    assert live < 100


def test_of_members_of_one_name_the_last_is_found() -> None:
    names = ["b/2.png", "a.png", "./a.png", "b//2.png", "./", "\udce4.png", "b/"]
    found = gathered((Member(name, number) for number, name in enumerate(names)), Counter())
    assert [*found.names] == ["a.png", "b/", "b/2.png", "\udce4.png"]
    assert [(each.name, each.offset) for name in found.names if (each := found.find(name))] == [
        ("a.png", 2),
        ("b/", 6),
        ("b/2.png", 3),
        ("\udce4.png", 5),
    ]
    assert (found.find("a.pn"), found.find("c.png"), gathered([], Counter()).find("a.png")) == (None, None, None)
