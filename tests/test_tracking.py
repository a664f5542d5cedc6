"""Recorded runs in trackers."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import make_run
from typer.testing import CliRunner

from tlcache.cli import app
from tlcache.errors import OptionError, TlcacheError
from tlcache.finetuning.live import LiveEpoch
from tlcache.runs.folder import list_runs
from tlcache.tracking.entry import entry_of
from tlcache.tracking.live import LiveRun
from tlcache.tracking.track import track

RIGHT = np.arange(40) % 4 > 0


@pytest.fixture
def recorded() -> None:
    make_run("ridge", RIGHT, C=0.1)
    make_run("linear", RIGHT, strategy="finetune", val=(0.5, 0.75, 0.625))


def states(done: Any) -> list[str]:
    return sorted(each.state for each in done)


@pytest.mark.usefixtures("recorded")
def test_an_entry_has_settings_figures_and_curves() -> None:
    tuned, frozen = sorted(map(entry_of, list_runs()), key=lambda entry: entry.settings["strategy"])
    assert frozen.figures["test_accuracy"] == tuned.figures["test_accuracy"] == 0.75
    assert frozen.settings["head"] == "ridge"
    assert frozen.settings["C"] == "0.1"
    assert frozen.curves == ()
    assert [each["epoch_val_accuracy"] for each in tuned.curves] == [0.5, 0.75, 0.625]
    assert [each["epoch"] for each in tuned.curves] == [0, 1, 2]
    assert tuned.figures["val_accuracy"] == 0.75


def tensorboard_figures(place: Path) -> dict[str, dict[str, list[float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for folder in {path.parent for path in place.rglob("events.*")}:
        events = EventAccumulator(str(folder)).Reload()
        found[folder.name] = {name: [e.value for e in events.Scalars(name)] for name in events.Tags()["scalars"]}
    return found


def mlflow_figures(place: Path) -> dict[str, dict[str, list[float]]]:
    from mlflow import MlflowClient

    client, found = MlflowClient(tracking_uri=place.as_uri()), {}
    experiment = client.get_experiment_by_name("photos")
    for run in client.search_runs([experiment.experiment_id]):
        history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        found[run.info.run_name] = {
            name: [each.value for each in sorted(some, key=lambda each: each.step)] for name, some in history.items()
        }
        if run.info.status == "FINISHED":
            assert [each.path for each in client.list_artifacts(run.info.run_id)] == [f"{run.info.run_name}.json"]
    return found


TOLD = [
    pytest.param("tensorboard", str, tensorboard_figures, id="tensorboard"),
    pytest.param("mlflow", Path.as_uri, mlflow_figures, id="mlflow", marks=pytest.mark.slow),
]


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(("to", "address", "figures"), TOLD)
def test_runs_are_told_once_and_again_when_they_changed(
    to: str, address: Callable[[Path], str], figures: Callable[[Path], Any], tmp_path: Path, monkeypatch: Any
) -> None:
    pytest.importorskip(to)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    place = tmp_path / "tracked"
    assert states(track(to, address(place))) == ["added", "added"]
    assert states(track(to, address(place))) == ["same", "same"]
    make_run("ridge", ~RIGHT, C=0.1)  # done again: another result under the same name
    assert states(track(to, address(place))) == ["replaced", "same"]
    found = figures(place)
    assert len(found) == 2
    by_head = {name.split("-")[1]: said for name, said in found.items()}
    assert by_head["ridge"]["test_accuracy"] == [0.25]
    assert by_head["linear"]["epoch_val_accuracy"] == [0.5, 0.75, 0.625]
    assert by_head["linear"]["val_accuracy"] == [0.75]


LIVE = [
    LiveEpoch("", "photos", "round 1: steady", 0, {"phase": "head", "epoch": 0, "val_accuracy": 0.25, "val_loss": 1.0}),
    LiveEpoch("", "photos", "", 0, {"phase": "backbone", "epoch": 1, "val_accuracy": 0.5, "train_loss": None}),
    LiveEpoch("", "photos", "", 1, {"phase": "backbone", "epoch": 2, "val_accuracy": 0.75}),
]


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(("to", "address", "figures"), TOLD)
def test_epochs_are_told_as_they_end_and_the_record_takes_their_place(
    to: str, address: Callable[[Path], str], figures: Callable[[Path], Any], tmp_path: Path, monkeypatch: Any
) -> None:
    pytest.importorskip(to)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    place = tmp_path / "tracked"
    (run,) = (each for each in list_runs() if each.strategy == "finetune")
    stopped, live = LiveRun(to, address(place)), LiveRun(to, address(place))
    stopped.on_epoch(replace(LIVE[2], run=run.path.stem))  # killed, and begun again
    for each in LIVE:
        live.on_epoch(replace(each, run=run.path.stem))
    assert list(figures(place).values()) == [
        {
            "round_1_steady/epoch_val_accuracy": [0.25],
            "round_1_steady/epoch_val_loss": [1.0],
            "epoch_val_accuracy": [0.5, 0.75],
        }
    ]
    live.done(run)
    (found,) = figures(place).values()
    assert found["epoch_val_accuracy"] == [0.5, 0.75, 0.625]
    assert found["test_accuracy"] == [0.75]
    assert "round_1_steady/epoch_val_loss" not in found
    assert states(track(to, address(place))) == ["added", "same"]


@pytest.mark.slow
@pytest.mark.usefixtures("recorded")
def test_what_was_cut_short_is_replaced_in_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    place = (tmp_path / "tracked").as_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            track("mlflow", place)
    assert states(track("mlflow", place)) == ["added", "replaced"]
    client = MlflowClient(tracking_uri=place)
    (experiment,) = (each.experiment_id for each in client.search_experiments() if each.name == "photos")
    assert [run.info.status for run in client.search_runs([experiment])] == ["FINISHED", "FINISHED"]


@pytest.mark.slow
@pytest.mark.usefixtures("recorded")
def test_weights_and_biases_gets_folders_to_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert states(track("wandb", "flowers")) == ["added", "added"]
    assert states(track("wandb", "flowers")) == ["same", "same"]
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2


@pytest.mark.usefixtures("recorded")
def test_the_command_counts(tmp_path: Path) -> None:
    typed = ["track", "--to", "tensorboard", "--place", str(tmp_path / "events"), "--json", "-"]
    result = CliRunner().invoke(app, typed)
    assert result.exit_code == 0, result.output
    assert "2 added" in result.stderr
    assert [each["state"] for each in json.loads(result.stdout)["runs"]] == ["added", "added"]


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("to", ["tensorboard", "mlflow", "wandb"])
def test_a_package_that_is_missing_is_named(to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, to, None)
    with pytest.raises(OptionError, match=rf"pip install 'tlcache\[{to}\]'"):
        track(to, "somewhere")


@pytest.mark.slow
@pytest.mark.usefixtures("recorded")
def test_an_address_that_is_none_is_told_without_a_traceback() -> None:
    pytest.importorskip("mlflow")
    with pytest.raises(TlcacheError, match=r"MLflow does not take runs at 'ftp:(.|\n)*give another --place"):
        track("mlflow", "ftp://nowhere/x")
