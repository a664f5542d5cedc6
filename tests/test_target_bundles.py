"""Runs on several labels, or on a number, as ONNX files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from test_bundles import metadata, outputs
from test_targets import HAS, NUMBER, X, coloured, photos
from test_tuned_targets import tables as tables
from test_tuned_targets import tune

from exporters.classify import head_alone
from tlcache.bundle.command import main
from tlcache.bundle.model import load_model
from tlcache.deploying.export import export
from tlcache.deploying.parity import check_head
from tlcache.deploying.predict import predict
from tlcache.errors import ModelError, OptionError
from tlcache.extraction.extract import extract
from tlcache.heads.answering import Answering
from tlcache.heads.fitted import FittedHead
from tlcache.heads.rows import Scaler, View
from tlcache.heads.table import HEADS
from tlcache.probing.fit import fit_heads

LABELS = Answering("multilabel", ("a", "b", "c"), (0.3, 0.5, 0.6))
YEARS = Answering("regression", ("value",), middle=1990.0, spread=12.5, margin=20.0, coverage=0.9)
CASES = [(name, task) for name, row in HEADS.items() for task in row.tasks if task != "classify"]


def fitted(name: str, task: str) -> FittedHead:
    wanted, how = (HAS, LABELS) if task == "multilabel" else (NUMBER, YEARS)
    scaler = Scaler.of(X)
    (head,) = HEADS[name].type().fit_columns(HEADS[name].settings()[-1:], View(scaler(X)), wanted)
    return FittedHead(name, head, scaler, 0.7 if task == "multilabel" else 1.0, how.names, "tiny", "k" * 64, None, how)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_every_head_of_columns_answers_in_its_file_as_it_does(name: str, task: str) -> None:
    head = fitted(name, task)
    found, known = outputs(head_alone(head), embedding=X), head.predict_proba(X)
    if task == "multilabel":
        assert list(found) == ["probabilities", "labels"]
        np.testing.assert_allclose(found["probabilities"], known, atol=HEADS[name].tolerance)
        np.testing.assert_array_equal(found["labels"], found["probabilities"] >= np.array(LABELS.thresholds))
    else:
        assert list(found) == ["value", "low", "high"]
        np.testing.assert_allclose(found["value"], known, atol=12.5 * HEADS[name].tolerance + 2e-4)
        np.testing.assert_allclose(found["low"] + 20, found["high"] - 20, atol=2e-4)
    assert check_head(head, X, "rows").of == ("probabilities" if task == "multilabel" else "numbers")


def test_a_file_that_would_answer_another_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    head = fitted("ridge", "regression")
    other = replace(head, answering=replace(YEARS, spread=12.6))
    monkeypatch.setattr("tlcache.deploying.parity.head_alone", lambda _: head_alone(other))
    with pytest.raises(ModelError, match="exported ridge head is not the same: for 300 of 300 rows"):
        check_head(head, X, "rows")


@pytest.mark.parametrize(
    ("task", "label"), [("multilabel", coloured), ("regression", lambda number: 3000 + 5 * (number % 30))]
)
def test_an_exported_run_answers_without_tlcache_as_it_does_with_it(
    tiny_model: Path, task: str, label: Any, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    done = extract(photos(90, label), tiny_model, task=task)
    (run,) = fit_heads([done.path], ["ridge"])
    written = export(run.path, out="run.onnx")
    assert written.recorded is not None
    assert written.recorded.same == written.recorded.n == 16
    assert written.recorded.worst < (1e-5 if task == "multilabel" else 2e-3)  # 2e-3 is four steps of float32 at 3,000
    assert (written.checks[1].what, written.checks[1].n) == ("test images", 16)
    stated, figure = metadata(Path("run.onnx")), {"multilabel": "mean_average_precision", "regression": "mae"}[task]
    assert json.loads(stated[figure])[figure] == run.test.as_json()[figure]
    assert stated["task"] == task
    assert "accuracy" not in stated
    names = ["000.png", "001.png", "gone.png"]
    model, said = load_model("run.onnx"), predict(run, names)
    assert model.answering is not None
    assert model.answering.names == run.classes
    rows, known, again = model.predict(names), list(said.rows()), list(predict("run.onnx", names).rows())
    for one, other, by_file in zip(rows[:2], known[:2], again[:2], strict=True):
        assert one.each == pytest.approx(other.each, abs=2 if task == "regression" else 0.05)  # pixels are Pillow's
        assert by_file.each == pytest.approx(other.each, abs=1e-3 if task == "regression" else 1e-5)
        if task == "multilabel":
            assert by_file.labels == other.labels
        else:
            assert float(by_file.labels[0]) == pytest.approx(float(other.labels[0]), abs=1e-2)
    assert rows[2].error
    assert main(["run.onnx", "000.png"]) == 0
    head = capsysbinary.readouterr().out.splitlines()[0].decode().split(",")
    assert head == list(said.columns.names)
    with pytest.raises(OptionError, match=f"top is of classes, and the model is of --task {task}"):
        model.predict(names, top=2)
    with pytest.raises(OptionError, match="--sets needs to know"):
        model.predict(names, sets=True)
    with pytest.raises(OptionError, match=f"measured by accuracy, and '{run.path.stem}' is of --task {task}"):
        export(run.path, out="half.onnx", half=True)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_a_tuned_network_is_exported_with_how_it_answers(tables: dict[str, Path], task: str) -> None:
    run = tune(tables, task, epochs=1)
    written = export(run.path, out="tuned.onnx")
    assert written.recorded is not None
    assert written.recorded.worst < 1e-4 * (1 if task == "multilabel" else 40)
    assert [each.name for each in onnx.load("tuned.onnx").graph.output][0] == (
        "probabilities" if task == "multilabel" else "value"
    )


def test_a_number_without_an_interval_is_a_row_as_well(tiny_model: Path) -> None:
    done = extract(photos(30, lambda number: number), tiny_model, task="regression")
    (run,) = fit_heads([done.path], ["ridge"], coverage=0.99)
    assert run.interval is None
    export(run.path, out="run.onnx")
    found = predict(run, ["000.png"], out="out.csv")
    lines = Path("out.csv").read_text().splitlines()
    assert lines[0] == "path,label,error"
    assert lines[1] == f"000.png,{found.labels[0]},"
    assert load_model("run.onnx").predict("000.png")[0].each == {}
