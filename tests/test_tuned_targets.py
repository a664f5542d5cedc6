"""Fine-tuning on several labels of an image, or on a number."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics as reference
from torch.nn.functional import binary_cross_entropy

from tlcache.deploying.predict import predict
from tlcache.errors import OptionError
from tlcache.evaluation.baseline import Baseline
from tlcache.evaluation.compare import compare
from tlcache.evaluation.multilabel import log_losses
from tlcache.evaluation.resampled import resampled
from tlcache.finetuning import race
from tlcache.finetuning.finetune import finetune
from tlcache.finetuning.losses import make_loss
from tlcache.finetuning.recipe import Recipe
from tlcache.probing.fit import fit_heads
from tlcache.report.curves import learning_curves
from tlcache.report.reproduce import commands
from tlcache.report.tried import tried_table
from tlcache.runs.finetuned import FinetunedRun, TunedCandidate, TunedEpoch
from tlcache.runs.frozen import FrozenRun
from tlcache.runs.record import RUNS
from tlcache.studying.seeds import Spread
from tlcache.studying.study import study

TASKS = ("multilabel", "regression")
FIGURES = {"multilabel": "mean_average_precision", "regression": "mae"}
COLOURS = ("blue", "green", "red")
FIXED = {"recipe": "before", "precision": "fp32", "layout": "contiguous", "batch_size": 12}


@pytest.fixture
def tables(tinynet: None) -> dict[str, Path]:
    """Photographs whose colours are their labels, and whose brightness is their number, as tables of both."""
    del tinynet
    random, found = np.random.default_rng(0), {}
    several, numbers = [], []
    for row in range(60):
        has, bright = random.random(3) < 0.5, random.uniform(20, 120)
        pixels = random.integers(0, 40, (24, 24, 3)) + bright + 80 * has
        Image.fromarray(pixels.astype(np.uint8)).save(f"{row:02}.png")
        several.append(f"{row:02}.png,{';'.join(np.array(COLOURS)[has]) or ';'}")
        numbers.append(f"{row:02}.png,{bright:.2f}")
    for task, lines in zip(TASKS, (several, numbers), strict=True):
        found[task] = Path(f"{task}.csv")
        found[task].write_text("\n".join(["path,label", *lines]))
    return found


def tune(tables: dict[str, Path], task: str, **settings: Any) -> FinetunedRun:
    return finetune(tables[task], "tinynet", "random", task=task, **{**FIXED, "epochs": 2, **settings})


@pytest.mark.parametrize("task", TASKS)
def test_a_fine_tuning_begins_with_the_cached_head_and_is_recorded_as_heads_are(
    tables: dict[str, Path], task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlcache.probing.folds.FEW", 0)  # val alone chooses, and is what the head is judged on
    run, figure = tune(tables, task, coverage=None if task == "multilabel" else 0.8), FIGURES[task]
    (head,) = fit_heads(heads=["logreg" if task == "multilabel" else "ridge"], folds=0, one_se=True)
    assert run.history[0].value == pytest.approx(head.validated[figure], abs=1e-3)
    assert (run.history[0].figure, run.history[0].val_accuracy) == (figure, None)
    assert RUNS.read(run.path) == run
    assert (run.task, run.classes, run.rows) == (task, head.classes, head.rows)
    assert [*run.predictions().row] == [*head.predictions().row]
    record, stored = json.loads(run.path.read_text()), run.predictions()
    assert not {"loss", "label_smoothing", "class_weights"} & record["arguments"].keys()
    if task == "multilabel":
        expected = reference.average_precision_score(stored.label, stored.probabilities)
        assert len(run.thresholds) == len(run.per_class) == 3
    else:
        expected = reference.mean_absolute_error(stored.label, stored.probabilities)
        inside = np.abs(stored.label - stored.probabilities) <= run.interval.margin
        assert (run.interval.coverage, run.interval.test_coverage) == (0.8, inside.mean())
    assert record["test"][figure] == pytest.approx(expected, abs=1e-9)
    assert {figure: run.history[run.chosen.epochs.backbone].value}.items() <= run.validated.items()


@pytest.mark.parametrize("task", TASKS)
def test_what_was_tuned_is_compared_asked_and_made_again(tables: dict[str, Path], task: str) -> None:
    run = tune(tables, task, refit=True)
    fit_heads(heads=["ridge", "dense"])
    (found,) = compare()
    assert {type(each.run) for each in found.entries} == {FinetunedRun, FrozenRun}
    assert (found.by, len(found.pairs)) == (FIGURES[task], 3)
    said = predict(run, [path.decode() for path in run.predictions().row])
    np.testing.assert_allclose(said.confidences, run.predictions().probabilities, atol=1e-5)
    assert set(said.columns.each) == ({f"p({name})" for name in COLOURS} if task == "multilabel" else {"low", "high"})
    (line,) = commands(run)
    assert f"--task {task}" in line
    assert "--loss" not in line
    assert learning_curves(run).axes[1].get_title() == FIGURES[task].replace("_", " ")


@pytest.mark.parametrize(("task", "head"), [("multilabel", "dense"), ("regression", "linear")])
def test_a_fresh_head_learns_them_too(tables: dict[str, Path], task: str, head: str) -> None:
    how = {"init_head": "scratch", "head": head, "head_epochs": 2, "head_lr": 0.02, "lr": 0.02, "augment": "none"}
    run = tune(tables, task, epochs=15, patience=15, ema=0.0, **how)
    losses = [epoch.train_loss for epoch in run.history]
    assert losses[-1] < 0.7 * losses[0]
    assert run.test.as_json()["auroc" if task == "multilabel" else "spearman"] > 0.6


@pytest.mark.parametrize("task", TASKS)
def test_recipes_race_for_the_figure_of_the_task(
    tables: dict[str, Path], task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race, "RACED", ("steady", "bold"))
    monkeypatch.setattr("tlcache.finetuning.plan._FEW", 2)
    monkeypatch.setattr("tlcache.finetuning.plan._MANY", 2)
    run = finetune(tables[task], "tinynet", "random", task=task, precision="fp32", layout="contiguous")
    *tried, final = run.candidates
    best = max(tried, key=lambda each: max(epoch.score for epoch in each.history[1:]))
    assert final.setting["recipe"] == best.setting["recipe"]
    assert set(final.scores) == {f"val_{FIGURES[task]}", "val_loss"}


def test_of_two_settings_that_with_the_smaller_error_is_chosen(tables: dict[str, Path]) -> None:
    run = tune(tables, "regression", sweep={"lr": [1e-4, 10.0]}, init_head="scratch", head_epochs=1)
    errors = [each.scores["val_mae"] for each in run.candidates]
    assert run.chosen.setting == run.candidates[int(np.argmin(errors))].setting
    worse, better = (TunedEpoch(phase="backbone", epoch=1, val_loss=1, val_mae=mae, val_s=0) for mae in (2.0, 1.0))
    assert better.score > worse.score


@pytest.mark.parametrize(
    ("task", "settings", "words"),
    [
        ("multilabel", {"loss": "bce"}, "--loss is of classes, and the labels are of --task multilabel"),
        ("multilabel", {"coverage": 0.9}, "--coverage is of classes and of numbers, and the labels are of"),
        ("multilabel", {"label_smoothing": 0.2}, "--label-smoothing is of classes"),
        ("regression", {"label_smoothing": 0.05}, "--label-smoothing is of classes"),
        ("regression", {"class_weight": "balanced"}, "--class-weight is of classes"),
        ("regression", {"coverage": 0.9, "per_class": True}, "--per-class is of classes"),
        ("regression", {"head": "knn"}, "Unknown head 'knn'"),
    ],
)
def test_what_is_of_classes_is_refused_before_anything_is_done(
    tables: dict[str, Path], task: str, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(OptionError, match=words):
        tune(tables, task, **settings)
    assert not Path("features").exists()
    assert Recipe().as_json()["loss"] == "ce"


def test_losses_of_columns_are_the_log_losses_of_each_label_and_half_of_the_squared_error() -> None:
    logits, has = torch.tensor([[2.0, -1.0], [0.5, 0.0]]), torch.tensor([[1, 0], [0, 1]], dtype=torch.uint8)
    expected = binary_cross_entropy(logits.sigmoid(), has.float()) * 2
    assert float(make_loss("multilabel")(logits, has)) == pytest.approx(float(expected))
    assert float(make_loss("regression")(logits[:, :1], torch.tensor([[1.0], [1.0]]))) == pytest.approx(1.25 / 4)


def test_a_study_is_of_the_heads_that_learn_the_task_and_of_fine_tuning(tables: dict[str, Path]) -> None:
    how = {**FIXED, "task": "regression", "epochs": 1, "out": "report.html"}
    steps = study([tables["regression"]], ["tinynet"], "random", heads=["ridge", "logreg"], **how)
    assert [(step.kind, step.state) for step in steps] == [
        (kind, "done") for kind in ("extract", "fit-heads", "finetune", "report")
    ]
    again = study([tables["regression"]], ["tinynet"], "random", heads=["ridge"], **how)
    assert {step.state for step in again[:3]} == {"recorded"}


def test_a_screening_is_of_classes(tables: dict[str, Path]) -> None:
    with pytest.raises(OptionError, match="--screen is of classes, and the labels are of --task regression"):
        study([tables["regression"]], ["tinynet"], "random", task="regression", screen=1)


@pytest.mark.parametrize(
    ("size", "mean", "first", "low"), [(1, "-0.833", "-1.500", "-2.000"), (1e-9, "-8.333e-10", "-1.5e-09", "-2e-09")]
)
def test_what_seeds_say_of_an_error_is_in_its_units_and_less_of_it_is_better(
    size: float, mean: str, first: str, low: str
) -> None:
    found = SimpleNamespace(difference=-1.5 * size, low=-2.0 * size, high=-1.0 * size)
    pair: Any = SimpleNamespace(found=found, shown=True)
    values = (-2.0 * size, -1.0 * size, 0.5 * size)
    text = str(Spread("ages", values, True, resampled(np.array(values), 0.25), pair, "mae"))
    assert f"fine-tuning has {mean} of mae over the frozen head" in text
    assert "ahead in 2 seeds" in text
    assert f"On the first split alone it has {first} (95 % CI {low} to " in text


def test_a_small_error_is_told_of_what_was_tried() -> None:
    tried = TunedCandidate(setting={"lr": 0.1}, scores={"val_mae": 1.25e-7, "val_loss": 1.0})
    run: Any = SimpleNamespace(candidates=(tried, TunedCandidate(setting={"lr": 1.0})), race=None)
    (column,) = [each for each in tried_table(run).columns if each.header == "Validation"]
    assert [*column.cells] == ["1.25e-07", "diverged"]


def test_what_was_raced_is_counted_in_words() -> None:
    raced = TunedCandidate(setting={"recipe": "top", "epochs": 1}, scores={"val_loss": 1.0}, images=1200)
    run: Any = SimpleNamespace(candidates=(raced,), race=True)
    assert [*tried_table(run).columns[0].cells] == ["top, 1 epoch, 1,200 images"]


def test_losses_of_several_labels_are_told_per_label_as_that_of_the_test(tables: dict[str, Path]) -> None:
    run = tune(tables, "multilabel", lr=1e-5, augment="none", batch_norm="eval", refit=False)
    held = run.held_out()
    assert held is not None
    said = held.probabilities.astype(np.float64)
    uncalibrated = 1 / (1 + (1 / said - 1) ** run.temperature)
    best = max(run.history, key=lambda epoch: epoch.score)
    assert best.val_loss == pytest.approx(log_losses(held.label, uncalibrated).mean(), rel=1e-3)
    assert 0 < (run.history[1].train_loss or 0) < best.val_loss  # of images it knows; as a sum it would be the larger


def test_a_constant_answer_has_its_error_in_the_form_of_others() -> None:
    assert str(Baseline("3", 22044.25, "mae")).endswith("a mean error of 22044.250.")


def test_the_table_of_a_race_has_what_was_reached_by_training() -> None:
    epochs = [
        TunedEpoch(phase="backbone", epoch=number, val_loss=1.0, val_accuracy=value, val_s=0.1)
        for number, value in enumerate((0.9, 0.6, 0.8, 0.7))
    ]
    scores = {"val_accuracy": 0.9, "val_loss": 1.0}
    setting = {"recipe": "top", "epochs": 3}
    raced = TunedCandidate(setting=setting, scores=scores, images=12, history=tuple(epochs))
    run: Any = SimpleNamespace(candidates=(raced,), race={"budget_s": 1.0})
    assert [*tried_table(run).columns[1].cells] == ["0.800"]
