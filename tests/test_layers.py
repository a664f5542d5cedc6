"""Layers of networks: what there is, what leaves them, their keys and their embeddings."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tlcache.backbones import sources
from tlcache.backbones.engines import open_network
from tlcache.backbones.exported import load_stem
from tlcache.backbones.load import load_layers, load_model
from tlcache.backbones.sources import find, list_layers
from tlcache.backbones.torch_module import TORCH_MODULE
from tlcache.backbones.torch_network import embedding, untrained
from tlcache.backbones.weights import resolve
from tlcache.errors import ModelError, UnknownNameError

HALF = (0.5, 0.5, 0.5)
OWN = {"resize": 16, "crop": 16, "mean": HALF, "std": HALF}
CODE = """
import torch
from torch import nn

class Tokens(nn.Module):
    def forward(self, maps):
        return maps.flatten(2).transpose(1, 2)

def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 5, 4, 4), nn.ReLU(), Tokens(), nn.Flatten(), nn.Linear(80, 7))
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of somebody's: a map, tokens, and rows."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "lab.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    sys.modules.pop("lab", None)


def residual() -> onnx.ModelProto:
    """Two convolutions with a way past the second, sizes of the batch beside them, a head, and logits."""
    random = np.random.default_rng(0)
    weights = {
        "k1": random.normal(0, 0.1, (4, 3, 4, 4)),
        "k2": random.normal(0, 0.1, (4, 4, 1, 1)),
        "w": random.normal(0, 1, (4, 3)),
    }
    nodes = [
        helper.make_node("Conv", ["image", "k1"], ["stem"], strides=[4, 4]),
        helper.make_node("Shape", ["stem"], ["sizes"]),
        helper.make_node("Conv", ["stem", "k2"], ["inside"]),
        helper.make_node("Relu", ["inside"], ["positive"]),
        helper.make_node("Add", ["stem", "positive"], ["block"]),
        helper.make_node("Reshape", ["block", "sizes"], ["same"]),
        helper.make_node("GlobalAveragePool", ["same"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(each.astype(np.float32), name) for name, each in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


LAYERS = {
    "resnet18": ["stage:1 map 64x56x56", "stage:2 map 128x28x28", "stage:3 map 256x14x14", "last map 512x7x7"],
    "resnet20_cifar": ["stage:1 map 16x32x32", "last map 32x16x16"],
    "vit_b_16": [*(f"stage:{stage} tokens 196+1 x 768" for stage in (1, 2, 3)), "last tokens 196+1 x 768"],
    "timm/test_vit": [*(f"stage:{stage} tokens 100+1 x 64" for stage in (1, 2, 3)), "last tokens 100+1 x 64"],
    "timm/vit_small_patch14_reg4_dinov2": [
        *(f"stage:{stage} tokens 1369+5 x 384" for stage in (1, 2, 3)),
        "last tokens 1369+5 x 384",
    ],
    "timm/test_mambaout": ["stage:1 map 16x40x40", "stage:2 map 32x20x20", "stage:3 map 48x10x10", "last map 64x5x5"],
    "residual.onnx": ["stem map 4x4x4", "block map 4x4x4", "same map ?x?x?", "mean vector ?", "flat vector ?"]
    + ["last vector 3"],
    "lab:network": ["0 map 5x4x4", "1 map 5x4x4", "2 tokens 16 x 5", "3 vector 80", "4 vector 7", "last vector 7"],
}


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize("model", LAYERS)
def test_what_leaves_each_layer(model: str) -> None:
    onnx.save(residual(), "residual.onnx")
    found = list_layers(model, crop=16 if ":" in model else None)
    assert [f"{each.name} {each.kind}" for each in found] == LAYERS[model]


@pytest.mark.parametrize(
    ("model", "layer", "pools"),
    [
        ("resnet18", "stage:2", {"avg": 128, "max": 128, "gem": 128, "flatten": 100_352}),
        ("resnet20_cifar", "stage:1", {"quarters": 64, "avg": 16, "max": 16, "gem": 16, "flatten": 16_384}),
        ("timm/test_vit", "stage:1", {"avg": 64, "max": 64, "gem": 64, "flatten": 6464, "cls": 64, "cls+avg": 128}),
        ("timm/test_efficientnet", "stage:4", {"avg": 48, "max": 48, "gem": 48, "flatten": 4800}),
    ],
)
def test_the_poolings_that_a_layer_has(model: str, layer: str, pools: dict[str, int]) -> None:
    (found,) = (each for each in list_layers(model) if each.name == layer)
    assert found.pools == pools


@pytest.mark.usefixtures("tinynet")
def test_the_key_of_a_layer_is_of_where_it_is() -> None:
    whole, last = (load_model("tinynet", "random", output=output) for output in (None, "last"))
    third, second = (load_model("tinynet", "random", output=f"stage:{stage}") for stage in (3, 2))
    assert whole.key == last.key == third.key
    assert second.identity == {
        **whole.identity,
        "backbone": {**whole.identity["backbone"], "layer": "features.1"},
    }
    row = find("tinynet")
    assert load_model("tinynet", "random", output="stage:2", pool="flatten").key == (
        load_stem(row, resolve(row, "random"), row.preprocess(), "features.1").key
    )


def test_layers_of_timm_are_other_than_where_fine_tuning_cuts() -> None:
    keys = {
        load_model("timm/test_vit", "random", output=output, pool="flatten").key
        for output in ("stage:2", "stage:3", "last")
    }
    row = find("timm/test_vit")
    keys.add(load_stem(row, resolve(row, "random"), row.preprocess(), "blocks.2").key)
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("model", "index", "pool"),
    [
        *(("timm/test_vit", 2, pool) for pool in ("avg", "max", "cls", "cls+avg")),
        *(("timm/test_mambaout", 1, pool) for pool in ("avg", "max")),
    ],
)
def test_a_layer_of_timm_is_what_leaves_its_blocks(model: str, index: int, pool: str) -> None:
    row = find(model).cut("stage:2")
    network, preprocess = untrained(row, 0), row.preprocess()
    image = torch.randint(0, 256, (2, 3, preprocess.crop, preprocess.crop), generator=torch.Generator().manual_seed(0))
    found = embedding(row, network, pool, preprocess)
    left = []
    block = network.module.blocks[index] if hasattr(network.module, "blocks") else network.module.stages[index]
    block.register_forward_hook(lambda *given: left.append(given[-1]))
    with torch.no_grad():
        rows = found(image.byte())
    tokens = left[0] if left[0].ndim == 3 else torch.cat([left[0][:, :1, 0], left[0].flatten(1, 2)], 1)
    patches = {"avg": tokens[:, 1:].mean(1), "max": tokens[:, 1:].amax(1), "cls": tokens[:, 0]}
    assert torch.allclose(rows, torch.cat([patches[each] for each in pool.split("+")], 1), atol=1e-6)


@pytest.mark.usefixtures("lab", "tinynet")
@pytest.mark.parametrize(
    ("model", "layer", "pool", "dim"),
    [
        ("tinynet", "stage:1", None, 8),
        ("lab:network", "1", "gem", 5),
        ("lab:network", "2", None, 5),
        ("residual.onnx", "block", "avg", 4),
        ("residual.onnx", "last", None, 3),
    ],
)
def test_a_layer_runs(monkeypatch: pytest.MonkeyPatch, model: str, layer: str, pool: Any, dim: int) -> None:
    monkeypatch.setattr(sources, "SOURCES", (*sources.SOURCES, TORCH_MODULE))
    onnx.save(residual(), "residual.onnx")
    options = {"resize": 16, "crop": 16} if model == "tinynet" else OWN
    made = load_model(model, "random" if model == "tinynet" else None, output=layer, pool=pool, **options)
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    rows = open_network(made.onnx(), "cpu").embed(images)
    assert rows.shape == (3, dim)
    if (model, layer) == ("lab:network", "2"):
        whole = sys.modules["lab"].network()
        with torch.no_grad():
            expected = whole[:3](((torch.from_numpy(images) / 255) - 0.5) / 0.5).mean(1)
        assert np.allclose(rows, expected.numpy(), atol=1e-5)


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("resnet18", "Unknown layer of resnet18 'stage:9'. .*Known: stage:1, stage:2, stage:3, stage:4, last. See"),
        ("lab:network", "Unknown layer of lab:network 'stage:9'.*Known: 0, 1, 2, 3, 4"),
        ("residual.onnx", "The model has no output 'stage:9'. Its outputs: logits.*last tensors inside.*block"),
    ],
)
def test_an_unknown_layer_is_answered_with_those_that_there_are(model: str, words: str) -> None:
    onnx.save(residual(), "residual.onnx")
    with pytest.raises(UnknownNameError, match=words):
        load_model(model, "random" if model == "resnet18" else None, output="stage:9", **OWN)


@pytest.mark.usefixtures("lab")
def test_a_network_that_does_not_run_with_such_images_is_told() -> None:
    with pytest.raises(ModelError, match="cannot be run with images of 20 pixels: .*mat1 and mat2"):
        list_layers("lab:network", crop=20)


def test_the_key_of_a_layer_is_that_of_the_first_version() -> None:
    Path("mine.pth").write_bytes(b"weights")
    assert (
        hashlib.sha256(b"weights").hexdigest()
        == load_model("resnet18", "mine.pth").identity["backbone"]["weights_sha256"]
    )
    key = load_model("resnet18", "mine.pth", output="stage:2", pool="gem").key
    assert key == "f598257575fb8c097131eb665016b800706887edc95cb61a6a8059238544a162"


def test_what_is_refused_is_not_said_to_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    asked = {"model": "resnet20_cifar", "weights": "embedded"}
    with pytest.raises(UnknownNameError, match="Unknown pooling for resnet20_cifar 'cls'"):
        load_layers(asked, ["stage:1", None], ["avg", "cls"])
    assert "left out" not in caplog.text
    pytest.importorskip("timm")
    asked = {"model": "timm/test_vit", "weights": "random"}
    found = load_layers(asked, ["stage:1", None], ["avg", "model"])
    assert found == [("stage:1", "avg"), (None, "avg"), (None, "model")]
    assert "stage:1 has no pooling model, which is left out there." in caplog.text
