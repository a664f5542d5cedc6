"""Fine-tuning in several processes."""

from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from fakes import TinyNetwork, write_photos
from processes import Epochs, Ranks
from safetensors.torch import load_file
from torch import nn

from tlcache.backbones.sources import find
from tlcache.backbones.torch_network import synchronised, untrained
from tlcache.errors import OptionError
from tlcache.finetuning.classifier import Classifier, trained_layers
from tlcache.finetuning.finetune import finetune
from tlcache.runs.finetuned import FinetunedRun

pytestmark = pytest.mark.usefixtures("tinynet")

SETTINGS = {
    "recipe": "before",
    "precision": "fp32",
    "layout": "contiguous",
    "batch_norm": "eval",
    "epochs": 2,
    "lr": 0.003,
    "batch_size": 10,
    "patience": 9,
}


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    """Two processes."""
    with Ranks(2) as two:
        yield two


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """45 images, 27 of them to train on: of batches of 10 the last one is torn into 4 and 3."""
    return write_photos(tmp_path / "photos", 15)


def tune(photos: Path, runs: Path, **settings: Any) -> FinetunedRun:
    return finetune(photos, "tinynet", "random", **{**SETTINGS, **settings}, runs=runs)


def tune_in(ranks: Ranks, photos: Path, runs: Path, **settings: Any) -> list[FinetunedRun]:
    return ranks.finetune(photos, "tinynet", "random", **{**SETTINGS, **settings}, runs=runs)


def assert_equal(one: FinetunedRun, other: FinetunedRun) -> None:
    """Weights and figures are the same within rounding."""
    first, second = load_file(one.head_path), load_file(other.head_path)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-5)
    for mine, its in zip(one.history, other.history, strict=True):
        for figure in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"):
            assert (getattr(its, figure) or 0) == pytest.approx(getattr(mine, figure) or 0, rel=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"class_weight": "balanced", "label_smoothing": 0.1, "ema": 0.9, "refit": True},
        {"accumulate": 2, "clip": 0.1, "unfreeze": "stage:2", "cached_prefix": True, "views": 2, "loss": "bce"},
        {"accumulate": 2, "init_head": "scratch", "head_epochs": 2, "optimizer": "sgd"},
        {"method": "bias", "accumulate": 2, "ema": 0.9},
        {"method": "norm", "sweep": {"lr": [1e-3, 1e-2]}, "budget_s": 60.0},
    ],
)
def test_two_processes_train_what_one_does(
    tmp_path: Path, photos: Path, ranks: Ranks, settings: dict[str, Any]
) -> None:
    one = tune(photos, tmp_path / "one", **settings)
    first, second = tune_in(ranks, photos, tmp_path / "two", **settings)
    assert_equal(one, first)
    assert [each.train_s for each in first.candidates] == [each.train_s for each in second.candidates]  # of one clock


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on(
    tmp_path: Path, photos: Path, ranks: Ranks, before: int, after: int
) -> None:
    settings = {"epochs": 4, "ema": 0.9, "optimizer": "adamw"}
    told = tmp_path / "told"
    with Ranks(before) as dying, pytest.raises(BrokenProcessPool):
        tune_in(dying, photos, tmp_path / "runs", **settings, on_epoch=Epochs(told, last=2))
    watch = Epochs(told)
    if after == 1:
        resumed = tune(photos, tmp_path / "runs", **settings, on_epoch=watch)
    else:
        resumed, _ = tune_in(ranks, photos, tmp_path / "runs", **settings, on_epoch=watch)
    assert told.read_text() == "0 1 2 3 4 "
    assert_equal(tune(photos, tmp_path / "whole", **settings), resumed)


@pytest.mark.slow
def test_two_processes_race_as_one(tmp_path: Path, photos: Path, ranks: Ranks) -> None:
    """They go by the clock of the first: what one would cut, and the other not, would leave both waiting."""
    computed = {"precision": "fp32", "layout": "contiguous"}
    data = (photos, "tinynet", "random")
    first, second = ranks.finetune(*data, **computed, batch_size=10, budget_s=10.0, runs=tmp_path / "two")
    assert first.race is not None
    assert second.race is not None
    assert first.race.images_per_s == second.race.images_per_s
    assert len(first.candidates) > 3
    for mine, its in zip(first.candidates, second.candidates, strict=True):
        assert (mine.setting, mine.scores, mine.train_s) == (its.setting, its.scores, its.train_s)
    assert first.chosen == second.chosen


def test_batchnorms_of_whole_batches_keep_what_they_are() -> None:
    """Activations that timm has in its BatchNorms included; without other processes they compute the same."""
    own = timm.layers.BatchNormAct2d(16)
    plain = nn.Sequential(TinyNetwork().features, own)
    images = torch.randn(4, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    expected = plain(images)
    before = plain.state_dict()
    found = synchronised(plain)
    assert [type(each).__name__ for each in found.modules()].count("BatchNorm2d") == 0
    assert sum(isinstance(each, nn.SyncBatchNorm) for each in found.modules()) == 4
    torch.testing.assert_close(found(images), expected)
    assert expected.min() == 0  # of a ReLU
    assert all(
        each is before[name] or each.data_ptr() == before[name].data_ptr() for name, each in found.state_dict().items()
    )


def test_statistics_of_whole_batches_need_gpus_or_one_process(tmp_path: Path, photos: Path, ranks: Ranks) -> None:
    asked = {"batch_norm": "train", "sync_batch_norm": True}
    with pytest.raises(OptionError, match="computes on GPUs alone; found 2 processes on CPUs. Pass --batch-norm eval"):
        tune_in(ranks, photos, tmp_path / "two", **asked)
    with pytest.raises(OptionError, match="--batch-norm eval keeps them: give --batch-norm train or adapt"):
        tune(photos, tmp_path / "one", sync_batch_norm=True)
    one = tune(photos, tmp_path / "one", **asked)
    assert one.arguments["sync_batch_norm"]
    plain = tune(photos, tmp_path / "plain", batch_norm="train")
    assert "sync_batch_norm" not in plain.arguments
    assert_equal(plain, one)


@pytest.mark.parametrize("idle", [False, True])
def test_parameters_without_a_part_in_the_logits_are_found(idle: bool) -> None:
    row = find("tinynet")
    whole, head = untrained(row, seed=0), nn.Linear(row.dim, 3)
    if idle:
        head.register_parameter("spare", nn.Parameter(torch.zeros(2)))
    network = Classifier(row, whole, head, row.preprocess(), trained_layers(row, whole, "top:1"))
    network.unfreeze()
    images = torch.zeros(1, 3, 20, 20, dtype=torch.uint8)
    assert network.has_idle(images, ready=False) is idle
    assert network.has_idle(network.before(images), ready=True) is idle
    assert all(each.grad is None for each in network.parameters())
