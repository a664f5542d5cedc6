import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as reference

from tlcache.evaluation import metrics
from tlcache.evaluation.calibration import calibration_error
from tlcache.evaluation.significance import accuracy_interval

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
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(labels, predicted, average="macro", zero_division=0))
    clipped = np.clip(probabilities[np.arange(len(labels)), labels].astype(float), 1e-7, 1)
    assert found["log_loss"] == pytest.approx(-np.log(clipped).mean())
    counts = metrics.confusion(labels, predicted, shape[1])
    assert np.array_equal(counts, reference.confusion_matrix(labels, predicted, labels=range(shape[1])))


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
