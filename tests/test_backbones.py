import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tlcache
from tlcache.backbones.backbone import Backbone
from tlcache.backbones.sources import find, list_models
from tlcache.backbones.torch_network import embedding, pretrained, untrained
from tlcache.backbones.torchvision import TORCHVISION
from tlcache.errors import UnknownNameError, WeightsError
from tlcache.images import Preprocess

ROWS = [row for row in list_models() if row.source is TORCHVISION]


def test_there_are_the_six_of_the_study_and_six_more() -> None:
    study = {"mobilenetv3_small", "mobilenetv3_large", "resnet50", "resnet101", "resnet152", "inception_v3"}
    names = {row.name for row in list_models()}
    assert study < names
    assert len(ROWS) == 12
    assert names - {row.name for row in ROWS} == {"resnet20_cifar"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_table_says_what_torchvision_says(row: Backbone) -> None:
    from torchvision.models import get_model_weights

    for checkpoint in row.checkpoints.values():
        weights = get_model_weights(row.builder)[checkpoint.name]
        preset = weights.transforms()
        assert weights.url.endswith("/" + checkpoint.file)
        assert weights.meta["num_params"] == row.parameters
        assert weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] == checkpoint.top1
        assert preset.resize_size == [checkpoint.preprocess.resize]
        assert preset.crop_size == [checkpoint.preprocess.crop]
        assert preset.interpolation.value == checkpoint.preprocess.interpolation
        assert preset.antialias
        assert tuple(preset.mean) == checkpoint.preprocess.mean
        assert tuple(preset.std) == checkpoint.preprocess.std


def test_both_spellings_are_found() -> None:
    assert find("mobilenet_v3_large") is find("mobilenetv3_large")
    with pytest.raises(UnknownNameError, match=r"'resnet51'. Did you mean 'resnet50'\? Known: mobilenetv3_small"):
        find("resnet51")
    with pytest.raises(UnknownNameError, match="found 'resnet50, resnet18', which is 2"):
        find("resnet50, resnet18")
    with pytest.raises(UnknownNameError, match="^One backbone is taken here; found 'study', which is 6"):
        find("study")
    with pytest.raises(UnknownNameError, match="^Unknown backbone 'resnet50,resnet51'"):
        find("resnet50,resnet51")


def test_untrained_networks_come_from_their_seed_and_leave_the_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (untrained(find("squeezenet1_1"), seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    weight = "features.0.weight"
    assert torch.equal(first.module.state_dict()[weight], again.module.state_dict()[weight])
    assert not torch.equal(first.module.state_dict()[weight], other.module.state_dict()[weight])


def test_inception_is_built_as_for_its_published_weights_whatever_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import Inception_V3_Weights, inception_v3

    row = find("inception_v3")
    state = untrained(row, 0).module.state_dict()
    monkeypatch.setattr(Inception_V3_Weights, "get_state_dict", lambda *_, **__: state)
    official = inception_v3(weights=Inception_V3_Weights.IMAGENET1K_V1).eval()
    assert official.transform_input
    captured: list[torch.Tensor] = []
    official.Mixed_7c.register_forward_hook(lambda *arguments: captured.append(arguments[2]))
    image = torch.randint(0, 256, (2, 3, 299, 299), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    preprocess = row.checkpoints["imagenet"].preprocess
    normal = (image / 255 - torch.tensor(preprocess.mean).view(3, 1, 1)) / torch.tensor(preprocess.std).view(3, 1, 1)
    with torch.inference_mode():
        official(normal)
        expected = captured[0].mean((2, 3))
        for source in ("file:x.pth", "random"):  # what was trained from random weights is a file afterwards
            found = embedding(row, pretrained(row, state, source, preprocess), "avg", preprocess)(image)
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_a_checkpoint_with_other_classes_is_a_backbone_too() -> None:
    from torchvision.models import resnet18

    state = resnet18(weights=None, num_classes=7).state_dict()
    module = pretrained(find("resnet18"), state, "file:mine.pth", Preprocess()).module
    assert module.fc.out_features == 7


def test_weights_of_another_network_are_refused() -> None:
    state = untrained(find("squeezenet1_1"), 0).module.state_dict()
    with pytest.raises(WeightsError, match=r"'file:x\.pth' do not fit resnet18"):
        pretrained(find("resnet18"), state, "file:x.pth", Preprocess())


@pytest.mark.parametrize(("pool", "dim"), [("avg", 512), ("max", 512), ("flatten", 512 * 2 * 2)])
def test_pooling(pool: str, dim: int) -> None:
    row = find("resnet18")
    network = embedding(row, untrained(row, 0), pool, Preprocess(64, 64))
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        features = network(image)
        maps = network.trunk((image.float() - network.mean) * network.scale)
    assert features.shape == (2, dim)
    if pool != "flatten":
        expected = maps.mean((2, 3)) if pool == "avg" else maps.amax((2, 3))
        assert torch.allclose(features, expected, rtol=1e-5)


def test_unknown_pooling_is_refused() -> None:
    row = find("resnet18")
    with pytest.raises(UnknownNameError, match="Unknown pooling for resnet18 'cls'. Known: avg, max, gem, flatten"):
        embedding(row, untrained(row, 0), "cls", Preprocess())


def test_half_precision_weights_are_computed_in_float32() -> None:
    row = replace(find("squeezenet1_1"))
    state = {name: tensor.half() for name, tensor in untrained(row, 0).module.state_dict().items()}
    model = pretrained(row, state, "file:half.pth", Preprocess()).module
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert np.isfinite(model.state_dict()["features.0.weight"].numpy()).all()


ASKS = {"endswith", "startswith", "removesuffix", "match", "fullmatch", "search", "fnmatch", "glob", "rglob"}


def questions(path: Path) -> Iterator[str]:
    """Yield the text of everything in a module that compares a text of its own, and of every `checkpoint.name`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr == "name" and "checkpoint" in ast.unparse(node.value):
            yield ast.unparse(node)
        asks = isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in ASKS
        texts = (each for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str))
        if (asks or isinstance(node, ast.Compare | ast.MatchValue)) and any(texts):
            yield ast.unparse(node)


def test_nothing_outside_backbones_asks_which_backbone_or_which_source_it_is() -> None:
    root = Path(tlcache.__file__).parents[1]
    names = {name for row in list_models() for name in (row.name, row.builder)}
    forbidden = re.compile(rf"(?<!ai)\.onnx|\.safetensors|checkpoint|inception|{'|'.join(names)}")
    files = [path for folder in ("tlcache", "exporters") for path in sorted((root / folder).rglob("*.py"))]
    found = {path.relative_to(root).as_posix(): list(filter(forbidden.search, questions(path))) for path in files}
    own = {
        f"tlcache/backbones/{name}.py" for name in ("exported", "kept", "onnx_file", "torchvision")
    }  # each asks for its own
    assert {name for name, each in found.items() if each} == own
