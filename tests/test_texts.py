"""What is known of many rows costs bytes, not objects, and says the same as lists of texts did."""

import hashlib
import os
import pickle
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlcache.cache.feature_file import open_features
from tlcache.datasets.splits import check_splits, draw_splits, find_leaks
from tlcache.datasets.tasks import rows_digest
from tlcache.datasets.texts import Texts, picked
from tlcache.extraction.extract import extract
from tlcache.keys import hash_json, hash_rows

NAMES = ("a.png", "", "ä/中.jpg", os.fsdecode(b"not \xff UTF-8"), "a.png")


def test_texts_are_those_that_were_given() -> None:
    texts = Texts.of(NAMES)
    assert (tuple(texts), len(texts), texts[2], texts[-1]) == (NAMES, 5, NAMES[2], "a.png")
    assert (texts[1:3], texts[np.array([3, 0])]) == (NAMES[1:3], (NAMES[3], NAMES[0]))
    assert texts + ("x" * 40,) == (*NAMES, "x" * 40)
    assert (texts == NAMES[:4], texts == "abcde", texts == Texts.of(NAMES), Texts.of([]) == ()) == (
        False,
        False,
        True,
        True,
    )
    assert (Texts.of(texts), NAMES[2] in texts, "b.png" in texts) == (texts, True, False)
    assert pickle.loads(pickle.dumps(texts)) == NAMES  # noqa: S301
    assert picked(NAMES, np.array([4, 1])) == picked(texts, np.array([4, 1])) == ("a.png", "")
    assert repr(texts) == repr(NAMES)


def test_more_than_are_looked_at_at_a_time() -> None:
    names = [f"{number:x}" for number in range(20_000)]
    assert list(Texts.of(names)) == names


@pytest.mark.parametrize("count", [0, 1, 4096, 4097, 10_000])
def test_rows_are_hashed_in_parts_as_they_are_in_one(count: int) -> None:
    rows = [(f'{row}"],[".png', "0" * 4, row % 3, "train", "ä") for row in range(count)]
    assert rows_digest(('"rows":[]', "b"), iter(rows), "classify") == hash_json(
        {"classes": ['"rows":[]', "b"], "rows": rows}
    )
    assert hash_rows({"rows": [], "z": 1, "a": 2}, "rows", rows) == hash_json({"rows": rows, "z": 1, "a": 2})


def test_splits_are_drawn_as_they_were() -> None:
    picks = random.Random(0)
    n = 2000
    labels = np.array([picks.choice([0, 0, 0, 1, 2]) for _ in range(n)])
    groups = [f"g{picks.randrange(150)}" if picks.random() < 0.3 else "" for _ in range(n)]
    sha256 = [f"{picks.randrange(1500):064x}" for _ in range(n)]
    splits = draw_splits(labels, ["train"] * n, groups, sha256, 3)
    assert hashlib.sha256(",".join(splits).encode()).hexdigest()[:16] == "c0fb46d8f7aa3544"


ROWS = 20_000
PATHS = [f"folder/{row:09d}.jpg" for row in range(ROWS)]
HASHES = [f"{row * 7919:064x}" for row in range(ROWS)]


@pytest.mark.parametrize(
    ("most", "work"),
    [
        (160, lambda: draw_splits(np.zeros(ROWS, np.int64), ["train"] * ROWS, [""] * ROWS, HASHES, 0)),
        (90, lambda: find_leaks(PATHS, np.zeros(ROWS, np.int64), ["train"] * ROWS, HASHES)),
        (60, lambda: check_splits(np.zeros(ROWS, np.int64), ["train"] * ROWS, ["a"], [""] * ROWS)),
        (150, lambda: rows_digest((), zip(PATHS, HASHES, strict=True), "classify")),
        (60, lambda: Texts.of(PATHS)),
    ],
)
def test_memory_of_a_row(most: int, work: Callable[[], Any]) -> None:
    tracemalloc.start()
    try:
        work()
        assert tracemalloc.get_traced_memory()[1] / ROWS < most
    finally:
        tracemalloc.stop()


def test_rows_of_a_feature_file_name_their_images_by_texts(photos: Path, tiny_model: Path) -> None:
    path = extract(photos, tiny_model).path
    with open_features(path) as file:
        rows, nobody = file.split("train", "val", "test"), file.split()
        assert (rows.paths, len(nobody), nobody.paths) == (file.paths(), 0, ())
    assert rows.paths.stored.dtype.metadata is None
    chosen = rows.of(np.array([3, 1]))
    assert chosen.paths == (rows.paths[3], rows.paths[1])
    assert (chosen.joined(rows).paths, rows.part(slice(2, 4)).paths) == ((*chosen.paths, *rows.paths), rows.paths[2:4])
