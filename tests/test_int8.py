"""`--precision int8`: converted once from made images, kept apart, and refused or warned of where it does not suit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from fakes import tiny_network
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from test_exporters import foreign

from tlcache.backbones.calibration import made_images
from tlcache.backbones.engines import find_device, open_network
from tlcache.backbones.integers import Apart
from tlcache.backbones.load import load_model
from tlcache.backbones.quantised import to_int8
from tlcache.cache.feature_file import open_features
from tlcache.deploying.predict import predict
from tlcache.errors import DeviceError, ModelError
from tlcache.extraction.embedder import ImageEmbedder
from tlcache.extraction.extract import extract, extract_layers
from tlcache.probing.fit import fit_heads

SAID = {"pool": "avg", "resize": 16, "crop": 16, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
SUITS, NOT = Apart(0.1, 2.0), Apart(0.42, 2.0)


@pytest.fixture(autouse=True)
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is converted suits, and processors without these products compute it, too, if less exactly."""
    monkeypatch.setattr("tlcache.backbones.engines.has_vnni", lambda: True)
    monkeypatch.setattr("tlcache.backbones.integers._compare", lambda *_: SUITS)


def images(n: int, side: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (n, 3, side, side), dtype=np.uint8)


def distance(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def rows(path: Path) -> NDArray[np.float32]:
    with open_features(path) as file:
        return np.concatenate([file.split(name).features for name in ("train", "val", "test")])


def test_images_that_show_the_ranges_are_the_same_everywhere() -> None:
    some = made_images(6, 12, 20)
    assert (some.shape, some.dtype) == ((6, 3, 12, 20), np.uint8)
    assert np.array_equal(some[:2], made_images(2, 12, 20))
    assert made_images(1, 1, 1).shape == (1, 3, 1, 1)
    assert some[:, :, 0, 0].ravel()[:6].tolist() == [0, 69, 14, 87, 112, 97]


def test_a_real_network_stays_near_itself_and_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, low = (load_model("resnet20_cifar", precision=precision) for precision in ("fp32", "int8"))
    assert "calibration" not in plain.identity
    assert low.identity == {
        **plain.identity, "precision": "int8", "calibration": {"images": "made", "count": 64, "version": 1},
    }  # fmt: skip
    some = images(8, 32)
    expected = open_network(plain.onnx(), "cpu").embed(some)
    found = open_network(low.onnx(), "cpu", precision="int8").embed(some)
    assert 0.005 < distance(found, expected) < 0.2
    monkeypatch.setattr("tlcache.backbones.integers.to_int8", None)
    assert len(low.onnx()) < 0.5 * len(plain.onnx())  # it is kept


def test_what_was_thrown_away_is_made_again_to_the_bit() -> None:
    network = tiny_network().SerializeToString()
    assert to_int8(network, made_images(8, 16, 16)) == to_int8(network, made_images(8, 16, 16))


def test_onnx_runtime_quantises_as_it_did_when_keys_were_made() -> None:
    """No version of it is part of a key: where these numbers change, `CALIBRATION`, which is part of it, has to."""
    kernel = (np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) - 9) / 8  # sums are exact on every processor
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "kernel"], ["y"], strides=[2, 2]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("GlobalAveragePool", ["z"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "exact",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 2, 1, 1])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    made = onnx.load_model_from_string(to_int8(model.SerializeToString(), made_images(8, 16, 16)))
    found = {each.name: numpy_helper.to_array(each) for each in made.graph.initializer}
    assert found["kernel_quantized"].dtype == np.int8
    assert found["kernel_quantized"].ravel().tolist() == [
        *(-127, -113, -99, -85, -71, -56, -42, -28, -14, 0, 14, 28),
        *(27, 36, 45, 54, 64, 73, 82, 91, 100, 109, 118, 127),
    ]
    assert found["kernel_scale"] == pytest.approx([9 / 8 / 127, 14 / 8 / 127])
    scales = [float(found[f"{name}_scale"]) for name in ("x", "z", "embedding")]
    assert scales == pytest.approx([0.99951172, 11.9613142, 8.2410183], rel=1e-6)


def test_rows_of_int8_are_kept_apart_and_shared(photos: Path, tiny_model: Path) -> None:
    plain = extract(photos, str(tiny_model))
    low = extract(photos, str(tiny_model), precision="int8")
    assert (low.embedded, low.path == plain.path) == (24, False)
    assert 0 < distance(rows(low.path), rows(plain.path)) < 0.05
    assert extract(photos, str(tiny_model), precision="int8").up_to_date
    paths = [str(path) for path in sorted(photos.rglob("*.png"))]
    embedder = ImageEmbedder(str(tiny_model), precision="int8")
    assert np.isin(embedder.transform(paths), rows(low.path)).all()
    (run,) = fit_heads([low.path], ["ridge"])
    assert run.precision == "int8"
    answered = predict(run.path, photos)
    assert (answered.embedded, answered.reused) == (0, 24)


def test_layers_in_one_pass_are_what_they_are_alone(photos: Path, tinynet: None) -> None:
    del tinynet
    both = extract_layers(photos, "tinynet", ["stage:1", "last"], weights="random", precision="int8", name="both")
    for each, layer in zip(both, ("stage:1", None), strict=True):
        alone = extract(photos, "tinynet", "random", output=layer, precision="int8", name="alone")
        assert np.array_equal(rows(each.path), rows(alone.path))


def of_opset(version: int) -> onnx.ModelProto:
    model = foreign()
    model.opset_import[0].version, model.ir_version = version, 4
    return model


def with_initializers_as_inputs() -> onnx.ModelProto:
    model = of_opset(9)
    model.ir_version = 3
    (kernel,) = model.graph.initializer
    model.graph.input.append(helper.make_tensor_value_info(kernel.name, kernel.data_type, kernel.dims))
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: of_opset(7),
        lambda: of_opset(11),
        lambda: of_opset(12),
        with_initializers_as_inputs,
        lambda: foreign("nhwc"),
        lambda: foreign(batch=1),
        lambda: foreign(batch=4),
    ],
    ids=["opset 7", "opset 11", "opset 12", "IR 3", "NHWC", "batch of 1", "batch of 4"],
)
def test_files_of_all_kinds_are_converted(make: Callable[[], onnx.ModelProto]) -> None:
    onnx.save(make(), "some.onnx")
    plain, low = (
        open_network(load_model("some.onnx", precision=precision, **SAID).onnx(), "cpu", precision=precision)
        for precision in ("fp32", "int8")
    )
    assert 0 < distance(low.embed(images(5)), plain.embed(images(5))) < 0.05


def no_products() -> onnx.ModelProto:
    """A network that gives means of each colour."""
    nodes = [helper.make_node("AveragePool", ["input"], ["map"], kernel_shape=[4, 4], strides=[4, 4])]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 16, 16])
    out = helper.make_tensor_value_info("map", TensorProto.FLOAT, ["n", 3, 4, 4])
    graph = helper.make_graph(nodes, "means", [image], [out])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def in_integers() -> onnx.ModelProto:
    return onnx.load_model_from_string(to_int8(tiny_network().SerializeToString(), made_images(4, 16, 16)))


def in_integers_by_batch() -> onnx.ModelProto:
    """A network with dynamic quantisation."""
    model = tiny_network()
    model.graph.node[0].CopyFrom(helper.make_node("DynamicQuantizeLinear", ["f"], ["q", "s", "z"]))
    model.graph.node.insert(0, helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT))
    model.graph.node.insert(2, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["x"]))
    return model


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (in_integers, "it computes in integers already"),
        (in_integers_by_batch, "it computes in integers already"),
        (lambda: foreign(kind=TensorProto.FLOAT16), "its weights are float16"),
        (no_products, "it has no convolutions or products of matrices"),
    ],
    ids=["int8", "dynamic int8", "fp16", "no products"],
)
def test_a_network_that_cannot_be_converted_says_why(make: Callable[[], onnx.ModelProto], why: str) -> None:
    onnx.save(make(), "some.onnx")
    said = SAID if make().graph.input[0].name == "input" else {}
    with pytest.raises(ModelError, match=f"The network cannot be quantised: {why}.* fp32"):
        load_model("some.onnx", precision="int8", **said).onnx()


def test_a_network_that_int8_does_not_suit_is_warned_of_each_time(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tlcache")
    load_model(str(tiny_model), precision="int8").onnx()
    assert "tiny in int8: embeddings differ from fp32 by 10% of their length, 2.0 times as fast here" in caplog.text
    assert "does not suit" not in caplog.text
    monkeypatch.setattr("tlcache.backbones.integers._compare", lambda *_: NOT)
    other = load_model(str(tiny_model), precision="int8", crop_borders=True)
    for count in (1, 2):
        other.onnx()
        assert caplog.text.count("int8 does not suit tiny: embeddings differ from fp32 by 42% of their") == count
    assert caplog.text.count("converting tiny to int8 (once)") == 2


def test_how_far_it_is_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    from tlcache.backbones.integers import _compare

    network = tiny_network()
    whole, some = network.SerializeToString(), made_images(4, 16, 16)
    kernel = numpy_helper.to_array(network.graph.initializer[0])
    network.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel * np.float32(1.25), "kernel"))
    found = _compare(whole, network.SerializeToString(), some)
    assert found.share == pytest.approx(0.25, abs=1e-5)
    assert 0.1 < found.faster < 10


def test_a_processor_without_these_products_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlcache.backbones.engines.has_vnni", lambda: False)
    assert find_device("cpu") == "cpu"
    with pytest.raises(DeviceError, match=r"no products of 8-bit integers \(VNNI\).* Pass --precision fp32"):
        find_device("cpu", precision="int8")


@pytest.mark.parametrize(
    ("machine", "flags", "able"),
    [
        ("x86_64", {"avx2", "avx512_vnni"}, True),
        ("AMD64", {"avx_vnni"}, True),
        ("x86_64", {"avx2", "avx512f"}, False),
        ("x86_64", set(), False),
        ("aarch64", set(), True),
        ("arm64", set(), True),
    ],
)
def test_which_processors_have_them(machine: str, flags: set[str], able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlcache.machine import has_vnni

    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("tlcache.machine.cpu_flags", lambda: frozenset(flags))
    assert has_vnni() is able
