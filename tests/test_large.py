"""Embeddings that a budget of memory has no room for lie on disk: the same heads, and memory that does not grow."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlcache.cache.feature_file import open_features
from tlcache.errors import CacheError
from tlcache.extraction.extract import extract
from tlcache.heads import large
from tlcache.heads.large import empty, within
from tlcache.heads.ncm import Ncm
from tlcache.heads.ridge import Ridge
from tlcache.heads.rows import View
from tlcache.heads.table import HEADS
from tlcache.probing.fit import fit_heads

RANDOM = np.random.default_rng(0)
N, DIM, CLASSES = 3000, 12, 7  # three blocks of rows
Y = RANDOM.integers(0, CLASSES, N)
X = (RANDOM.normal(size=(CLASSES, DIM))[Y] + RANDOM.normal(size=(N, DIM))).astype(np.float32)


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of what lies on disk, where there is next to no budget."""
    shapes, make = list[tuple[int, ...]](), large._on_disk
    monkeypatch.setattr(large, "_on_disk", lambda shape, *more: (shapes.append(shape), make(shape, *more))[1])
    with within(1000):
        yield shapes


@pytest.mark.parametrize("name", ["ridge", "logreg", "knn", "linear"])
def test_a_head_from_disk_is_the_head_from_memory(name: str, on_disk: list[tuple[int, ...]]) -> None:
    row = HEADS[name]
    few = {"epochs": 3} if "epochs" in row.defaults() else {}
    with within(None):
        memory = row.type()(**few).fit(View(X), Y)
    assert not on_disk
    disk = row.type()(**few).fit(View(X), Y)
    assert on_disk == [] if name == "ridge" else on_disk[0][0] == N  # which has no array of all rows
    assert {name: value.tobytes() for name, value in disk.state().items()} == {
        name: value.tobytes() for name, value in memory.state().items()
    }


@pytest.mark.parametrize("weight", [None, "balanced", {number: 1.0 + number for number in range(CLASSES)}])
def test_ridge_by_blocks_is_the_ridge_of_the_normal_equations(weight: Any) -> None:
    head = Ridge(alpha=3.0, class_weight=weight).fit(X, Y)
    share = np.ones(N) if weight is None else head.row_weights(Y).astype(np.float64)
    targets = 2.0 * np.eye(CLASSES)[Y] - 1
    mean, middle = np.average(X, axis=0, weights=share), np.average(targets, axis=0, weights=share)
    rows, wanted = X - mean, targets - middle
    coef = np.linalg.solve((rows.T * share) @ rows + 3.0 * np.eye(DIM), (rows.T * share) @ wanted)
    np.testing.assert_allclose(head.coef_, coef, atol=2e-5)
    np.testing.assert_allclose(head.intercept_, middle - mean @ coef, atol=2e-5)


@pytest.mark.parametrize("head", [Ridge(), Ncm()])
def test_there_is_no_matrix_of_rows_and_classes(head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a million images and a thousand classes it has 4 GB."""
    sizes = list[int]()
    eye, zeros = np.eye, np.zeros
    monkeypatch.setattr(np, "eye", lambda n, *more, **how: (sizes.append(n * n), eye(n, *more, **how))[1])
    monkeypatch.setattr(
        np, "zeros", lambda shape, *more, **how: (sizes.append(np.prod(shape)), zeros(shape, *more, **how))[1]
    )
    labels = np.arange(N) % 500
    head.fit(View(X), labels)
    assert max(sizes) < N * 500


@pytest.mark.parametrize(("size", "lies"), [(1000, "memory"), (1001, "disk")])
def test_an_array_lies_on_disk_when_it_is_a_quarter_of_the_budget(size: int, lies: str) -> None:
    def mapped() -> int:
        return sum("/large/" in line for line in Path("/proc/self/maps").read_text().splitlines())

    before = mapped()
    with within(16 * 1000):
        rows = empty((size, 1))
    rows[:] = 1
    assert mapped() - before == (lies == "disk")
    assert not any((Path(os.environ["TLCACHE_CACHE"]) / "large").glob("*"))
    del rows
    assert mapped() == before


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(large, "reserve", full)
    with (
        within(0),
        pytest.raises(CacheError, match="more than --memory allows, and .* has no room for them .No space"),
    ):
        empty((1000, 1000))


def test_runs_are_the_same_whatever_the_memory(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    path = extract(photos, tiny_model).path
    heads = ["ridge", "logreg", "knn"]
    plain = fit_heads([path], heads, runs=tmp_path / "plain")
    tight = fit_heads([path], heads, runs=tmp_path / "tight", memory=0)
    assert [(run.test, run.candidates[0].scores) for run in tight] == [
        (run.test, run.candidates[0].scores) for run in plain
    ]


def test_a_split_is_read_in_parts(photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = extract(photos, tiny_model).path
    with open_features(path) as file:
        whole = file.split("train", "test")
    monkeypatch.setattr("tlcache.cache.feature_file._CHUNK_BYTES", 1)  # a row each, 64 of them at once
    monkeypatch.setattr(
        "tlcache.cache.feature_file._cut", lambda piece, _: (slice(n, n + 1) for n in range(piece.start, piece.stop))
    )
    with open_features(path) as file:
        parts = file.split("train", "test")
    assert (parts.paths, parts.groups) == (whole.paths, whole.groups)
    assert parts.features.tobytes() == whole.features.tobytes()
    assert parts.labels.tolist() == whole.labels.tolist()
