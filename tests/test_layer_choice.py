"""Heads that choose among the layers of a network: on validation, tested once, and compared with the last one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fakes import tiny_network
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from tlcache.cache.feature_file import FeatureFile
from tlcache.cli import app
from tlcache.errors import CacheError, OptionError
from tlcache.evaluation.compare import compare
from tlcache.evaluation.verdict import verdict
from tlcache.extraction.extract import extract_layers
from tlcache.probing.fit import fit_heads
from tlcache.probing.layers import alternatives
from tlcache.report.reproduce import commands
from tlcache.runs.folder import list_runs
from tlcache.runs.record import RUNS

OPTIONS: dict[str, Any] = {"resize": 16, "crop": 16, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.fixture
def files(photos: Path, forgetful: str) -> list[Path]:
    """Embeddings of that network's layers."""
    return [each.path for each in extract_layers(photos, forgetful, ["colours", "last"], ["avg", "max"], **OPTIONS)]


@pytest.fixture
def forgetful() -> str:
    """A network whose first layer has the colours, and whose last has forgotten them."""
    forget = np.full((3, 4), 1 / 3, np.float32) + np.random.default_rng(0).normal(0, 1e-3, (3, 4)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["image"], ["colours"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["colours"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "forget"], ["grey"]),
        helper.make_node("Tanh", ["grey"], ["last"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("last", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(forget, "forget")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), "model.onnx")
    return "model.onnx"


def test_each_head_chooses_on_validation_and_is_compared_with_the_last(files: list[Path]) -> None:
    last, chosen = runs = fit_heads(files, ["ridge"], layers="all")
    assert [(run.head, len(run.layers)) for run in runs] == [("ridge", 0), ("ridge", 3)]
    assert [each.name for each in chosen.layers] == ["colours max", "colours avg", "last"]
    assert chosen.extract_arguments["output"] == "colours"
    assert last.extract_arguments["output"] is None
    scores = {each.key: each.scores["val_accuracy"] for each in chosen.layers}
    assert scores[chosen.key] == max(scores.values())
    assert chosen.test.accuracy > last.test.accuracy
    assert chosen.validated["accuracy"] == scores[chosen.key]
    assert chosen.train_s > chosen.fit_s
    (found,) = compare()
    pairs = found.layer_choices
    assert [(pair.a.run.layers != (), pair.b.run.key) for pair in pairs] == [(True, last.key)]
    difference = pairs[0].a.accuracy - pairs[0].b.accuracy
    assert pairs[0].found.difference == pytest.approx(difference)
    assert "The layer of model that was best of 3 on validation (colours " in verdict(found)
    assert json.loads(chosen.path.read_text())["layers"][2]["output"] is None
    assert "layers" not in json.loads(last.path.read_text())


@pytest.mark.parametrize(
    ("task", "labels", "figure"),
    [
        ("multilabel", {"red": "warm;bright", "green": "bright", "blue": ";"}, "mean_average_precision"),
        ("regression", {"red": "3.5", "green": "1", "blue": "-2"}, "mae"),
    ],
)
def test_labels_and_numbers_choose_a_layer_too(
    photos: Path, forgetful: str, task: str, labels: dict[str, str], figure: str
) -> None:
    lines = [f"{path.relative_to(Path.cwd())},{labels[path.parent.name]}" for path in sorted(photos.glob("*/*"))]
    Path("table.csv").write_text("\n".join(["path,label", *lines]))
    made = extract_layers("table.csv", forgetful, ["colours", "last"], ["avg"], task=task, **OPTIONS)
    told: list[str] = []
    last, chosen = fit_heads([each.path for each in made], ["ridge", "ncm"], layers="all", on_warning=told.append)
    assert ["ncm" in line for line in told] == [True]
    scores = {each.name: each.scores[f"val_{figure}"] for each in chosen.layers}
    assert chosen.extract_arguments["output"] == "colours"
    assert scores["colours avg"] == (min if figure == "mae" else max)(scores.values())
    assert chosen.validated[figure] == scores["colours avg"]
    assert (chosen.test.as_json()[figure] < last.test.as_json()[figure]) == (figure == "mae")
    again = fit_heads([each.path for each in made], ["ridge"], layers="all")
    assert [run.created for run in again] == [last.created, chosen.created]


def test_what_is_recorded_is_read(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = fit_heads(files, ["ridge"], layers="all")
    plain = fit_heads(files, ["ridge"])
    assert {run.key for run in plain} == {each.key for each in first[1].layers}
    assert len(list_runs()) == 4  # three files, and the choice among them
    monkeypatch.setattr("tlcache.probing.layers.search", None)
    monkeypatch.setattr("tlcache.probing.run.search", None)
    again = fit_heads(files, ["ridge"], layers="all")
    assert [run.created for run in again] == [run.created for run in first]
    assert RUNS.read(first[1].path) == first[1]


def test_only_named_layers_are_chosen_among(files: list[Path]) -> None:
    usual, chosen = fit_heads(files, ["ridge"], layers=["colours"])
    assert [each.name for each in chosen.layers] == ["colours max", "colours avg"]
    assert usual.extract_arguments["output"] == "colours"
    assert {run.key for run in (usual, chosen)} <= {each.key for each in chosen.layers}


@pytest.mark.parametrize(
    ("layers", "options", "error", "words"),
    [
        ("stage:3", {}, CacheError, "No features of layer stage:3; cached are colours, last. .*--layers stage:3"),
        (["last"], {}, CacheError, "No network has features of several layers"),
        ("all", {"budget_s": 3.0}, OptionError, "--budget is of heads on single files"),
    ],
)
def test_what_cannot_be_chosen_is_told(
    files: list[Path], layers: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        fit_heads(files, ["ridge"], layers=layers, **options)


def test_the_commands_make_it_again(files: list[Path]) -> None:
    run = fit_heads(files, ["ridge"], layers="all")[1]
    before, after = commands(run)
    assert "--layers colours,last" in before
    assert "--pool max,avg" in before
    assert after.startswith("tlcache fit-heads features/photos/")
    assert after.count(".h5") == 3
    assert after.endswith("--heads ridge --layers all")


@pytest.mark.usefixtures("files")
def test_the_command_line_says_what_it_gained() -> None:
    done = CliRunner().invoke(app, ["fit-heads", "--heads", "ridge", "--layers", "colours,last"])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "ridge, best of 3" in text
    assert "The layer of model that was best of 3 on validation (colours" in text
    shots = CliRunner().invoke(app, ["fit-heads", "--layers", "all", "--shots", "1"])
    assert (shots.exit_code, "leave --layers out" in shots.output) == (2, True)


@pytest.mark.parametrize(("pools", "usual"), [(["avg", "quarters"], "quarters"), (["max", "avg", "flatten"], "avg")])
def test_the_usual_embedding_is_the_last_layer_pooled_as_is_usual(photos: Path, pools: list[str], usual: str) -> None:
    done = extract_layers(photos, "resnet20_cifar", ["last", "stage:1"], pools)
    (group,) = alternatives([each.path for each in done], ["all"])
    with FeatureFile(group[-1]) as file:
        assert json.loads(file.attrs["key_json"])["pool"] == usual
        assert not json.loads(file.attrs["arguments"])["output"]


@pytest.mark.usefixtures("tinynet")
@pytest.mark.parametrize(("made", "asked"), [("stage:3", "last"), ("last", "stage:3")])
def test_the_last_stage_and_the_last_layer_are_one(photos: Path, made: str, asked: str) -> None:
    done = extract_layers(photos, "tinynet", ["stage:2", made], weights="random")
    (group,) = alternatives([each.path for each in done], ["stage:2", asked])
    assert group == [each.path for each in done]
    with pytest.raises(CacheError, match="No features of layer stage:1; cached are last, stage:2, stage:3"):
        alternatives(group, ["stage:1", asked])


def test_where_the_last_is_best_that_is_said(photos: Path) -> None:
    """Of two names of the same thing the last is taken."""
    onnx.save(tiny_network(), "model.onnx")
    options = {**OPTIONS, "mean": None, "std": None}
    model = onnx.load("model.onnx")
    del model.metadata_props[:]
    model.graph.node.append(helper.make_node("Identity", [model.graph.output[0].name], ["same"]))
    onnx.save(model, "model.onnx")
    done = extract_layers(photos, "model.onnx", ["same", "last"], **options)
    fit_heads([each.path for each in done], ["ridge"], layers="all")
    assert "Of 2 layers of model, the last (last) was best on validation, by ridge." in verdict(compare()[0])
