"""Engines, devices and precisions: what runs a network, and that it computes the same."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from fakes import infinite_network
from numpy.typing import NDArray
from test_exporters import foreign

from tlcache.backbones.engines import ENGINES, default_batch, find_device, open_network
from tlcache.backbones.half import to_half
from tlcache.backbones.load import load_model
from tlcache.backbones.network import NotFiniteError
from tlcache.cache.feature_file import open_features
from tlcache.errors import DeviceError, ModelError, UnknownNameError
from tlcache.extraction.extract import extract

pytest.importorskip("openvino")


def images(n: int, side: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (n, 3, side, side), dtype=np.uint8)


def distance(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_devices(tiny_model: Path) -> None:
    import torch

    data = tiny_model.read_bytes()
    assert open_network(data, "cpu").provider == "CPUExecutionProvider"
    assert open_network(data, "cpu").dim == 8
    with pytest.raises(UnknownNameError, match="Unknown device 'gpu'"):
        open_network(data, "gpu")
    if not torch.cuda.is_available():
        assert open_network(data, "auto").provider == "CPUExecutionProvider"
        with pytest.raises(DeviceError, match="CUDA was asked for"):
            open_network(data, "cuda")


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives(tiny_model: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 16, 16), dtype=np.uint8)
    data = tiny_model.read_bytes()
    assert np.allclose(
        open_network(data, "cuda").embed(images), open_network(data, "cpu").embed(images), rtol=1e-2, atol=1e-3
    )


def test_a_network_wants_uint8_images() -> None:
    with pytest.raises(ModelError, match="Expected one uint8 image input"):
        open_network(foreign().SerializeToString(), "cpu")
    with pytest.raises(ModelError, match="does not accept the model"):
        open_network(b"nonsense", "cpu")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_that_fails_says_on_what_and_what_may_help(tiny_model: Path, engine: str) -> None:
    network = open_network(tiny_model.read_bytes(), "cpu", engine=engine, batch=3)
    with pytest.raises(
        ModelError, match=r"failed on a batch of 3 \(.+\)\. If memory ran out, try a smaller --batch-size"
    ):
        network.embed(images(3, 17))
    assert network.embed(images(3)).shape == (3, 8)


@pytest.mark.parametrize(("precision", "hint"), [("fp32", ""), ("fp16", "; try --precision fp32")])
def test_rows_that_are_not_finite_are_an_error_that_has_them_all(precision: str, hint: str) -> None:
    network = open_network(infinite_network().SerializeToString(), "cpu")
    network.precision = precision
    black, bright = np.zeros((2, 3, 16, 16), np.uint8), images(1)
    assert np.isfinite(network.embed(black)).all()
    with pytest.raises(NotFiniteError) as error:
        network.embed(np.concatenate([black, bright]))
    assert error.value.finite.tolist() == [True, True, False]
    assert np.array_equal(error.value.rows[:2], network.embed(black))
    assert str(error.value) == f"For 1 of 3 images the network gives numbers that are not finite{hint}."


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 32])
@pytest.mark.parametrize("engine", ENGINES)
def test_batch_size_does_not_change_embeddings(tiny_model: Path, batch: int, engine: str) -> None:
    network, many = open_network(tiny_model.read_bytes(), "cpu", engine=engine, batch=8), images(32)
    parts = [network.embed(many[start : start + batch]) for start in range(0, 32, batch)]
    assert np.array_equal(np.concatenate(parts), network.embed(many))


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_share_a_network(tiny_model: Path, engine: str) -> None:
    network, many = open_network(tiny_model.read_bytes(), "cpu", engine=engine, batch=4), images(64)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(network.embed, np.split(many, 16)))
    assert np.array_equal(np.concatenate(parts), network.embed(many))


@pytest.mark.parametrize(
    ("name", "weights"), [("squeezenet1_1", "random"), ("mobilenetv3_small", "random"), ("resnet20_cifar", "embedded")]
)
def test_openvino_gives_what_onnx_runtime_gives(name: str, weights: str) -> None:
    data, some = load_model(name, weights, resize=64, crop=64).onnx(), images(5, 64)
    expected = open_network(data, "cpu").embed(some)
    exact = open_network(data, "cpu", engine="openvino")
    assert exact.provider == "OpenVINO fp32"
    assert exact.dim == expected.shape[1]
    assert np.abs(exact.embed(some) - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(("name", "weights"), [("mobilenetv3_small", "random"), ("resnet20_cifar", "embedded")])
def test_bf16_stays_within_its_bound(name: str, weights: str) -> None:
    try:
        find_device("cpu", "openvino", "bf16")
    except DeviceError:
        pytest.skip("no bf16 arithmetic here")
    model, some = load_model(name, weights, resize=64, crop=64, precision="bf16"), images(5, 64)
    expected = open_network(model.onnx(), "cpu").embed(some)
    found = open_network(model.onnx(), "cpu", engine="openvino", precision="bf16")
    assert found.provider == "OpenVINO bf16"
    assert 1e-5 < distance(found.embed(some), expected) <= 0.1


@pytest.mark.parametrize(("name", "weights"), [("squeezenet1_1", "random"), ("resnet20_cifar", "embedded")])
def test_fp16_keeps_inputs_and_outputs_and_stays_within_its_bound(name: str, weights: str) -> None:
    """On a GPU this is what runs; here ONNX Runtime's CPU kernels run it, which users are not offered."""
    plain = load_model(name, weights, resize=64, crop=64)
    half = load_model(name, weights, resize=64, crop=64, precision="fp16")
    assert len(half.onnx()) < 0.6 * len(plain.onnx())
    session = onnxruntime.InferenceSession(half.onnx(), providers=["CPUExecutionProvider"])
    assert [value.type for value in (*session.get_inputs(), *session.get_outputs())] == [
        "tensor(uint8)",
        "tensor(float)",
    ]
    some = images(5, 64)
    expected = open_network(plain.onnx(), "cpu").embed(some)
    assert 1e-6 < distance(session.run(None, {"image": some})[0], expected) <= 0.02
    with pytest.raises(ModelError, match=r"cannot be converted to fp16: .*--precision fp32"):
        to_half(b"no model")


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        (("cpu", "tvm", "fp32"), UnknownNameError, "Unknown engine 'tvm'. Known: onnxruntime, openvino."),
        (
            ("cpu", "openvino", "int4"),
            UnknownNameError,
            "Unknown precision 'int4'. Did you mean 'int8'? Known: fp32, fp16, bf16, int8.",
        ),
        (("cpu", "openvino", "int8"), DeviceError, "asked: int8, which --engine onnxruntime --device cpu has."),
        (("cuda", "openvino", "fp32"), DeviceError, "--engine openvino runs on cpu; asked: cuda."),
        (("cpu", "onnxruntime", "bf16"), DeviceError, "asked: bf16, which --engine openvino --device cpu has."),
        (("cpu", "onnxruntime", "fp16"), DeviceError, "asked: fp16, which --engine onnxruntime --device cuda has."),
        (("cuda", "onnxruntime", "fp16"), DeviceError, "CUDA was asked for, but "),
    ],
)
def test_what_does_not_go_together_is_named(asked: tuple[str, str, str], kind: type[Exception], words: str) -> None:
    if asked[0] == "cuda" and find_device("auto") == "cuda":
        pytest.skip("there is a GPU")
    with pytest.raises(kind) as error:
        find_device(*asked)
    assert words in str(error.value)


def test_a_missing_engine_or_a_processor_without_bf16_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlcache.backbones.engines._openvino_abilities", lambda: ["FP32"])
    assert find_device("cpu", "openvino", "fp32") == "cpu"
    with pytest.raises(DeviceError, match="this processor has no bf16 arithmetic"):
        find_device("cpu", "openvino", "bf16")
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(DeviceError, match=r"pip install 'tlcache\[openvino\]'"):
        find_device("cpu", "openvino", "fp32")


def test_a_gpu_that_cannot_be_used_is_an_error_or_said_once(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """ONNX Runtime is really asked for CUDA, and really falls back to the CPU."""
    if find_device("auto") == "cuda":
        pytest.skip("there is a GPU, and it can be used")
    monkeypatch.setattr("tlcache.backbones.engines._has_gpu", lambda: True)
    with pytest.raises(DeviceError, match="the session runs on CPUExecutionProvider"):
        open_network(tiny_model.read_bytes(), "cuda")
    caplog.set_level("INFO", "tlcache")
    assert open_network(tiny_model.read_bytes(), "auto").provider == "CPUExecutionProvider"
    assert caplog.text.count("Going on without the GPU.") == 1


def test_larger_images_go_into_smaller_batches() -> None:
    assert [default_batch("onnxruntime", "cpu", side) for side in (96, 224, 299, 384, 600, 2000)] == [8, 8, 8, 4, 1, 1]
    assert default_batch("openvino", "cpu", 384) == 9
    assert default_batch("onnxruntime", "cuda", 224) > default_batch("onnxruntime", "cuda", 600) > 1


def test_engine_and_precision_reach_the_file(photos: Path, tiny_model: Path) -> None:
    plain = extract(photos, str(tiny_model))
    again = extract(photos, str(tiny_model), engine="openvino")
    assert (again.path, again.up_to_date) == (plain.path, True)  # the same precision, so the same key
    plain.path.unlink()
    other = extract(photos, str(tiny_model), engine="openvino")
    assert (other.path, other.provider) == (plain.path, "OpenVINO fp32")
    try:
        low = extract(photos, str(tiny_model), engine="openvino", precision="bf16")
    except DeviceError:
        pytest.skip("no bf16 arithmetic here")
    assert low.path != plain.path
    with open_features(low.path) as file:
        assert file.attrs["provider"] == "OpenVINO bf16"
        assert '"precision":"bf16"' in file.attrs["key_json"]
