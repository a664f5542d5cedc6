"""Test figures by cross-validation: no head is tested by what it knows, and folds are not independent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import write_photos
from numpy.typing import NDArray
from scipy import stats
from test_cli import invoke
from test_selection import split

from tlcache.errors import DataError, OptionError
from tlcache.evaluation.compare import compare
from tlcache.evaluation.resampled import compare_folds, resampled
from tlcache.extraction.extract import extract
from tlcache.heads.fitted import load_head
from tlcache.heads.table import HEADS
from tlcache.probing.fit import fit_heads
from tlcache.probing.nested import _parts, _usual
from tlcache.probing.protocol import SearchProtocol
from tlcache.probing.search import Candidate, agreed, search
from tlcache.report.reproduce import commands


def expected(values: NDArray[np.float64], ratio: float) -> tuple[float, float, float]:
    """Return the interval and p of Nadeau and Bengio (2003), written out."""
    error = np.sqrt((1 / len(values) + ratio) * values.var(ddof=1))
    law = stats.t(len(values) - 1)
    low, high = values.mean() + law.ppf([0.025, 0.975]) * error
    return low, high, 2 * law.sf(abs(values.mean()) / error) if error else 0.0


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_the_spread_of_folds_is_corrected_for_what_they_share(ratio: float) -> None:
    values = np.random.default_rng(0).normal(0.03, 0.02, 10)
    found = resampled(values, ratio)
    assert (found.low, found.high, found.p) == pytest.approx(expected(values, ratio))


def test_folds_that_are_all_alike_have_no_width() -> None:
    assert resampled(np.full(5, 0.25), 0.25)[2:] == (0.25, 0.25, 0.0)
    assert resampled(np.zeros(5), 0.25).p == 1


@pytest.mark.parametrize(("folds", "more"), [(3, 1), (5, 1), (3, 3)])
def test_folds_that_happen_to_be_alike_are_no_more_certain_than_their_images(folds: int, more: int) -> None:
    """One head has as many images more in each fold of ten: no spread at all."""
    fold = np.repeat(np.arange(folds), 10)
    second = np.arange(10 * folds) % 10 < 5
    first = second | (np.arange(10 * folds) % 10 >= 10 - more)
    found = compare_folds(first, second, fold, 1 / (folds - 1))
    error = np.sqrt(more / 10 * (1 - more / 10) / (10 * folds))
    half = stats.t(folds - 1).ppf(0.975) * error
    assert (found.low, found.high) == pytest.approx((more / 10 - half, more / 10 + half))
    assert found.p == pytest.approx(2 * stats.t(folds - 1).sf(more / 10 / error))


def test_a_difference_of_shares_is_at_most_all_of_them() -> None:
    first = np.array([True, True, False, False])
    found = compare_folds(first, ~first, np.array([0, 0, 1, 1]), 1.0)
    assert (found.low, found.difference, found.high) == (-1, 0, 1)


def test_equal_heads_are_seldom_called_different() -> None:
    """As by heads that share most of their training images: folds that lean to one side together."""
    random, ratio, called = np.random.default_rng(0), 0.25, 0
    for _ in range(600):
        shared = random.normal(0, np.sqrt(0.2)) + random.normal(0, np.sqrt(0.8), 10)  # correlated by n_test / n
        called += resampled(shared, ratio).p < 0.05
    assert 0.02 < called / 600 < 0.08


@pytest.mark.parametrize("folds", [0, 2])
def test_no_fold_knows_what_it_is_tested_or_chosen_by(folds: int) -> None:
    rows = split(90, groups=tuple(f"g{row // 3}" if row < 30 else "" for row in range(90)))
    rows.features[80] = rows.features[50]  # the same image twice
    together = np.array([f"g{row // 3}" if row < 30 else str(50 if row == 80 else row) for row in range(90)])
    parts = _parts(rows, "3x2", SearchProtocol(folds=folds))
    assert [part.outer.repeat for part in parts] == [0, 0, 0, 1, 1, 1]
    for part in parts:
        assert not set(together[part.outer.fit]) & set(together[part.outer.held])
        assert len(part.inner) == (folds or 5)
        chosen_by = np.concatenate([fold.held for fold in part.inner if fold.held is not None])
        assert sorted(chosen_by) == sorted(part.outer.fit)
        assert all(len(fold.y) + len(fold.y_val) == len(part.outer.fit) for fold in part.inner)
    for repeat in range(2):
        held = np.concatenate([part.outer.held for part in parts if part.outer.repeat == repeat])
        assert sorted(held) == list(range(90))
    assert parts[0].outer.held.tolist() != parts[3].outer.held.tolist()


def test_where_a_fifth_has_images_enough_settings_are_chosen_by_that_alone() -> None:
    rows = split(2100)
    (part, *_) = _parts(rows, "2x1", SearchProtocol())
    (inner,) = part.inner
    assert len(inner.y_val) == pytest.approx(len(part.outer.fit) / 5, abs=2)
    (found,) = search(HEADS["ridge"], [{"alpha": 10.0}], [inner], 3, None)
    assert found.scores["accuracy"] > 0.5


def test_few_images_of_a_class_have_fewer_folds_inside_and_too_few_are_told() -> None:
    rows = split(24)
    assert [len(part.inner) for part in _parts(rows, "2x1", SearchProtocol())] == [4, 4]
    with pytest.raises(DataError, match="9 folds need a class with as many images; the largest has 8"):
        _parts(rows, "9x1", SearchProtocol())


def test_every_image_is_tested_once_in_each_repetition(made: Path) -> None:
    (run,) = fit_heads([made], ["ridge"], cv="3x2")
    found, nested = run.predictions().in_order(), run.cross_validation
    assert nested
    assert found.fold is not None
    assert run.test.n == 24
    assert np.unique(found.row, return_counts=True)[1].tolist() == [2] * 24
    right = found.probabilities.argmax(axis=1) == found.label
    each = np.bincount(found.fold, right) / np.bincount(found.fold)
    assert nested.accuracy == pytest.approx(each)
    assert (nested.folds, nested.repeats, nested.share) == (3, 2, 0.5)
    low, high, _ = expected(each, 0.5)
    assert (run.test.accuracy_low, run.test.accuracy_high) == pytest.approx((max(0, low), min(1, high)))
    assert run.test.accuracy == pytest.approx(right.mean())
    assert run.repeats.accuracy_mean == pytest.approx(right.mean())
    assert len(nested.chosen) == 6
    assert run.chosen in nested.chosen
    assert run.chosen_by == "3x2 nested cross-validation"
    assert load_head(run.head_path).classes == run.classes
    assert "--cv 3x2" in commands(run)[-1]
    assert [figures.n for figures in run.per_class] == [8, 8, 8]
    stamp = run.path.stat().st_mtime_ns
    assert fit_heads([made], ["ridge"], cv="3x2") == [run]
    assert run.path.stat().st_mtime_ns == stamp


def test_folds_alone_are_folds_once(made: Path) -> None:
    (run,) = fit_heads([made], ["ridge"], cv="3")
    assert (run.arguments["cv"], run.test_split) == ("3x1", "3x1 cross-validation")
    assert fit_heads([made], ["ridge"], cv="3x1") == [run]
    fold, lines = run.predictions().fold, run.path.with_suffix(".csv").read_text().split()
    assert fold is not None
    assert lines[0] == "path,label,predicted,confidence,fold"
    assert [int(line.rpartition(",")[2]) for line in lines[1:]] == (fold + 1).tolist()


def test_test_images_that_a_dataset_sets_apart_stay_apart(tmp_path: Path, tiny_model: Path) -> None:
    for name, count in (("train", 6), ("test", 4)):
        write_photos(tmp_path / "given" / name, count)
    (run,) = fit_heads([extract(tmp_path / "given", str(tiny_model)).path], ["ridge"], cv="2x1")
    assert run.test.n == 18
    assert all(path.startswith("train/") for path in run.predictions().top().paths)


def test_cross_validated_runs_are_compared_among_themselves(made: Path, tmp_path: Path) -> None:
    fit_heads([made], ["ridge"])
    fit_heads([made], ["ridge", "knn"], cv="2x2")
    plain, nested = sorted(compare(), key=lambda each: len(each.entries))
    assert (len(plain.entries), len(nested.entries)) == (1, 2)
    assert nested.groups is None
    assert not nested.without_test
    (pair,) = nested.pairs
    first, second = (entry.run.predictions().in_order() for entry in (pair.a, pair.b))
    assert first.fold is not None
    gains = [(each.probabilities.argmax(axis=1) == each.label).astype(float) for each in (first, second)]
    by_fold = np.bincount(first.fold, gains[0] - gains[1]) / np.bincount(first.fold)
    found = resampled(by_fold, 1.0, np.std(gains[0] - gains[1]) / np.sqrt(len(gains[0])))
    assert nested.smallest_shown is None
    assert (pair.found.low, pair.found.high, pair.found.p) == pytest.approx((found.low, found.high, found.p))
    assert pair.found == compare_folds(gains[0] > 0, gains[1] > 0, first.fold, 1.0)
    output = " ".join(invoke("compare", "--json", tmp_path / "c.json").split())
    assert "24 images tested by 2x2 cross-validation" in output
    assert "Nadeau and Bengio" in output
    assert len(json.loads((tmp_path / "c.json").read_text())["datasets"]) == 2
    name = nested.entries[0].run.classes[0]
    said = " ".join(invoke("compare", "--positive", name, "--at", "specificity=0.9").split())
    assert "They were tested in folds; do them without --cv." in said
    assert "--force" not in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cv": "5x"}, "--cv takes folds, from 2 on, or folds x repetitions, like 5x2; found '5x'"),
        ({"cv": "1"}, "--cv takes folds"),
        ({"cv": "1x3"}, "--cv takes folds"),
        ({"cv": "5x2", "repeats": 3}, "--repeats is of heads that are tested on one split"),
        ({"cv": "5x2", "coverage": 0.9}, "--coverage is of heads"),
        ({"cv": "5x2", "budget_s": 9.0}, "--budget is of heads"),
    ],
)
def test_what_cannot_be_together_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        fit_heads(**options)  # type: ignore[arg-type]


def test_the_setting_that_is_kept_was_chosen_most_often_whatever_was_found_beside_it() -> None:
    """Of the same shrinkage every fold finds another sharpness, and of the same rate another epoch."""
    each = [(0.3, 10.0, 7), (0.5, 30.0, 9), (0.3, 12.5, 8), (0.3, 14.0, 12)]
    chosen = [
        replace(Candidate.untried({"shrinkage": a, "sharpness": b, "epochs": c}), temperature=c / 4) for a, b, c in each
    ]
    kept = _usual(chosen, ["shrinkage"])
    assert kept.params == {"shrinkage": 0.3, "sharpness": 12.5, "epochs": 8}
    assert kept.temperature == 2
    assert agreed([{"k": 3}, {"k": 4}]) == {"k": 4}
