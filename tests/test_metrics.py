from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from tlcache.evaluation import metrics
from tlcache.evaluation.calibration import calibration_error, reliability
from tlcache.evaluation.mistakes import confusions, hardest_classes, surest_mistakes
from tlcache.evaluation.significance import accuracy_interval
from tlcache.runs.predictions import TopPredictions

CASES = st.tuples(st.integers(1, 60), st.integers(2, 6), st.integers(0, 10_000))


def case(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(classes, 0.5), n).astype(np.float32)
    return random.integers(0, classes, n), probabilities


@given(CASES)
def test_figures_agree_with_scikit_learn(shape: tuple[int, int, int]) -> None:
    labels, probabilities = case(*shape)
    predicted = probabilities.argmax(axis=1)
    found = metrics.evaluate(labels, probabilities)
    assert found.accuracy == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found.macro_f1 == pytest.approx(reference.f1_score(labels, predicted, average="macro", zero_division=0))
    clipped = np.clip(probabilities[np.arange(len(labels)), labels].astype(float), 1e-7, 1)
    assert found.log_loss == pytest.approx(-np.log(clipped).mean())
    counts = metrics.confusion(labels, predicted, shape[1])
    assert np.array_equal(counts, reference.confusion_matrix(labels, predicted, labels=range(shape[1])))


def test_the_error_of_macro_f1_needs_no_matrix_of_classes() -> None:
    """About that of the bootstrap, and of 20,000 classes too, whose confusion matrix has 3 GB."""
    labels, probabilities = case(400, 5, 3)
    draws = np.random.default_rng(0).integers(0, 400, (400, 400))
    scores = [metrics.macro_f1(labels[rows], probabilities.argmax(axis=1)[rows]) for rows in draws]
    assert metrics.METRICS["macro_f1"].error(labels, probabilities) == pytest.approx(np.std(scores), rel=0.08)
    many = np.zeros((3, 20_000), np.float32)
    many[:, 19_999] = 1
    assert metrics.METRICS["macro_f1"].error(np.full(3, 19_999), many) == 0


@given(st.integers(1, 300), st.data())
def test_intervals_are_wilsons(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    expected = binomtest(right, n).proportion_ci(0.95, "wilson")
    assert accuracy_interval(right, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_an_interval_holds_its_accuracy_when_all_are_right_or_wrong() -> None:
    for n in range(1, 1000):
        assert accuracy_interval(n, n)[1] == 1
        assert accuracy_interval(0, n)[0] == 0


def test_calibration_error() -> None:
    sure = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    assert calibration_error(np.array([0, 0, 1, 1]), sure) == 0
    assert calibration_error(np.array([0, 1, 1, 0]), sure) == pytest.approx(0.5)
    honest = np.tile(np.float32([0.75, 0.25]), (400, 1))
    assert calibration_error(np.repeat([0, 1], [300, 100]), honest) == pytest.approx(0, abs=1e-6)


@given(CASES)
def test_the_reliability_diagram_is_scikit_learns(shape: tuple[int, int, int]) -> None:
    labels, probabilities = case(*shape)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    found = reliability(confidence, right)
    shares, means = calibration_curve(right, confidence, n_bins=10)
    assert found.right == pytest.approx(shares)
    assert found.confidence == pytest.approx(means)
    assert found.images.sum() == len(labels)


@given(CASES, st.integers(1, 30))
def test_confusions_are_the_largest_counts_off_the_diagonal(shape: tuple[int, int, int], most: int) -> None:
    labels, probabilities = case(*shape)
    counts = metrics.confusion(labels, probabilities.argmax(axis=1), shape[1])
    found = confusions(counts, most)
    wrong = {(a, b): n for (a, b), n in np.ndenumerate(counts) if a != b and n}
    assert [each.times for each in found] == sorted(wrong.values(), reverse=True)[:most]
    assert len({(each.true, each.predicted) for each in found}) == len(found)
    for each in found:
        assert wrong[each.true, each.predicted] == each.times
        assert each.share == pytest.approx(each.times / (labels == each.true).sum())


def test_the_hardest_classes_are_those_that_the_runs_miss_on_average() -> None:
    one = np.array([[9, 1, 0], [0, 0, 0], [5, 0, 5]])  # no image of the second class
    other = np.array([[2, 8, 0], [0, 0, 0], [0, 1, 9]])
    assert hardest_classes([one]).tolist() == [2, 0]
    assert hardest_classes([one, other]).tolist() == [0, 2]


def test_the_surest_mistakes_come_first() -> None:
    label, predicted = np.array([0, 0, 1, 1, 0]), np.array([0, 1, 0, 1, 1])
    row, confidence = np.array([b"a", b"b", b"c", b"d", b"e"]), np.float32([0.9, 0.6, 0.8, 0.9, 0.7])
    top = TopPredictions(row, label, predicted, confidence)
    assert surest_mistakes(top, 9).tolist() == [2, 4, 1]
    assert surest_mistakes(top, 2).tolist() == [2, 4]
    tested_twice = replace(top, row=np.array([b"a", b"b", b"c", b"d", b"c"]))
    assert surest_mistakes(tested_twice, 2).tolist() == [2, 1]
