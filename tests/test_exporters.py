import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fakes import tiny_network
from onnx import TensorProto, helper, numpy_helper

from exporters.export import check_parity, export
from tlcache.backbones.engines import open_network
from tlcache.backbones.load import load_model
from tlcache.backbones.onnx_graph import adapt
from tlcache.backbones.onnx_image import image_inputs
from tlcache.backbones.sources import find, list_models
from tlcache.backbones.weights import resolve
from tlcache.errors import ModelError, OptionError, UnknownNameError
from tlcache.images import Preprocess

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("name", [row.name for row in list_models()])
def test_every_backbone_exports_and_agrees_with_torch(name: str) -> None:
    """The export itself compares ONNX Runtime with torch, in batches of 1 and 3, and fails above 1e-4."""
    row = find(name)
    model = load_model(name, "random")
    data = model.onnx()
    metadata = {entry.key: entry.value for entry in onnx.load_model_from_string(data).metadata_props}
    assert metadata["backbone"] == name
    assert metadata["weights"] == "random"
    assert metadata["weights_sha256"] == resolve(row, "random").sha256
    assert Preprocess.from_json(json.loads(metadata["preprocess"])) == model.preprocess
    assert open_network(data, "cpu").dim == row.dim


def test_the_export_is_made_once_and_made_again_when_damaged(tmp_path: Path) -> None:
    model = load_model("squeezenet1_1", "random", crop=64, resize=64)
    first = model.onnx()
    (path,) = (tmp_path / "cache" / "onnx").iterdir()
    stamp = path.stat().st_mtime_ns
    assert model.onnx() == first
    assert path.stat().st_mtime_ns == stamp
    path.write_bytes(first[:-100])
    images = RANDOM.integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    assert np.array_equal(open_network(model.onnx(), "cpu").embed(images), open_network(first, "cpu").embed(images))


@pytest.mark.parametrize("pool", ["cls", "avg", "cls+avg", "max", "gem", "flatten"])
def test_transformers_pool_their_tokens(pool: str) -> None:
    from tlcache.backbones.pools import POOLS

    tokens = torch.arange(2 * 5 * 3, dtype=torch.float32).view(2, 5, 3)
    expected = {
        "cls": tokens[:, 0],
        "avg": tokens[:, 1:].mean(1),
        "cls+avg": torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1),
        "max": tokens[:, 1:].amax(1),
        "gem": tokens[:, 1:].pow(3).mean(1).pow(1 / 3),
        "flatten": tokens.flatten(1),
    }
    assert torch.allclose(POOLS[pool].torch(tokens), expected[pool], rtol=1e-5, atol=0)


def test_a_generalised_mean_is_finite_whatever_it_is_of() -> None:
    from tlcache.backbones.pools import POOLS

    maps = torch.tensor([[-1.0, 0, -2, -3], [60, 6e4, 0, -5], [0, 0, 0, 0]]).view(1, 3, 2, 2)
    assert torch.allclose(POOLS["gem"].torch(maps), torch.tensor([[0, 6e4 * 0.25 ** (1 / 3), 0]]), rtol=1e-4)
    half = POOLS["gem"].torch(maps.half())  # in which the cube of 60 is infinite
    assert half.isfinite().all()


def test_another_network_fails_the_parity_check() -> None:
    data = tiny_network(seed=1).SerializeToString()
    other = onnxruntime.InferenceSession(tiny_network(seed=2).SerializeToString(), providers=["CPUExecutionProvider"])
    with pytest.raises(ModelError, match="The exported tiny is not the same network"):
        check_parity(data, lambda image: other.run(None, {"image": image})[0], 16, "tiny")
    same = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert check_parity(data, lambda image: same.run(None, {"image": image})[0], 16, "tiny") == 0


def test_export_refuses_a_network_that_changes_in_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    row = find("squeezenet1_1")
    monkeypatch.setattr("exporters.export._run_torch", lambda *_: lambda image: np.ones((len(image), 512), np.float32))
    with pytest.raises(ModelError, match="ONNX Runtime differs from torch"):
        export(row, resolve(row, "random"), Preprocess(64, 64), "avg")


def foreign(layout: str = "nchw", kind: int = TensorProto.FLOAT, batch: int | str = "n") -> onnx.ModelProto:
    """Somebody's network: float images in either layout, a map of 4 channels out, and flat logits."""
    kernel = np.random.default_rng(3).normal(0, 1, (4, 3, 4, 4)).astype(helper.tensor_dtype_to_np_dtype(kind))
    shape = [batch, 3, 16, 16] if layout == "nchw" else [batch, 16, 16, 3]
    nodes = [] if layout == "nchw" else [helper.make_node("Transpose", ["input"], ["first"], perm=[0, 3, 1, 2])]
    nodes += [
        helper.make_node("Conv", ["first" if nodes else "input", "kernel"], ["map"], strides=[4, 4]),
        helper.make_node("GlobalMaxPool", ["map"], ["top"]),
        helper.make_node("Flatten", ["top"], ["logits"], axis=1),
    ]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name in ("map", "logits")]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("input", kind, shape)],
        outputs,
        [numpy_helper.from_array(kernel, "kernel")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def by_hand(pool: str) -> np.ndarray:
    kernel = torch.from_numpy(np.random.default_rng(3).normal(0, 1, (4, 3, 4, 4)).astype(np.float32))
    normal = (torch.from_numpy(IMAGES) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    maps = torch.nn.functional.conv2d(normal, kernel, stride=4)
    cubes = maps.clamp(min=0).pow(3).mean((2, 3)).pow(1 / 3)
    pooled = {"avg": maps.mean((2, 3)), "max": maps.amax((2, 3)), "gem": cubes, "flatten": maps.flatten(1)}
    return pooled[pool].numpy()


PREPROCESS = Preprocess(16, 16, mean=MEAN, std=STD)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("pool", ["avg", "max", "gem", "flatten"])
def test_a_foreign_network_gets_uint8_images_and_pooling(layout: str, pool: str) -> None:
    original = foreign(layout)
    before = original.SerializeToString()
    wrapped, _ = adapt(original, PREPROCESS, "map", pool)
    found = open_network(wrapped.SerializeToString(), "cpu").embed(IMAGES)
    assert np.allclose(found, by_hand(pool), rtol=1e-4, atol=1e-4)
    assert original.SerializeToString() == before


def test_a_flat_output_needs_no_pooling_and_half_precision_works() -> None:
    flat = open_network(adapt(foreign(), PREPROCESS, "logits", None)[0].SerializeToString(), "cpu").embed(IMAGES)
    assert np.allclose(flat, by_hand("max"), rtol=1e-4, atol=1e-4)
    half, _ = adapt(foreign(kind=TensorProto.FLOAT16), PREPROCESS, "map", "avg")
    assert np.allclose(open_network(half.SerializeToString(), "cpu").embed(IMAGES), by_hand("avg"), atol=0.05)


def test_a_constant_batch_is_filled_up() -> None:
    fixed = open_network(adapt(foreign(batch=2), PREPROCESS, "map", "avg")[0].SerializeToString(), "cpu")
    assert np.allclose(fixed.embed(IMAGES), by_hand("avg"), rtol=1e-4, atol=1e-4)  # 5 images in batches of 2


def test_what_a_foreign_network_lacks_is_named() -> None:
    (image,) = image_inputs(foreign().graph)
    assert (image.size, image.floating) == ((16, 16), True)
    with pytest.raises(UnknownNameError, match=r"no output 'embedding'. Its outputs: map: float .*; logits: float"):
        adapt(foreign(), PREPROCESS, "embedding", "avg")
    with pytest.raises(OptionError, match=r"map: float .* takes --pool avg, max, gem or flatten; asked: no pooling"):
        adapt(foreign(), PREPROCESS, None, None)
    with pytest.raises(OptionError, match=r"logits: float .* takes no --pool; asked: avg"):
        adapt(foreign(), PREPROCESS, "logits", "avg")
    with pytest.raises(ModelError, match=r"one uint8 or float input of rank 4; found input: int64 \(\?, 3, 16, 16\)"):
        adapt(foreign(kind=TensorProto.INT64), PREPROCESS, "map", "avg")
