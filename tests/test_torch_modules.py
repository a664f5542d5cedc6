"""Torch modules of one's own: a function by its name, imported when it is asked for."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tlcache.backbones.load import load_model
from tlcache.backbones.sources import find
from tlcache.cache.feature_file import FeatureFile
from tlcache.errors import ModelError, OptionError
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune
from tlcache.images import Preprocess, prepare

OPTIONS = {"resize": 16, "crop": 16, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
CODE = """
import torch
from torch import nn

def network():
    torch.manual_seed(SEED)
    return nn.Sequential(nn.Conv2d(3, 5, 4, 4), nn.ReLU())

def rows():
    return nn.Sequential(network(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def number():
    return 3
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of somebody's that can be imported, and is not yet."""
    path = tmp_path / "code" / "lab.py"
    path.parent.mkdir()
    path.write_text(CODE.replace("SEED", "1"))
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield path
    sys.modules.pop("lab", None)


def key(path: Path, code: str) -> str:
    path.write_text(code)
    sys.modules.pop("lab", None)
    return load_model("lab:network", **OPTIONS).key


@pytest.mark.usefixtures("lab")
def test_a_function_is_imported_when_its_network_is_needed() -> None:
    assert find("lab:network").name == "lab:network"
    assert "lab" not in sys.modules
    with pytest.raises(OptionError, match="lab:network does not say .* Give --crop, --mean, --std"):
        load_model("lab:network", resize=16)
    assert "lab" not in sys.modules
    load_model("lab:network", **OPTIONS)
    assert "lab" in sys.modules


@pytest.mark.parametrize("name", ["my:net.onnx", "folder/net:x.onnx"])
def test_files_are_no_functions(name: str) -> None:
    assert find(name).source.name == "onnx"


def test_the_key_is_of_the_weights_and_of_the_code(lab: Path) -> None:
    first = key(lab, CODE.replace("SEED", "1"))
    assert key(lab, CODE.replace("SEED", "1")) == first
    assert key(lab, CODE.replace("SEED", "2")) != first
    assert key(lab, CODE.replace("SEED", "1").replace("nn.ReLU()", "nn.ELU()")) != first


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize("name", ["network", "rows"])
def test_its_rows_are_the_embeddings(photos: Path, name: str) -> None:
    import torch

    made = extract(photos, f"lab:{name}", **OPTIONS)
    with FeatureFile(made.path) as file:
        split = file.split("test")
    module = getattr(sys.modules["lab"], name)().eval()
    pixels = np.stack([prepare((photos / path).read_bytes(), Preprocess(16, 16))[0] for path in split.paths])
    with torch.inference_mode():
        expected = module((torch.from_numpy(pixels) / 255 - 0.5) / 0.5)
    expected = expected.mean((2, 3)) if name == "network" else expected
    assert np.allclose(split.features, expected.numpy(), atol=1e-5)


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nosuch:network", "gives no network: ModuleNotFoundError.*PYTHONPATH"),
        ("lab:nosuch", "gives no network: AttributeError"),
        ("lab:number", "returns no torch module, but: int"),
    ],
)
def test_what_is_no_network_is_said(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(name, **OPTIONS)


@pytest.mark.usefixtures("lab")
def test_it_brings_its_weights_and_is_not_trained(photos: Path) -> None:
    with pytest.raises(OptionError, match="returns a module with its weights; asked: --weights x.pth"):
        load_model("lab:network", "x.pth", **OPTIONS)
    with pytest.raises(ModelError, match="a torch module of your own .* cannot be trained here"):
        finetune(photos, "lab:network")
