"""How settings are chosen: folds that tear nothing apart, scores, the one-standard-error rule, a budget."""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import write_photos
from sklearn.metrics import f1_score
from test_heads import blobs

from tlcache.cache.feature_file import Split, open_features
from tlcache.errors import DataError, HeadError, OptionError, UnknownNameError
from tlcache.evaluation.calibration import fit_temperature
from tlcache.evaluation.metrics import METRICS
from tlcache.extraction.extract import extract
from tlcache.heads.rows import Scaler
from tlcache.heads.table import HEADS, HeadRow
from tlcache.probing.data import Data
from tlcache.probing.fit import fit_heads
from tlcache.probing.folds import choosing_folds, draw_shots, group_numbers, split_folds
from tlcache.probing.protocol import SearchProtocol
from tlcache.probing.search import Candidate, Fold, _nearest_first, choose, search


def split(n: int = 60, classes: int = 3, groups: tuple[str, ...] | None = None) -> Split:
    X, y = blobs(n, 8, classes, spread=2)
    return Split(X, y, tuple(f"{row}.png" for row in range(n)), groups or ("",) * n)


def one_fold() -> Fold:
    X, y = blobs(120, 8, 3, spread=2)
    return Fold(X[:80], y[:80], X[80:], y[80:])


def candidate(accuracy: float, error: float, log_loss: float = 1.0) -> Candidate:
    scores = {"accuracy": accuracy, "macro_f1": accuracy, "log_loss": log_loss}
    return replace(Candidate.untried({}), scores=scores, errors=dict.fromkeys(scores, error))


def test_folds_keep_groups_and_duplicates_together_and_classes_apart() -> None:
    rows = split(90, groups=tuple(f"g{row // 3}" if row < 30 else "" for row in range(90)))
    rows.features[80] = rows.features[50]  # the same image twice
    numbers = group_numbers(rows)
    assert numbers[80] == numbers[50]
    held = []
    for fit, judge in split_folds(rows, 5, seed=0):
        assert not set(numbers[fit]) & set(numbers[judge])
        assert set(rows.labels[judge]) == {0, 1, 2}
        held += judge.tolist()
    assert sorted(held) == list(range(90))
    again = [judge.tolist() for _, judge in split_folds(rows, 5, seed=0)]
    assert again != [judge.tolist() for _, judge in split_folds(rows, 5, seed=1)]
    with pytest.raises(DataError, match="5 folds need as many images or groups of images; found 2"):
        list(split_folds(split(4, groups=("a", "a", "b", "b")), 5, seed=0))


@pytest.mark.parametrize("budget_s", [None, 60.0])
def test_logits_are_kept_of_what_may_be_chosen(budget_s: float | None) -> None:
    row, fold = HEADS["knn"], one_fold()
    every = search(row, row.settings(), [fold], 3, budget_s, one_se=True)
    found = search(row, row.settings(), [fold], 3, budget_s)
    best = choose(found, "accuracy", one_se=False)
    assert all(each.logits is not None for each in every)
    assert best.logits is not None
    assert any(each.logits is None for each in found)
    for one, other in zip(every, found, strict=True):
        assert (one.params, one.scores, one.temperature) == (other.params, other.scores, other.temperature)
        assert other.logits is None or np.array_equal(one.logits, other.logits)


@pytest.mark.parametrize("odd", [lambda logits: logits[:, 0], lambda logits: np.hstack([logits, logits])])
def test_logits_of_another_shape_are_a_fault_of_the_head(
    odd: Callable[[np.ndarray], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = HEADS["ncm"]
    monkeypatch.setattr(
        row.type(), "logits_each", classmethod(lambda _, heads, X: [odd(each.logits(X)) for each in heads])
    )
    with pytest.raises(HeadError, match=r"ncm head could not be fitted: its logits are .* of 40 rows and 3 classes"):
        search(row, row.settings(), [one_fold()], 3, None)


def test_logits_are_kept_where_what_is_chosen_by_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = replace(METRICS["accuracy"], value=lambda *_: float("nan"))
    monkeypatch.setitem(METRICS, "accuracy", unknown)
    found = search(HEADS["knn"], HEADS["knn"].settings(), [one_fold()], 3, None)
    assert choose(found, "accuracy", one_se=False).logits is not None


@pytest.mark.parametrize("name", ["ridge", "knn"])
def test_memory_of_many_settings_is_that_of_few(name: str) -> None:
    """Logits of nine settings were there at a time, and four arrays as large to judge one: 18 times the size."""
    row, classes, held = HEADS[name], 200, 20_000
    X, y = blobs(2000 + held, 16, classes)
    fold = Fold(X[:2000], y[:2000], X[2000:], y[2000:])
    search(row, row.settings()[:1], [fold], classes, None)  # imports
    tracemalloc.start()
    try:
        search(row, row.settings(), [fold], classes, None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 7 * 4 * held * classes


def test_samples_of_one_seed_are_nested() -> None:
    rows = split(60)
    few, more = draw_shots(rows, 2, seed=0), draw_shots(rows, 5, seed=0)
    assert set(few) < set(more)
    assert np.bincount(rows.labels[few]).tolist() == [2, 2, 2]
    assert not np.array_equal(few, draw_shots(rows, 2, seed=1))
    assert len(draw_shots(rows, 1000, seed=0)) == 60


def test_scores_are_those_of_the_held_out_rows() -> None:
    fold, row = one_fold(), HEADS["logreg"]
    (found,) = search(row, [{"C": 0.1}], [fold], 3, None)
    head = row.type()(C=0.1)
    from tlcache.heads.rows import Scaler

    scaler = Scaler.of(fold.X)
    predicted = head.fit(scaler(fold.X), fold.y).predict(scaler(fold.X_val))
    right = predicted == fold.y_val
    assert found.scores["accuracy"] == pytest.approx(right.mean())
    assert found.scores["macro_f1"] == pytest.approx(f1_score(fold.y_val, predicted, average="macro"))
    assert found.errors["accuracy"] == pytest.approx(np.sqrt(right.mean() * (1 - right.mean()) / 40))
    assert 0 < found.errors["macro_f1"] < 0.2
    assert found.params == {"C": 0.1, "class_weight": None}


def test_folds_are_pooled_and_early_stopping_takes_their_median() -> None:
    X, y = blobs(120, 8, 3, spread=2)
    parts = np.arange(120) % 4
    folds = [Fold(X[parts != part], y[parts != part], X[parts == part], y[parts == part]) for part in range(4)]
    settings = [{"learning_rate": 0.05, "epochs": 40, "patience": 3}]
    (pooled,) = search(HEADS["linear"], settings, folds, 3, None)
    single = [search(HEADS["linear"], settings, [fold], 3, None)[0] for fold in folds]
    epochs = [each.params["epochs"] for each in single]
    assert pooled.params["epochs"] == round(np.median(epochs))
    assert pooled.scores["accuracy"] == pytest.approx(np.mean([each.scores["accuracy"] for each in single]))


def test_folds_share_the_memory_of_the_rows_and_judge_as_copies_do() -> None:
    rows = split(120)
    lazy = [Fold.of(rows, *parts) for parts in split_folds(rows, 4, seed=0)]
    assert all(np.shares_memory(part.features, rows.features) for fold in lazy for part in (fold.X, fold.X_val))
    copies = [Fold(fold.X[:], fold.y, fold.X_val[:], fold.y_val) for fold in lazy]
    found, others = (search(HEADS["logreg"], [{"C": 0.1}], folds, 3, None)[0] for folds in (lazy, copies))
    assert found.scores == pytest.approx(others.scores)


def test_classes_that_a_fold_does_not_know() -> None:
    X, y = blobs(80, 8, 4)
    seen = y[:40] != 3
    fold = Fold(X[:40][seen], y[:40][seen], X[40:], y[40:])
    (found,) = search(HEADS["ridge"], [{"alpha": 10.0}], [fold], 4, None)
    assert found.scores["accuracy"] <= 0.75
    assert np.isfinite(found.scores["log_loss"])
    assert 0 < found.temperature < np.inf


def test_the_best_is_chosen_by_the_metric_that_was_asked_for() -> None:
    sure, right = candidate(0.7, 0.01, log_loss=0.5), candidate(0.8, 0.01, log_loss=0.9)
    assert choose([sure, right], "accuracy", one_se=False) is right
    assert choose([sure, right], "log_loss", one_se=False) is sure
    tied = candidate(0.8, 0.01, log_loss=0.6)
    assert choose([right, tied], "accuracy", one_se=False) is tied


def test_one_standard_error_takes_the_simplest_that_is_about_as_good() -> None:
    poor, simple, best, flexible = (candidate(score, 0.02) for score in (0.70, 0.79, 0.80, 0.795))
    assert choose([poor, simple, best, flexible], "accuracy", one_se=True) is simple
    worse, near = candidate(0.5, 0.1, log_loss=1.5), candidate(0.5, 0.1, log_loss=0.95)
    assert choose([worse, near, candidate(0.5, 0.1, log_loss=0.9)], "log_loss", one_se=True) is near


def test_a_budget_leaves_settings_out_but_never_the_first() -> None:
    settings = [{"k": k} for k in (1, 3, 5)]
    assert len(search(HEADS["knn"], settings, [one_fold()], 3, budget_s=1e-9)) == 1
    every = search(HEADS["knn"], settings, [one_fold()], 3, budget_s=60)
    assert [each.params["k"] for each in every] == [1, 3, 5]


@pytest.mark.parametrize("search_space", ["quick", "full"])
@pytest.mark.parametrize("row", HEADS.values(), ids=HEADS)
def test_the_setting_that_every_budget_has_room_for_is_a_usual_one(row: HeadRow, search_space: str) -> None:
    """Of the simplest, a short budget would make next to nothing: of logistic regressions C = 1e-4."""
    settings, usual = row.settings(search_space), row.defaults()
    order = _nearest_first(row, settings)
    assert sorted(order) == list(range(len(settings)))
    assert all(settings[order[0]][name] == usual[name] for name in row.space(search_space))


def test_temperatures_pass_over_classes_that_were_never_seen() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(0, 3, (200, 4)).astype(np.float32), random.integers(0, 3, 200)
    padded = logits.copy()
    padded[:, 3] = -np.inf
    assert fit_temperature(padded, labels) == pytest.approx(fit_temperature(logits[:, :3], labels), rel=1e-4)
    unseen = np.append(labels, [3, 3])
    assert fit_temperature(np.vstack([padded, padded[:2]]), unseen) == fit_temperature(padded, labels)
    assert fit_temperature(padded[:2], np.array([3, 3])) == 1


def test_logits_next_to_0_have_a_temperature_too() -> None:
    logits = np.eye(3, dtype=np.float32)[np.arange(60) % 3]
    expected = fit_temperature(logits, np.arange(60) % 3)
    assert fit_temperature(1e-6 * logits, np.arange(60) % 3) == pytest.approx(1e-6 * expected, rel=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"search": "ful"}, "Unknown search 'ful'. Did you mean 'full'"),
        ({"metric": "f1"}, "Unknown metric 'f1'"),
        ({"class_weight": "even"}, "Unknown class weight 'even'"),
    ],
)
def test_unknown_words_are_refused(words: dict[str, str], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        SearchProtocol(**words)  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [{"folds": 1}, {"folds": -2}, {"repeats": 0}, {"budget_s": 0.0}])
def test_numbers_that_make_no_sense_are_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(OptionError, match=r"--(folds|repeats|budget) takes .* (from [12] on|above 0)\b.*; found"):
        SearchProtocol(**numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", HEADS)
def test_settings_are_complete_and_the_full_search_has_more(name: str) -> None:
    row = HEADS[name]
    quick, full = (
        SearchProtocol(search=search, class_weight="balanced", seed=7).settings(row) for search in ("quick", "full")
    )
    assert len(full) > len(quick)
    for setting in quick + full:
        head = row.type()(**setting)
        assert head.class_weight == "balanced"
        assert getattr(head, "seed", 7) == 7


@pytest.fixture
def made(tmp_path: Path, tiny_model: Path) -> Path:
    return extract(write_photos(tmp_path / "photos", 12), str(tiny_model)).path


def test_the_protocol_is_in_the_record(made: Path) -> None:
    (run,) = fit_heads(
        [made], ["linear"], folds=3, metric="macro_f1", one_se=True, class_weight="balanced", repeats=3, seed=5
    )
    record = json.loads(run.path.read_text())
    assert record["arguments"]["folds"] == 3
    assert record["chosen_by"] == "3-fold cross-validation"
    assert record["chosen"]["class_weight"] == "balanced"
    assert record["repeats"]["seeds"] == [5, 6, 7]
    assert record["repeats"]["accuracy_mean"] == pytest.approx(np.mean(record["repeats"]["accuracy"]))
    assert record["repeats"]["accuracy"][0] == record["test"]["accuracy"]
    assert record["calibration"]["test_ece_after"] == record["test"]["ece"]
    assert {"val_macro_f1", "val_macro_f1_se", "fit_s"} <= set(record["candidates"][0])
    (plain,) = fit_heads([made], ["ridge"])
    assert plain.chosen_by == "5-fold cross-validation"
    (asked,) = fit_heads([made], ["ridge"], folds=0)
    assert asked.chosen_by == "validation split"
    assert (plain.arguments["folds"], asked.arguments["folds"]) == (5, 0)
    assert plain.repeats.accuracy_std is None


@pytest.mark.parametrize("name", ["logreg", "ridge", "knn", "svm"])
def test_a_class_that_only_validation_has_is_recognised_after_the_refit(name: str) -> None:
    """Chosen on validation, the simplest settings would win, which hardly ever answer the new class."""
    X, y = blobs(400, 64, 3)
    counts = ((0, 20), (1, 20), (0, 10), (1, 10), (2, 3))  # of train, then of val
    starts = (0, 0, 60, 60, 60)
    numbers = np.concatenate(
        [
            np.flatnonzero(y[start:] == label)[:count] + start
            for (label, count), start in zip(counts, starts, strict=True)
        ]
    )
    rows = Split(X[numbers], y[numbers], tuple(map(str, numbers)), ("",) * len(numbers))
    folds = choosing_folds(rows, 40, 0, seed=0)
    assert len(folds) == 5
    row = HEADS[name]
    best = choose(search(row, row.settings(), folds, 3, None), "accuracy", one_se=False)
    scaler = Scaler.of(rows.features, row.scaled)
    head = row.type()(**best.params).fit(scaler.over(rows.features), rows.labels)
    assert (head.predict(scaler(X[200:])) == y[200:]).mean() > 0.99


def test_folds_are_as_many_as_there_are_groups() -> None:
    rows = split(30, groups=tuple(f"g{row % 3}" for row in range(30)))
    assert len(choosing_folds(rows, len(rows), 0, seed=0)) == 3
    assert len(choosing_folds(rows, 20, 0, seed=0)) == 1
    assert len(choosing_folds(rows, 20, None, seed=0)) == 3


@pytest.mark.parametrize(("val", "folds"), [(199, 5), (200, 1)])
def test_few_validation_images_do_not_choose_alone(val: int, folds: int) -> None:
    rows = split(400)
    assert len(choosing_folds(rows, len(rows) - val, None, seed=0)) == folds
    assert SearchProtocol().arguments(val)["folds"] == (5 if folds == 5 else 0)
    assert SearchProtocol(folds=0).arguments(val)["folds"] == 0


def test_what_makes_no_folds_is_chosen_on_validation_however_small() -> None:
    rows = split(3)
    assert np.bincount(rows.labels).tolist() == [1, 1, 1]
    alike = Split(rows.features[[0, 1, 2, 0]], rows.labels[[0, 1, 2, 0]], tuple("abcd"), ("g",) * 4)
    assert len(choosing_folds(alike, 3, None, seed=0)) == 1


def test_without_a_validation_split_there_are_five_folds(made: Path) -> None:
    with open_features(made) as file:
        data = Data.of(file)
    without = replace(data, fitting=data.train)
    assert len(without.folds(SearchProtocol())) == 5
    assert len(data.folds(SearchProtocol(folds=0))) == 1
    assert len(without.fitting) == len(data.train)
