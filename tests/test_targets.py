"""Heads on several labels of an image, or on a number: fitted, judged, compared and asked."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import write_image
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn import metrics as reference
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as Reference
from test_runs import fields_of, page_fields

from tlcache.cache.feature_file import open_features
from tlcache.datasets.overview import Overview
from tlcache.datasets.tasks import Targets
from tlcache.deploying.export import export
from tlcache.deploying.predict import predict
from tlcache.deploying.rows import Columns, PredictedRow
from tlcache.errors import DataError, HeadError, OptionError
from tlcache.evaluation import multilabel, regression
from tlcache.evaluation.baseline import Baseline
from tlcache.evaluation.compare import compare
from tlcache.evaluation.operating import Wanted, operating_points
from tlcache.evaluation.task import task_on
from tlcache.evaluation.verdict import size, verdict
from tlcache.extraction.extract import extract
from tlcache.heads.answering import Answering
from tlcache.heads.fitted import load_head
from tlcache.heads.rows import View
from tlcache.heads.table import HEADS
from tlcache.probing.fit import fit_heads
from tlcache.report.plain import interval
from tlcache.runs.folder import list_runs
from tlcache.runs.frozen import FrozenRun
from tlcache.runs.record import Run

Array = NDArray[Any]


def made(n: int = 300, dim: int = 12, columns: int = 3) -> tuple[Array, Array, Array]:
    """Rows, labels that follow from them with some noise, and a number that does."""
    random = np.random.default_rng(0)
    X = random.normal(size=(n, dim)).astype(np.float32)
    scores = X @ random.normal(size=(dim, columns)) / 3
    has = (scores + random.normal(size=scores.shape) > 0.5).astype(np.uint8)
    number = scores[:, :1] + 0.2 * random.normal(size=(n, 1))
    return X, has, ((number - number.mean()) / number.std()).astype(np.float32)


X, HAS, NUMBER = made()
CASES = [(name, task) for name, row in HEADS.items() for task in row.tasks if task != "classify"]


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_head_learns_columns_and_answers_the_same_from_its_arrays(name: str, task: str) -> None:
    row, wanted = HEADS[name], HAS if task == "multilabel" else NUMBER
    settings = row.settings()[:2]
    heads = row.type().fit_columns(settings, View(X[:220]), wanted[:220], View(X[220:260]), wanted[220:260])
    each = [*row.type().logits_each(heads, View(X[260:]))]
    best = max(_skill(head.logits(X[260:]), wanted[260:]) for head in heads[-1:])
    assert best > (0.6 if task == "multilabel" else 0.3 if name != "ridge" else -0.1)
    for head, logits in zip(heads, each, strict=True):
        np.testing.assert_allclose(head.logits(X[260:]), logits, atol=1e-5)
        back = row.restore(head.get_params(), head.state(), 12)
        np.testing.assert_allclose(back.logits(View(X[260:])), logits, atol=1e-5)
        assert row.type()(**head.chosen()).get_params() == head.chosen()


def test_a_head_of_classes_alone_refuses_columns() -> None:
    assert "multilabel" not in HEADS["ncm"].tasks
    with pytest.raises(NotImplementedError, match="Ncm is of classes alone"):
        HEADS["ncm"].type().fit_columns([{}], View(X), HAS)


def _skill(logits: Array, wanted: Array) -> float:
    if wanted.dtype == np.uint8:
        return float(reference.average_precision_score(wanted, logits))
    return float(reference.r2_score(wanted, logits))


def test_logistic_regression_and_ridge_are_those_of_every_column() -> None:
    (logistic,) = HEADS["logreg"].type().fit_columns([{"C": 0.1}], View(X), HAS)
    (ridge,) = HEADS["ridge"].type().fit_columns([{"alpha": 10.0}], View(X), NUMBER)
    for number, column in enumerate(HAS.T):
        other = LogisticRegression(C=0.1, tol=1e-8, max_iter=1000).fit(X, column)
        np.testing.assert_allclose(logistic.coef_[:, number], other.coef_[0], atol=1e-3)
    np.testing.assert_allclose(ridge.coef_[:, 0], Reference(alpha=10.0).fit(X, NUMBER[:, 0]).coef_, atol=1e-5)


def answers(n: int = 400) -> tuple[Array, Array]:
    """Labels of which some never occur together, and probabilities with ties."""
    random = np.random.default_rng(1)
    has = (random.random((n, 5)) < [0.5, 0.2, 0.05, 0.4, 0.1]).astype(np.uint8)
    return has, np.clip(0.35 * has + random.random((n, 5)) * 0.6, 0, 1).round(2).astype(np.float32)


def test_figures_of_labels_are_those_of_scikit_learn() -> None:
    has, probabilities = answers()
    thresholds = np.array([0.5, 0.4, 0.6, 0.5, 0.45])
    said = (probabilities >= thresholds).astype(int)
    found = {name: each.value for name, each in multilabel.estimates(has, probabilities, thresholds).items()}
    expected = {
        "mean_average_precision": reference.average_precision_score(has, probabilities),
        "auroc": reference.roc_auc_score(has, probabilities),
        "micro_f1": reference.f1_score(has, said, average="micro"),
        "macro_f1": reference.f1_score(has, said, average="macro"),
        "subset_accuracy": reference.accuracy_score(has, said),
        "hamming": reference.hamming_loss(has, said),
        "log_loss": np.mean(
            [
                reference.log_loss(of, np.clip(p.astype(np.float64), 1e-7, 1 - 1e-7))
                for of, p in zip(has.T, probabilities.T, strict=True)
            ]
        ),
    }
    assert found == pytest.approx(expected, abs=1e-9)
    figures = multilabel.evaluate(has, probabilities, thresholds)
    assert (figures.accuracy, figures.n) == (pytest.approx(expected["subset_accuracy"]), 400)


def test_thresholds_are_those_with_the_best_f1() -> None:
    has, probabilities = answers(60)
    has[:, 4] = 0
    found = multilabel.best_thresholds(has, probabilities)
    assert found[4] == 0.5
    for of, scores, threshold in zip(has.T[:4], probabilities.T, found, strict=False):
        tried = [reference.f1_score(of, scores >= each) for each in np.unique(scores)]
        assert reference.f1_score(of, scores >= threshold) == pytest.approx(max(tried))


def test_figures_of_numbers_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(2)
    y = random.normal(size=(200, 1)).round(1)
    said = y + random.normal(size=(200, 1)).round(1)
    found = {name: each.value for name, each in regression.estimates(y, said).items()}
    assert found == pytest.approx(
        {
            "mae": reference.mean_absolute_error(y, said),
            "rmse": reference.root_mean_squared_error(y, said),
            "r2": reference.r2_score(y, said),
            "spearman": spearmanr(y[:, 0], said[:, 0]).statistic,
        },
        abs=1e-9,
    )


def test_intervals_of_numbers_hold_the_truth() -> None:
    random, n, inside = np.random.default_rng(3), 150, dict.fromkeys(("mae", "rmse", "r2", "spearman"), 0)
    truth = {"mae": np.sqrt(2 / np.pi), "rmse": 1.0, "r2": 0.0, "spearman": 6 / np.pi * np.arcsin(np.sqrt(0.5) / 2)}
    for _ in range(300):
        y = random.normal(size=(n, 1))
        for name, each in regression.estimates(y, y + random.normal(size=(n, 1))).items():
            low, high = each.interval()
            inside[name] += low <= truth[name] <= high
    assert all(0.91 <= count / 300 <= 0.99 for count in inside.values()), inside


@pytest.mark.parametrize(
    ("y", "said", "known"),
    [
        ([0.1, 0.1, 0.1], [1.0, 2.0, 3.0], {"mae", "rmse"}),
        ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1], {"mae", "rmse", "r2"}),
        ([1.0, 2.0, 3.0], [0.1, 0.1, 0.2], {"mae", "rmse", "r2", "spearman"}),
    ],
)
def test_of_equal_numbers_no_correlation_is_told(y: list[float], said: list[float], known: set[str]) -> None:
    wanted, predicted = (np.array(each)[:, None] for each in (y, said))
    assert set(regression.estimates(wanted, predicted)) == known
    assert np.isnan(regression.evaluate(wanted, predicted).others.get("spearman", np.nan)) == ("spearman" not in known)


def test_figures_with_a_unit_are_shown_whatever_its_size() -> None:
    assert interval(2.5e-13, 1e-13, 4.00019e-13, "mae") == "2.5e-13 (1e-13-4e-13)"
    assert interval(593905231389.257, 5e11, 6e11, "rmse") == "5.939e+11 (5e+11-6e+11)"
    assert interval(0.012, -0.5, 0.5, "r2") == "0.012 (-0.500 to 0.500)"
    assert size(2e-13, "mae") == "2e-13 of mae"
    assert Baseline.of_columns(np.array([[1e9 + 1], [1e9 + 2.5], [1e9 + 9]])).answer == "1000000002.5"
    told = Overview({"train": 3}, None, {}, None, task="regression", numbers=(1e9 + 4.25, 1e9 + 5.5, 1e9 + 8.75))
    assert "numbers from 1000000004.25 to 1000000008.75, median 1000000005.5" in str(told)


def test_equal_numbers_are_nothing_to_learn() -> None:
    rows: Any = SimpleNamespace(targets=Targets.of("regression", ["0.1", "2.0"]), wanted=np.full((30, 1), 0.1))
    with pytest.raises(DataError, match=r"All 30 images to learn from have the label 0\.1"):
        task_on(rows)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_rows_read_back_as_what_was_answered(task: str) -> None:
    how = Answering(task, ("value",), (0.5,), middle=1234567.0, spread=1e-6, margin=2e-7, coverage=0.9)
    (answer,) = how.answers(np.array([[0.1]], np.float32))
    columns, row = Columns(each=how.further, exact=how.are_numbers), PredictedRow("a", how.said(answer[None]))
    *_, first, error = columns.cells(replace(row, each=how.each(answer)))
    if task == "multilabel":
        assert (row.labels, first, error) == (["value"], "0.524979", "")
    else:
        assert [float(label) for label in row.labels] == [answer[0]] == [1234567.0 + 1e-6 * float(np.float32(0.1))]
        assert float(first) == answer[0] + 2e-7


def test_groups_widen_the_intervals_of_numbers() -> None:
    random = np.random.default_rng(4)
    y, apart = random.normal(size=(60, 1)), np.repeat(random.normal(size=(6, 1)), 10, axis=0)
    each = regression.estimates(y, y + apart)["mae"]
    (low, high), (least, most) = each.interval(), each.interval(np.repeat(np.arange(6), 10))
    assert least < low < each.value < high < most


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def photos(n: int, label: Any) -> str:
    for number in range(n):
        write_image(Path(f"{number:03}.png"), number, number % 3)
    rows = "".join(f"{number:03}.png,{label(number)}\n" for number in range(n))
    Path("photos.csv").write_text(f"path,label\n{rows}")
    return "photos.csv"


def coloured(number: int) -> str:
    """Two labels that the colour says, and one that nothing says."""
    return ";".join([("red", "red;warm", ";")[number % 3], *(["odd"] if number % 2 else [])])


def on_the_page(run: Run) -> set[str]:
    """Return the fields of a record, which the page of records has all; their figures are on the page of tasks."""
    page = page_fields()["frozen"]
    found = {name for name, _ in fields_of(json.loads(run.path.read_text()), "", page)}
    assert {name for name in found if not name.startswith("test.")} <= page.keys()
    return found


def test_several_labels_from_a_table_to_a_verdict(tiny_model: Path) -> None:
    done = extract(photos(90, coloured), tiny_model, task="multilabel")
    runs = fit_heads([done.path], ["logreg", "knn", "svm"], on_warning=(told := list[str]()).append)
    assert [run.head for run in runs] == ["logreg", "knn"]
    assert told == [
        "--task multilabel is not of the svm head, but of logreg, ridge, knn, krr, lightgbm, linear, dense."
    ]
    run = runs[0]
    assert (run.task, run.classes, run.chosen_by) == ("multilabel", ("odd", "red", "warm"), "5-fold cross-validation")
    assert len(run.thresholds) == 3
    assert {each.name for each in run.per_class if each.f1 and each.f1.value == 1} == {"red", "warm"}
    assert {"mean_average_precision", "micro_f1", "hamming"} <= run.test.others.keys()
    assert on_the_page(run) >= {"task", "thresholds[]"}
    found = run.predictions()
    head = load_head(run.head_path)
    with open_features(done.path) as file:
        test = file.split("test")
        assert np.array_equal(found.label, test.wanted)
        np.testing.assert_array_equal(head.predict_proba(test.features), found.probabilities)
        texts = head.predict(test.features).tolist()
    rows = read(run.predictions_path.with_suffix(".csv"))
    assert [row["predicted"] for row in rows] == texts
    assert list(rows[0]) == ["path", "label", "predicted", "p(odd)", "p(red)", "p(warm)"]
    assert list_runs() == sorted(runs, key=lambda each: str(each.path))
    (compared,) = compare()
    assert (compared.task, compared.by) == ("multilabel", "mean_average_precision")
    assert "mean_average_precision" in verdict(compared)
    assert json.dumps(compared.as_json(), allow_nan=False)


def test_a_number_from_a_table_to_a_verdict(tiny_model: Path) -> None:
    done = extract(photos(90, lambda number: 10 + number % 3 + number / 1000), tiny_model, task="regression")
    runs = fit_heads([done.path], ["ridge", "knn"], coverage=0.8)
    run = runs[0]
    assert isinstance(run, FrozenRun)
    assert (run.task, run.calibration, run.repeats) == ("regression", None, None)
    assert run.test.others["r2"] > 0.9
    fields = json.loads(run.path.read_text())
    assert "accuracy" not in fields["test"]
    assert on_the_page(run) >= {
        "task",
        "interval.coverage",
        "interval.margin",
        "interval.test_low",
        "interval.test_high",
    }
    assert run.interval is not None
    assert (run.interval.coverage, fields["interval"]["margin"]) == (0.8, run.interval.margin)
    assert list_runs()[0].as_json() == next(each for each in runs if each.path == list_runs()[0].path).as_json()
    (compared,) = compare()
    (other,) = compare(by="r2")
    assert (compared.by, other.by, len(compared.pairs)) == ("mae", "r2", 1)
    assert compared.baseline is not None
    assert json.dumps(compared.as_json(), allow_nan=False)
    assert "shown to be" in verdict(compared)
    answered = predict(run.path, ["000.png", "001.png"], features=done.path.parents[1])
    values = [float(label) for label in answered.labels]
    assert values == pytest.approx([10.0, 11.0], abs=0.4)
    row = next(answered.rows())
    assert row.each == pytest.approx(
        {"low": values[0] - run.interval.margin, "high": values[0] + run.interval.margin}, abs=1e-3
    )


@pytest.mark.parametrize(("offset", "scale"), [(1e9, 1.0), (-1.7e9, 0.01), (0.0, 1e-12)])
def test_numbers_are_learned_wherever_they_lie(offset: float, scale: float, tiny_model: Path) -> None:
    done = extract(photos(60, lambda number: offset + scale * (number % 3)), tiny_model, task="regression")
    (run,) = fit_heads([done.path], ["ridge"])
    assert run.test.others["r2"] > 0.99
    found = predict(run.path, ["000.png", "001.png", "002.png"], out="out.csv", features=done.path.parents[1])
    rows = [{name: float(row[name]) for name in ("label", "low", "high")} for row in read(Path("out.csv"))]
    assert [row["label"] for row in rows] == found.confidences[:, 0].tolist()
    assert all(row["low"] <= row["label"] <= row["high"] for row in rows)
    assert [(row["label"] - offset) / scale for row in rows] == pytest.approx([0, 1, 2], abs=0.2)
    recorded = {row["path"]: float(row["label"]) for row in read(run.path.with_suffix(".csv"))}
    assert all(value == offset + scale * (int(path[:3]) % 3) for path, value in recorded.items())
    export(run.path, out="run.onnx")
    by_file = predict("run.onnx", ["000.png", "001.png"]).confidences[:, 0]
    assert ((by_file - offset) / scale).tolist() == pytest.approx([0, 1], abs=0.2)


def test_labels_of_new_images_are_said_with_the_probability_of_each(tiny_model: Path) -> None:
    done = extract(photos(90, coloured), tiny_model, task="multilabel")
    (run,) = fit_heads([done.path], ["ridge"])
    found = predict(run.path, ["000.png", "001.png", "gone.png"], out="out.csv", features=done.path.parents[1])
    rows = read(Path("out.csv"))
    assert list(rows[0]) == ["path", "label", "p(odd)", "p(red)", "p(warm)", "error"]
    assert [{"red", "warm"} & {*row["label"].split(";")} for row in rows] == [{"red"}, {"red", "warm"}, set()]
    assert found.labels[2] == ""
    assert rows[2]["error"]


def test_what_is_of_classes_alone_is_refused(tiny_model: Path) -> None:
    done = extract(photos(30, lambda number: number), tiny_model, task="regression")
    with pytest.raises(OptionError, match="--metric auroc is not of --task regression, which has r2, spearman, mae"):
        fit_heads([done.path], ["ridge"], metric="auroc")
    with pytest.raises(OptionError, match="--class-weight is of classes"):
        fit_heads([done.path], ["ridge"], class_weight="balanced")
    fit_heads([done.path], ["ridge"])
    with pytest.raises(OptionError, match="--by top5 is no figure of --task regression, which has"):
        compare(by="top5")
    with pytest.raises(OptionError, match="--positive and --at are of classes, and .* is of --task regression"):
        operating_points(compare()[0], Wanted("a", "specificity", 0.9))
    with pytest.raises(HeadError, match="None of the heads"):
        fit_heads([done.path], ["logreg"], on_warning=lambda _: None)
    with pytest.raises(OptionError, match="--cv is of classes"):
        fit_heads([done.path], ["ridge"], cv="5x1")


def test_margins_hold_as_often_as_promised() -> None:
    random, inside = np.random.default_rng(5), list[float]()
    for _ in range(200):
        margin = regression.conformal_margin(random.normal(size=199), 0.9)
        inside.append(float((np.abs(random.normal(size=1000)) <= margin).mean()))
    assert 0.88 <= np.mean(inside) <= 0.92
    assert regression.conformal_margin(np.ones(5), 0.9) == np.inf
