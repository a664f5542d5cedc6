"""Fine-tuning: which way to compute is fast, how near the loop comes to a bare step, what a cached prefix saves.

`python -m benchmarks.finetuning` measures this alone.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from benchmarks import tables
from benchmarks.images import make_photos, write_images, write_manifest
from benchmarks.timing import in_turn, ratio
from tlcache.backbones.sources import find
from tlcache.backbones.torch_network import untrained
from tlcache.cache.feature_file import FeatureFile
from tlcache.extraction.extract import extract
from tlcache.finetuning.checkpoints import Checkpoints
from tlcache.finetuning.classifier import Classifier, trained_layers
from tlcache.finetuning.data import TuningData
from tlcache.finetuning.losses import make_loss
from tlcache.finetuning.optimisation import make_optimizer
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.speed import COMPUTE_FORMATS, ComputeFormat, find_torch_device, images_per_s
from tlcache.finetuning.trial import Trial
from tlcache.progress import show_progress, step_bar

__all__ = ["measure_finetuning"]

_BATCH = 32


def measure_finetuning(
    photos: Sequence[Path], name: str, folder: Path, rounds: int, device: str, advance: Callable[[int], None]
) -> dict[str, Any]:
    """Measure every way to compute, the loop against a bare step, and partial training with and without its prefix.

    The loop is an epoch of `finetune` on 4 of 5 `photos`, light augmentation included, without what comes before and
    after: the choice of a way, validation, the test. `prefix` compares such epochs, without augmentation.
    """
    row, manifest = find(name), write_manifest(photos)
    done = extract(manifest, name, "random", features=folder / "features", device=device)
    with FeatureFile(done.path) as file:
        data = TuningData.of(file, "random", device)
    whole, head = untrained(row, seed=0), nn.Linear(row.dim, len(data.classes))
    layers, crop = trained_layers(row, whole, "all"), data.preprocess.crop
    network = Classifier(row, whole, head, data.preprocess, layers).to(device)
    ways = in_turn(
        {str(way): partial(images_per_s, way, network, crop, device, _BATCH) for way in COMPUTE_FORMATS},
        rounds,
        advance,
    )
    best = COMPUTE_FORMATS[int(np.argmax([ways[str(way)].median for way in COMPUTE_FORMATS]))]
    optimizer = make_optimizer(Recipe(), 1e-3, whole.module, head, layers)
    images = len(data.rows("train", "val"))
    loop = in_turn(
        {
            "bare": partial(_bare_step, best, network, optimizer, crop, device, images),
            "loop": partial(_epoch, data, Recipe(batch_size=_BATCH), best, folder),
        },
        rounds,
        advance,
    )
    last = f"stage:{len(row.stages) + 1}"
    part = Recipe(batch_size=_BATCH, unfreeze=last, augment="none")
    recipes = {"plain": part, "cached": replace(part, cached_prefix=True)}
    prefix = in_turn(
        {kind: partial(_epoch, data, each, best, folder) for kind, each in recipes.items()}, rounds, advance
    )
    return {
        "backbone": name,
        "device": device,
        "batch_size": _BATCH,
        "images": images,
        "ways": {way: rates.as_json() for way, rates in ways.items()},
        "chosen": str(best),
        **{each: rates.as_json() for each, rates in loop.items()},
        "of_bare": ratio(loop["loop"], loop["bare"]).as_json("ratio"),
        "unfreeze": last,
        "prefix": {each: rates.as_json() for each, rates in prefix.items()},
        "prefix_speedup": ratio(prefix["cached"], prefix["plain"]).as_json("ratio"),
    }


def _epoch(data: TuningData, recipe: Recipe, way: ComputeFormat, folder: Path) -> float:
    """Train for two epochs on train + val, and return images per second of the second, when all is warm and ready."""
    trial = Trial(data, recipe, refit={"backbone": 2})
    with tempfile.TemporaryDirectory(dir=folder) as kept:
        return float(trial.train(Checkpoints(Path(kept)), way).history[-1]["images_per_s"])


def _bare_step(
    way: ComputeFormat, network: Classifier, optimizer: torch.optim.Optimizer, crop: int, device: str, images: int
) -> float:
    """Train on one batch that is ready, over and over, and return images per second."""
    batch = torch.randint(0, 256, (_BATCH, 3, crop, crop), dtype=torch.uint8, device=device)
    labels, loss_of = torch.arange(_BATCH, device=device) % 4, make_loss("ce")
    way.lay(network)
    network.unfreeze()
    network.train()
    for step in range(1 + images // _BATCH):
        if step == 1:
            began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(way.forward(network, batch, ready=False), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        float(loss.detach())
    return images // _BATCH * _BATCH / (time.perf_counter() - began)


def main() -> None:
    """Measure MobileNetV2 on made photographs, and print a table and JSON."""
    show_progress()
    with (
        tempfile.TemporaryDirectory(prefix="tlcache-bench-") as scratch,
        step_bar("fine-tuning", 3 * (len(COMPUTE_FORMATS) + 4)) as advance,
    ):
        photos = write_images(Path(scratch) / "photos", list(make_photos(16, 500, 667)), 320)
        figures = measure_finetuning(photos, "mobilenetv2", Path(scratch), 3, find_torch_device("auto"), advance)
    Console().print(tables.finetuning(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
