"""Hashes of images as bytes, and where their rows are: what a dictionary of texts would say, in a tenth of the room."""

import random
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tlcache.cache.index import Index
from tlcache.cache.shards import Shard, find_shards, write_shard
from tlcache.datasets.dataset import dataset_of
from tlcache.datasets.folder import open_folder
from tlcache.datasets.hashes import Hashes, Places
from tlcache.datasets.layout import Layout
from tlcache.datasets.source import Listing
from tlcache.datasets.splits import Row
from tlcache.extraction.job import EmbedResult, Known
from tlcache.extraction.rows import assemble
from tlcache.inventory.entries import list_cache

A, B, C = "0" * 63 + "a", "ab" * 32, "ab" * 31 + "ff"  # the last two begin alike
GIVEN = [A, "", B, "no hash", "AB" * 32, C, "longer " * 20]


def places_of(*parts: list[str]) -> Places:
    """Return places of parts, each a source of its own, in order."""
    places = Places()
    for source, part in enumerate(parts):
        places.add(Hashes.of(part), source, np.arange(len(part)))
    return places


def test_hashes_are_those_that_were_given() -> None:
    given = [A, "", B, C]
    hashes = Hashes.of(given)
    assert (hashes == given, hashes == given[:3], hashes == Hashes.of(given), list(hashes)) == (
        True,
        False,
        True,
        given,
    )
    assert (hashes[0], hashes[np.int64(1)], hashes[-1], hashes[1:3] == ["", B]) == (A, "", C, True)
    assert hashes[np.array([3, 0])] == [C, A]
    assert (hashes.stored.dtype, hashes.stored.tolist()) == (np.dtype("S64"), [each.encode() for each in given])
    assert Hashes.of(hashes.stored) == given
    assert (list(Hashes.of([])), repr(Hashes.of([A]))) == ([], repr([A]))


def test_what_is_no_hash_is_told_from_others() -> None:
    hashes = Hashes.of(GIVEN)
    assert [hashes[row] for row in (0, 1, 2, 5)] == [A, "", B, C]
    assert len({*hashes}) == len(GIVEN)
    assert Hashes.of(GIVEN[::-1]) == [*hashes][::-1]


def test_places_are_a_dictionary() -> None:
    places = places_of([A, B], [B, C, "no hash"])
    assert (dict(places)[A], places[B], places[C], places["no hash"]) == ((0, 0), (0, 1), (1, 1), (1, 2))
    assert (len(places), B in places, "ab" * 30 + "abcd" in places, "" in places, 7 in places) == (
        4,
        True,
        False,
        False,
        False,
    )
    assert places.of([C, "", A, "ff" * 32]).tolist() == [[1, 1], [-1, -1], [0, 0], [-1, -1]]
    with pytest.raises(KeyError):
        places["ff" * 32]
    places.drop([B])
    places.add(Hashes.of([B, A]), 2, np.array([7, 8]))
    assert (places[B], places[A], len(places)) == ((2, 7), (0, 0), 4)
    assert (len(Places()), list(Places()), A in Places(), Places().of([A]).tolist()) == (0, [], False, [[-1, -1]])


@pytest.mark.parametrize("seed", range(5))
def test_many_parts_one_after_the_other(seed: int) -> None:
    pick, expected, places = random.Random(seed), dict[str, tuple[int, int]](), Places()
    for source in range(12):
        part = [f"{pick.randrange(4) * 2**200 + 1 + pick.randrange(60):064x}" for _ in range(pick.randrange(20))]
        rows = np.array([pick.randrange(1000) for _ in part], np.int64)
        places.add(Hashes.of(part), source, rows)
        for sha256, row in zip(part, rows.tolist(), strict=True):
            expected.setdefault(sha256, (source, row))
        if source % 3 == 0 and expected:
            gone = pick.sample(sorted(expected), min(3, len(expected)))
            places.drop(gone)
            expected = {sha256: place for sha256, place in expected.items() if sha256 not in gone}
    assert dict(places) == expected
    asked = [*expected, "1" * 64]
    assert places.of(asked).tolist() == [list(expected.get(sha256, (-1, -1))) for sha256 in asked]


def test_threads_that_ask_at_once_get_the_same() -> None:
    parts = [[f"{part:032x}{row:032x}" for row in range(300)] for part in range(40)]
    for _ in range(5):
        places = places_of(*parts)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda part, known=places: [known.get(each) for each in part], parts))
        assert found == [[(source, row) for row in range(300)] for source in range(40)]


def test_known_of_several_places() -> None:
    known = Known(places_of([A]), frozenset([B]))
    assert (A in known, B in known, C in known, len(known), {*known}) == (True, True, False, 2, {A, B})


ROWS = 10_000


def test_memory_of_a_row_that_is_looked_up_and_put_in_order(tmp_path: Path) -> None:
    listed = [Row(f"{row:09d}.png", "ab"[row % 2]) for row in range(ROWS)]
    dataset = dataset_of(None, Listing("many", "many", open_folder(tmp_path), listed), Layout())
    digests = np.random.default_rng(0).integers(1, 256, (ROWS, 32), np.uint8)
    for start in range(0, ROWS, ROWS // 10):
        some = Hashes(digests[start : start + ROWS // 10])
        shape = np.full((len(some), 3), (20, 30, 1), np.int32)
        write_shard(tmp_path, Shard(some.stored, np.ones((len(some), 2), np.float32), shape, [], np.zeros(4), "cpu"))
    tracemalloc.start()
    try:
        index = Index("key")
        index.add_shards(tmp_path)
        rows = assemble(dataset, EmbedResult(Hashes(digests)), index, 0)
        live, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(rows) == ROWS
    assert rows.columns["index"].max() == ROWS // 10 - 1
    assert live / ROWS < 180


def test_ls_counts_the_rows_of_parts(tmp_path: Path) -> None:
    parts = tmp_path / "features" / "photos" / ".tiny-123456789012.parts"
    parts.mkdir(parents=True)
    for number in range(3):
        some = Hashes.of([f"{number:063x}{row:x}" for row in range(4)])
        write_shard(
            parts, Shard(some.stored, np.ones((4, 5), np.float32), np.ones((4, 3), np.int32), [], np.zeros(4), "")
        )
    (entry,) = list_cache(tmp_path / "features")
    assert (entry.rows, entry.dim, len(find_shards(parts))) == (12, 5, 3)
