"""Sets, abstention and p-values against what they are by definition, and on problems whose truth is known."""

import io
import itertools
import json
import re
import subprocess
import sys
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from rich.console import Console

from tlcache.cache.feature_file import Split, open_features
from tlcache.deploying.answers import find_answers
from tlcache.deploying.judging import Judge
from tlcache.deploying.saved import find_saved
from tlcache.errors import OptionError
from tlcache.finetuning.finetune import finetune
from tlcache.finetuning.recipe import Recipe
from tlcache.heads.fitted import load_head
from tlcache.heads.table import find_head
from tlcache.heads.uncertainty import Answers, Distances, Ranks, Uncertainty
from tlcache.probing.fit import fit_curves, fit_heads
from tlcache.probing.heldout import distances_of, out_of_fold
from tlcache.probing.search import Candidate
from tlcache.report.reproduce import commands
from tlcache.report.uncertainty import uncertainty_table

Array = np.ndarray


def sample(n: int, seed: int = 0, levels: int = 40) -> Array:
    """Return scores with many ties."""
    return (np.random.default_rng(seed).integers(0, levels, n) / np.float32(levels)).astype(np.float32)


@pytest.mark.parametrize("n", [0, 1, 8, 9, 10, 57, 1999])
@pytest.mark.parametrize("share", ["0.5", "0.9", "0.95", "0.99"])
def test_the_quantile_is_the_conformal_one(n: int, share: str) -> None:
    scores = sample(n)
    rank = floor((n + 1) * (1 - Fraction(share)))  # from below, without rounding
    expected = sorted(scores.tolist())[rank - 1] if rank else -np.inf
    assert Ranks.of(scores).reached(float(share)) == expected


def test_a_new_score_reaches_the_quantile_as_often_as_promised() -> None:
    """Of 20 different scores, each in turn the new one: the share that does is known without chance."""
    scores = np.random.default_rng(0).permutation(20).astype(np.float32)
    reached = [each >= Ranks.of(np.delete(scores, place)).reached(0.9) for place, each in enumerate(scores)]
    assert sum(reached) == 18


@pytest.mark.parametrize("n", [0, 5, 1000, 1001, 2345])
def test_p_values_count_the_sample_and_the_score(n: int) -> None:
    scores, new = sample(n), np.linspace(-0.2, 1.2, 57, dtype=np.float32)
    expected = [(1 + sum(other >= each for other in scores.tolist())) / (n + 1) for each in new.tolist()]
    assert Ranks.of(scores).p_values(new) == pytest.approx(expected)


@pytest.mark.parametrize("n", [3, 1000, 1001, 2345, 30_000])
def test_thinned_ranks_promise_no_more_and_hardly_less(n: int) -> None:
    scores = np.random.default_rng(n).random(n, np.float32)
    every, some = Ranks.of(scores), Ranks.of(scores).thinned(1000)
    assert len(some.values) == min(n, 1000)
    new = np.linspace(0, 1, 301, dtype=np.float32)
    more = some.p_values(new) - every.p_values(new)
    assert (more >= 0).all()
    assert more.max() <= 0.0011
    for share in np.linspace(0.01, 0.99, 99):
        assert some.reached(share) <= every.reached(share) <= max(some.reached(share), 0) + 0.01 + 5 / n


def brute_threshold(confidence: Array, right: Array, wanted: float) -> float:
    """Return the smallest confidence from which on enough answers are right, one more wrong counted."""
    found = np.nan
    for each in sorted(set(confidence.tolist()), reverse=True):
        answered = confidence >= each
        if np.float32(1 - (1 + (~right[answered]).sum()) / (answered.sum() + 1)) >= np.float32(wanted):
            found = each
    return found


@pytest.mark.parametrize(("n", "seed"), [(0, 0), (1, 1), (30, 2), (400, 3), (400, 4)])
@pytest.mark.parametrize("wanted", [0.3, 0.7, 0.8, 0.9, 0.98])
def test_the_confidence_to_answer_from_is_the_smallest_that_is_enough(n: int, seed: int, wanted: float) -> None:
    confidence = sample(n, seed)
    right = np.random.default_rng(seed).random(n) < confidence
    answers = Answers.of(confidence, right)
    assert answers.threshold(wanted) == pytest.approx(brute_threshold(confidence, right, wanted), nan_ok=True)
    few = answers.thinned(7)
    assert len(few.rate) <= 7
    assert not few.threshold(wanted) < answers.threshold(wanted)  # nan where none is enough


def test_distances_leave_out_the_same_group_and_its_copies() -> None:
    rng = np.random.default_rng(0)
    embeddings, units, chosen = rng.normal(size=(40, 6)).astype(np.float32), np.arange(40) // 4, np.arange(0, 40, 2)
    embeddings[1] = 3 * embeddings[0]
    far = Distances.of(embeddings, units, chosen, 3)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    expected = [
        sorted(1 - float(unit[row] @ unit[other]) for other in chosen if units[other] != units[row])[2]
        for row in range(40)
    ]
    assert far.ranks.values == pytest.approx(sorted(expected), abs=1e-6)
    assert far(embeddings[chosen[:1]]) < expected[0]  # which now may be compared with itself
    new = rng.normal(size=(1, 6)).astype(np.float32)
    assert far(new) == pytest.approx(sorted(1 - (unit[chosen] @ new[0]) / np.linalg.norm(new))[2], abs=1e-6)


def made_problem(n: int, seed: int, classes: int = 4) -> tuple[Array, Array]:
    """Return probabilities and labels that are drawn from them, classes of very different difficulty."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) + 3 * np.eye(classes)[labels] * (labels[:, None] / 2)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), labels


@pytest.mark.parametrize("per_class", [False, True])
def test_sets_hold_the_class_as_often_as_promised(per_class: bool) -> None:
    promised = Uncertainty.of(*made_problem(4000, 0), 0.9, per_class)
    probabilities, labels = made_problem(20_000, 1)
    sets = promised.sets(probabilities)
    held = sets[np.arange(len(labels)), labels]
    each = np.array([held[labels == label].mean() for label in range(4)])
    assert held.mean() == pytest.approx(0.9, abs=0.015)
    assert (abs(each - 0.9) < 0.035).all() == per_class  # over all, easy classes make up for hard ones
    assert promised.sets(probabilities, 0.99).sum() > sets.sum()


def test_a_class_of_few_images_takes_the_threshold_of_all() -> None:
    probabilities, labels = made_problem(400, 0)
    keep = (labels != 2) | (np.cumsum(labels == 2) <= 8)
    promised = Uncertainty.of(probabilities[keep], labels[keep], 0.9, per_class=True)
    assert promised.too_few().tolist() == [False, False, True, False]
    assert not promised.too_few(0.8).any()
    assert promised.thresholds(4)[2] == pytest.approx(promised.scores.reached(0.9))
    assert len(set(promised.thresholds(4).tolist())) == 4


def test_too_few_images_at_all_make_every_class_possible() -> None:
    probabilities, labels = made_problem(5, 0)
    assert Uncertainty.of(probabilities, labels, 0.9, per_class=False).sets(probabilities).all()


@pytest.mark.parametrize(("per_class", "with_far"), list(itertools.product([False, True], [False, True])))
def test_arrays_and_tables_come_back(per_class: bool, with_far: bool) -> None:
    probabilities, labels = made_problem(3000, 0)
    embeddings = np.random.default_rng(0).normal(size=(3000, 5)).astype(np.float32)
    far = Distances.of(embeddings, np.arange(3000), np.arange(50), 2) if with_far else None
    promised = Uncertainty.of(probabilities, labels, 0.9, per_class, far)
    back, thin = Uncertainty.of_tables(promised.arrays()), Uncertainty.of_tables(promised.tables(1000))
    new, _ = made_problem(500, 1)
    assert np.array_equal(back.sets(new), promised.sets(new))
    whole = Uncertainty.of_tables(json.loads(json.dumps(promised.tables())))  # as the file of a model has them
    assert np.array_equal(whole.sets(new), promised.sets(new))
    assert (thin.sets(new) >= promised.sets(new)).all()
    assert thin.sets(new).mean() == pytest.approx(promised.sets(new).mean(), abs=0.01)
    assert back.threshold(0.8) == promised.threshold(0.8) <= thin.threshold(0.8)
    assert max(len(each) for each in promised.tables(1000).values()) <= 1000 * (2 + 4 * per_class)
    if with_far:
        p_values = promised.unusual(promised.distances(embeddings[:9]))
        assert np.array_equal(back.unusual(back.distances(embeddings[:9])), p_values)
        assert (thin.unusual(promised.distances(embeddings[:9])) >= p_values).all()
    else:
        with pytest.raises(ValueError, match="no distances"):
            back.unusual(labels)


def test_numpy_is_all_that_it_needs() -> None:
    lean = "import sys, tlcache.heads.uncertainty; print({'sklearn', 'scipy', 'torch', 'h5py'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", lean], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def planted_rows(n: int, group: int = 1, twins: bool = False) -> Split:
    """Return rows without any signal, in groups that share an embedding (nearly, or exactly) and a random label."""
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(n // group, 8)), group, axis=0)
    features += 0 if twins else 1e-3 * rng.normal(size=features.shape)
    labels = np.repeat(rng.integers(0, 4, n // group), group)
    groups = tuple("" if twins else f"g{row // group}" for row in range(n))
    return Split(features.astype(np.float32), labels, tuple(map(str, range(n))), groups)


@pytest.mark.parametrize("twins", [False, True])
def test_no_fold_tears_a_group_or_copies_apart(twins: bool) -> None:
    """The nearest neighbour knows every label, unless groups and copies are held out together: then it guesses."""
    rows = planted_rows(400, 4, twins)
    knn = Candidate.untried({**find_head("knn").defaults(), "k": 1})
    found = out_of_fold(find_head("knn"), rows, knn, 4, 5, 0)
    assert (found.argmax(axis=1) == rows.labels).mean() < 0.45
    unit = rows.features / np.linalg.norm(rows.features, axis=1, keepdims=True)
    apart = 1 - np.where(np.arange(400)[:, None] // 4 == np.arange(400) // 4, -1, unit @ unit.T)
    assert distances_of(rows).ranks.values == pytest.approx(np.sort(np.sort(apart)[:, 4]), abs=1e-5)


def test_a_class_that_the_other_folds_lack_has_no_probability() -> None:
    rows = planted_rows(60)
    rows.labels[rows.labels == 3] = 0
    rows.labels[7] = 3
    found = out_of_fold(find_head("ridge"), rows, Candidate.untried(find_head("ridge").defaults()), 5, 5, 0)
    assert found[7, 3] == 0
    assert (found[:, 4] == 0).all()  # no image at all
    assert found.sum(axis=1) == pytest.approx(np.ones(60), abs=1e-5)


def test_a_run_keeps_what_it_promises_and_says_what_came_of_it(made: Path) -> None:
    (plain,) = fit_heads([made], ["ridge"])
    (run,) = fit_heads([made], ["ridge"], coverage=0.7, per_class=True)
    assert plain.path != run.path
    assert "coverage" not in plain.arguments
    assert plain.uncertainty is None
    assert plain.test == run.test
    with open_features(made) as file:
        test, both = file.split("test"), file.split("train", "val")
    head = load_head(run.head_path)
    assert load_head(plain.head_path).uncertainty is None
    promised, said = head.uncertainty, run.uncertainty
    assert promised is not None
    assert said is not None
    assert (said.coverage, said.per_class, said.images) == (0.7, True, len(both))
    probabilities = head.predict_proba(test.features)
    sets = promised.sets(probabilities)
    held = sets[np.arange(len(test)), test.labels]
    assert said.test_coverage == held.mean()
    assert said.test_set_size == sets.sum(axis=1).mean()
    assert [each.images for each in said.classes] == np.bincount(both.labels).tolist()
    assert [each.test_coverage for each in said.classes] == [held[test.labels == label].mean() for label in range(3)]
    p_values = promised.unusual(promised.distances(test.features))
    assert said.test_unusual == (p_values < 0.05).mean()
    assert [each.right for each in said.abstention] == [0.95, 0.98, 0.99]
    assert said.abstention[2].threshold is None  # of 18 images
    assert (said.abstention[2].test_answered, said.abstention[2].test_right) == (0, None)


def test_what_is_recorded_with_coverage_is_read_again(made: Path) -> None:
    (run,) = fit_heads([made], ["ridge"], coverage=0.9)
    stamp = run.path.stat().st_mtime_ns
    assert fit_heads([made], ["ridge"], coverage=0.9) == [run]
    assert run.path.stat().st_mtime_ns == stamp
    (other,) = fit_heads([made], ["ridge"], coverage=0.8)
    assert other.path != run.path


def test_images_of_another_kind_are_unusual(made: Path) -> None:
    (run,) = fit_heads([made], ["ridge"], coverage=0.9)
    promised = load_head(run.head_path).uncertainty
    assert promised is not None
    with open_features(made) as file:
        features = file.split("test").features
    usual, strange = promised.unusual(promised.distances(features)), promised.distances(-features)
    assert promised.unusual(strange).tolist() == [1 / 19] * 6  # further than any of the 18
    assert np.median(usual) > 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coverage": 1.0}, r"--coverage takes a number above 0 to below 1; found '1\.0'"),
        ({"coverage": 90}, "--coverage takes"),
        ({"coverage": float("nan")}, "--coverage takes"),
        ({"per_class": True}, "--per-class is of the sets of --coverage"),
    ],
)
def test_what_cannot_be_promised_is_refused(made: Path, options: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        fit_heads([made], ["ridge"], **options)


def test_curves_keep_no_heads_and_promise_nothing(made: Path) -> None:
    with pytest.raises(OptionError, match="--coverage is of the heads that are kept"):
        fit_curves([made], [1], ["ridge"], coverage=0.9)


@pytest.mark.usefixtures("tinynet", "val_chooses")
@pytest.mark.parametrize("refit", [False, True])
def test_a_fine_tuned_network_promises_by_its_validation_images(photos: Path, refit: bool) -> None:
    settings = {"precision": "fp32", "layout": "contiguous", "epochs": 1, "batch_size": 8}
    run = finetune(photos, "tinynet", "random", **settings, coverage=0.7, refit=refit)
    said, promised = run.uncertainty, find_saved(run.path).uncertainty
    assert said is not None
    assert promised is not None
    assert said.method == "validation images" + ", before the refit" * refit
    assert (said.coverage, said.per_class, said.images, said.test_unusual) == (0.7, False, 6, None)
    assert promised.scores.n == 6
    assert promised.far is None
    stored = run.predictions()
    held = promised.sets(stored.probabilities)[np.arange(6), stored.label]
    assert said.test_coverage == held.mean()
    assert find_answers(run.path).uncertainty() is not None  # for `predict --sets`
    assert run.arguments["coverage"] == 0.7
    assert "--coverage 0.7" in commands(run)[-1]


def test_recipes_without_it_are_what_they_were() -> None:
    assert not {"coverage", "per_class"} & set(Recipe().as_json())
    with pytest.raises(OptionError, match="--per-class is of the sets"):
        Recipe(per_class=True)


@pytest.mark.parametrize("per_class", [False, True])
def test_the_table_has_every_figure_at_80_columns(made: Path, per_class: bool) -> None:
    (run,) = fit_heads([made], ["ridge"], coverage=0.95, per_class=per_class)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(uncertainty_table([replace(run, backbone="mobilenetv3_small", head="lightgbm"), run]))
    text = console.export_text()
    assert "Left out" not in text
    assert {"Asked", "Coverage", "Classes", "One", "Unusual"} <= set(text.split())
    assert run.uncertainty is not None
    assert {f"{100 * each.right:g} %" for each in run.uncertainty.abstention} <= set(re.findall(r"[\d.]+ %", text))
    assert max(map(len, text.splitlines())) <= 80


def test_a_network_that_knows_no_distances_says_so() -> None:
    table = Uncertainty.of(np.eye(3, dtype=np.float32), np.arange(3), 0.9, per_class=False)
    with pytest.raises(OptionError, match="--reject needs the distances .* fine-tuned has none.* Take --right"):
        Judge(table, reject=0.05)


@pytest.mark.parametrize(("high", "told"), [(0.899, True), (0.9, False)])
def test_the_table_says_when_test_does_not_bear_out_what_was_promised(made: Path, high: float, told: bool) -> None:
    (run,) = fit_heads([made], ["ridge"], coverage=0.9, per_class=True)
    assert run.uncertainty is not None
    found = replace(run, uncertainty=replace(run.uncertainty, test_coverage_high=high))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(uncertainty_table([found]))
    text = " ".join(console.export_text().split())
    assert ("The sets of ridge hold less of test than was asked for" in text) == told
    assert "that of all classes is taken: blue, green, red." in text  # 6 images each, where 9 are needed
    assert f"0.9 each {run.uncertainty.test_coverage:.3f} (" in text
