"""The whole experiment: its plan, its order, and that nothing is done twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import TinySource, failing_row, make_run, write_image, write_photos
from msgspec import structs
from typer.testing import CliRunner

from tlcache.backbones.onnx_file import ONNX_FILE
from tlcache.backbones.sources import find
from tlcache.backbones.torch_network import operations
from tlcache.cache.feature_file import FeatureFile
from tlcache.cli import app
from tlcache.datasets.dataset import load_dataset
from tlcache.errors import CacheError, DataError, ModelError, OptionError, TlcacheError, UnknownNameError
from tlcache.evaluation.compare import compare
from tlcache.evaluation.resampled import compare_folds, resampled
from tlcache.finetuning.checkpoints import Checkpoints
from tlcache.finetuning.data import TuningData
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.run import Left, train_and_test
from tlcache.heads import table
from tlcache.images import Preprocess
from tlcache.runs.folder import read_runs
from tlcache.runs.folds import CrossValidation
from tlcache.studying import run as running
from tlcache.studying.estimates import finetune_seconds, heads_seconds, rows_of
from tlcache.studying.run import compare_study
from tlcache.studying.seeds import Spread, spreads
from tlcache.studying.steps import Step, StudyPlan
from tlcache.studying.study import study

BOTH = ["tinynet", "tinier"]
HEADS = ["ridge", "knn"]
QUICK = {"epochs": 1, "precision": "fp32", "layout": "contiguous"}


@pytest.fixture(autouse=True)
def two_networks(tinynet: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tinynet`, and one beside it that counts as smaller; both are timed for a moment that is short."""
    del tinynet
    monkeypatch.setattr("tlcache.studying.estimates._MOMENT_S", 0.01)
    both = TinySource({"parameters": 20_000_000}, {"name": "tinier", "parameters": 3_000})
    monkeypatch.setattr("tlcache.backbones.sources.SOURCES", (both, ONNX_FILE))


def go(data: Path, **options: Any) -> list[Step]:
    return study([data], **{"models": BOTH, "weights": "random", "heads": HEADS, **QUICK, **options})


def states(steps: list[Step]) -> list[tuple[str, str, str]]:
    return [(step.kind, step.model, step.state) for step in steps]


def files() -> dict[Path, int]:
    """Return everything that was extracted and recorded, with its age; locks and reports aside."""
    found = [path for folder in ("features", "runs") for path in Path(folder).rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in found if not path.name.startswith(".")}


def stopped_at(number: int, act: Callable[[StudyPlan, Step], Step]) -> Callable[[StudyPlan, Step], Step]:
    """Return `act`, interrupted when it is called for this time."""
    calls = iter(range(1000))

    def acting(plan: StudyPlan, step: Step) -> Step:
        if next(calls) == number:
            raise KeyboardInterrupt
        return act(plan, step)

    return acting


ALL = [
    *((kind, model) for model in ("tinier", "tinynet") for kind in ("extract", "fit-heads")),
    ("finetune", "tinier"),
    ("finetune", "tinynet"),
    ("report", ""),
]


def test_everything_is_done_once_and_again_is_nothing_to_do(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = go(photos)
    assert states(done) == [(*what, "done") for what in ALL]
    assert all(step.seconds > 0 for step in done)
    assert {"ridge", "knn", "linear"} == {json.loads(path.read_text())["head"] for path in Path("runs").rglob("*.json")}
    assert "Fine-tuning" in Path("report.html").read_text()
    before = files()
    for name in ("fit_heads", "_finetune"):
        monkeypatch.setattr(running, name, lambda *_, **__: pytest.fail("this is recorded"))
    assert states(go(photos))[:-1] == [(*what, "recorded") for what in ALL[:-1]]
    assert files() == before
    assert states(go(photos, plan=True))[:-1] == [(*what, "recorded") for what in ALL[:-1]]


def test_a_study_with_several_seeds_draws_other_splits_and_ends_with_those_of_the_first(photos: Path) -> None:
    options = {"models": ["tinier"], "heads": ["ridge"]}
    (plain,) = (step for step in go(photos, **options) if step.kind == "fit-heads")
    (file,) = Path("features").rglob("*.h5")
    with FeatureFile(file) as features:
        digest = features.attrs["dataset_digest"]
    planned = go(photos, **options, seeds=2, plan=True)
    kinds = [(step.kind, step.seed) for step in planned]
    again = [(kind, seed) for seed in (1,) for kind in ("fit-heads", "finetune")]
    assert kinds == [("extract", 0), ("fit-heads", 0), ("finetune", 0), *again, ("report", 0)]
    done = go(photos, **options, seeds=2)
    assert [(step.kind, step.seed) for step in done] == kinds
    assert {step.state for step in done[3:]} == {"done"}
    assert [step.state for step in done[:3]] == ["recorded"] * 3
    assert done[1].records == plain.records
    runs = {run.path.name: run for run in read_runs(Path("runs"))}
    drawn = [
        [runs[Path(path).name] for path in step.records] for step in done if step.kind in ("fit-heads", "finetune")
    ]
    assert len({run.dataset_digest for (run,) in drawn}) == 2
    assert all(
        heads[0].dataset_digest == tuned[0].dataset_digest for heads, tuned in zip(drawn[::2], drawn[1::2], strict=True)
    )
    assert [run.arguments["seed"] for (run,) in drawn[::2]] == [0, 1]
    assert [run.arguments["seed"] for (run,) in drawn[1::2]] == [0, 1]
    with FeatureFile(file) as features:
        assert features.attrs["dataset_digest"] == digest
    (found,) = spreads(done)
    accuracies = [[run.test.accuracy for (run,) in drawn[kind::2]] for kind in (1, 0)]
    assert found.differences == pytest.approx(np.subtract(*accuracies))
    assert found.drawn
    assert compare_study(done)[0][0].digest == digest
    assert all(step.state == "recorded" for step in go(photos, **options, seeds=2)[:-1])


@pytest.mark.parametrize(
    ("values", "shown", "said"),
    [
        ((0.02, 0.03, 0.025), 0.03, ""),
        ((0.001, -0.001, 0.0), 0.0, ""),
        ((0.05, -0.06, 0.03), 0.03, "The two disagree: the first split shows a difference, the seeds do not"),
        (
            (0.02, 0.021, 0.019),
            0.0,
            "The two disagree: the seeds show a difference that the first split alone does not",
        ),
        ((-0.02, -0.021, -0.019), 0.03, "The two disagree about which of them is better"),
    ],
)
def test_seeds_and_the_images_of_one_split_may_disagree(values: tuple[float, ...], shown: float, said: str) -> None:
    right = np.arange(400) >= 60
    make_run("svm", right)
    make_run("linear", np.arange(400) >= 60 - round(400 * shown), strategy="finetune")
    (found,) = compare()
    tuned, frozen = (next(each for each in found.entries if each.frozen == kind) for kind in (False, True))
    (pair,) = found.among([(tuned, frozen)])
    over = resampled(np.array(values), 0.25)
    text = str(Spread("photos", values, True, over, pair))
    assert text.startswith("Over 3 seeds (other splits, heads and fine-tunings) fine-tuning has")
    assert f"On the first split alone it has {100 * shown:.1f}" in text
    assert ("disagree" in text) == bool(said)
    assert said in text


def test_a_study_fits_heads_on_several_backbones_together(photos: Path) -> None:
    done = go(photos, joins="tinynet+tinier", finetune=False)
    kinds = [(step.kind, step.model, step.state) for step in done]
    assert kinds[4] == ("join", "tinier+tinynet", "done")
    assert [kind for kind, *_ in kinds] == ["extract", "fit-heads", "extract", "fit-heads", "join", "report"]
    (found,), _ = compare_study(done)
    assert {entry.backbone for entry in found.entries} == {"tinier", "tinynet", "tinier+tinynet"}
    assert len(done[4].records) == len(HEADS)
    before = files()
    assert [step.state for step in go(photos, joins=["tinier+tinynet"], finetune=False)][:-1] == ["recorded"] * 5
    assert files() == before
    planned = go(photos, heads=["ridge", "svm"], joins="tinier+tinynet", finetune=False, plan=True)
    assert (planned[4].state, planned[4].note) == ("to do", "1 of 2 heads are recorded")
    assert planned[4].seconds > 0


def test_a_join_without_the_features_of_a_part_is_left_out(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(running._ACTIONS, "extract", lambda plan, step: fail(plan, step))  # type: ignore[arg-type]
    steps = go(photos, joins="tinynet+tinier", finetune=False)
    (join,) = (step for step in steps if step.kind == "join")
    assert (join.state, join.note) == ("left out", "without its features: extract tinynet failed")


def fail(plan: StudyPlan, step: Step) -> str:
    if step.model == "tinynet":
        raise DataError("no room")
    return running._extract(plan, step)


@pytest.mark.parametrize(
    ("join", "words"),
    [
        ("tinynet", "takes two or more"),
        ("tinynet+tinynet", "each once"),
        (
            "tinynet+tinyest",
            "--join tinynet\\+tinyest: Unknown backbone of this study 'tinyest'. Did you mean 'tinynet'",
        ),
    ],
)
def test_a_join_is_of_backbones_of_the_study(photos: Path, join: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        go(photos, joins=join, plan=True)


@pytest.mark.parametrize("number", [1, 5])
def test_an_interrupted_study_goes_on_where_it_was(photos: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(running, "take", stopped_at(number, running.take))
        with pytest.raises(KeyboardInterrupt):
            go(photos)
    before = files()
    known = {"extract"}  # which all backbones have from one pass
    expected = [(*what, "recorded" if at < number or what[0] in known else "done") for at, what in enumerate(ALL)]
    assert states(go(photos)) == expected
    assert before.items() <= files().items()


def test_images_are_decoded_once_for_all_backbones(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlcache.extraction import worker

    alone = go(photos, models=["tinynet"], finetune=False, features="alone", runs="alone")
    decoded = list[bytes]()
    plain = worker.prepare
    monkeypatch.setattr(worker, "prepare", lambda data, *how: decoded.append(data) or plain(data, *how))
    done = go(photos, finetune=False)
    assert states(done)[:4] == [(*what, "done") for what in ALL[:4]]
    assert len(decoded) == len(set(decoded)) == 24
    assert [step.note for step in done[:4]] == ["", "", "in one pass with tinier", ""]
    (one,), other = Path("alone").rglob("*.h5"), Path("features")
    with FeatureFile(one) as here, FeatureFile(next(other.rglob(one.name))) as there:
        assert np.array_equal(here.split("train").features, there.split("train").features)
    assert alone[0].note == ""


def test_a_backbone_that_fails_leaves_the_others_to_their_own_steps(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: Any, *given: Any, **how: Any) -> Any:
        if str(model) == "tinynet":
            raise ModelError("no such weights any more")
        return plain(model, *given, **how)

    from tlcache.backbones import load

    plain = load.load_model
    monkeypatch.setattr(load, "load_model", broken)
    done = go(photos, finetune=False)
    assert [step.state for step in done] == ["done", "done", "failed", "left out", "done"]
    assert "no such weights any more" in done[2].note


def test_within_a_budget_each_backbone_is_embedded_by_itself(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "extract_layers", lambda *_, **__: pytest.fail("all have to fit in"))
    assert [step.state for step in go(photos, finetune=False, budget_s=1e6)][:4] == ["done"] * 4


def test_heads_that_are_recorded_are_not_fitted_again(photos: Path) -> None:
    go(photos, heads=["ridge"], finetune=False)
    before = files()
    planned = go(photos, finetune=False, plan=True)
    assert planned[1].note == "1 of 2 heads are recorded"
    assert [step.state for step in go(photos, finetune=False)] == ["recorded", "done", "recorded", "done", "done"]
    assert before.items() <= files().items()


def test_what_heads_promise_is_asked_for_by_a_study(photos: Path) -> None:
    promising = {"models": ["tinynet"], "heads": ["ridge"], "finetune": False, "coverage": 0.8, "per_class": True}
    steps = go(photos, **promising)
    assert [step.state for step in steps if step.kind == "fit-heads"] == ["done"]
    (run,) = read_runs(Path("runs"))
    assert run.uncertainty is not None
    assert (run.uncertainty.coverage, run.uncertainty.per_class) == (0.8, True)
    assert {Path(record).name for step in steps for record in step.records} == {run.path.name}
    assert {step.state for step in go(photos, plan=True, **promising) if step.kind == "fit-heads"} == {"recorded"}


def test_a_head_that_fails_fails_its_step_alone(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.HEADS, "failing", failing_row())
    steps = go(photos, models=["tinynet"], heads=["failing", "ridge"], finetune=False)
    assert [step.state for step in steps] == ["done", "failed", "done"]
    assert steps[1].note == "The failing head could not be fitted: RuntimeError: out of leaves (photos, tinynet)"
    (found,), _ = compare_study(steps)
    assert [entry.run.head for entry in found.entries] == ["ridge"]


def test_new_images_are_a_new_experiment(photos: Path) -> None:
    go(photos, models=["tinynet"], finetune=False)
    write_image(photos / "red" / "new.png", 999, 2)
    assert states(go(photos, models=["tinynet"], finetune=False, plan=True))[0][2] == "to do"
    (photos / "red" / "0.png").unlink()  # as many as before: extract alone can tell
    assert [step.state for step in go(photos, models=["tinynet"], finetune=False)] == ["done", "done", "done"]


def test_a_plan_does_nothing_and_says_what_would_be_done(photos: Path) -> None:
    options = [*("-m", "tinynet", "-m", "tinier", "-w", "random", "--heads", "ridge,knn"), *("--epochs", "1")]
    options += ["--setting", "precision=fp32", "--json", "plan.json"]
    result = CliRunner().invoke(app, ["study", "-d", str(photos), *options, "--plan"], catch_exceptions=False)
    assert result.exit_code == 0
    assert files() == {}
    assert not Path("report.html").exists()
    lines = [line.split() for line in result.output.splitlines()]
    for kind, model in ALL[:-1]:
        assert [kind, *([model] if model else []), "to", "do", "about"] in [line[:5] for line in lines]
    assert "7 to do (about" in result.output
    planned = json.loads(Path("plan.json").read_text())["steps"]
    assert [(step["kind"], step["model"]) for step in planned] == ALL
    assert all(step["seconds"] > 0 for step in planned[:-1])


def test_a_backbone_that_fails_is_told_and_the_others_go_on(photos: Path) -> None:
    options = ["-m", "tinynet", "-m", "tinier", "-w", "tinier=random", "--heads", "ridge", "--no-finetune"]
    result = CliRunner().invoke(app, ["study", "-d", str(photos), *options])
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    assert "tinynet needs its imagenet weights. Put the file at" in text
    assert "fit-heads tinynet: without its features: extract failed" in text
    assert "3 done" in text
    assert "1 left out, 1 failed" in text
    assert Path("report.html").exists()


def test_weights_that_are_not_here_are_guessed_for_and_never_downloaded(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlcache.backbones.downloads.download", lambda *_: pytest.fail("a plan downloads nothing"))
    one = go(photos, weights={"tinier": "random"}, finetune=False, plan=True)
    notes = {step.model: step.note for step in one if step.kind == "extract"}
    told = "about 80 MB of weights will be downloaded first; the time is without that"
    assert notes == {"tinier": "", "tinynet": f"{told}, guessed from the size of the network"}
    none = go(photos, weights=None, finetune=False, plan=True)
    assert all(step.seconds > 0 for step in none[:-1])
    alone = go(photos, models=["tinynet"], weights=None, finetune=False, plan=True)
    assert alone[0].note == told  # it was run, with random weights


def test_a_budget_leaves_out_what_does_not_fit(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cost(_: StudyPlan, steps: list[Step]) -> list[Step]:
        seconds = {"extract": 10.0, "fit-heads": 5.0, "finetune": 1000.0, "report": 0.0}
        return [replace(step, seconds=seconds[step.kind]) for step in steps]

    monkeypatch.setattr("tlcache.studying.estimates.estimated", cost)
    planned = go(photos, plan=True, budget_s=100)
    assert [step.state for step in planned] == [*["to do"] * 4, *["left out"] * 2, "to do"]
    done = go(photos, budget_s=100)
    assert [step.state for step in done] == [*["done"] * 4, *["left out"] * 2, "done"]
    assert "did not fit" in done[4].note
    assert done[4].seconds == 1000
    assert [step.state for step in go(photos, budget_s=2000)] == [*["recorded"] * 4, *["done"] * 2, "done"]


def test_measuring_is_told_and_not_taken_off_the_budget(
    photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tlcache")
    monkeypatch.setattr(
        "tlcache.studying.estimates.estimated",
        lambda _, steps: [replace(step, seconds=8.0 if step.kind != "report" else 0.0) for step in steps],
    )
    assert {step.state for step in go(photos, budget_s=6 * 8.0)} == {"done"}  # to the second
    assert "Measuring how fast this machine is, about 12 s" in caplog.text
    caplog.clear()
    go(photos, budget_s=10)
    assert "Measuring" not in caplog.text


def test_the_verdict_at_the_end_is_on_the_runs_of_this_study(photos: Path) -> None:
    go(photos, models=["tinynet"], finetune=False)
    options = [*("study", "-d", str(photos), "-m", "tinier", "-w", "random", "--heads", "ridge,ridge", "--no-finetune")]
    result = CliRunner().invoke(app, [*options, "--json", "study.json"], catch_exceptions=False)
    end = " ".join(result.output[result.output.index("photos: ") :].split())
    assert "One run: ridge on tinier" in end
    assert "tinynet" not in end
    assert end.endswith("report.html (runs in it that are not of this study: 2)")
    records = [step["records"] for step in json.loads(Path("study.json").read_text())["steps"]]
    assert [len(each) for each in records] == [0, 1, 0]
    assert Path(records[1][0]).is_file()


def test_warnings_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, split in enumerate(("train", "test")):
        write_photos(tmp_path / "leaky" / split, 8 - number)
    go(tmp_path / "leaky")
    assert caplog.text.count("byte-identical images lie in different splits") == 1


def test_what_needs_a_left_out_extraction_is_left_out() -> None:
    steps = [Step("extract", "d", "d", "large", seconds=50), Step("fit-heads", "d", "d", "large", seconds=1)]
    steps += [Step("extract", "d", "d", "small", seconds=9), Step("finetune", "d", "d", "small", seconds=2)]
    walked = running._walk(steps, lambda step: step, 10)
    assert [step.state for step in walked] == ["left out", "left out", "to do", "left out"]
    assert walked[1].note == "without its features: extract left out"
    assert walked[3].note == "did not fit in the 1 s that were left of the budget"
    recorded = [replace(step, state="recorded", seconds=0) for step in steps]
    assert running._walk(recorded, lambda step: step, 0) == recorded


def test_fine_tuning_begins_with_the_best_heads_on_validation(photos: Path) -> None:
    """Test figures have no say: they are turned round in the records, and the order stays."""
    go(photos, finetune=False)
    for run in Path("runs").rglob("*.json"):
        record = json.loads(run.read_text())
        good = record["backbone"] == "tinynet"
        for tried in record["candidates"]:
            tried["val_accuracy"] = 0.9 if good else 0.2
        record["test"]["accuracy"] = 0.1 if good else 1.0
        run.write_text(json.dumps(record))
    planned = go(photos, plan=True)
    assert [step.model for step in planned if step.kind == "finetune"] == ["tinynet", "tinier"]


def test_datasets_take_turns(photos: Path, tmp_path: Path) -> None:
    other = write_photos(tmp_path / "other", 6)
    steps = study([photos, other], BOTH, "random", heads=HEADS, plan=True, **QUICK)
    order = [(step.kind, step.model, step.dataset) for step in steps]
    assert order[:4] == [(kind, "tinier", name) for name in ("photos", "other") for kind in ("extract", "fit-heads")]
    tunings = [(model, name) for model in ("tinier", "tinynet") for name in ("photos", "other")]
    assert order[8:-1] == [("finetune", *what) for what in tunings]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"models": ["tinynet", "tinyest"]}, UnknownNameError, "Unknown backbone 'tinyest'"),
        ({"models": ["net.onnx"]}, ModelError, "is an ONNX file"),
        ({"weights": {"tinynet": "random"}, "models": ["tinier"]}, UnknownNameError, "Known: tinier"),
        ({"weights": "nowhere.pth"}, TlcacheError, "No weights at 'nowhere.pth'"),
        ({"heads": ["ridges"]}, UnknownNameError, "Did you mean 'ridge'"),
        ({"heads": []}, UnknownNameError, "--heads names no head"),
        ({"unfreeze": "stage:4"}, OptionError, "tinier has 3 stages"),
        ({"unfreeze": "last:7"}, OptionError, "tinier has 6 layers with parameters"),
        ({"unfreeze": "last:6", "cached_prefix": True}, OptionError, "reaches into the first stage of tinier"),
        ({"device": "tpu"}, UnknownNameError, "Unknown device"),
        ({"out": "report.pdf"}, OptionError, "A report is an .html page"),
        (
            {"out": "photos/red/0.png/report.html"},
            CacheError,
            "0.png': it is no folder. Give another folder with --out",
        ),
        ({"features": "photos/red/0.png"}, CacheError, "0.png': it is no folder. Give another folder with --features"),
        ({"runs": "photos/red/0.png/runs"}, CacheError, "0.png' is no folder. Give another folder with --runs"),
        ({"rate": 1}, UnknownNameError, "Unknown setting 'rate'"),
    ],
)
def test_slips_are_told_before_the_first_step(
    photos: Path, options: dict[str, Any], error: type[TlcacheError], words: str
) -> None:
    with pytest.raises(error, match=words):
        go(photos, **options)
    assert files() == {}


def test_a_method_that_says_what_is_trained_is_handed_on(photos: Path) -> None:
    (step,) = [each for each in go(photos, models=["tinier"], heads=["ncm"], method="last") if each.kind == "finetune"]
    assert (step.state, step.note) == ("done", "")


def test_two_datasets_of_one_name_cannot_be_told_apart(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Two of the datasets are called 'photos'"):
        study([photos, write_photos(tmp_path / "more" / "photos")], BOTH, "random")


def test_one_dataset_in_two_spellings_is_taken_once(photos: Path) -> None:
    steps = study(["photos", photos, "./photos/"], ["tinier"], "random", finetune=False, plan=True)
    assert [(step.kind, step.data) for step in steps] == [
        ("extract", "photos"),
        ("fit-heads", "photos"),
        ("report", ""),
    ]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (
            ["--budget", "soon"],
            "--budget takes a time above 0 like 90s, 30m or 2h (a number alone: seconds); found 'soon'",
        ),
        (["--budget", "-5m"], "--budget takes a time"),
        (["--budget", "0"], "above 0 like 90s, 30m or 2h (a number alone: seconds); found '0'"),
        (["-w", "random", "-w", "tinier=random"], "--weights takes one for all backbones, or BACKBONE=FILE"),
        (["--epochs", "2", "--setting", "epochs=3"], "--epochs 2 and --setting epochs=3: give one of them"),
        (["--coverage", "0.9", "--setting", "coverage=0.8"], "--coverage 0.9 and --setting coverage=0.8: give one"),
        (["--unfreeze", "all", "--setting", "lr=1", "--no-finetune"], "leaves out what --unfreeze and --setting would"),
    ],
)
def test_options_that_make_no_sense(photos: Path, option: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["study", "-d", str(photos), "-m", "tinier", *option])
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("lr=abc", "--setting lr takes a number above 0; found 'abc'"),
        ("lr=1e-3,1e-4", "--setting lr takes a number above 0; found '1e-3,1e-4'"),
        ("weight-decay=inf", "--setting weight-decay takes a number from 0 on; found 'inf'"),
        ("label_smoothing=1", "--setting label-smoothing takes a number from 0 to below 1; found '1'"),
        ("batch-size=true", "--setting batch-size takes a whole number from 2 on"),
        ("seed=-1", "--setting seed takes a whole number from 0 to 4294967295; found '-1'"),
        ("patience=1.5", "--setting patience takes a whole number from 1 on; found '1.5'"),
        ("refit=maybe", "--setting refit takes true or false; found 'maybe'"),
        ("unfreeze=stage:0", "--setting unfreeze takes all, last:N, stage:K or top:N with a number from 1 on"),
        ("optimizer=sgd,adam", "Unknown optimizer in --setting 'sgd,adam'. Did you mean 'adam'"),
        ("epochs", "--setting takes NAME=VALUE like lr=1e-3; found 'epochs'"),
        ("epoch=1", "Unknown setting 'epoch'. Did you mean 'epochs'"),
        ("views=2", "views says how many augmented views cached-prefix keeps"),
    ],
)
def test_settings_are_checked_before_the_first_step(photos: Path, setting: str, words: str) -> None:
    options = ["-d", str(photos), "-m", "tinier", "-w", "random", "--plan", "--setting", setting]
    result = CliRunner().invoke(app, ["study", *options])
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_seconds_of_a_fine_tuning_grow_with_images_and_epochs() -> None:
    rows, recipe = {"train": 600, "val": 200, "test": 200}, Recipe(epochs=10, precision="fp32", layout="contiguous")
    once = finetune_seconds(rows, recipe, 0.01, Left(10, 0))
    assert 60 < once < 75
    assert finetune_seconds(rows, recipe, 0.01, Left(10, 10)) == pytest.approx(once + 80)
    assert finetune_seconds(rows, recipe, 0.01, Left(5, 0)) < 0.6 * once
    assert finetune_seconds(rows, Recipe(recipe="race"), 0.01, Left(10, 0)) == pytest.approx(203, abs=1)


@pytest.mark.parametrize(
    ("saves", "expected"),
    [
        (0, Left(3, 3)),
        (2, Left(1, 3, "2 of 3 epochs are trained")),
        (4, Left(0, 3, "all epochs but 3 of the refit are trained")),
        (5, Left(0, 2, "all epochs but 2 of the refit are trained")),
        (8, Left(0, 0, "all epochs are trained")),
    ],
)
def test_epochs_that_are_trained_are_not_counted_again(
    photos: Path, monkeypatch: pytest.MonkeyPatch, saves: int, expected: Left
) -> None:
    """A study is stopped after so many checkpoints: three epochs, the end of the phase, then the same for the refit."""
    options = {"models": ["tinynet"], "recipe": "before", "epochs": 3, "lr": 0.01, "batch_size": 8}
    calls, save = iter(range(1000)), Checkpoints.save

    def stopping(*arguments: Any) -> None:
        if next(calls) == saves:
            raise KeyboardInterrupt
        save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stopping)
        patch.setattr("tlcache.finetuning.run.save_weights", stopping)
        with pytest.raises(KeyboardInterrupt):
            go(photos, **options)
    monkeypatch.setattr("tlcache.studying.estimates._training_paces", lambda *_: {"tinynet": 1.0})
    (tuning,) = (step for step in go(photos, plan=True, **options) if step.kind == "finetune")
    recipe = Recipe(epochs=3, precision="fp32", layout="contiguous", refit=True)
    rows = rows_of(load_dataset(photos))
    assert (tuning.note, tuning.seconds) == (expected.note, finetune_seconds(rows, recipe, 1.0, expected))


def test_seconds_of_heads_are_those_of_the_records_where_there_are_some() -> None:
    runs = [make_run("svm", np.ones(8, bool), fit_s=seconds) for seconds in (4.0,)]
    assert heads_seconds(["svm"], 16, runs, lambda: pytest.fail("all are known")) == pytest.approx(4)
    assert heads_seconds(["svm", "ridge"], 16, runs, lambda: 2.0) == pytest.approx(6)


def test_splits_that_will_be_drawn_are_counted(photos: Path) -> None:
    assert rows_of(load_dataset(photos)) == {"train": 12, "val": 6, "test": 6}


def test_operations_are_those_of_the_convolutions() -> None:
    sides = (10, 5, 5)
    layers = zip((3, 8, 16), (8, 16, 16), sides, strict=True)
    counted = sum(2 * 9 * before * after * side * side for before, after, side in layers) + 2 * 16 * 1000
    assert operations(find("tinynet"), Preprocess(crop=20)) == counted


IN_FOLDS = {"models": ["tinier"], "heads": ["ridge"], "batch_size": 8, "recipe": "before"}


def test_a_study_in_folds_has_heads_and_networks_in_the_same_and_is_done_once(photos: Path) -> None:
    done = go(photos, cv="2", **IN_FOLDS)
    assert {step.state for step in done} == {"done"}
    runs = read_runs(Path("runs"))
    assert sorted(run.strategy for run in runs) == ["finetune", "frozen"]
    assert {run.test_split for run in runs} == {"2x1 cross-validation"}
    ((found,), others) = compare_study(done)
    assert (len(found.entries), others) == (2, 0)
    (pair,) = found.pairs
    right = [entry.top.right for entry in (pair.a, pair.b)]
    fold = runs[0].predictions().in_order().fold
    assert fold is not None
    assert pair.found == compare_folds(*right, fold, 1.0)
    before = files()
    assert {step.state for step in go(photos, cv="2x1", **IN_FOLDS)[:-1]} == {"recorded"}
    assert files() == before
    assert {step.state for step in go(photos, cv="3", plan=True, **IN_FOLDS)[1:-1]} == {"to do"}


def test_what_folds_take_is_counted_without_those_that_are_done(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(data: TuningData, *others: Any, **more: Any) -> Any:
        if data.live.training == "fold 2 of 3":
            raise KeyboardInterrupt
        return train_and_test(data, *others, **more)

    monkeypatch.setattr("tlcache.studying.estimates._training_paces", lambda *_: {"tinier": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr("tlcache.finetuning.nested.train_and_test", stop)
        with pytest.raises(KeyboardInterrupt):
            go(photos, cv="3", **IN_FOLDS)
    (tuning,) = (step for step in go(photos, cv="3", plan=True, **IN_FOLDS) if step.kind == "finetune")
    recipe = Recipe(epochs=1, precision="fp32", layout="contiguous", refit=True)
    each = finetune_seconds({"train": 13, "val": 3, "test": 8}, recipe, 1.0, Left(1, 1))
    assert tuning.seconds == pytest.approx(2 * each)
    runs = [
        structs.replace(make_run("svm", np.ones(8, bool), fit_s=4.0), cross_validation=CrossValidation(**TWO_FOLDS))
    ]
    assert heads_seconds(["svm"], 16, runs, lambda: pytest.fail("all are known")) == pytest.approx(2)


TWO_FOLDS: dict[str, Any] = {"folds": 2, "repeats": 1, "share": 1.0, "accuracy": (1.0, 1.0), "chosen": ({}, {})}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 2}, "--seeds is of a study on one split"),
        ({"screen": 1}, "--screen is of a study on one split"),
        ({"coverage": 0.9}, "--coverage needs images to calibrate on"),
        ({"task": "regression"}, "--cv is of classes"),
    ],
)
def test_what_does_not_go_with_folds_is_refused(photos: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        go(photos, cv="2", **IN_FOLDS, **options)
