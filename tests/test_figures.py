"""Figures beyond accuracy: equal to scikit-learn's, with intervals that hold the truth, by group or not."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from fakes import make_run
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as reference
from test_cli import invoke
from typer.testing import CliRunner

from tlcache.cli import app
from tlcache.evaluation import metrics
from tlcache.evaluation.compare import compare
from tlcache.evaluation.operating import Wanted, operating_points, threshold_of
from tlcache.evaluation.perclass import class_figures
from tlcache.evaluation.ranking import Ranked, rank_classes
from tlcache.evaluation.significance import clustered_interval, compare_paired
from tlcache.extraction.extract import extract
from tlcache.probing.fit import fit_heads
from tlcache.report.page import write_report
from tlcache.runs.predictions import Predictions

Labels = NDArray[np.int64]
Scores = NDArray[np.float32]
EXACT = 1e-12


def case(n: int, classes: int, seed: int = 0, decimals: int = 7, signal: float = 1.5) -> tuple[Labels, Scores]:
    """Return labels of uneven classes, and probabilities that know something of them, with ties for few decimals."""
    random = np.random.default_rng(seed)
    labels = np.append(np.arange(classes), (classes * random.random(n - classes) ** 2).astype(int))
    logits = random.standard_normal((n, classes)) + signal * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, probabilities.round(decimals).astype(np.float32)


CASES = [(40, 2, 2), (300, 2, 7), (60, 3, 1), (200, 4, 7), (500, 12, 2), (900, 30, 7)]


@pytest.mark.parametrize(("n", "classes", "decimals"), CASES)
def test_figures_equal_those_of_scikit_learn(n: int, classes: int, decimals: int) -> None:
    labels, probabilities = case(n, classes, decimals=decimals)
    predicted, ones = probabilities.argmax(axis=1), np.eye(classes)[labels]
    scores, truth = (probabilities[:, 1], labels) if classes == 2 else (probabilities, ones)
    squares = ((probabilities.astype(float) - ones) ** 2).sum(axis=1).mean()
    expected = {
        "accuracy": reference.accuracy_score(labels, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted),
        "macro_f1": reference.f1_score(labels, predicted, average="macro"),
        "mcc": reference.matthews_corrcoef(labels, predicted),
        "kappa": reference.cohen_kappa_score(labels, predicted),
        "auroc": reference.roc_auc_score(truth, scores, average="macro"),
        "auroc_weighted": reference.roc_auc_score(truth, scores, average="weighted"),
        "average_precision": reference.average_precision_score(ones, probabilities, average="macro"),
        "brier": squares / 2 if classes == 2 else squares,
    }
    if classes > 5 and decimals > 2:  # it ranks equal ones the other way round
        expected["top5"] = reference.top_k_accuracy_score(labels, probabilities, k=5)
    found = metrics.evaluate(labels, probabilities).as_json()
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=EXACT)
    assert ("top5" in found) == (classes > 5)


@pytest.mark.parametrize(("n", "classes", "decimals"), CASES)
def test_figures_of_classes_equal_those_of_scikit_learn(n: int, classes: int, decimals: int) -> None:
    labels, probabilities = case(n, classes, decimals=decimals)
    found = class_figures([f"c{number}" for number in range(classes)], labels, probabilities)
    parts = reference.precision_recall_fscore_support(labels, probabilities.argmax(axis=1), labels=range(classes))
    for number, each in enumerate(found):
        assert (each.name, each.n) == (f"c{number}", parts[3][number])
        for name, expected in zip(("precision", "recall", "f1"), parts[:3], strict=True):
            if share := getattr(each, name):
                assert share.value == pytest.approx(expected[number], abs=EXACT)
                assert share.low <= share.value <= share.high
        assert each.auroc
        assert each.average_precision
        ranked = labels == number, probabilities[:, number]
        assert each.auroc.value == pytest.approx(reference.roc_auc_score(*ranked), abs=EXACT)
        assert each.average_precision.value == pytest.approx(reference.average_precision_score(*ranked), abs=EXACT)


def test_the_recall_of_a_class_has_wilsons_interval_of_its_images() -> None:
    labels, probabilities = case(120, 3)
    right = probabilities.argmax(axis=1) == labels
    found = class_figures("abc", labels, probabilities)[1].recall
    assert found
    assert (found.low, found.high) == pytest.approx(clustered_interval(right[labels == 1]), abs=1e-9)


@pytest.mark.parametrize("decimals", [1, 7])
def test_the_variance_of_an_auroc_is_delongs(decimals: int) -> None:
    labels, probabilities = case(70, 2, seed=3, decimals=decimals)
    scores = probabilities[:, 1]
    above = np.sign(scores[labels == 1][:, None] - scores[labels == 0]) / 2 + 0.5
    variance = sum(above.mean(axis=axis).var(ddof=1) / above.shape[1 - axis] for axis in (0, 1))
    found = Ranked.of(labels == 1, scores).auroc()
    assert found.value == pytest.approx(above.mean(), abs=EXACT)
    assert found.error() == pytest.approx(variance**0.5, rel=1e-9)


def numbers_only(labels: Labels, probabilities: Scores) -> dict[str, float]:
    return {name: each.value for name, each in metrics.estimates(labels, probabilities).items()}


@pytest.mark.parametrize("classes", [2, 7])
def test_pulls_are_what_a_little_more_weight_on_an_image_changes(classes: int) -> None:
    """Every image 500 times, and one of them once more."""
    labels, probabilities = case(60, classes, seed=5, decimals=2)
    many, image = np.repeat(np.arange(60), 500), 11
    before = metrics.estimates(labels[many], probabilities[many])
    more = np.append(many, image)
    after = numbers_only(labels[more], probabilities[more])
    for name, each in before.items():
        expected = (after[name] - each.value) * len(more)
        assert each.pulls[500 * image] == pytest.approx(expected, rel=0.01, abs=0.01), name


def test_images_that_have_no_say_leave_a_figure_out() -> None:
    labels, probabilities = np.zeros(8, np.int64), np.full((8, 3), 1 / 3, np.float32)
    found = metrics.evaluate(labels, probabilities).as_json()
    assert not {"auroc", "average_precision", "top5"} & set(found)
    assert (found["accuracy"], found["mcc"], found["kappa"]) == (1, 0, 0)
    assert rank_classes(labels, probabilities) is None
    seen, *others = class_figures("abc", labels, probabilities)
    assert seen.recall
    assert seen.auroc is None
    assert [(each.recall, each.precision, each.f1) for each in others] == [(None, None, None)] * 2


def test_equal_probabilities_are_ranked_as_answers_are() -> None:
    """A head that says the same of everything is right by its first class, and of the first five."""
    probabilities = np.full((8, 8), 1 / 8, np.float32)
    found = metrics.evaluate(np.arange(8), probabilities).as_json()
    assert (found["accuracy"], found["top5"]) == (1 / 8, 5 / 8)


def test_figures_of_ten_thousand_rows_of_a_hundred_classes_take_less_than_a_second() -> None:
    labels, probabilities = case(10_000, 100)
    began = time.process_time()
    metrics.evaluate(labels, probabilities)
    assert time.process_time() - began < 1


def test_groups_widen_every_interval() -> None:
    labels, probabilities = case(200, 6)
    ten = np.repeat(np.arange(200), 10)
    alone = metrics.figures(labels[ten], probabilities[ten])
    grouped = metrics.figures(labels[ten], probabilities[ten], ten)
    for name in metrics.estimates(labels, probabilities):
        widths = [each[f"{name}_high"] - each[f"{name}_low"] for each in (grouped, alone)]
        assert widths[0] / widths[1] == pytest.approx(10**0.5, rel=0.15), name


def test_one_group_with_half_of_the_images_is_worth_hardly_four() -> None:
    """The interval of the images that are left is not narrow because there are many of them."""
    random = np.random.default_rng(0)
    units = np.concatenate([np.zeros(400, int), np.arange(1, 41).repeat(10)])
    held, width = 0, 0.0
    for _ in range(400):
        together = random.standard_normal(41)[units] + random.standard_normal(800)
        low, high = clustered_interval(together < 2**0.5 * stats.norm.ppf(0.9), units)
        held += low <= 0.9 <= high
        width += (high - low) / 400
    assert held / 400 > 0.92  # that counts the groups as if they were of one size: 0.72
    assert width < 0.35
    right = np.random.default_rng(1).random((2, 800)) < 0.9
    difference = compare_paired(right[0], right[1], units)
    assert difference.high - difference.low > 0.05


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_hold_the_truth_as_often_as_they_say(grouped: bool) -> None:
    """Of 150 images, or 100 groups of 3, of three classes."""
    truth = numbers_only(*drawn(np.random.default_rng(0), 60_000, grouped)[:2])
    held, random = dict.fromkeys(truth, 0.0), np.random.default_rng(1)
    for _ in range(400):
        labels, probabilities, units = drawn(random, 300 if grouped else 150, grouped)
        found = metrics.figures(labels, probabilities, units)
        for name in held:
            held[name] += (found[f"{name}_low"] <= truth[name] <= found[f"{name}_high"]) / 400
    assert {name: share for name, share in held.items() if not 0.925 < share < 0.985} == {}


def drawn(random: np.random.Generator, n: int, grouped: bool) -> tuple[Labels, Scores, NDArray[np.int64] | None]:
    """Return labels, probabilities, and the groups of three images that are alike."""
    units = np.arange(n) // 3 if grouped else np.arange(n)
    labels = random.choice(3, n, p=(0.5, 0.3, 0.2))[units]
    noise = random.standard_normal((n, 3))[units] + 0.5 * random.standard_normal((n, 3))
    logits = noise + 2 * np.eye(3)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, probabilities.astype(np.float32), units if grouped else None


def ranks(n: int, seed: int) -> tuple[Labels, Scores]:
    """Return labels, of which a third is 1, and how likely that is."""
    random = np.random.default_rng(seed)
    labels = (np.arange(n) % 3 == 0).astype(np.int64)
    likely = 1 / (1 + np.exp(-1.5 * labels - random.standard_normal(n)))
    return labels, np.stack([1 - likely, likely], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("rate", "least"), [("specificity", 0.9), ("specificity", 1.0), ("sensitivity", 0.95), ("sensitivity", 0.3)]
)
def test_a_threshold_holds_its_rate_where_it_is_chosen_and_no_better_one_does(rate: str, least: float) -> None:
    labels, probabilities = ranks(200, 0)
    positive, scores = labels == 1, probabilities[:, 1].round(2)
    threshold = threshold_of(positive, scores, rate, least)

    def held(at: float) -> float:
        return float((scores[positive] >= at).mean() if rate == "sensitivity" else (scores[~positive] < at).mean())

    assert held(threshold) >= least
    better = scores[scores > threshold].min() if rate == "sensitivity" else scores[scores < threshold].max()
    assert held(float(better)) < least


def test_what_a_threshold_of_validation_reaches_on_test_is_told() -> None:
    (val_labels, val), (labels, test) = ranks(300, 1), ranks(240, 2)
    names = np.array([f"val/{n}.jpg".encode() for n in range(300)])
    held = Predictions(names, val_labels, val, np.full(300, b""))
    options = {"labels": labels, "probabilities": test, "classes": ("benign", "malign")}
    make_run("svm", np.ones(240, bool), held=held, **options)
    make_run("knn", np.ones(240, bool), **options)
    (found,) = compare()
    rates = operating_points(found, Wanted("malign", "specificity", 0.9))
    (point,) = rates.points
    assert [entry.head for entry in rates.without] == ["knn"]
    assert (point.positives, point.negatives) == (100, 200)
    assert (val[val_labels == 0, 1] < point.threshold).sum() == 180
    above = test[:, 1] >= point.threshold
    assert point.sensitivity
    assert point.specificity
    assert point.sensitivity.value == pytest.approx(above[labels == 1].mean())
    assert point.specificity.value == pytest.approx(1 - above[labels == 0].mean())
    assert (point.sensitivity.low, point.sensitivity.high) == pytest.approx(clustered_interval(above[labels == 1]))
    output = invoke("compare", "--positive", "malign", "--at", "specificity=0.9")
    assert "'malign' against the rest, specificity of 0.9 held on validation" in output
    assert "Left out, as their records hold nothing to choose a threshold by: knn on tinynet" in " ".join(
        output.split()
    )
    page, markdown, _ = (
        path.read_text() for path in write_report("page.html", positive="malign", at=("specificity", 0.9))
    )
    for text in (page.replace("&#39;", "'"), markdown):
        assert "'malign' against the rest, specificity of 0.9 held on validation" in text
        assert f"{point.threshold:.4f}" in text
        assert f"{point.sensitivity.value:.3f} ({point.sensitivity.low:.3f}" in text
        assert "Left out, as their records hold nothing" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--positive", "dog"), "belong together"),
        (("--at", "specificity=0.9"), "belong together"),
        (("--positive", "dog", "--at", "specificity"), "takes specificity=X or sensitivity=X"),
        (("--positive", "dog", "--at", "sensitivity=90"), "takes specificity=X or sensitivity=X"),
        (("--positive", "dgo", "--at", "sensitivity=0.9"), "Unknown class 'dgo'. Did you mean 'dog'?"),
    ],
)
def test_rates_that_cannot_be_held_are_refused(words: tuple[str, ...], message: str) -> None:
    make_run("svm", np.arange(40) > 4)
    result = CliRunner().invoke(app, ["compare", *words])
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.output.split())


def test_a_head_keeps_what_it_said_of_the_images_that_chose_it(photos: Path, tiny_model: Path) -> None:
    path = extract(photos, str(tiny_model)).path
    for folds in (0, 3):
        (run,) = fit_heads([path], ["ridge"], folds=folds)
        held = run.held_out()
        assert held
        assert len(held.label) == (run.rows.train * bool(folds) + run.rows.val)
        right = held.probabilities.argmax(axis=1) == held.label
        assert right.mean() == pytest.approx(run.validated["accuracy"])
        assert len(set(held.row.tolist())) == len(held.row)
