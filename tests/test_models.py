from pathlib import Path

import numpy as np
import onnx
import pytest
from fakes import tiny_network
from test_exporters import IMAGES, foreign

from tlcache.backbones.engines import open_session
from tlcache.backbones.load import load_model
from tlcache.errors import ModelError, UnknownNameError


def test_the_key_holds_what_changes_embeddings_and_nothing_else(tmp_path: Path, tiny_model: Path) -> None:
    plain = load_model("squeezenet1_1", "random")
    assert load_model("squeezenet1_1", "random").key == plain.key
    renamed = tmp_path / "renamed.onnx"
    renamed.write_bytes(tiny_model.read_bytes())
    assert load_model(str(renamed)).key == load_model(str(tiny_model)).key
    others = [
        load_model("squeezenet1_1", "random", pool="max"),
        load_model("squeezenet1_1", "random", crop_borders=True),
        load_model("squeezenet1_1", "random", resize=300),
        load_model("squeezenet1_1", "random", mean=(0.5, 0.5, 0.5)),
        load_model("squeezenet1_1", "random", precision="fp16"),
        load_model("squeezenet1_1", "random", precision="bf16"),
        load_model("resnet18", "random"),
    ]
    assert len({plain.key, *(other.key for other in others)}) == 8


def test_the_same_weights_by_another_name_have_the_same_key(tmp_path: Path) -> None:
    from tlcache.backbones.backbone import find
    from tlcache.backbones.weights import resolve

    copy = tmp_path / "copy.pth"
    copy.write_bytes(resolve(find("resnet18"), "random").path.read_bytes())
    assert load_model("resnet18", str(copy)).key == load_model("resnet18", "random").key


def test_an_exported_file_alone_gives_the_same_embeddings_bit_for_bit(tmp_path: Path) -> None:
    built_in = load_model("squeezenet1_1", "random", resize=64, crop=64)
    path = tmp_path / "exported.onnx"
    path.write_bytes(built_in.onnx())
    alone = load_model(str(path))
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), dtype=np.uint8)
    assert alone.preprocess == built_in.preprocess
    assert np.array_equal(open_session(alone.onnx(), "cpu")(images), open_session(built_in.onnx(), "cpu")(images))


def test_what_is_part_of_an_exported_graph_cannot_be_changed(tiny_model: Path) -> None:
    for change in ({"pool": "max"}, {"crop": 8}, {"mean": (0.0, 0.0, 0.0)}, {"output": "z"}):
        with pytest.raises(ModelError, match="part of its graph"):
            load_model(str(tiny_model), **change)
    assert load_model(str(tiny_model), pool="avg", resize=32).preprocess.resize == 32


def test_a_foreign_file_must_say_how_images_are_prepared(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    onnx.save(foreign(), path)
    with pytest.raises(ModelError, match="Give --resize, --mean, --std"):
        load_model(str(path))
    stated = {"resize": 20, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    with pytest.raises(ModelError, match="images of 16 x 16 pixels; asked: --crop 10"):
        load_model(str(path), crop=10, **stated)
    model = load_model(str(path), output="map", pool="avg", **stated)
    assert open_session(model.onnx(), "cpu")(IMAGES).shape == (5, 4)


@pytest.mark.parametrize("content", [b"", b"not a model", tiny_network().SerializeToString()[:-300]])
def test_files_that_are_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.onnx' is not a whole ONNX model"):
        load_model(str(path))
    with pytest.raises(ModelError, match="Cannot read the model"):
        load_model(str(tmp_path / "gone.onnx"))


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "weights.bin"])
def test_weights_in_other_files_are_refused(tmp_path: Path, location: str) -> None:
    model = tiny_network()
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    path = tmp_path / "external.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="keeps weights in other files"):
        load_model(str(path))


def test_options_that_do_not_fit() -> None:
    with pytest.raises(ModelError, match="--output names a tensor of an .onnx file"):
        load_model("resnet18", "random", output="x")
    with pytest.raises(UnknownNameError, match="Unknown pooling for resnet18 'mean'"):
        load_model("resnet18", "random", pool="mean")
