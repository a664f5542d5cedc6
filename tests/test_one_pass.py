"""Several networks and layers in one pass: one decode, a file each, and each bit as if it were extracted alone."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tlcache.backbones.engines import open_network, open_networks
from tlcache.backbones.onnx_merge import merged
from tlcache.cache.feature_file import FeatureFile
from tlcache.errors import CacheError, OptionError, UnknownNameError
from tlcache.extraction import target, worker
from tlcache.extraction.extract import extract, extract_layers
from tlcache.images import Preprocess

HALF = (0.5, 0.5, 0.5)
OPTIONS: dict[str, Any] = {"resize": 16, "crop": 16, "mean": HALF, "std": HALF}
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)
ENGINES = ("onnxruntime", "openvino")


def network(*more: onnx.NodeProto, opset: int = 18) -> onnx.ModelProto:
    """Two convolutions with a way past the second, and logits."""
    random = np.random.default_rng(0)
    weights = {
        "k1": random.normal(0, 0.1, (4, 3, 4, 4)),
        "k2": random.normal(0, 0.1, (4, 4, 1, 1)),
        "w": random.normal(0, 1, (4, 3)),
        "zero": np.zeros(1),
    }
    nodes = [
        helper.make_node("Conv", ["image", "k1"], ["stem"], strides=[4, 4]),
        helper.make_node("Conv", ["stem", "k2"], ["inside"]),
        helper.make_node("Relu", ["inside"], ["positive"]),
        helper.make_node("Add", ["stem", "positive"], ["block"]),
        helper.make_node("GlobalAveragePool", ["block"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        *more,
    ]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(each.astype(np.float32), name) for name, each in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def embedding(shift: float = 0.0, batch: int | str = "n", opset: int = 18, layers: int = 3) -> bytes:
    """Return layers of one kind after each other, and a shift: uint8 (n, 3, 16, 16) -> float32 (n, 3)."""
    nodes = [helper.make_node("Cast", ["image"], ["0"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Tanh", [f"{layer}"], [f"{layer + 1}"]) for layer in range(layers)]
    nodes += [
        helper.make_node("GlobalAveragePool", [f"{layers}"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Add", ["flat", "shift"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, 3, 16, 16])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.float32([shift]), "shift")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


@pytest.fixture
def model() -> str:
    onnx.save(network(), "model.onnx")
    return "model.onnx"


def rows_of(path: Path) -> dict[str, bytes]:
    with FeatureFile(path) as file:
        split = file.split("train", "val", "test")
        return {name: row.tobytes() for name, row in zip(split.paths, split.features, strict=True)}


@pytest.mark.parametrize("engine", ENGINES)
def test_each_layer_is_as_if_it_were_alone(photos: Path, tmp_path: Path, model: str, engine: str) -> None:
    together = extract_layers(
        photos, model, ["stem", "block", "last"], ["avg", "gem"], engine=engine, features=tmp_path / "a", **OPTIONS
    )
    assert [(each.output, each.pool) for each in together] == [
        *((layer, pool) for layer in ("stem", "block") for pool in ("avg", "gem")),
        (None, None),
    ]
    for each in together:
        alone = extract(
            photos, model, output=each.output, pool=each.pool, engine=engine, features=tmp_path / "b", **OPTIONS
        )
        assert alone.path.name == each.path.name
        assert rows_of(alone.path) == rows_of(each.path)
        assert (each.embedded, each.rows) == (24, 24)


def test_every_image_is_decoded_once(photos: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    prepare = worker.prepare
    monkeypatch.setattr(worker, "prepare", lambda data, *rest: decoded.append(data) or prepare(data, *rest))
    extract_layers(photos, model, ["stem", "block"], "max", **OPTIONS)
    assert len(decoded) == len(set(decoded)) == 24


def test_what_is_there_is_not_computed_again(photos: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    monkeypatch.setattr(
        worker,
        "open_networks",
        lambda models, *rest, **more: opened.append(len(models)) or open_networks(models, *rest, **more),
    )
    extract(photos, model, output="block", pool="avg", **OPTIONS)
    done = extract_layers(photos, model, ["stem", "block", "last"], "avg", **OPTIONS)
    assert [(each.embedded, each.reused, each.up_to_date) for each in done] == [
        *((24, 0, False), (0, 24, True), (24, 0, False))
    ]
    assert opened == [1, 2]
    again = extract_layers(photos, model, ["stem", "block", "last"], "avg", **OPTIONS)
    assert all(each.up_to_date for each in again)
    assert opened == [1, 2]


def test_a_pass_that_was_stopped_goes_on_with_all(photos: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(target, "publish", lambda _: (_ for _ in ()).throw(CacheError("stopped")))
        with pytest.raises(CacheError, match="stopped"):
            extract_layers(photos, model, ["stem", "last"], "avg", **OPTIONS)
    assert len(list(Path("features", "photos").glob(".*.parts"))) == 2
    done = extract_layers(photos, model, ["stem", "last"], "avg", **OPTIONS)
    assert [(each.embedded, each.reused) for each in done] == [(0, 24), (0, 24)]
    assert not list(Path("features", "photos").glob(".*.parts"))


def test_an_image_that_one_layer_cannot_use_is_in_the_others(photos: Path) -> None:
    """The last layer divides by what is 0 for one image alone."""
    black = min(photos.rglob("*.png"))
    Image.new("RGB", (20, 20)).save(black)
    divided = [
        helper.make_node("ReduceMax", ["image"], ["by image"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Div", ["by image", "by image"], ["one"]),
        helper.make_node("Mul", ["block", "one"], ["odd"]),
    ]
    onnx.save(network(*divided, opset=17), "model.onnx")
    options = {**OPTIONS, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    first, second = extract_layers(photos, "model.onnx", ["block", "odd"], "avg", **options)
    assert (first.rows, first.quarantined) == (24, 0)
    assert (second.rows, second.quarantined) == (23, 1)
    with FeatureFile(second.path) as file:
        assert [(path, code) for path, _, code, _ in file.quarantine] == [
            (str(black.relative_to(photos)), "non-finite")
        ]


@pytest.mark.parametrize(
    ("layers", "pools", "error"),
    [
        (["stem", "last"], ["cls"], "stem: float.* takes --pool avg, max, gem or flatten; asked: cls"),
        (["stem", "block"], ["avg", "cls"], "takes --pool avg, max, gem or flatten; asked: cls"),
        (["stem", "nosuch"], ["avg"], "no output 'nosuch'"),
        (["last"], ["avg"], "takes no --pool; asked: avg"),
    ],
)
def test_a_layer_or_a_pooling_that_there_is_not_is_told(
    photos: Path, model: str, layers: list[str], pools: list[str], error: str
) -> None:
    with pytest.raises(OptionError, match=error):
        extract_layers(photos, model, layers, pools, **OPTIONS)


@pytest.mark.usefixtures("model")
def test_options_of_extract_alone_are_taken(photos: Path) -> None:
    with pytest.raises(UnknownNameError, match="Unknown setting 'corp'. Did you mean 'crop'"):
        extract_layers(photos, "model.onnx", ["stem"], "avg", corp=16)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("models", "alike"),
    [
        ((embedding(), embedding(1.0), embedding(layers=2)), True),
        ((embedding(), embedding(1.0, opset=17)), False),  # other versions of operators
        ((embedding(), embedding(1.0, batch=2)), False),
    ],
)
def test_networks_are_one_where_they_can_be(models: tuple[bytes, ...], alike: bool, engine: str) -> None:
    assert (merged(models) is not None) == alike
    found = open_networks(models, "cpu", engine=engine, precision="fp32", batch=4, callers=1)
    rows = found.network.embed(IMAGES)
    for model, columns in zip(models, found.columns, strict=True):
        alone = open_network(model, "cpu", engine=engine, batch=4, callers=1).embed(IMAGES)
        assert rows[:, columns].tobytes() == alone.tobytes()


def test_what_networks_have_in_common_is_there_once() -> None:
    one = merged([embedding(), embedding(1.0), embedding()])
    assert isinstance(one, bytes)
    kinds = [node.op_type for node in onnx.load_model_from_string(one).graph.node]
    assert sorted(kinds) == sorted(["Cast", *3 * ["Tanh"], "GlobalAveragePool", "Flatten", *2 * ["Add"], "Concat"])


def test_a_network_whose_numbers_differ_together_runs_by_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where an engine fuses operators that it does not fuse when there is another output between them."""
    models = [embedding(), embedding(1.0), embedding(layers=2)]

    def other(some: list[bytes]) -> Any:
        return merged([embedding(1.0 + 2**-20) if each == models[1] else each for each in some])

    monkeypatch.setattr("tlcache.backbones.onnx_merge.merged", other)
    for _ in range(2):  # compared, and remembered
        caplog.clear()
        with caplog.at_level("INFO", "tlcache"):
            found = open_networks(models, "cpu", engine="onnxruntime", precision="fp32", batch=4, callers=1)
        assert "1 of 3 networks are run by themselves" in caplog.text
        rows: NDArray[np.float32] = found.network.embed(IMAGES)
        for model, columns in zip(models, found.columns, strict=True):
            assert rows[:, columns].tobytes() == open_network(model, "cpu").embed(IMAGES).tobytes()


def test_subgraphs_take_what_they_took() -> None:
    def branching(shift: float) -> bytes:
        model = onnx.load_model_from_string(embedding(shift))
        graph = model.graph
        same = helper.make_node("Identity", ["flat"], ["chosen"])
        other = helper.make_node("Neg", ["flat"], ["chosen other"])
        outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("chosen", "chosen other")]
        branch = helper.make_node(
            "If",
            ["yes"],
            ["picked"],
            then_branch=helper.make_graph([same], "then", [], outs[:1]),
            else_branch=helper.make_graph([other], "else", [], outs[1:]),
        )
        graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        last = graph.node[-1]
        last.input[0] = "picked"
        graph.node.insert(len(graph.node) - 1, branch)
        data: bytes = model.SerializeToString()
        return data

    one = merged([branching(0.0), branching(1.0), embedding(1.0)])
    assert one is not None
    rows = open_network(one, "cpu").embed(IMAGES)
    plain = open_network(embedding(), "cpu").embed(IMAGES)
    assert np.array_equal(rows, np.hstack([plain, plain + np.float32(1), plain + np.float32(1)]))


@pytest.fixture
def other(model: str) -> str:
    """A second network of images that are prepared alike."""
    changed = onnx.load(model)
    (kernel,) = (each for each in changed.graph.initializer if each.name == "k1")
    kernel.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(kernel), "k1"))
    onnx.save(changed, "other.onnx")
    return "other.onnx"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is decoded from now on."""
    found: list[bytes] = []
    prepare = worker.prepare
    monkeypatch.setattr(worker, "prepare", lambda data, *rest: found.append(data) or prepare(data, *rest))
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_networks_share_a_decode_and_are_each_as_if_alone(
    photos: Path, tmp_path: Path, model: str, other: str, engine: str, decoded: list[bytes]
) -> None:
    options = {**OPTIONS, "engine": engine}
    done = extract_layers(photos, [model, other], ["stem", "last"], "avg", features=tmp_path / "a", **options)
    assert len(decoded) == len(set(decoded)) == 24
    assert [(each.backbone, each.output) for each in done] == [
        (name, layer) for name in ("model", "other") for layer in ("stem", None)
    ]
    for each in done:
        name, pool = f"{each.backbone}.onnx", each.pool
        alone = extract(photos, name, output=each.output, pool=pool, features=tmp_path / "b", **options)
        assert alone.path.name == each.path.name
        assert rows_of(alone.path) == rows_of(each.path)


def test_networks_of_other_sizes_have_pixels_of_their_own(photos: Path, tmp_path: Path, decoded: list[bytes]) -> None:
    done = extract_layers(photos, ["resnet20_cifar", "squeezenet1_1"], weights={"squeezenet1_1": "random"})
    assert len(decoded) == 2 * len(set(decoded)) == 48
    alone = extract(photos, "squeezenet1_1", "random", features=tmp_path / "b")
    assert rows_of(alone.path) == rows_of(done[1].path)


def test_only_the_network_that_lacks_something_runs(photos: Path, model: str, other: str, decoded: list[bytes]) -> None:
    before = extract(photos, model, output="stem", pool="avg", **OPTIONS)
    Image.new("RGB", (16, 16), (9, 90, 200)).save(photos / "red" / "new.png")
    (photos / "red" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    decoded.clear()
    first, second = extract_layers(photos, [model, other], "stem", "avg", max_bad=0.1, **OPTIONS)
    assert (first.embedded, first.reused, first.quarantined) == (1, 24, 1)
    assert (second.embedded, second.reused, second.quarantined) == (25, 0, 1)
    assert len(decoded) == 26
    assert first.path == before.path


def test_a_network_that_is_named_twice_is_made_once(photos: Path, model: str, decoded: list[bytes]) -> None:
    once, again = extract_layers(photos, [model, f"./{model}"], "stem", "avg", **OPTIONS)
    assert once == again
    assert len(decoded) == 24


def test_each_network_is_charged_its_own_time_and_the_decode(
    photos: Path, model: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = 0.05

    def opened(models: list[Any], *rest: Any, **more: Any) -> Any:
        several = open_networks(models, *rest, **more)
        if b"other" in opening:
            embed = several.network.embed
            monkeypatch.setattr(several.network, "embed", lambda images: time.sleep(slow) or embed(images))
        opening.append(b"other")
        return several

    opening: list[bytes] = []
    monkeypatch.setattr(worker, "open_networks", opened)
    monkeypatch.setattr("tlcache.extraction.local.available_cpus", lambda: 1)
    first, second = extract_layers(photos, [model, other], "stem", "avg", batch_size=24, **OPTIONS)
    assert second.seconds["infer_s"] >= slow
    assert second.seconds["infer_s"] - first.seconds["infer_s"] > 0.5 * slow
    assert first.seconds["decode_s"] == second.seconds["decode_s"] > 0


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"mean": HALF, "std": HALF}, True),
        ({"channels": "bgr"}, True),
        ({"range": 255}, True),
        ({"crop": 192}, False),
        ({"interpolation": "bicubic"}, False),
        ({"window": (0.0, 80.0)}, False),
        ({"crop_mode": "border", "mean": HALF}, False),
    ],
)
def test_what_the_graph_does_parts_no_pixels(change: dict[str, Any], same: bool) -> None:
    usual = Preprocess(crop_mode=change.get("crop_mode"))
    assert (replace(usual, **change).pixels == usual.pixels) is same
