"""Heads: right answers, defined behaviour on odd input, and files that bring back the same head bit for bit."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.covariance import EmpiricalCovariance
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics.pairwise import cosine_similarity, rbf_kernel
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import KernelCenterer
from sklearn.utils.estimator_checks import check_estimator

from tlcache.errors import HeadError, UnknownNameError
from tlcache.evaluation.calibration import fit_temperature
from tlcache.evaluation.metrics import log_loss
from tlcache.heads import cosines, logits, rows
from tlcache.heads.base import Head
from tlcache.heads.dense import Dense
from tlcache.heads.fitted import FittedHead, load_head, load_to_ask
from tlcache.heads.knn import Knn
from tlcache.heads.krr import Krr
from tlcache.heads.landmarks import KernelHead
from tlcache.heads.lbfgs import minimise
from tlcache.heads.lightgbm import LightGbm
from tlcache.heads.linear import Linear
from tlcache.heads.logits import softmax
from tlcache.heads.logreg import LogReg
from tlcache.heads.ncm import Ncm
from tlcache.heads.optimizers import OPTIMIZERS, Optimizer
from tlcache.heads.ridge import Ridge
from tlcache.heads.rows import Scaler, View
from tlcache.heads.solver import Basis, Loss, softmax_loss, squared_hinge
from tlcache.heads.svm import Svm, _diagonal
from tlcache.heads.table import HEADS, HeadRow, find_head
from tlcache.heads.training import _last_epoch, _Memory, _Stack, _step_rows, _Steps

Data = tuple[np.ndarray, np.ndarray]


def blobs(n: int, dim: int, classes: int, seed: int = 0, spread: float = 1.0) -> Data:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 1, (classes, dim))
    labels = np.arange(n) % classes
    return (centres[labels] + random.normal(0, spread, (n, dim))).astype(np.float32), labels


def quick(row: HeadRow) -> Head:
    """Return a head of the row with its first setting."""
    return row.type()(**row.settings()[0])


@pytest.mark.parametrize("row", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("classes", [2, 4])
def test_every_head_learns_what_is_easy(row: HeadRow, classes: int) -> None:
    X, y = blobs(200, 16, classes)
    X_test, y_test = blobs(100, 16, classes, seed=1)
    heads = list(row.type().fit_each(row.settings(), X, y, X_test, y_test))
    assert len(heads) == len(row.settings())
    assert max((head.predict(X_test) == y_test).mean() for head in heads) > 0.9
    for head in heads:
        probabilities = head.predict_proba(X_test)
        assert probabilities.dtype == np.float32
        assert probabilities.shape == (100, classes)
        assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
        assert head.logits(X_test).dtype == np.float32


@pytest.mark.parametrize("row", HEADS.values(), ids=HEADS)
def test_fitting_is_deterministic_and_settings_fitted_together_are_those_fitted_alone(row: HeadRow) -> None:
    X, y = blobs(90, 8, 3)
    together = {
        str(sorted(head.get_params().items())): head for head in row.type().fit_each(row.settings(), X, y, X, y)
    }
    for key, head in together.items():
        alone = row.type()(**head.get_params()).fit(X, y, X, y)
        assert key == str(sorted(alone.get_params().items()))
        assert np.allclose(alone.predict_proba(X), head.predict_proba(X), atol=2e-2)
        twice = row.type()(**head.get_params()).fit(X, y, X, y)
        assert np.array_equal(twice.logits(X), alone.logits(X))


@pytest.mark.parametrize("row", HEADS.values(), ids=HEADS)
def test_labels_are_whatever_they_were(row: HeadRow) -> None:
    X, y = blobs(60, 8, 3)
    names = np.array(["cat", "dog", "owl"])[y]
    head = quick(row).fit(X, names)
    assert list(head.classes_) == ["cat", "dog", "owl"]
    assert set(head.predict(X)) <= {"cat", "dog", "owl"}


@pytest.mark.parametrize("row", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize(
    ("n", "dim", "classes"), [(12, 40, 3), (4, 6, 4), (30, 1, 2)], ids=["more features than rows", "one each", "narrow"]
)
def test_odd_shapes(row: HeadRow, n: int, dim: int, classes: int) -> None:
    X, y = blobs(n, dim, classes)
    assert np.isfinite(quick(row).fit(X, y).logits(X)).all()


@pytest.mark.parametrize("row", HEADS.values(), ids=HEADS)
def test_bad_features_are_refused(row: HeadRow) -> None:
    X, y = blobs(30, 8, 3)
    for value in (np.nan, np.inf):
        bad = X.copy()
        bad[3, 3] = value
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            quick(row).fit(bad, y)
    with pytest.raises(ValueError, match="2 classes or more; found 1 class"):
        quick(row).fit(X, np.zeros(30, int))
    head = quick(row).fit(X, y)
    with pytest.raises(ValueError, match="8 features"):
        head.predict(X[:, :5])


@pytest.mark.parametrize("row", HEADS.values(), ids=HEADS)
def test_constant_features_do_no_harm(row: HeadRow) -> None:
    X, y = blobs(60, 8, 3)
    padded = np.hstack([X, np.full((60, 3), 7, np.float32)])
    scaled = Scaler.of(padded)(padded)
    assert (scaled[:, 8:] == 0).all()
    assert np.isfinite(quick(row).fit(scaled, y).logits(scaled)).all()


@pytest.mark.parametrize("row", HEADS.values(), ids=HEADS)
def test_a_view_is_as_good_as_a_standardised_copy(row: HeadRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows.blocks, "__defaults__", (32,))  # so that there are several blocks of 90 rows
    X, y = blobs(130, 8, 3)
    numbers = np.random.default_rng(0).permutation(130)
    fit, held = numbers[:90], numbers[90:]
    scaler = Scaler.of(View(X, fit))
    copied, held_copied = scaler(X[fit]), scaler(X[held])
    assert np.array_equal(View(X, fit, scaler)[3:40], copied[3:40])
    assert np.array_equal(View(X, fit, scaler).of(np.array([5, 80]))[:], copied[[5, 80]])
    settings = row.settings()[:2]
    heads = row.type().fit_each(settings, View(X, fit, scaler), y[fit], View(X, held, scaler), y[held])
    others = row.type().fit_each(settings, copied, y[fit], held_copied, y[held])
    for found, other in zip(heads, others, strict=True):
        assert found.n_features_in_ == 8
        assert np.allclose(found.predict_proba(View(X, held, scaler)), other.predict_proba(held_copied), atol=1e-5)


def test_a_view_is_checked_as_a_matrix_is() -> None:
    X, y = blobs(30, 8, 3)
    head = Ridge().fit(View(X), y)
    with pytest.raises(ValueError, match="8 features"):
        head.logits(View(X[:, :5]))
    with pytest.raises(ValueError, match="0 sample"):
        head.logits(View(X[:0]))
    X[29, 3] = np.nan
    for call in (lambda: head.logits(View(X)), lambda: Ridge().fit(View(X), y)):
        with pytest.raises(ValueError, match="NaN"):
            call()


@pytest.mark.parametrize("shape", [(300, 20, 3), (40, 100, 4)])
@pytest.mark.parametrize("C", [1e-3, 1e-1, 10.0])
def test_logreg_reaches_scikit_learns_optimum(shape: tuple[int, int, int], C: float) -> None:
    X, y = blobs(*shape, spread=3)
    head = LogReg(C=C).fit(X, y)
    other = LogisticRegression(C=C, max_iter=10_000, tol=1e-8).fit(X.astype(np.float64), y)

    def objective(coef: np.ndarray, intercept: np.ndarray) -> float:
        logits = X.astype(np.float64) @ coef + intercept
        top = logits.max(axis=1)
        losses = top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - logits[np.arange(len(y)), y]
        return float(C * losses.sum() + 0.5 * (coef**2).sum())

    ours = objective(head.coef_.astype(np.float64), head.intercept_.astype(np.float64))
    theirs = objective(other.coef_.T, other.intercept_)
    assert ours <= theirs * (1 + 1e-4)


@pytest.mark.parametrize("shape", [(300, 20, 3), (40, 100, 4)])
@pytest.mark.parametrize("alpha", [1.0, 100.0])
def test_ridge_is_scikit_learns(shape: tuple[int, int, int], alpha: float) -> None:
    X, y = blobs(*shape, spread=3)
    other = RidgeClassifier(alpha=alpha).fit(X.astype(np.float64), y)
    found = Ridge(alpha=alpha).fit(X, y).logits(X)
    assert np.allclose(found, other.decision_function(X), atol=2e-3)


def test_knn_looks_at_all_rows_however_many_are_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(100, 12, 3, spread=3)
    head = Knn(k=20).fit(X, y)
    whole = head.logits(X)
    monkeypatch.setattr(logits, "_ASKED", 7)
    monkeypatch.setattr(cosines, "_ASKED", 3)
    monkeypatch.setattr(cosines, "_KNOWN", 11)  # fewer than k
    assert np.allclose(head.logits(X), whole, atol=1e-5)


@pytest.mark.parametrize("k", [1, 5])
def test_knn_finds_the_neighbours_that_scikit_learn_finds(k: int) -> None:
    X, y = blobs(200, 10, 3, spread=2)
    X_test, _ = blobs(50, 10, 3, seed=1, spread=2)
    other = KNeighborsClassifier(k, metric="cosine").fit(X, y)
    found = Knn(k=k, temperature=1e6).fit(X, y)  # so warm that all neighbours weigh the same
    assert np.allclose(found.predict_proba(X_test), other.predict_proba(X_test), atol=5e-3)


def test_the_svm_is_exact_up_to_its_landmarks() -> None:
    """With every row a landmark, products of features are the Gaussian kernel itself."""
    X, y = blobs(80, 5, 2, spread=2)
    head = Svm(gamma=1.0).fit(X, y)
    features = (head._kernel(X) @ _diagonal(head._landmarks(X)).vectors).astype(np.float64)
    distances = ((X[:, None] - X[None]) ** 2).sum(axis=2)
    assert np.allclose(features @ features.T, np.exp(-head.width_ * distances), atol=1e-3)
    few = Svm(landmarks=20).fit(X, y)
    assert few.points_.shape == (20, 5)
    assert (few.predict(X) == y).mean() > 0.8


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_kernel_ridge_is_that_of_scikit_learn(alpha: float) -> None:
    """Which has no intercept: that is what centring its kernel and targets makes."""
    X, y = blobs(80, 5, 3, spread=2)
    X_test, _ = blobs(30, 5, 3, seed=1, spread=2)
    head = Krr(alpha=alpha, gamma=0.7).fit(X, y)
    centre, targets = KernelCenterer(), 2 * np.eye(3)[y] - 1
    known, asked = (rbf_kernel(rows.astype(np.float64), X.astype(np.float64), head.width_) for rows in (X, X_test))
    other = KernelRidge(alpha=alpha, kernel="precomputed").fit(centre.fit_transform(known), targets - targets.mean(0))
    expected = other.predict(centre.transform(asked)) + targets.mean(0)
    assert np.allclose(head.logits(X_test), expected, atol=1e-3)


def test_kernel_ridge_on_landmarks_is_nearly_that_on_all_rows() -> None:
    (X, y), (X_test, truth) = (blobs(600, 4, 3, seed=seed, spread=0.8) for seed in (0, 1))
    few, every = Krr(landmarks=200).fit(X, y), Krr().fit(X, y)
    assert few.points_.shape == (200, 4)
    assert abs((few.predict(X_test) == truth).mean() - (every.predict(X_test) == truth).mean()) < 0.02


def test_class_means_are_compared_by_the_angle_between_whitened_rows() -> None:
    """As written down, with the covariance within classes as scikit-learn has it."""
    X, y = blobs(90, 6, 3, spread=2)
    X_test, _ = blobs(30, 6, 3, seed=1, spread=2)
    head = Ncm(shrinkage=0.4, sharpness=10).fit(X[5:], y[5:])
    centres = np.stack([X[5:][y[5:] == number].mean(axis=0) for number in range(3)])
    within = EmpiricalCovariance(assume_centered=True).fit(X[5:] - centres[y[5:]]).covariance_
    white = sqrtm(np.linalg.inv(0.6 * within + 0.4 * np.eye(6) * np.trace(within) / 6))
    directions, asked = ((rows - centres.mean(axis=0)) @ white for rows in (centres, X_test))
    shares = np.bincount(y[5:]) / 85
    assert np.allclose(head.logits(X_test), 10 * cosine_similarity(asked, directions) + np.log(shares), atol=2e-3)


def test_a_class_is_added_without_a_refit() -> None:
    """As if the new class had been there, save what its rows say of how rows vary; the others answer as they did."""
    (X, y), (X_test, truth) = (blobs(400, 12, 4, seed=seed, spread=1.5) for seed in (0, 1))
    names = np.array(["a", "b", "c", "d"])
    some, new = y != 1, X[y == 1]
    head = Ncm().fit(X[some], names[y[some]])
    more = head.with_class("b", new)
    assert list(more.classes_) == ["a", "b", "c", "d"]
    assert np.ptp(more.logits(X_test)[:, [0, 2, 3]] - head.logits(X_test)) < 1e-5  # shares are of more rows
    refit = Ncm().fit(X, names[y])
    right, as_refit = ((each.predict(X_test) == names[truth]).mean() for each in (more, refit))
    assert right > as_refit - 0.02
    for label, given in (("a", new), ("e", new[:0])):
        with pytest.raises(ValueError, match="A new class has a label that none has, and rows; given"):
            head.with_class(label, given)


def test_a_fitted_head_has_a_class_more_by_its_name(tmp_path: Path) -> None:
    head, X = fitted(HEADS["ncm"])  # of a, c and e; b and d were never seen
    far = X[:5] + 40
    for name, names in (("b", "abcde"), ("f", "abcdef")):
        more = head.with_class(name, far)
        more.save(tmp_path / "more.safetensors")
        again = load_head(tmp_path / "more.json")  # the name of a record
        assert again.classes == tuple(names)
        assert again.predict(far).tolist() == [name] * 5
        assert (again.predict(X) == head.predict(X)).mean() > 0.9
    with pytest.raises(HeadError, match="already has the class 'a'"):
        head.with_class("a", far)
    with pytest.raises(HeadError, match="class 'f' was given no embeddings"):
        head.with_class("f", [])
    with pytest.raises(HeadError, match="cannot be added to the ridge head without a refit. Fit ncm"):
        fitted(HEADS["ridge"])[0].with_class("f", far)


@pytest.mark.parametrize("loss", [softmax_loss, squared_hinge])
def test_slopes_are_those_of_the_losses(loss: Loss) -> None:
    y = np.array([0, 2, 1, 1])
    scores = np.random.default_rng(0).standard_normal((2, 3, 4))
    numeric = np.empty_like(scores)
    for problem, label, row in np.ndindex(*scores.shape):
        nudge = np.zeros_like(scores)
        nudge[problem, label, row] = 1e-6
        rise = loss(scores + nudge, y)[0] - loss(scores - nudge, y)[0]
        numeric[problem, label, row] = rise[problem, row] / 2e-6
    assert np.allclose(loss(scores, y)[1], numeric, atol=1e-5)


def test_problems_side_by_side_end_where_each_ends_alone() -> None:
    """Ill-conditioned quadratics, one of them already solved, and one whose first step is far too long."""
    random = np.random.default_rng(0)
    curves = np.exp(random.uniform(-3, 3, (4, 30))).astype(np.float32)
    curves[3] *= 1000
    goals = random.normal(size=(4, 30)).astype(np.float32)

    def objective(x: np.ndarray, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        off = x - goals[some]
        return 1 + (curves[some] * off * off).sum(axis=1, dtype=np.float64) / 2, curves[some] * off

    start = np.zeros((4, 30), np.float32)
    start[1] = goals[1]
    assert np.allclose(minimise(objective, start), goals, atol=2e-2)


def test_the_basis_keeps_all_that_matters() -> None:
    for n, dim in ((50, 10), (10, 50)):
        X, _ = blobs(n, dim, 2)
        basis = Basis.of(X)
        Z = basis.coordinates(X)
        assert Z.shape[1] == min(dim, n - 1) + 1
        assert (Z[:, -1] == 1).all()
        assert np.allclose((Z[:, :-1] ** 2).sum(axis=0), basis.power, rtol=1e-4)
        assert np.allclose(Z[:, :-1] @ basis.vectors.T + basis.middle, X, atol=1e-4)


@pytest.mark.parametrize("head", [LogReg(C=0.1), Ridge(alpha=10.0), Svm(C=1.0), Knn(k=5), Linear(), Dense(hidden=16)])
def test_a_class_weight_of_two_is_every_row_twice(head: Head) -> None:
    X, y = blobs(60, 8, 3, spread=2)
    rows = np.repeat(np.arange(60), np.where(y == 1, 2, 1))
    weighted = type(head)(**{**head.get_params(), "class_weight": {0: 1.0, 1: 2.0, 2: 1.0}}).fit(X, y)
    doubled = type(head)(**head.get_params()).fit(X[rows], y[rows])
    if isinstance(head, Linear | Dense | Knn):  # other batches, other neighbours: only the direction is the same
        plain = type(head)(**head.get_params()).fit(X, y)
        assert weighted.predict_proba(X)[:, 1].mean() > plain.predict_proba(X)[:, 1].mean()
    elif isinstance(head, KernelHead):  # its width is a median of distances, which rows that are there twice change
        assert (weighted.predict(X) == doubled.predict(X)).mean() > 0.9
    else:
        assert np.allclose(weighted.logits(X), doubled.logits(X), atol=2e-2)


@pytest.mark.parametrize("row", HEADS.values(), ids=HEADS)
def test_balanced_weights_help_a_rare_class(row: HeadRow) -> None:
    X, y = blobs(400, 8, 2, spread=3)
    rare = np.flatnonzero((y == 0) | (np.arange(400) % 20 == 1))
    test, truth = blobs(400, 8, 2, seed=1, spread=3)
    recall = [
        (
            row.type()(**{**row.settings()[0], "class_weight": weight}).fit(X[rare], y[rare]).predict(test)[truth == 1]
            == 1
        ).mean()
        for weight in (None, "balanced")
    ]
    assert recall[1] >= recall[0]
    assert row.name == "knn" or recall[1] > recall[0] + 0.05


def test_trees_of_random_splits_are_better_than_those_of_the_best() -> None:
    """On what embeddings are like: many features that each say little, and few rows of a class."""
    (X, y), (X_test, truth) = (blobs(400, 64, 8, seed=seed, spread=4) for seed in (0, 1))
    right = {
        splits: float((LightGbm(splits=splits, rounds=100).fit(X, y).predict(X_test) == truth).mean())
        for splits in ("random", "best")
    }
    assert right["random"] > right["best"] + 0.02


def test_boosting_ends_in_time() -> None:
    X, y = blobs(2000, 32, 10, spread=5)
    head = LightGbm(rounds=100_000, patience=100_000, seconds=0.3).fit(X, y, X[:50], y[:50])
    assert 0 < head.best_round_ < 100_000
    assert head.chosen()["seconds"] is None
    assert head.logits(X[:3]).shape == (3, 10)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers(optimizer: str) -> None:
    X, y = blobs(200, 16, 3)
    rate = 0.1 if optimizer == "sgd" else 0.01
    head = Dense(hidden=16, optimizer=optimizer, learning_rate=rate, epochs=20, dropout=0.1).fit(X, y)
    assert (head.predict(X) == y).mean() > 0.9


@pytest.mark.parametrize("row", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_optimizers_are_those_of_torch(row: Optimizer) -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(50, generator=generator)
    theirs = torch.nn.Parameter(numbers.clone())
    their_optimizer = row.type()([theirs], lr=0.02, weight_decay=0.1, **row.settings)
    memory, step = _Memory.fresh(numbers), _Steps.of(row)
    for _ in range(5):
        theirs.grad = torch.randn(50, generator=generator)
        step(numbers, theirs.grad.clone(), memory, 0.02, 0.1)
        their_optimizer.step()
    torch.testing.assert_close(numbers, theirs.detach())


def test_gradients_are_those_of_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlcache.heads.training._fast_bf16", lambda _: False)
    heads = [Dense(hidden=16, dropout=dropout, seed=seed) for seed, dropout in enumerate((0.6, 0.3))]
    for head in heads:
        head.classes_ = np.arange(5)
    stack = _Stack.start(heads, 12, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    x, weights = torch.randn(2, 20, 12, generator=generator), torch.rand(2, 20, generator=generator)
    labels = torch.randint(5, (2, 20), generator=generator)
    kept = [torch.rand(2, 20, 16, generator=generator) > 0.5 for _ in range(2)]
    draws = iter(kept)
    monkeypatch.setattr(stack, "_kept", lambda _: next(draws))
    losses = stack._descend(x, labels, weights)
    numbers = stack.numbers.clone().requires_grad_()
    for number, (matrices, biases) in enumerate(stack._layers(numbers)):
        if number:
            x = x.relu() * kept[number - 1] / torch.tensor([0.4, 0.7])[:, None, None]
        x = x @ matrices + biases
    wanted = (torch.nn.functional.cross_entropy(x.mT, labels, reduction="none") * weights).sum(1)
    wanted.sum().backward()
    torch.testing.assert_close(losses, wanted.detach())
    torch.testing.assert_close(stack._gradient, numbers.grad, rtol=1e-3, atol=1e-5)


def test_training_does_not_import_what_compiles_networks() -> None:
    code = (
        "import sys, numpy as np; from tlcache.heads.dense import Dense; "
        "Dense(hidden=4, epochs=1).fit(np.eye(4, dtype=np.float32), np.arange(4)); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_dense_is_the_studys_head_and_stops_early() -> None:
    head = Dense()
    assert (head.hidden, head.depth, head.dropout) == (512, 2, 0.6)
    X, y = blobs(200, 16, 3)
    X_val, y_val = blobs(60, 16, 3, seed=1)
    head = Dense(hidden=16, patience=3, epochs=200).fit(X, y, X_val, y_val)
    assert head.shapes_.tolist() == [[16, 16], [16, 16], [16, 3]]
    assert len(head.history_) == head.best_epoch_ + 3
    assert set(head.history_[0]) == {"epoch", "train_loss", "val_loss", "val_accuracy"}
    assert head.chosen()["epochs"] == head.best_epoch_
    with pytest.raises(UnknownNameError, match="Unknown optimizer 'sdg'. Did you mean 'sgd'"):
        Dense(optimizer="sdg").fit(X, y)


@pytest.mark.parametrize(
    ("n", "rows", "epochs"),
    [(1000, 128, 100), (8192, 128, 100), (20_000, 312, 100), (300_000, 1024, 21), (10**7, 1024, 10)],
)
def test_many_rows_are_taken_in_more_steps_and_fewer_epochs(n: int, rows: int, epochs: int) -> None:
    assert _step_rows(Linear(), n) == rows
    assert _last_epoch(Linear(), n) == epochs
    assert (_step_rows(Linear(batch_size=50), n), _last_epoch(Linear(epochs=70), n)) == (50, 70)


def test_epochs_are_counted_by_the_rows_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlcache.heads.training._MOST", 4)
    monkeypatch.setattr("tlcache.heads.training._FEWEST", 1)
    X, y = blobs(2000, 8, 3)  # 500 steps
    head = Linear(patience=100).fit(X, y, X[:60], y[:60])
    assert len(head.history_) == 12
    assert head.history_[-1]["val_accuracy"] > 0.7


def test_a_loss_that_is_not_finite_stops_training() -> None:
    X, y = blobs(60, 8, 3)
    with pytest.raises(FloatingPointError, match="the loss became"):
        Linear(learning_rate=1e30, epochs=5).fit(1e5 * X, y)


def test_training_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    X, y = blobs(60, 8, 3)
    Dense(hidden=4, epochs=2).fit(X, y)
    assert torch.equal(before, torch.get_rng_state())


def test_temperature_lowers_the_loss_of_sure_and_wrong_logits() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 500)
    logits = random.normal(0, 1, (500, 3)).astype(np.float32)
    logits[np.arange(500), labels] += 1
    temperature = fit_temperature(10 * logits, labels)
    assert 5 < temperature < 20
    assert log_loss(labels, softmax(10 * logits / temperature)) < log_loss(labels, softmax(10 * logits))


def test_few_right_answers_do_not_prove_certainty() -> None:
    logits = 10 * np.eye(3, dtype=np.float32)[np.arange(12) % 3]
    temperature = fit_temperature(logits, np.arange(12) % 3)
    assert 0.5 < softmax(logits / temperature).max() < 1 - 1 / 30


def fitted(row: HeadRow) -> tuple[FittedHead, np.ndarray]:
    X, y = blobs(60, 8, 3)
    scaler = Scaler.of(X, row.scaled)
    head = quick(row).fit(scaler(X), 2 * y)  # classes 0, 2, 4 of five
    return FittedHead(row.name, head, scaler, 1.5, tuple("abcde"), "tiny", "k" * 64), X


@pytest.mark.parametrize("load", [load_head, load_to_ask])
@pytest.mark.parametrize("row", HEADS.values(), ids=HEADS)
def test_a_saved_head_comes_back_bit_for_bit(row: HeadRow, load: Callable[[Path], FittedHead], tmp_path: Path) -> None:
    head, X = fitted(row)
    path = tmp_path / "head.safetensors"
    head.save(path)
    load(path).save(path)
    again = load(path)
    assert np.array_equal(again.predict_proba(X), head.predict_proba(X))
    assert (again.name, again.classes, again.backbone, again.key) == (row.name, head.classes, "tiny", "k" * 64)
    assert again.predict_proba(X).shape == (60, 5)
    assert (again.predict_proba(X)[:, [1, 3]] == 0).all()
    assert set(again.predict(X)) <= {"a", "c", "e"}


@pytest.mark.parametrize("name", ["ridge", "lightgbm"])
def test_damaged_heads_are_refused(name: str, tmp_path: Path) -> None:
    head, _ = fitted(HEADS[name])
    path = tmp_path / "head.safetensors"
    head.save(path)
    data = path.read_bytes()
    path.write_bytes(data[:-50])
    with pytest.raises(HeadError, match="Cannot read the head"):
        load_head(path)
    flipped = bytearray(data)
    flipped[-50] ^= 4
    path.write_bytes(flipped)
    with pytest.raises(HeadError, match="is damaged: its checksum does not match"):
        load_head(path)
    with pytest.raises(HeadError, match="Cannot read the head"):
        load_head(tmp_path / "gone.safetensors")


def test_other_files_are_no_heads(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "weights.safetensors"
    save_file({"x": np.zeros(3)}, path)
    with pytest.raises(HeadError, match="is not a head of this tlcache"):
        load_head(path)


@pytest.mark.parametrize("row", HEADS.values(), ids=HEADS)
def test_a_head_takes_whatever_numpy_makes_a_matrix_of(row: HeadRow) -> None:
    head, X = fitted(row)
    expected = head.predict(X[:3]).tolist()
    for form in (X[:3].tolist(), [*X[:3]], tuple(map(tuple, X[:3])), X[:3].astype(np.float64), torch.from_numpy(X[:3])):
        assert head.predict(form).tolist() == expected
    integers = np.round(X[:3]).astype(np.int64)
    assert head.predict(integers).tolist() == head.predict(integers.astype(np.float32)).tolist()
    for none in ([], X[:0], np.empty((0, 8))):
        assert head.predict(none).shape == (0,)
        assert head.predict_proba(none).shape == (0, 5)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros(8), r"given a single embedding \(8,\)\. Put it in a list"),
        (np.zeros(7), r"given \(7,\)"),
        (np.zeros((1, 8, 1)), r"given \(1, 8, 1\)"),
        (np.zeros((0, 7)), r"given \(0, 7\)"),
        (5, r"given \(\)"),
        (None, r"given \(\)|NoneType"),
        ([["a"] * 8], r"numbers; given list: could not convert string to float"),
        ([[1] * 8, [1] * 7], r"numbers; given list: .*inhomogeneous"),
        ({"a": [1.0]}, r"numbers; given dict: "),
        ([[1e300] * 8], "NaN or infinity"),
        ([[float("nan")] * 8], "NaN or infinity"),
    ],
    ids=str,
)
def test_what_is_no_matrix_of_embeddings_is_refused(features: object, message: str) -> None:
    with pytest.raises(HeadError, match=message):
        fitted(HEADS["ridge"])[0].predict(features)


@pytest.mark.parametrize("row", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("weight", ["balance", {0: -1.0}, {0: "1"}, {0: float("nan")}, [1, 2], 3, np.ones(3)], ids=str)
def test_an_unknown_class_weight_is_refused_in_our_words(row: HeadRow, weight: object) -> None:
    X, y = blobs(12, 4, 3)
    with pytest.raises(ValueError, match=r"class_weight is .*\. Pass 'balanced', None, or a dict"):
        row.type()(class_weight=weight).fit(X, y)


def test_a_head_refuses_features_of_another_backbone() -> None:
    head, X = fitted(HEADS["ridge"])
    with pytest.raises(HeadError, match=r"trained on tiny with 8 features and takes \(n, 8\); given \(60, 7\)"):
        head.predict_proba(X[:, :7])
    with pytest.raises(HeadError, match="features of key kkkkkkkkkkkk; given oooooooooooo"):
        head.predict_proba(X, key="o" * 64)
    with pytest.raises(HeadError, match="NaN or infinity"):
        head.predict_proba(np.full((1, 8), np.nan, np.float32))


@pytest.mark.parametrize(
    "head",
    [
        LogReg(), Ridge(), Knn(), Svm(landmarks=50), Krr(landmarks=50), Ncm(), LightGbm(rounds=20), Linear(epochs=60),
        Dense(hidden=16, learning_rate=1e-2),
    ],
    ids=HEADS,
)  # fmt: skip
def test_scikit_learns_own_checks_pass(head: Head) -> None:
    failed = [result for result in check_estimator(head, on_skip=None, on_fail=None) if result["status"] == "failed"]
    assert failed == []


def test_rows_of_the_table() -> None:
    assert list(HEADS) == ["logreg", "ridge", "knn", "svm", "krr", "ncm", "lightgbm", "linear", "dense"]
    with pytest.raises(UnknownNameError, match="Unknown head 'ridg'. Did you mean 'ridge'"):
        find_head("ridg")
    for row in HEADS.values():
        assert set(row.quick) <= set(row.type()().get_params())


def test_boosting_of_many_classes_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlcache.heads.lightgbm._TREES", 30)
    X, y = blobs(60, 8, 4, spread=3)
    assert LightGbm(rounds=20, patience=99).fit(X, y).best_round_ == 7
    assert LightGbm(rounds=5, patience=99).fit(X, y).best_round_ == 5
    assert LightGbm().fit(*blobs(120, 8, 60)).best_round_ == 1


@pytest.mark.parametrize("classes", [2, 7])
def test_trees_a_round_at_a_time_give_the_same_to_the_bit(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(300, 8, classes)
    head = LightGbm(rounds=40, patience=99).fit(X[:200], y[:200])
    asked, predict = list[dict[str, Any]](), lightgbm.Booster.predict
    monkeypatch.setattr(lightgbm.Booster, "predict", lambda *rows, **how: asked.append(how) or predict(*rows, **how))
    whole = head.logits(X)
    assert len(asked) == 1
    monkeypatch.setattr("tlcache.heads.logits._MANY", 0)
    assert np.array_equal(head.logits(X), whole)
    assert len(asked) == 1 + 40
