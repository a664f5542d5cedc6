"""What is trained of the layers that are unfrozen: all, biases, normalisations, updates of low rank."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import TinyNetwork, TinySource
from safetensors.torch import load_file
from torch import nn
from torchvision.models import VisionTransformer

import tlcache
from tlcache.backbones.backbone import Backbone, TorchNetwork
from tlcache.backbones.sources import find
from tlcache.backbones.torch_network import TracedNetwork, filled, untrained
from tlcache.backbones.weights import load_state, resolve
from tlcache.errors import OptionError
from tlcache.finetuning.classifier import Classifier
from tlcache.finetuning.finetune import finetune
from tlcache.finetuning.methods import layers_to_train, merge
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.saved import export_tuned
from tlcache.images import Preprocess
from tlcache.report.tried import _trained
from tlcache.runs.record import RUNS, Run

FIXED = {"recipe": "before", "precision": "fp32", "layout": "contiguous", "batch_size": 8, "epochs": 1}


class PointwiseNetwork(TinyNetwork):
    """With convolutions of 1 x 1, which are matrices, with biases, and with another normalisation."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__(num_classes)
        self.features[1] = nn.Sequential(nn.Conv2d(8, 16, 1, 2), nn.GroupNorm(2, 16), nn.ReLU())
        self.features[2] = nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU())


class PointwiseSource(TinySource):
    def build(
        self, backbone: Backbone, preprocess: Preprocess, state: Mapping[str, torch.Tensor] | None = None
    ) -> TorchNetwork:
        del preprocess
        return TracedNetwork(backbone, filled(PointwiseNetwork, state))


@pytest.fixture
def pointwise(tinynet: None, monkeypatch: pytest.MonkeyPatch) -> None:
    del tinynet
    monkeypatch.setattr("tlcache.backbones.sources.SOURCES", (PointwiseSource(),))


def tune(data: Path, **settings: object) -> Run:
    return finetune(data, "tinynet", "random", **{**FIXED, **settings})


def transformer() -> tuple[Backbone, TorchNetwork]:
    """Return a transformer of torchvision, whose attention is not made of linear layers that are called."""
    torch.manual_seed(0)
    module = VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3)
    stages = ("encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1")
    row = replace(find("vit_b_16"), dim=16, stages=stages)
    return row, TracedNetwork(row, module.eval())


def of_timm() -> tuple[Backbone, TorchNetwork]:
    pytest.importorskip("timm")
    row = find("timm/test_vit")
    return row, untrained(row, seed=0)


@pytest.mark.parametrize("unfreeze", ["all", "top:1"])
@pytest.mark.parametrize(("make", "side"), [(transformer, 32), (of_timm, 160)])
def test_a_transformer_with_its_updates_merged_is_the_same_and_a_plain_one(
    make: object, side: int, unfreeze: str
) -> None:
    row, whole = make()  # type: ignore[operator]
    names, before = list(whole.module.state_dict()), {n: e.clone() for n, e in whole.module.state_dict().items()}
    layers = layers_to_train(Recipe(method="lora:4", unfreeze=unfreeze), row, whole)
    preprocess = Preprocess(resize=side, crop=side)
    network = Classifier(row, whole, nn.Linear(row.dim, 3), preprocess, layers).eval()
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    begins = network(images).detach()
    trained = {name: each for name, each in whole.module.named_parameters() if name.endswith(("up", "down"))}
    assert {*trained} == {name for layer in layers for name in layer.parameters}
    network.unfreeze()
    assert {name for name, each in whole.module.named_parameters() if each.requires_grad} == trained.keys()
    with torch.no_grad():
        for each in trained.values():
            each.normal_(std=0.2)
    unmerged = network(images).detach()
    assert (unmerged - begins).abs().max() > 0.01
    merge(whole.module)
    assert set(whole.module.state_dict()) == set(names)
    torch.testing.assert_close(network(images).detach(), unmerged, rtol=1e-5, atol=1e-5)
    moved = {name for name, each in whole.module.state_dict().items() if not torch.equal(each, before[name])}
    assert moved == {name.replace("parametrizations.", "").removesuffix(".0.up") for name in trained if "up" in name}


@pytest.mark.usefixtures("pointwise")
@pytest.mark.parametrize(
    ("method", "unfreeze", "moves"),
    [
        ("full", "all", "features.0 features.1 features.2"),
        ("last", None, "features.2"),
        ("bias", "all", "features.0.1.bias features.1.0.bias features.1.1.bias features.2.0.bias features.2.1.bias"),
        ("bias", "top:1", "features.2.0.bias features.2.1.bias"),
        ("norm", "all", "features.0.1. features.1.1. features.2.1."),
        ("norm", "stage:2", "features.1.1. features.2.1."),
        ("lora:2", "all", "features.1.0.weight features.2.0.weight"),
        ("lora:2", "top:1", "features.2.0.weight"),
        ("lora:8", "all", "features.2.0.weight"),  # no smaller matrix than its update gets one
    ],
)
def test_what_a_method_does_not_train_does_not_move_by_a_bit(
    photos: Path, method: str, unfreeze: str | None, moves: str
) -> None:
    layers = {"unfreeze": unfreeze} if unfreeze else {}
    run = tune(photos, method=method, **layers, init_head="scratch", head_epochs=1, refit=True)
    before, after = load_state(resolve(find("tinynet"), "random")), load_file(run.head_path)
    parameters = {name for name in before if name.startswith("features") and name.endswith(("weight", "bias"))}
    wanted = {name for name in parameters if name.startswith(tuple(moves.split()))}
    assert {name for name in parameters if not torch.equal(before[name], after[name])} == wanted
    assert {name for name in after if not name.startswith("tlcache.head.")} == set(before)
    sizes = sum(before[name].numel() for name in wanted) if "lora" not in method else 0
    for name in wanted if "lora" in method else ():
        sizes += int(method.partition(":")[2]) * sum(before[name].shape[:2])
    assert run.trained_parameters == sizes + 3 * 16 + 3
    assert run.peak_bytes > 1e7
    assert RUNS.read(run.path) == run


@pytest.mark.usefixtures("pointwise")
def test_a_network_trained_by_updates_is_a_plain_one_to_export_and_to_extract(photos: Path) -> None:
    """With cached activations of what is frozen before them, and averaged weights."""
    run = tune(photos, method="lora:2", unfreeze="stage:3", cached_prefix=True, ema=0.5, lr=0.03)
    assert run.layers.cut == "features.1"
    assert export_tuned(run.head_path)
    done = tlcache.extract(photos, "tinynet", str(run.head_path), name="tuned")
    tensors = load_file(run.head_path)
    weight, bias = (tensors[f"tlcache.head.0.{name}"].numpy() for name in ("weight", "bias"))
    with tlcache.open_features(done.path) as file:
        logits = file.split("test").features @ weight.T + bias
    assert (logits.argmax(1) == run.predictions().probabilities.argmax(1)).all()


@pytest.mark.usefixtures("tinynet")
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "lora:2"}, r"tinynet has nothing that --method lora:2 trains in --unfreeze all\. Give a smaller"),
        ({"method": "lora"}, r"--method takes full, last, bias, norm, or lora:R with a rank from 1 on; found 'lora'"),
        ({"method": "last", "unfreeze": "top:2"}, r"--method last is --unfreeze top:1; found --unfreeze top:2"),
        ({"method": "last", "unfreeze": "all"}, r"--method last is --unfreeze top:1; found --unfreeze all"),
        ({"method": "norm", "cached_prefix": True}, "cached-prefix needs frozen layers"),
    ],
)
def test_what_no_method_can_train_is_refused(photos: Path, settings: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        tune(photos, **settings)


@pytest.mark.usefixtures("tinynet")
def test_methods_are_compared_by_a_sweep_and_few_parameters_take_larger_steps(photos: Path) -> None:
    run = tune(photos, sweep={"method": ["full", "last", "norm"]}, cached_prefix=False)
    counts = {each.setting["method"]: each.trained_parameters for each in run.candidates}
    assert counts["full"] > counts["last"] > counts["norm"] > 51
    assert Recipe(method="norm").learning_rate == pytest.approx(10 * Recipe(method="last").learning_rate)
    assert "method" not in Recipe().as_json()
    assert Recipe(method="bias").as_json()["lr"] == pytest.approx(3e-3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"unfreeze": "all", "method": "last", "mixup": 0.0, "distill": None}, "unfreeze top:1, method last"),
        ({"unfreeze": "top:2", "cutmix": 1.0, "distill": "a-ridge"}, "unfreeze top:2, cutmix 1.0, distill a-ridge"),
    ],
)
def test_what_was_trained_is_told_with_what_tells_it_from_others(settings: dict[str, Any], words: str) -> None:
    assert ", ".join(f"{name} {value}" for name, value in _trained(settings).items()) == words
