"""Fine-tuning by its defaults against the best frozen head, and against plain recipes of the field at equal CPU time.

python -m benchmarks.recipes --data flowers/ --model mobilenetv2 --weights mobilenet_v2.pth [--seeds 0 1 2] [--work DIR]

The recipes are what the training scripts of torchvision, fastai and timm do when nothing is said, save that their
schedules are stretched over the epochs that the time allows. They train on train + val, as they have no use for
validation, and test their last weights. A line of JSON for each seed; `--work` keeps what is embedded and trained.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torchvision.transforms import InterpolationMode, v2

from benchmarks.timing import cpu_seconds
from tlcache.auditing.run import audit
from tlcache.backbones.torch_network import pretrained
from tlcache.backbones.weights import load_state
from tlcache.cache.feature_file import FeatureFile
from tlcache.cache.resplit import apply_split
from tlcache.evaluation.compare import compare
from tlcache.extraction.extract import extract
from tlcache.finetuning.classifier import Classifier, trained_layers
from tlcache.finetuning.data import TuningData
from tlcache.finetuning.finetune import finetune
from tlcache.machine import hardware
from tlcache.probing.fit import fit_heads
from tlcache.progress import say, show_progress
from tlcache.tasks import TASKS

__all__ = ["PLAIN", "Plain", "main", "train"]

_TIMED = 8  # steps that an epoch's time is taken from


_Phases = Iterator[tuple[torch.optim.Optimizer, LRScheduler, int]]


@dataclass(frozen=True)
class Plain:
    """What a training script does when nothing is said.

    Parameters
    ----------
    source
        Where its defaults stand.
    batch, epochs, smoothing
        Images of a step, epochs at most, and how much of a label is spread over all classes.
    head
        (dim, classes) -> what answers from embeddings.
    augment
        Side of a crop -> what is done to one image.
    phases
        (network, steps of an epoch, epochs) -> optimizer, schedule and steps of each phase, which it begins.
    """

    source: str
    batch: int
    epochs: int
    smoothing: float
    head: Callable[[int, int], nn.Module]
    augment: Callable[[int], nn.Module]
    phases: Callable[[Classifier, int, int], _Phases]


def _torchvision(network: Classifier, steps: int, epochs: int) -> _Phases:
    """SGD at 0.1, which falls to a tenth after each third."""
    network.unfreeze()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    yield optimizer, LambdaLR(optimizer, lambda step: 0.1 ** (3 * step // (steps * epochs))), steps * epochs


def _timm(network: Classifier, steps: int, epochs: int) -> _Phases:
    """SGD with Nesterov's momentum at 0.1 for 256 images, a cosine after 5 of 300 epochs of warm-up."""
    network.unfreeze()
    optimizer = torch.optim.SGD(network.parameters(), 0.1 * 128 / 256, momentum=0.9, weight_decay=2e-5, nesterov=True)
    total = steps * epochs
    warm = max(1, total * 5 // 300)

    def rate(step: int) -> float:
        return max(step, 1e-3) / warm if step < warm else (1 + cos(pi * (step - warm) / max(1, total - warm))) / 2

    yield optimizer, LambdaLR(optimizer, rate), total


def _fastai(network: Classifier, steps: int, epochs: int) -> _Phases:
    """`fine_tune`: the head for an epoch, then all, one cycle each, layers near the image a hundred times slower."""
    for parameter in network.body.parameters():
        parameter.requires_grad_(False)
    head = torch.optim.AdamW(network.head.parameters(), 2e-3, weight_decay=0.01, betas=(0.95, 0.99), eps=1e-5)
    yield head, OneCycleLR(head, 2e-3, steps, pct_start=0.99), steps
    network.unfreeze()
    body = [parameter for parameter in network.body.parameters() if parameter.requires_grad]
    groups = [body[: len(body) // 2], body[len(body) // 2 :], [*network.head.parameters()]]
    rates = [1e-5, 1e-4, 1e-3]
    named = [{"params": own, "lr": rate} for own, rate in zip(groups, rates, strict=True)]
    optimizer = torch.optim.AdamW(named, weight_decay=0.01, betas=(0.95, 0.99), eps=1e-5)
    total = max(2, steps * epochs)
    yield optimizer, OneCycleLR(optimizer, rates, total, pct_start=0.3, div_factor=5.0, final_div_factor=1e5), total


def _linear(dim: int, classes: int) -> nn.Module:
    return nn.Linear(dim, classes)


def _fastai_head(dim: int, classes: int) -> nn.Module:
    """Its head on the pooled average; fastai pools the maximum, too."""
    first = (nn.BatchNorm1d(dim), nn.Dropout(0.25), nn.Linear(dim, 512, bias=False), nn.ReLU())
    return nn.Sequential(*first, nn.BatchNorm1d(512), nn.Dropout(0.5), nn.Linear(512, classes, bias=False))


def _cropped(side: int) -> v2.Transform:
    return v2.Compose([v2.RandomResizedCrop(side, antialias=True), v2.RandomHorizontalFlip()])


def _cropped_and_coloured(side: int) -> v2.Transform:
    return v2.Compose([v2.RandomResizedCrop(side), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.4)])


def _turned(side: int) -> v2.Transform:
    """`aug_transforms`: flip, 10 degrees, 1.1 of zoom, 0.2 of light and of warp, each three times in four."""
    turn = v2.RandomAffine(10, scale=(1.0, 1.1), interpolation=InterpolationMode.BILINEAR)
    some = (v2.RandomApply([each], 0.75) for each in (turn, v2.RandomPerspective(0.2, p=1), v2.ColorJitter(0.2, 0.2)))
    return v2.Compose([v2.RandomHorizontalFlip(), *some, v2.RandomCrop(side)])


PLAIN: Mapping[str, Plain] = {
    "torchvision": Plain("references/classification/train.py", 32, 90, 0.0, _linear, _cropped, _torchvision),
    "fastai": Plain("vision_learner(...).fine_tune(...)", 64, 100, 0.0, _fastai_head, _turned, _fastai),
    "timm": Plain("train.py", 128, 300, 0.1, _linear, _cropped_and_coloured, _timm),
}


def train(data: TuningData, plain: Plain, cpu_s: float, seed: int) -> dict[str, Any]:
    """Train for so many CPU seconds, and test: epochs, CPU seconds and accuracy on the test images."""
    rows, labels = data.rows("train", "val"), data.labels("train", "val")
    dim, batch = data.splits["train"].features.shape[1], min(plain.batch, len(rows) // 2)
    steps = len(rows) // batch
    torch.manual_seed(seed)

    def trained(steps: int, epochs: int) -> tuple[Classifier, float]:
        began = cpu_seconds()
        (network,) = _run(data, plain, rows, labels, batch, steps, epochs, dim)
        return network, cpu_seconds() - began

    few, more = (trained(each, 1)[1] for each in (1, min(_TIMED, steps)))  # what only the first step takes goes off
    each_s = max((more - few) / max(1, min(_TIMED, steps) - 1), few / 100)
    epochs = int(np.clip((cpu_s - few - more) / (each_s * steps), 1, plain.epochs))
    torch.manual_seed(seed)
    network, took_s = trained(steps, epochs)
    return {"epochs": epochs, "cpu_s": few + more + took_s, "accuracy": _tested(network, data)}


def _run(
    data: TuningData, plain: Plain, rows: Any, labels: Any, batch: int, steps: int, epochs: int, dim: int
) -> Iterator[Classifier]:
    """Train a new network by all phases, and yield it."""
    network, side = _network(data, plain.head(dim, len(data.classes))), data.pixels.crop
    augment, loss_of = plain.augment(side), nn.CrossEntropyLoss(label_smoothing=plain.smoothing)
    for optimizer, schedule, total in plain.phases(network, steps, epochs):
        network.train()
        for step in range(total):
            if not step % steps:
                order = torch.randperm(len(rows)).numpy()
            some = order[step % steps * batch :][:batch]
            images = torch.stack([augment(image) for image in _pixels(data, rows[some])])
            loss = loss_of(network(images), torch.from_numpy(labels[some]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    yield network


def _network(data: TuningData, head: nn.Module) -> Classifier:
    network = pretrained(data.backbone, load_state(data.weights), data.weights.label, data.preprocess)
    return Classifier(data.backbone, network, head, data.preprocess, trained_layers(data.backbone, network, "all"))


def _pixels(data: TuningData, rows: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(data.pixels.images.rows[rows]))


def _tested(network: Classifier, data: TuningData) -> float:
    network.eval()
    rows, labels, centre = data.rows("test"), data.labels("test"), data.pixels.centre
    with torch.inference_mode():
        found = [
            network(_pixels(data, some)[..., centre, centre]).argmax(1)
            for some in np.array_split(rows, len(rows) // 64 + 1)
        ]
    return float((torch.cat(found).numpy() == labels).mean())


def measure(
    data: str,
    model: str,
    weights: str | None,
    side: int | None,
    seed: int,
    work: Path,
    names: Sequence[str],
    split: str,
) -> dict[str, Any]:
    """Return what frozen heads, a fine-tuning by its defaults, and the plain recipes reach on a dataset."""
    features, runs = work / "features", work / f"runs-{split}-{seed}"
    sizes: dict[str, Any] = {"resize": side * 8 // 7, "crop": side} if side else {}
    file = extract(data, model, weights, features=features, **sizes).path
    if split == "group":
        audit([file], runs=runs)
    began = cpu_seconds()
    heads = fit_heads([file], runs=runs, seed=seed, split=split)
    heads_s, began = cpu_seconds() - began, cpu_seconds()
    tuned = finetune(data, model, weights, features=features, runs=runs, seed=seed, split=split, **sizes)
    tuned_s = cpu_seconds() - began
    (found,) = compare(runs)
    frozen = found.top("frozen", backbone=model)
    assert frozen is not None
    with FeatureFile(file) as opened:
        own = TuningData.of(apply_split(opened, split, runs, 0, TASKS), weights, "cpu")
    own.pixels.images.rows  # noqa: B018, decoded before anything is timed
    plain = {name: train(own, PLAIN[name], tuned_s, seed) for name in names}
    return {
        "data": own.attrs["dataset"],
        "model": model,
        "split": split,
        "seed": seed,
        "images": {name: len(split) for name, split in own.splits.items()},
        "frozen": {"head": frozen.head, "accuracy": frozen.accuracy, "cpu_s": heads_s},
        "best_frozen_on_test": max(run.test.accuracy for run in heads),
        "finetuned": {"accuracy": tuned.test.accuracy, "untuned": tuned.untuned, "cpu_s": tuned_s},
        "plain": plain,
        "machine": hardware(),
    }


def main() -> None:
    """Measure each seed, and print a line of JSON for it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="mobilenetv3_small")
    parser.add_argument("--weights")
    parser.add_argument("--side", type=int, help="of the crops that the network takes; default: its own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--plain", nargs="*", default=list(PLAIN))
    parser.add_argument("--split", choices=["given", "group"], default="given")
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args()
    show_progress()
    with tempfile.TemporaryDirectory(prefix="tlcache-recipes-") as scratch:
        for seed in asked.seeds:
            work = asked.work or Path(scratch)
            found = measure(asked.data, asked.model, asked.weights, asked.side, seed, work, asked.plain, asked.split)
            say(f"{found['data']}, {asked.model}, seed {seed}: {found['finetuned']}")
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
