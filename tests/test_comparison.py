"""Runs that are compared: what they reach, what they cost, which are as good as the best, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import make_run, right_but
from scipy import stats
from test_cli import invoke

from tlcache.cache.feature_file import Split
from tlcache.deploying.best import best_of, best_run
from tlcache.errors import CacheError, OptionError, UnknownNameError
from tlcache.evaluation.compare import compare
from tlcache.evaluation.comparison import Comparison
from tlcache.evaluation.estimates import compare_figures
from tlcache.evaluation.ranking import Ranked
from tlcache.evaluation.significance import compare_paired, smallest_shown
from tlcache.evaluation.verdict import verdict
from tlcache.extraction.extract import extract
from tlcache.heads.base import LinearHead
from tlcache.probing.fit import fit_heads
from tlcache.report.curves import learning_curves
from tlcache.runs.finetuned import FinetunedRun
from tlcache.runs.folder import runs_folder
from tlcache.runs.predictions import Predictions

N = 400


def only(**options: Any) -> Comparison:
    (found,) = compare(**options)
    return found


def test_all_that_are_not_shown_to_be_worse_share_the_mark() -> None:
    for head, wrong in (("svm", 20), ("ridge", 25), ("knn", 80)):
        make_run(head=head, right=right_but(wrong))
    found = only()
    assert [(entry.head, entry.best) for entry in found.entries] == [("svm", True), ("ridge", True), ("knn", False)]
    assert [entry.accuracy for entry in found.entries] == [0.95, 0.9375, 0.8]
    pair = found.pair(found.entries[0], found.entries[1])
    assert (pair.found.won, pair.found.lost) == (5, 0)
    assert pair.found.p == pytest.approx(2 * 0.5**5)
    assert pair.p_corrected == pytest.approx(0.0625)  # the last step of Holm's, after two smaller ones
    assert verdict(found).startswith("The most accurate is svm on tinynet, 0.950")


def test_the_correction_counts_all_pairs_and_not_those_with_the_best_alone() -> None:
    for number in range(6):
        make_run(head=f"head{number}", right=right_but(20 + 2 * number, start=40 * number))
    assert len(only().pairs) == 15
    smallest = min(only().pairs, key=lambda pair: pair.found.p)
    assert smallest.p_corrected == pytest.approx(min(1, 15 * smallest.found.p))


def test_identical_predictions_differ_by_nothing() -> None:
    for head in ("svm", "ridge"):
        make_run(head=head, right=right_but(20))
    (pair,) = only().pairs
    assert (pair.found.difference, pair.found.p, pair.p_corrected) == (0, 1, 1)
    assert all(entry.best for entry in only().entries)


def test_order_in_the_files_does_not_matter() -> None:
    make_run(head="svm", right=right_but(20))
    make_run(head="ridge", right=right_but(20), order=np.random.default_rng(0).permutation(N))
    (pair,) = only().pairs
    assert pair.found.won == pair.found.lost == 0


def test_costs_add_up() -> None:
    make_run(head="svm", right=right_but(20), fit_s=3.0, extract_s=40.0)
    make_run(head="linear", right=right_but(10), strategy="finetune", train_s=360.0, extract_s=40.0)
    tuned, frozen = only().entries
    assert (frozen.extract_s, frozen.train_s, frozen.first_s) == (40, 3, 43)
    assert (tuned.extract_s, tuned.train_s, tuned.first_s) == (40, 360, 400)
    assert frozen.images_per_s == pytest.approx((N + 800) / 40)
    assert frozen.as_json()["one_more_s"] == 3


def test_the_verdict_says_what_fine_tuning_gains_and_for_how_much() -> None:
    make_run(head="svm", right=right_but(60), fit_s=5.0, extract_s=5.0)
    make_run(head="linear", right=right_but(20), strategy="finetune", train_s=400.0, extract_s=10.0)
    text = verdict(only())
    assert "Fine-tuning tinynet gains 10.0 points (95 % CI 6.9 to 13.0, p = 1.8e-12)" in text
    assert "over the best frozen head (svm on tinynet), for 41 x its time." in text
    assert "trained on train alone" in text


@pytest.mark.parametrize("swept", [True, False])
def test_what_a_sweep_chose_is_what_was_done(swept: bool) -> None:
    make_run(head="svm", right=right_but(60))
    sweep, chosen = {"refit": [False, True], "optimizer": ["sgd", "adam"]}, {"refit": swept, "optimizer": "sgd"}
    run = make_run(head="linear", right=right_but(20), strategy="finetune", sweep=sweep, swept=chosen)
    assert ("trained on train alone" in verdict(only())) != swept
    assert isinstance(run, FinetunedRun)
    (title,) = (text.get_text() for text in learning_curves(run).texts)
    assert title.startswith("photos: tinynet, sgd; ")


def test_the_verdict_says_when_fine_tuning_loses_or_shows_nothing() -> None:
    make_run(head="svm", right=right_but(20))
    make_run(head="linear", right=right_but(23), strategy="finetune", refit=True)
    text = verdict(only())
    assert "is not shown to differ from the best frozen head (svm on tinynet): -0.8 points" in text
    assert "trained on train alone" not in text
    make_run(head="dense", right=right_but(19))
    make_run(head="linear", right=right_but(90), strategy="finetune", refit=True)
    assert "Fine-tuning tinynet loses 17.8 points" in verdict(only())


def test_a_fine_tuning_without_an_epoch_that_was_better_is_none() -> None:
    make_run(head="svm", right=right_but(60))
    make_run(head="linear", right=right_but(20), strategy="finetune", val=(0.7, 0.5, 0.6))
    found = only()
    assert [(entry.head, entry.frozen, entry.tuned) for entry in found.entries] == [
        ("fine-tuned (0 epochs kept)", False, False),
        ("svm", True, False),
    ]
    scores = "(accuracy 0.700 with a loss of 0.300; the best epoch 0.600 with a loss of 0.400)"
    start = f"no epoch was better on validation than the head it began with {scores}, which is what is tested."
    fewer = "It was trained on train alone, heads on train + val; with --refit both are."
    words = f"Fine-tuning tinynet gave nothing: {start} {fewer} The most accurate but for fine-tunings in vain is svm"
    assert verdict(found).startswith(words)
    assert "x its time" not in verdict(found)
    assert found.as_json()["runs"][0]["tuned"] is False
    make_run(head="linear", right=right_but(20), strategy="finetune", val=(0.7, 0.6), unfreeze="stage:2")
    assert "Fine-tuning tinynet gave nothing: in none of 2 runs was an epoch better on validation" in verdict(only())
    make_run(head="dense", right=right_but(90), strategy="finetune", val=(0.7, 0.6, 0.8))
    assert verdict(only()).startswith("Fine-tuning tinynet loses 7.5 points")


@pytest.mark.parametrize("held_out", [0.6, None])
def test_a_fine_tuning_in_vain_is_picked_only_where_there_are_no_heads(held_out: float | None) -> None:
    """It is the quickest here, and the best on validation and on the test images."""
    make_run(head="linear", right=right_but(20), strategy="finetune", val=(0.7, 0.5), train_s=1.0)
    assert (only().picked[0].run.strategy, best_of(only()).run.strategy) == ("finetune", "finetune")
    make_run(head="svm", right=right_but(22), held_out=held_out, fit_s=90.0)
    found = only()
    assert [entry.head for entry in found.entries] == ["fine-tuned (0 epochs kept)", "svm"]
    assert [entry.head for entry in found.picked] == ["svm", "fine-tuned (0 epochs kept)"]
    assert all(entry.best for entry in found.entries)
    assert best_of(found).head == best_run()[0].head == "svm"
    assert "the quickest" not in verdict(found)
    assert "To use svm on tinynet" in report_of()


def in_folds(wrong: int, n: int, start: int = 0) -> Predictions:
    """What was said of the first `n` held-out images, of which those from `start` on are wrong."""
    label, right = np.arange(n) % 2, right_but(wrong, start, n)
    answers = np.where(np.arange(2) == np.where(right, label, 1 - label)[:, None], 0.8, 0.2).astype(np.float32)
    paths = tuple(f"train/{row:05}.jpg" for row in range(n))
    return Predictions.of(Split(np.zeros((n, 1), np.float32), label, paths, ("",) * n), answers)


@pytest.mark.parametrize(
    ("wrong", "first", "figures"),
    [
        (6, "fine-tuned", "has 0.850, the best fine-tuning 0.875."),  # though its Val is the smaller one
        (4, "svm", "has 0.900, the best fine-tuning 0.875."),
        (5, "svm", "has 0.875, the best fine-tuning 0.875."),
    ],
)
def test_heads_in_folds_and_fine_tunings_are_picked_by_the_images_both_held_out(
    wrong: int, first: str, figures: str
) -> None:
    """Heads held out 400 images, of which the first 40 are those of validation."""
    make_run(head="svm", right=right_but(20), held_out=0.98, held=in_folds(wrong, 400), chosen_by="5-fold")
    make_run(head="knn", right=right_but(20), held_out=0.60, held=in_folds(0, 400), chosen_by="5-fold")
    make_run(head="linear", right=right_but(60), strategy="finetune", val=(0.5, 0.875), held=in_folds(5, 40))
    found = only()
    assert found.picked[0].head == first
    assert [entry.head for entry in found.picked if entry.frozen] == ["svm", "knn"]
    said = "Val of heads is of the 800 images of train and val, in folds, that of fine-tunings of the 400 of val."
    note = f"{said} On the 40 that both held out the best head {figures}"
    assert note in " ".join(invoke("compare").split())
    assert note in report_of()


def test_heads_and_fine_tunings_on_the_same_validation_images_are_picked_by_their_figures() -> None:
    make_run(head="svm", right=right_but(20), held_out=0.9, held=in_folds(6, 40))
    make_run(head="linear", right=right_but(60), strategy="finetune", val=(0.5, 0.875), held=in_folds(5, 40))
    assert only().picked[0].head == "svm"
    assert "Val of heads" not in invoke("compare")


def report_of() -> str:
    page = Path(invoke("report").split()[-1]).with_suffix(".md")
    return page.read_text()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([80], "the other one is shown to be worse."),
        ([21], "the other one is not shown to be worse."),
        ([80, 90], "the other 2 are shown to be worse."),
        ([21, 90], "1 of the other 2 is not shown to be worse."),
        ([21, 22], "the other 2 are not shown to be worse."),
        ([21, 22, 90], "2 of the other 3 are not shown to be worse."),
    ],
)
def test_the_verdict_counts_in_english(wrong: list[int], words: str) -> None:
    make_run(head="svm", right=right_but(20))
    for number, count in enumerate(wrong):
        make_run(head=f"head{number}", right=right_but(count))
    assert words in verdict(only())


def test_a_long_training_is_told_in_plain_numbers_and_a_tiny_p_as_a_bound() -> None:
    make_run(head="svm", right=right_but(150), fit_s=5.0, extract_s=5.0)
    make_run(head="linear", right=right_but(20), strategy="finetune", train_s=12_340.0, extract_s=5.0)
    assert "p < 1e-12)" in verdict(only())
    assert "for 1,234 x its time" in verdict(only())


def test_the_run_that_is_shown_was_picked_without_the_test_images() -> None:
    for head, wrong, held_out in (("svm", 20, 0.91), ("ridge", 25, 0.93), ("knn", 28, 0.93), ("linear", 90, 0.90)):
        make_run(head=head, right=right_but(wrong), held_out=held_out)
    found = only()
    assert [entry.head for entry in found.entries] == ["svm", "ridge", "knn", "linear"]
    assert found.without_test
    assert [entry.head for entry in found.picked[2:]] == ["svm", "linear"]
    assert [entry.val_score for entry in found.picked] == [0.93, 0.93, 0.91, 0.90]
    assert {entry.head: entry.best for entry in found.entries} == {
        "svm": True, "ridge": True, "knn": True, "linear": False,
    }  # fmt: skip
    text = verdict(found)
    assert text.startswith(
        "Picked on validation, without the test images: ridge on tinynet, 0.938 (0.909-0.957) on them"
    )
    assert "2 of the other 3 are not shown to be worse." in text
    assert found.as_json()["picked"] == str(found.entries[1].run.path)
    assert found.as_json()["picked_on"] == "validation"


def test_p_is_corrected_for_the_pairs_of_a_run_that_was_picked_without_the_test_images() -> None:
    """Of all 15 pairs 0.0039 would not be enough for one of 5."""
    for number in range(6):
        make_run(head=f"head{number}", right=right_but(20 + 9 * (number == 5)), held_out=0.9 - number / 100)
    assert [entry.best for entry in only().entries] == [True] * 5 + [False]
    assert only().pairs[-1].p_corrected > 0.05


def test_a_run_that_is_better_on_test_than_the_picked_one_is_not_worse() -> None:
    make_run(head="svm", right=right_but(20), held_out=0.90)
    make_run(head="ridge", right=right_but(80), held_out=0.91)
    svm, ridge = only().entries
    assert (only().picked[0].head, svm.best, ridge.best) == ("ridge", True, True)


def test_one_record_without_validation_has_all_picked_on_test() -> None:
    make_run(head="svm", right=right_but(20))
    make_run(head="ridge", right=right_but(25), held_out=0.99)
    assert (only().picked[0].head, only().without_test) == ("svm", False)
    assert "picked on the test images, where the luckiest of several looks better than it is" in verdict(only())


def test_backbones_are_compared_by_the_heads_picked_for_them() -> None:
    for backbone, wrong in (("one", 20), ("two", 24), ("three", 70)):
        for head, more in (("svm", 0), ("ridge", 5), ("knn", -4)):
            make_run(
                head=head,
                backbone=backbone,
                right=right_but(wrong + more),
                held_out=0.9 - (wrong + more) / 1000 - (head == "knn") / 2,
            )
    found = only()
    assert len(found.pairs) == 36
    assert [entry.name for entry in found.backbones] == ["svm on one", "svm on two", "svm on three"]
    assert [pair.many for pair in found.between_backbones] == [3, 3, 3]
    assert len(found.as_json()["backbones"]) == 3
    assert "Of 3 frozen backbones, by the head picked for each, one is first; three is shown to be worse." in verdict(
        found
    )
    output = invoke("compare")
    assert "Backbones by the heads picked for them" in output
    assert "All 36 pairs" not in output
    assert "All 36 pairs of runs" in invoke("compare", "--pairs")


def test_what_fine_tuning_adds_to_each_backbone_is_said() -> None:
    for backbone, frozen, tuned in (("one", 20, 30), ("two", 60, 24)):
        make_run(head="svm", backbone=backbone, right=right_but(frozen), held_out=0.9 - frozen / 1000)
        make_run(
            head="linear",
            backbone=backbone,
            right=right_but(tuned),
            strategy="finetune",
            refit=True,
            val=(0.5, 0.9 - tuned / 1000),
        )
    text = verdict(only())
    assert "Fine-tuning two is not shown to differ from the best frozen head (svm on one): -1.0 points" in text
    assert "Fine-tuning two gains 9.0 points" in text
    assert "over its own svm head" in text
    assert "Fine-tuning one loses 2.5 points" in text
    assert [pair.many for pair in only().tunings] == [2, 2]


def test_a_quicker_run_that_is_points_behind_is_not_recommended() -> None:
    make_run(head="svm", right=right_but(2)[:60], held_out=0.95, fit_s=30.0, extract_s=1.0)
    make_run(head="knn", right=right_but(6)[:60], held_out=0.88, fit_s=0.1, extract_s=1.0)
    assert all(entry.best for entry in only().entries)
    assert "the quickest" not in verdict(only())
    make_run(head="ridge", right=right_but(2, start=3)[:60], held_out=0.945, fit_s=1.0, extract_s=1.0)
    assert "within a point of it, the quickest is ridge on tinynet: 2 s from nothing" in verdict(only())


def test_the_smallest_difference_that_can_be_shown_is_said() -> None:
    """Of 50 images the one of two that wins six and loses none is shown to be better, 12 points."""
    for head, wrong in (("svm", 2), ("ridge", 3)):
        make_run(head=head, right=right_but(wrong)[:50], held_out=0.9)
    assert only().smallest_shown == pytest.approx(6 / 50)
    assert "With these 50 test images, differences under about 12.0 points cannot be shown." in verdict(only())


def test_a_difference_as_large_as_is_said_is_shown_and_a_smaller_one_is_not() -> None:
    rng = np.random.default_rng(0)
    hard = rng.standard_normal(N)
    first, second = (hard + rng.standard_normal(N) < 1.8 for _ in range(2))
    smallest = smallest_shown([compare_paired(first, second)], N)
    for share, shown in ((1.35, True), (0.65, False)):
        better = first.copy()
        better[np.flatnonzero(~first)[: round(share * smallest * N)]] = True
        assert (compare_paired(better, first | second & first).p < 0.05) == shown or share < 1


@pytest.mark.parametrize(
    ("by", "first"), [("auroc", "ridge"), ("accuracy", "svm"), ("brier", "svm"), ("log_loss", "ridge"), ("ap", "ridge")]
)
def test_runs_are_compared_by_any_figure(by: str, first: str, tmp_path: Path) -> None:
    """One head is right more often, the other ranks better."""
    truth = np.arange(N) % 2
    sure = np.where(truth == 1, 0.45, 0.05) + 0.0004 * np.arange(N) % 0.04
    ranked = np.stack([1 - sure, sure], axis=1).astype(np.float32)
    right = ranked.argmax(axis=1) == truth
    make_run(head="ridge", right=right, probabilities=ranked)
    make_run(head="svm", right=right_but(60))
    invoke("compare", "--by", by, "--json", tmp_path / "c.json")
    (found,) = json.loads((tmp_path / "c.json").read_text())["datasets"]
    assert [run["head"] for run in found["runs"]][0] == first
    assert found["by"] == {"ap": "average_precision"}.get(by, by)
    area = {run["head"]: run["auroc"] for run in found["runs"]}
    assert area == {"ridge": 1.0, "svm": pytest.approx(0.85)}


def test_two_aurocs_are_compared_as_delong_has_it() -> None:
    """By the covariance of their components, written out."""
    rng = np.random.default_rng(0)
    truth = rng.random(120) < 0.4
    scores = truth + 1.5 * rng.standard_normal(120), truth + 1.5 * rng.standard_normal(120)
    above = [np.sign(each[truth][:, None] - each[~truth]) / 2 + 0.5 for each in scores]
    covariance = sum(np.cov([each.mean(axis=axis) for each in above]) / above[0].shape[1 - axis] for axis in (0, 1))
    error = (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) ** 0.5
    first, second = (Ranked.of(truth, each).auroc() for each in scores)
    found = compare_figures(first, second, (truth, truth))
    assert found.difference == pytest.approx(above[0].mean() - above[1].mean())
    assert found.error == pytest.approx(error, rel=0.02)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(found.difference) / error), rel=0.02)


def test_a_figure_that_the_test_images_do_not_have_is_refused() -> None:
    make_run(head="svm", right=right_but(20))
    with pytest.raises(OptionError, match="--by top5 needs test images of several classes, top5 of more than five"):
        compare(by="top5")


def test_one_group_with_most_images_is_pointed_out() -> None:
    groups = ["large"] * 200 + [f"patient{n // 20}" for n in range(200)]
    make_run(head="svm", right=right_but(40), groups=groups)
    output = " ".join(invoke("compare").split())
    assert "count the 11 groups of the test images" in output
    assert "One of them has 50% of the images: together they tell no more than 3.6 groups of one size" in output


def test_records_of_earlier_versions_have_all_figures_in_a_comparison() -> None:
    run = make_run(head="svm", right=right_but(60))
    record = json.loads(run.path.read_text())
    kept = ("n", "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss", "ece")
    del record["per_class"]
    old = {**record, "test": {name: record["test"][name] for name in kept}}
    run.path.write_text(json.dumps(old))
    (entry,) = only().entries
    recalls = [(each.name, each.n, each.recall and each.recall.value) for each in entry.per_class]
    assert recalls == [("cat", 200, 0.85), ("dog", 200, 0.85)]
    assert {name: entry.figures[name] for name in ("auroc", "mcc_low", "brier")} == pytest.approx(
        {name: record["test"][name] for name in ("auroc", "mcc_low", "brier")}
    )


def test_what_always_the_same_answer_would_reach_is_said(tmp_path: Path) -> None:
    make_run(head="svm", right=right_but(190), labels=np.arange(N) % 8 < 3)
    line = "Always answering 'cat', the largest class of the test images: 0.625."
    assert line in " ".join(invoke("compare", "--json", tmp_path / "c.json").split())
    (found,) = json.loads((tmp_path / "c.json").read_text())["datasets"]
    assert (found["baseline_accuracy"], found["baseline_class"]) == (0.625, "cat")
    assert (
        "svm on tinynet is not shown to be better than always answering 'cat', which gives 0.625." in found["verdict"]
    )
    make_run(head="ridge", right=right_but(20), labels=np.arange(N) % 8 < 3)
    assert "always answering" not in verdict(only())


@pytest.mark.parametrize(("held_out", "runs", "warned"), [(None, 1, False), (None, 21, True), (0.7, 21, False)])
def test_the_best_of_many_guesses_is_no_better_than_a_constant_answer(
    held_out: float | None, runs: int, warned: bool
) -> None:
    """0.690 (0.643-0.733) against 0.625: of one run it is shown, of the best of 21 on the test images it is not."""
    for number in range(runs):
        wrong = right_but(124 + 10 * (number > 0), start=number)
        make_run(
            head=f"head{number}",
            right=wrong,
            labels=np.arange(N) % 8 < 3,
            held_out=held_out and held_out - number / 100,
        )
    assert ("not shown to be better than always answering 'cat'" in verdict(only())) == warned


@pytest.mark.parametrize(("width", "tables"), [("120", 1), ("80", 2)])
def test_one_table_where_there_is_room(monkeypatch: pytest.MonkeyPatch, width: str, tables: int) -> None:
    monkeypatch.setenv("COLUMNS", width)
    for lr in (1e-3, 1e-4):
        make_run(head="linear", right=right_but(20), strategy="finetune", lr=lr, batch_norm="eval", unfreeze="stage:2")
    make_run(head="linear", right=right_but(20), strategy="finetune", lr=1e-2, label_smoothing=0.1, layer_decay=0.7)
    lines = invoke("compare").splitlines()
    assert max(map(len, lines)) <= int(width)
    assert sum(line.split()[:2] == ["Backbone", "Head"] for line in lines) == tables
    assert lines.count("The same runs, what they cost:") == tables - 1
    assert sum("tinynet " in line and "Fine" not in line for line in lines) == 3 * tables  # no name is broken


def test_the_verdict_names_the_quickest_of_the_best() -> None:
    make_run(head="svm", right=right_but(20), fit_s=30.0)
    make_run(head="ridge", right=right_but(21), fit_s=1.0)
    assert "the quickest is ridge on tinynet: 41 s from nothing" in verdict(only())


def test_other_images_or_splits_are_never_compared() -> None:
    for digest in ("aaaaaaaaaa", "bbbbbbbbbb"):
        for head in ("svm", "ridge"):
            make_run(head=head, right=right_but(20), digest=digest)
    make_run(head="svm", right=right_but(20), dataset="scans")
    found = compare()
    assert sorted((each.dataset, len(each.entries)) for each in found) == [("photos", 2), ("photos", 2), ("scans", 1)]
    assert [each.dataset for each in compare(data="scans")] == ["scans"]
    assert len(compare(data="some/where/photos.csv")) == 2
    output = " ".join(invoke("compare").split())
    assert "not compared with these" in output
    assert "aaaaaaaa" in output


@pytest.mark.parametrize("left_out", [(), ("bold",)])
def test_a_race_in_vain_that_had_no_time_for_all_is_no_last_word(left_out: tuple[str, ...]) -> None:
    make_run(head="ridge", right=right_but(20))
    run = make_run(head="linear", right=right_but(30), strategy="finetune", val=(0.8, 0.7), recipe="race")
    race = {"budget_s": 40.0, "timing_s": 1.0, "images_per_s": {}, "left_out": left_out}
    record = json.loads(run.path.read_text())
    tried = [{**each, "recipe": "top"} for each in record["candidates"]]
    run.path.write_text(json.dumps({**record, "candidates": tried, "race": race}))
    short = "A budget of 40 s cut the search short: more time may tell (--budget)."
    assert (short in verdict(only())) == bool(left_out)


def test_groups_of_images_widen_the_intervals() -> None:
    for head, start in (("svm", 0), ("ridge", 30)):
        make_run(head=head, right=right_but(40, start=start), groups=[f"patient{n // 20}" for n in range(N)])
    alone = 2 * 1.96 * (0.1 * 0.9 / N) ** 0.5
    entry = only().entries[0]
    assert entry.high - entry.low > 1.5 * alone
    (pair,) = only().pairs
    assert pair.found.won == pair.found.lost == 30


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ([{"unfreeze": "all", "views": 1}, {"unfreeze": "stage:2", "views": 8}], ["all", "stage:2"]),
        ([{"views": 1}, {"views": 8}], ["views 1", "views 8"]),
        ([{"epochs": 60, "lr": 0.1}, {"epochs": 2, "lr": 0.2}], ["lr 0.1", "lr 0.2"]),
        ([{"epochs": 60}, {"epochs": 1}], ["epochs 1/60", "epochs 1"]),  # of which one was trained
        ([{"recipe": "race", "epochs": 15}, {"epochs": 2}, {"epochs": 3}], ["race", "epochs 1/2", "epochs 1/3"]),
        ([{"lr": 0.1, "sweep": {"lr": [0.1, 0.2]}}, {"lr": 0.3, "sweep": {}}], ["sweep of lr", ""]),
        (
            [{"lr": 0.1, "seed": 1}, {"lr": 0.1, "seed": 2}, {"lr": 0.2, "seed": 1}],
            ["lr 0.1 seed 1", "lr 0.1 seed 2", "lr 0.2 seed 1"],
        ),
    ],
)
def test_runs_are_called_by_as_few_settings_as_tell_them_apart(
    settings: list[dict[str, object]], names: list[str]
) -> None:
    for each in settings:
        make_run(head="linear", right=right_but(20), strategy="finetune", **each)
    make_run(head="linear", right=right_but(20))
    wanted = [*(f"fine-tuned {name}".strip() for name in names), "linear"]
    assert sorted(entry.head for entry in only().entries) == sorted(wanted)


def test_what_a_head_promises_makes_no_other_competitor_of_it(made: Path) -> None:
    plain, other = fit_heads([made], ["ridge", "knn"])
    (promising,) = fit_heads([made], ["ridge"], coverage=0.7)
    found = only()
    assert {entry.run.path for entry in found.entries} == {promising.path, other.path}
    assert {entry.head for entry in found.entries} == {"ridge", "knn"}
    assert len(found.pairs) == 1
    assert plain.path.exists()


def test_rounding_makes_no_other_competitor_either(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit_heads([made], ["ridge"])
    exact = LinearHead.logits
    monkeypatch.setattr(LinearHead, "logits", lambda self, X: exact(self, X) * np.float32(1 + 1e-6))
    (promising,) = fit_heads([made], ["ridge"], coverage=0.7)
    assert [entry.run.path for entry in only().entries] == [promising.path]


def test_heads_with_other_answers_stay_apart_whatever_they_promise() -> None:
    make_run(head="ridge", right=right_but(20))
    make_run(head="ridge", right=right_but(30), coverage=0.9)
    assert {entry.head for entry in only().entries} == {"ridge", "ridge coverage 0.9"}


def test_predictions_of_other_images_are_an_error() -> None:
    make_run(head="svm", right=right_but(20))
    make_run(head="ridge", right=right_but(20)[:300])
    with pytest.raises(CacheError, match="are not those of its dataset"):
        compare()


def test_nothing_to_compare_says_what_to_do() -> None:
    with pytest.raises(CacheError, match="tlcache fit-heads"):
        compare()
    make_run(head="svm", right=right_but(20))
    with pytest.raises(UnknownNameError, match="Unknown dataset 'cats'. Known: photos"):
        compare(data="cats")
    assert "nothing to compare it with" in verdict(only())


def test_the_command_compares_what_the_others_recorded(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    runs = fit_heads([extract(photos, str(tiny_model)).path], ["ridge", "knn"])
    output = invoke("compare", "--json", tmp_path / "c.json")
    assert "photos: 6 test images (drawn), 3 classes" in output
    assert "ridge" in output
    (found,) = json.loads((tmp_path / "c.json").read_text())["datasets"]
    assert found["digest"] == runs[0].dataset_digest
    assert {run["record"] for run in found["runs"]} == {str(run.path) for run in runs}
    assert {run["head"]: run["accuracy"] for run in found["runs"]} == {run.head: run.test.accuracy for run in runs}
    (pair,) = found["pairs"]
    assert {"a", "b", "difference", "low", "high", "p"} <= set(pair)
    assert found["verdict"]
    assert runs_folder().is_dir()
