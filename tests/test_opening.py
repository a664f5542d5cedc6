"""The test at opening: an image has one embedding, whatever runs beside it, and others have others."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fakes import tiny_network
from onnx import helper, numpy_helper
from test_onnx_files import IMAGES, PREPARED, network, value

from tlcache.backbones import opening
from tlcache.backbones.engines import ENGINES, open_network
from tlcache.backbones.load import load_model
from tlcache.backbones.network import Network
from tlcache.errors import ModelError


def normalised(mode: int) -> onnx.ModelProto:
    """Make a network with BatchNorm, which in training mode goes by the images that are there."""
    names = ["scale", "shift", "mean", "var"]
    node = helper.make_node("BatchNormalization", ["map", *names], ["normal"], training_mode=mode)
    if mode:
        node.output.extend(["new mean", "new var"])
    after = [
        node,
        helper.make_node("GlobalMaxPool", ["normal"], ["top"]),
        helper.make_node("Flatten", ["top"], ["out"]),
    ]
    # unlike each other, as ONNX Runtime keeps equal ones once and training changes two of them
    weights = {name: np.arange(1, 7, dtype=np.float32) + number for number, name in enumerate(names)}
    return network(*after, outputs=[value("out", ["n", 6])], weights=weights, opset=15)


def quantised() -> onnx.ModelProto:
    """Make a network that quantises by the range of the whole batch."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["emb"], ["q", "step", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["out"]),
    ]
    return network(*nodes, outputs=[value("out", ["n", 6])])


def centred() -> onnx.ModelProto:
    """Make a network that subtracts the mean over the batch, as none of the usual layers does."""
    nodes = [
        helper.make_node("ReduceMax", ["emb"], ["most"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["emb", "most"], ["less"]),
        helper.make_node("Add", ["emb", "less"], ["out"]),
    ]
    return network(*nodes, outputs=[value("out", ["n", 6])])


def baked() -> onnx.ModelProto:
    """Make a network whose batch is called dynamic, and which makes one row of whatever comes."""
    node = helper.make_node("Reshape", ["emb", "shape"], ["out"])
    return network(node, outputs=[value("out", ["n", 6])], weights={"shape": np.array([1, -1])})


def baked_to_fail() -> onnx.ModelProto:
    """Make one that fails when more than one image comes."""
    model = baked()
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([1, 6]), "shape"))
    return model


def opened(model: onnx.ModelProto, engine: str = "onnxruntime") -> Network:
    onnx.save(model, "model.onnx")
    return open_network(load_model("model.onnx", **PREPARED).onnx(), "cpu", engine=engine, batch=4)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", [lambda: normalised(1), quantised, centred, baked, baked_to_fail])
def test_images_run_alone_where_a_batch_would_change_them(
    make: Callable[[], onnx.ModelProto], engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tlcache")
    expected = open_network(one_at_a_time(make()), "cpu", engine=engine).embed(IMAGES)
    for _ in range(2):
        caplog.clear()
        assert np.allclose(opened(make(), engine).embed(IMAGES), expected, rtol=1e-3, atol=1e-3)
        assert "mages are run one at a time" in caplog.text


def one_at_a_time(model: onnx.ModelProto) -> bytes:
    """Return the network with a batch that is 1."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, "one.onnx")
    return load_model("one.onnx", **PREPARED).onnx()


@pytest.mark.parametrize("engine", ENGINES)
def test_networks_that_are_as_they_should_be_run_in_batches(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tlcache")
    assert opened(normalised(0), engine).dim == 6
    assert not caplog.text


def test_what_graphs_say_of_their_batch_is_part_of_the_key_and_nothing_else_is() -> None:
    keys = {}
    for name, model in {"train": normalised(1), "dynamic": quantised(), "eval": normalised(0)}.items():
        onnx.save(model, f"{name}.onnx")
        keys[name] = load_model(f"{name}.onnx", **PREPARED).identity["backbone"]
    assert keys["train"].pop("batch") == keys["dynamic"].pop("batch") == 1
    assert all(list(each) == ["onnx_sha256"] for each in keys.values())


def test_a_batch_that_is_fixed_and_changes_its_images_is_refused() -> None:
    model = normalised(1)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    with pytest.raises(ModelError, match="depends on the other images .* takes no single image. Export it with"):
        opened(model)


@pytest.mark.parametrize("operator", ["RandomUniformLike", "RandomNormalLike", "Bernoulli"])
def test_embeddings_that_change_from_one_time_to_the_next_are_refused(operator: str) -> None:
    """Dropout written out; the operator of that name is taken away by ONNX Runtime."""
    nodes = [
        helper.make_node("Sigmoid", ["emb"], ["share"]),
        helper.make_node(operator, ["share"], ["random"]),
        helper.make_node("Mul", ["emb", "random"], ["out"]),
    ]
    with pytest.raises(ModelError, match="another embedding of the same image each time, as with dropout"):
        opened(network(*nodes, outputs=[value("out", ["n", 6])], opset=15))


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_that_are_not_finite_are_the_network_s_fault(engine: str) -> None:
    node = helper.make_node("Mul", ["emb", "bad"], ["out"])
    bad = np.array([1, np.nan, 1, 1, 1, 1], np.float32)
    with pytest.raises(ModelError, match="no finite embedding for any image: its weights are damaged"):
        opened(network(node, outputs=[value("out", ["n", 6])], weights={"bad": bad}), engine)


def test_a_network_that_cannot_be_run_says_why_and_not_to_try_again() -> None:
    node = helper.make_node("Reshape", ["emb", "shape"], ["out"])
    model = network(node, outputs=[value("out", ["n", 7])], weights={"shape": np.array([-1, 7])})
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot run the model: .*Reshape") as error:
        opened(model)
    assert "again" not in str(error.value)


def test_it_is_tried_once_and_again_where_the_memory_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    real = opening._try
    monkeypatch.setattr(opening, "_try", lambda *args: calls.append(args) or real(*args))
    data = tiny_network().SerializeToString()
    for count in (1, 1):
        open_network(data, "cpu")
        assert len(calls) == count
    (memory,) = (tmp_path / "cache" / "opened").iterdir()
    memory.write_bytes(b"{")
    for count in (2, 2):
        open_network(data, "cpu")
        assert len(calls) == count
    open_network(tiny_network(seed=1).SerializeToString(), "cpu")
    assert len(calls) == 3


def test_what_there_is_to_tell_is_told_once_whatever_number_of_processes_embed(photos: Path) -> None:
    """With OpenVINO each opens the network for itself."""
    model = baked()
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim, "nabc", strict=True):
        dim.dim_param = name
    onnx.save(model, "model.onnx")
    options = ["--engine", "openvino", "--resize", "16", "--crop", "16", "--mean", ".5,.5,.5", "--std", ".5,.5,.5"]
    words = [sys.executable, "-m", "tlcache", "extract", "--data", str(photos), "--model", "model.onnx", *options]
    said = " ".join(subprocess.run(words, capture_output=True, text=True, check=True).stderr.split())
    assert said.count("it runs with RGB") == said.count("Images are run one at a time") == 1
