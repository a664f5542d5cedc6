import base64
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fakes import tiny_network
from test_exporters import IMAGES, foreign

from tlcache.backbones.backbone import Weights
from tlcache.backbones.engines import open_network
from tlcache.backbones.exported import load_stem
from tlcache.backbones.load import load_model
from tlcache.backbones.sources import find
from tlcache.backbones.weights import resolve
from tlcache.errors import ModelError, OptionError, UnknownNameError
from tlcache.images import Preprocess

HALF = (0.5, 0.5, 0.5)
# A network that is one ReLU, as bytes: as it is, and with the metadata of an export.
FOREIGN = base64.b64decode(
    "CAo6WQoSCgVpbnB1dBIDbWFwIgRSZWx1EgFnWiAKBWlucHV0EhcKFQgBEhEKAxIBbgoCCAMKAggICgIICGIeCgNtYXASFwoVCAESEQoDEgFuCgIIAwoC"
    "CAgKAggIQgQKABAS"
)
PREPARED = (
    b'{"rules": 1, "resize": 8, "crop": 8, "interpolation": "bilinear", "crop_borders": false, '
    b'"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}'
)
EXPORTED = (
    FOREIGN
    + b"r\x1c\n\x08exporter\x12\x10tlcache export 1r\x0b\n\x04pool\x12\x03avg"
    + b"r\x98\x01\n\npreprocess\x12\x89\x01"
    + PREPARED
)


@pytest.mark.parametrize(
    ("model", "options", "key"),
    [
        ("resnet20_cifar", {}, "4e25f2a8240b439ffe595e6001e48eb68f3c426fead8382198bafe69d9b0ec14"),
        (
            "resnet20_cifar",
            {"pool": "avg", "precision": "bf16"},
            "3c24ccba087bdd471ff53f8c2ce88a24c83a541427c633b3cb98d07742b1a016",
        ),
        ("squeezenet1_1", {"weights": "mine.pth"}, "dfd0ce93fa8fb418160248a349954fd29868e0fd64ba510dcd1efb6eb060f73b"),
        (
            "inception_v3",
            {"weights": "mine.pth", "pool": "max", "crop_borders": True},
            "471b594bce1e36931fbe36c88c4191783b48470d60a1002d402edd0e93ec8ad3",
        ),
        (
            "vit_b_16",
            {"weights": "mine.pth", "resize": 300},
            "16d6175ca4d79afd2ac851a05febccfca9afcf75be5c60687041aa997d3087cf",
        ),
        (
            "convnext_tiny",
            {"weights": "mine.pth", "precision": "fp16"},
            "dcf16a1e8201674151735b366b6369fb60ede758dfe08c06562d00c1dd25a0f2",
        ),
        (
            "mobilenet_v3_large",
            {"weights": "mine.pth"},
            "c8a92e6c8c3f336880157168d79c5fa07156ef11b0b8ec38ca8351085dd8e5f0",
        ),
        ("exported.onnx", {}, "ba4777941588595295394a55d6da22014543da4c6c98e978900a1e2a4d98eea4"),
        ("exported.onnx", {"resize": 16}, "a70e77a73d7ff7061fe57332eabdb11fbaf4b735fbccaf413000a3f8c915bdf4"),
        (
            "foreign.onnx",
            {"pool": "avg", "resize": 8, "mean": HALF, "std": HALF},
            "627decc1a5590ea98e15376d2c8e5f4bf78ccf27c25e36b511ce86999dd0f9be",
        ),
        (
            "foreign.onnx",
            {"pool": "flatten", "output": "map", "resize": 8, "mean": HALF, "std": HALF, "precision": "fp16"},
            "80d482d48c1db25c6a9e6365e130002a7caf7dba84e11e58a9eecc2908749f70",
        ),
    ],
)
def test_keys_are_those_of_the_first_version(model: str, options: dict[str, Any], key: str) -> None:
    """What is in feature files since then; a key that changes makes people embed all their images again."""
    for name, content in {"mine.pth": b"weights", "exported.onnx": EXPORTED, "foreign.onnx": FOREIGN}.items():
        Path(name).write_bytes(content)
    assert load_model(model, **options).key == key


def test_the_key_of_frozen_layers_is_that_of_the_first_version() -> None:
    weights = Weights("file:mine.pth", Path("mine.pth"), hashlib.sha256(b"weights").hexdigest())
    stem = load_stem(find("resnet18"), weights, Preprocess(), "layer2")
    assert stem.key == "d0174fb16b190bc84f5a1e74dc299d4914ed0ade6cfa4e13e0b630bf40daff84"


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
    assert np.array_equal(
        open_network(alone.onnx(), "cpu").embed(images), open_network(built_in.onnx(), "cpu").embed(images)
    )


def test_what_is_part_of_an_exported_graph_cannot_be_changed(tiny_model: Path) -> None:
    for change in ({"pool": "max"}, {"crop": 8}, {"mean": (0.0, 0.0, 0.0)}, {"output": "z"}):
        with pytest.raises(OptionError, match="part of its graph"):
            load_model(str(tiny_model), **change)
    assert load_model(str(tiny_model), pool="avg", resize=32).preprocess.resize == 32


def test_a_foreign_file_must_say_how_images_are_prepared(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    onnx.save(foreign(), path)
    with pytest.raises(OptionError, match="Give --resize, --mean, --std"):
        load_model(str(path))
    stated = {"resize": 20, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    with pytest.raises(OptionError, match="images of 16 x 16 pixels; asked: --crop 10"):
        load_model(str(path), crop=10, **stated)
    model = load_model(str(path), output="map", pool="avg", **stated)
    assert open_network(model.onnx(), "cpu").embed(IMAGES).shape == (5, 4)


@pytest.mark.parametrize("content", [b"", b"not a model", tiny_network().SerializeToString()[:-300]])
def test_files_that_are_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.onnx' is not a whole ONNX model"):
        load_model(str(path))
    with pytest.raises(ModelError, match="Cannot read the model"):
        load_model(str(tmp_path / "gone.onnx"))


def test_options_that_do_not_fit() -> None:
    with pytest.raises(
        UnknownNameError, match="Unknown layer of resnet18 'x'. Known: stage:1, .* tlcache layers --model"
    ):
        load_model("resnet18", "random", output="x")
    with pytest.raises(UnknownNameError, match="Unknown pooling for resnet18 'mean'"):
        load_model("resnet18", "random", pool="mean")
