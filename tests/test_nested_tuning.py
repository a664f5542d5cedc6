"""Fine-tunings that are tested in folds: those of heads, with nothing known of the images that are held out."""

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import write_image, write_photos
from msgspec import structs
from test_cli import invoke
from test_finetuning import FIXED
from test_race import short  # noqa: F401
from test_selection import split
from typer.testing import CliRunner

from tlcache.cache.feature_file import FeatureFile, Split
from tlcache.cli import app
from tlcache.deploying.best import best_of
from tlcache.deploying.predict import predict
from tlcache.errors import DataError, OptionError
from tlcache.evaluation.compare import compare, compare_runs
from tlcache.evaluation.resampled import compare_folds
from tlcache.evaluation.verdict import no_gain, verdict
from tlcache.extraction.extract import extract
from tlcache.finetuning import data as tuning_data
from tlcache.finetuning import nested, race
from tlcache.finetuning.data import TuningData
from tlcache.finetuning.finetune import finetune
from tlcache.finetuning.live import LiveEpoch
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.run import train_and_test
from tlcache.probing.fit import fit_heads
from tlcache.probing.outer import images_in_turn, outer_folds
from tlcache.report.page import write_report
from tlcache.report.reproduce import commands, uses
from tlcache.runs.base import Identity
from tlcache.runs.finetuned import FinetunedRun, PhaseEpochs, TunedChoice
from tlcache.runs.folder import runs_folder
from tlcache.runs.record import RUNS

OPTIONS = ("--recipe", "before", "--precision", "fp32", "--layout", "contiguous", "--epochs", "1", "--batch-size", "8")


def tuned(data: Path, cv: str = "2", **settings: object) -> FinetunedRun:
    how = {**FIXED, "epochs": 1, "batch_size": 8, **settings}
    return finetune(data, "tinynet", "random", cv=cv, **how)


def task_of(images: Split) -> TuningData:
    numbers = {"train": np.arange(len(images))}
    return TuningData({}, ("a", "b", "c"), {"train": images}, numbers, (), (), None, None, None, "cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("cv", ["3x1", "3x2"])
def test_no_part_of_a_fold_knows_another_whatever_belongs_together(cv: str, tmp_path: Path) -> None:
    images = split(90, groups=tuple(f"g{row // 3}" if row < 30 else "" for row in range(90)))
    images.features[80] = images.features[50]  # the same image twice
    together = np.array([f"g{row // 3}" if row < 30 else str(50 if row == 80 else row) for row in range(90)])
    data = task_of(images)
    data.heads["fitted on other rows"] = None  # type: ignore[assignment]
    for fold in outer_folds(images, cv, 0):
        part = nested._part(data, images, fold, 0, tmp_path)
        rows = {name: part.rows(name) for name in ("train", "val", "test")}
        assert sorted(np.concatenate([*rows.values()])) == list(range(90))
        assert rows["test"].tolist() == fold.held.tolist()
        names = [set(together[own]) for own in rows.values()]
        assert sum(map(len, names)) == len(set(together))
        assert len(rows["val"]) == pytest.approx(len(fold.fit) / 5, abs=3)
        for name, own in rows.items():
            assert np.array_equal(part.labels(name), images.labels[own])
            assert np.array_equal(part.features(name), images.features[own])
        assert part.heads == {}


def test_a_fold_without_a_class_to_judge_by_is_told() -> None:
    images = split(6)
    with pytest.raises(DataError, match="no class that is in train and in val.*Take fewer folds"):
        task_of(images).dealt(images, train=np.array([0, 3]), val=np.array([1, 4]), test=np.array([2, 5]))


@pytest.mark.usefixtures("tinynet")
@pytest.mark.parametrize("settings", [{}, {"unfreeze": "last:2", "cached_prefix": True, "refit": True}])
def test_what_a_fold_says_does_not_depend_on_what_it_is_tested_by(
    photos: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    recipe = Recipe(**{**FIXED, "recipe": None, "epochs": 2, "batch_size": 8, **settings})
    with FeatureFile(extract(photos, "tinynet", "random").path) as file:
        data, images = TuningData.of(file, "random", "cpu"), images_in_turn(file)
    fold, said = outer_folds(images, "3x1", 0)[0], []
    others = replace(images, features=images.features.copy(), labels=images.labels.copy())
    others.features[fold.held], others.labels[fold.held] = 0.0, 0
    for name, own in {"true": images, "other": others}.items():
        part = nested._part(data, own, fold, 0, tmp_path / name)
        identity = Identity.of(data.attrs, "finetune", recipe.head, {})
        run = train_and_test(part, [({}, recipe)], None, identity, tmp_path / name / "run.json", kept=False)
        said.append(run.predictions().probabilities)
        assert not run.head_path.exists()
    assert np.array_equal(*said)


@pytest.mark.usefixtures("tinynet")
def test_it_is_recorded_as_heads_are_on_the_same_folds_and_compared_with_them(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, plain = list[set[str]](), tuning_data.cached_head

    def watched(kind: str, train: Split, val: Split, *others: object) -> object:
        fitted.append({*train.paths, *val.paths})
        return plain(kind, train, val, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(tuning_data, "cached_head", watched)
    run = tuned(photos, "3")
    (head,) = fit_heads(heads=["ridge"], cv="3")
    mine, theirs = (each.predictions().in_order() for each in (run, head))
    assert mine.fold is not None
    assert theirs.fold is not None
    assert np.array_equal(mine.row, theirs.row)
    assert np.array_equal(mine.fold, theirs.fold)
    assert np.array_equal(mine.label, theirs.label)
    for number, fitting in enumerate(fitted):
        held = {row.decode() for row in mine.row[mine.fold == number]}
        assert not held & fitting
        assert len(held | fitting) == 24
    assert len(fitted) == 3
    right = mine.probabilities.argmax(axis=1) == mine.label
    assert run.cross_validation
    assert run.cross_validation.accuracy == pytest.approx(np.bincount(mine.fold, right) / 8)
    assert head.cross_validation
    assert (run.cross_validation.share, run.test.n) == (head.cross_validation.share, head.test.n) == (0.5, 24)
    assert (run.dataset_digest, run.rows, run.given_digest) == (head.dataset_digest, head.rows, head.given_digest)
    (found,) = compare()
    (pair,) = found.pairs
    ours = {entry.run.head: entry.run.predictions().in_order() for entry in (pair.a, pair.b)}
    signs = [each.probabilities.argmax(axis=1) == each.label for each in ours.values()]
    assert pair.found == compare_folds(*signs, mine.fold, 0.5)
    assert "tinynet" in verdict(found)
    assert "24 images tested by 3x1 cross-validation" in " ".join(invoke("compare").split())


@pytest.mark.usefixtures("tinynet")
def test_its_record_is_whole_and_it_is_not_done_again(photos: Path, tmp_path: Path) -> None:
    run = tuned(photos, "2x2", epochs=2)
    assert RUNS.read(run.path) == run
    assert (run.arguments["cv"], run.test_split, run.kept) == ("2x2", "2x2 cross-validation", False)
    assert run.cross_validation
    kept = [chosen["epochs"]["backbone"] for chosen in run.cross_validation.chosen]
    assert run.chosen.epochs.backbone == int(np.ceil(np.mean(kept)))
    assert run.untuned == (not any(kept))
    assert run.train_s == pytest.approx(run.decode_s + run.search_s + run.refit_s)
    assert (run.history, run.candidates, run.validated) == ((), (), {})
    assert sorted(path.suffix for path in run.path.parent.iterdir()) == [".csv", ".json", ".lock", ".npz"]
    stamp = run.path.stat().st_mtime_ns
    assert tuned(photos, "2x2", epochs=2) == run
    assert run.path.stat().st_mtime_ns == stamp
    (again,) = commands(run)
    assert "--cv 2x2" in again
    assert "--epochs 2" in again
    (line,) = uses(run)
    assert line == again.replace(" --cv 2x2", "")
    write_report(tmp_path / "report.html", runs_folder())
    page = (tmp_path / "report.html").read_text()
    assert line in page
    assert "24 images tested by 2x2 cross-validation,\n3 classes" in page
    assert "val and" not in page
    wrong = int((~run.predictions().top().right).sum())
    assert f"{wrong} of 48 answers wrong, 2 for each image" in page
    assert [figures.n for figures in run.per_class] == [8, 8, 8]
    assert run.path.stem not in " ".join(re.findall("<code>tlcache.*?</code>", page))  # which would be refused
    rows = re.findall(r'<td class="text">(\d\.\d)</td><td class="text">.*?</td><td>(\d)</td><td>(.*?)</td>', page)
    shown = zip(("1.1", "1.2", "2.1", "2.2"), kept, run.cross_validation.accuracy, strict=True)
    assert rows == [(fold, str(epochs), f"{accuracy:.3f}") for fold, epochs, accuracy in shown]
    found = run.predictions()
    assert found.fold is not None
    head, *lines = csv.reader(run.path.with_suffix(".csv").read_text().splitlines())
    assert head == ["path", "label", "predicted", "confidence", "repetition", "fold"]
    assert [(each[0], 2 * int(each[4]) + int(each[5]) - 3) for each in lines] == [
        (path.decode(), fold) for path, fold in zip(found.row, found.fold.tolist(), strict=True)
    ]


@pytest.mark.usefixtures("tinynet")
def test_of_folds_no_network_is_kept_and_who_asks_for_one_is_told(photos: Path) -> None:
    run = tuned(photos)
    message = "tested in folds, and none of their networks is kept.*give the command again.*, without --cv"
    for name in (run.path, run.path.stem):
        with pytest.raises(OptionError, match=message):
            predict(name, photos)
    assert "of the folds no network is kept" in " ".join(
        invoke("finetune", "--cv", "2", "--data", photos, "--model", "tinynet", "--weights", "random", *OPTIONS).split()
    )


@pytest.mark.parametrize("without_test", [False, True])
def test_the_best_run_to_use_is_one_that_is_kept(without_test: bool) -> None:
    reached = {"folds": 0.9, "head": 0.8, "other": 0.7}
    entries = [
        SimpleNamespace(
            name=name,
            run=SimpleNamespace(kept=name != "folds", untuned=False, validated={"accuracy": value}),
            figure=lambda _, value=value: (value, 0.0, 1.0),
            images_per_s=1.0,
            train_s=1.0,
        )
        for name, value in reached.items()
    ]
    found: Any = SimpleNamespace(picked=entries, entries=entries, without_test=without_test, by="accuracy")
    assert best_of(found).name == "head"


@pytest.mark.usefixtures("tinynet")
@pytest.mark.parametrize("after", [2, 4])  # in the first fold, and in the second
def test_what_was_stopped_goes_on_with_the_fold_where_it_was(photos: Path, after: int, tmp_path: Path) -> None:
    whole = tuned(photos, runs=tmp_path / "whole")
    told = list[LiveEpoch]()

    def stop(epoch: LiveEpoch) -> None:
        told.append(epoch)
        if len(told) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned(photos, on_epoch=stop)
    run = tuned(photos, on_epoch=told.append)
    each = {(epoch.training, epoch.number) for epoch in told}
    assert each == {(f"fold {fold} of 2", number) for fold in (1, 2) for number in range(2)}
    assert len(told) == len(each)
    assert np.array_equal(run.predictions().probabilities, whole.predictions().probabilities)
    assert run.cross_validation == whole.cross_validation


@pytest.mark.usefixtures("tinynet")
def test_a_damaged_fold_is_done_again(photos: Path) -> None:
    def stop(epoch: LiveEpoch) -> None:
        if epoch.training == "fold 2 of 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned(photos, on_epoch=stop)
    (fold,) = runs_folder().glob("photos/*.checkpoints/fold-1.npz")
    fold.write_bytes(fold.read_bytes()[:100])
    assert tuned(photos).test.n == 24


@pytest.mark.usefixtures("tinynet", "short")
def test_a_race_is_run_in_every_fold_and_the_budget_is_of_all(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = list[str]()
    for module in (nested, race):
        monkeypatch.setattr(module, "say", lines.append)
    run = finetune(photos, "tinynet", "random", cv="2", budget_s=30.0, precision="fp32", layout="contiguous")
    assert run.race
    assert run.race.budget_s == 30
    assert run.race.spent_s == pytest.approx(run.search_s + run.refit_s)
    assert run.cross_validation
    assert {chosen["recipe"] for chosen in run.cross_validation.chosen} <= {"steady", "bold", "adapt"}
    assert run.settings["recipe"] in {chosen["recipe"] for chosen in run.cross_validation.chosen}
    assert lines[0] == "2 folds, each within 15 s: 30 s in all"
    assert sum(line.startswith("a race of 3 recipes") for line in lines) == 2
    assert sum(line.endswith("left") for line in lines) == 1


def test_what_is_chosen_most_often_stands_for_all() -> None:
    def fold(recipe: str, epochs: int) -> FinetunedRun:
        chosen = {"setting": {"recipe": recipe, "epochs": 9 - epochs}, "epochs": PhaseEpochs(head=0, backbone=epochs)}
        fields = dict.fromkeys(FinetunedRun.__struct_fields__)
        return FinetunedRun(**{**fields, "race": True, "chosen": TunedChoice(**chosen)})

    first, epochs = nested._usual([fold("top", 4), fold("bold", 1), fold("bold", 2), fold("bold", 0)])
    assert (first.chosen.setting["recipe"], first.chosen.epochs.backbone) == ("bold", 1)
    assert epochs == PhaseEpochs(head=0, backbone=1)
    assert nested._usual([fold("top", 1), fold("top", 2)])[1].backbone == 2  # rounded up


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cv": "1"}, "--cv takes folds, from 2 on"),
        ({"coverage": 0.9}, "--coverage needs images to calibrate on that nothing was chosen by, and --cv leaves none"),
        ({"distill": "teacher"}, "--distill needs a run that has not seen the images"),
        ({"sweep": {"distill": ["teacher"]}}, "--distill needs a run"),
        ({"task": "multilabel"}, "--cv is of classes"),
    ],
)
def test_what_cannot_be_together_is_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        finetune(tmp_path, "tinynet", **{"cv": "2", **options})


def test_curves_of_several_trainings_are_not_drawn(tmp_path: Path) -> None:
    options = ("--data", tmp_path, "--model", "squeezenet1_1", "--cv", "2", "--plot", tmp_path / "a.png")
    result = CliRunner().invoke(app, ["finetune", *map(str, options)])
    assert result.exit_code == 2
    assert "--plot draws the curves of one training" in " ".join(result.output.split())


@pytest.mark.usefixtures("tinynet")
def test_test_images_that_a_dataset_sets_apart_stay_apart_and_a_class_of_one_image_is_no_obstacle(
    tmp_path: Path,
) -> None:
    for name, count in (("train", 6), ("val", 3), ("test", 4)):
        write_photos(tmp_path / "given" / name, count)
    write_image(tmp_path / "given" / "train" / "rare" / "alone.png", 900, 1)
    run = tuned(tmp_path / "given")
    found = run.predictions()
    assert run.test.n == len(found.row) == 28
    assert all(row.startswith((b"train/", b"val/")) for row in found.row)
    alone = found.probabilities[found.row.tolist().index(b"train/rare/alone.png")]
    assert alone[run.classes.index("rare")] == 0  # the other fold has none to train on
    assert np.isfinite(run.test.log_loss)


@pytest.mark.usefixtures("tinynet")
def test_groups_and_copies_are_whole(photos: Path) -> None:
    rows = [(path.relative_to(photos), path.parent.name) for path in sorted(photos.glob("*/*.png"))]
    lines = [f"{path},{label},{label}{number // 2}" for number, (path, label) in enumerate(rows)]
    shutil.copy(photos / rows[0][0], photos / "copy.png")
    table = photos / "list.csv"
    table.write_text("\n".join(["path,label,patient", *lines, f"copy.png,{rows[0][1]},"]))
    run = tuned(table, group_column="patient")
    found = run.predictions()
    assert found.fold is not None
    fold = dict(zip([row.decode() for row in found.row], found.fold.tolist(), strict=True))
    assert run.test.n == len(fold) == 25
    assert fold["copy.png"] == fold[str(rows[0][0])]
    groups = {line.rpartition(",")[2]: set[int]() for line in lines}
    for line in lines:
        path, _, group = line.split(",")
        groups[group].add(fold[path])
    assert {len(each) for each in groups.values()} == {1}


@pytest.mark.usefixtures("tinynet")
def test_where_no_fold_gained_it_is_said(photos: Path) -> None:
    run = tuned(photos, lr=1e-12, batch_norm="eval")
    assert run.untuned
    assert no_gain(run).startswith("In no fold was an epoch better on validation than the head it began with")
    assert "gave nothing: in no fold was" in verdict(compare()[0])


@pytest.mark.usefixtures("tinynet")
def test_where_some_folds_gained_it_is_said_of_the_others(photos: Path) -> None:
    run = tuned(photos, "3")
    (head,) = fit_heads(heads=["ridge"], cv="3")
    assert run.cross_validation
    chosen = tuple({"epochs": {"head": 0, "backbone": kept}} for kept in (0, 2, 1))
    run = structs.replace(run, cross_validation=structs.replace(run.cross_validation, chosen=chosen))
    said = (
        "n 1 of 3 folds no epoch was better on validation than the head it began with, which is what is tested there."
    )
    assert no_gain(run) == f"I{said}"
    assert f"tinynet: i{said}" in verdict(compare_runs([head, run])[0])
    gained = structs.replace(run.cross_validation, chosen=chosen[1:])
    assert no_gain(structs.replace(run, cross_validation=gained)) == ""
