"""Fine-tuning: which way to compute is fast, how near the loop comes to a bare step, what a cached prefix saves.

`python -m benchmarks.finetuning` measures this alone.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import nn

from benchmarks.images import make_photos, write_images, write_manifest
from benchmarks.timing import in_turn, ratio
from tlcache.backbones import find
from tlcache.finetuning.classifier import Classifier, trained_layers
from tlcache.finetuning.optimisation import make_loss, make_optimizer
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.run import finetune
from tlcache.finetuning.speed import WAYS, Way, find_torch_device, images_per_s
from tlcache.networks import untrained
from tlcache.progress import step_bar

__all__ = ["finetuning_table", "measure_finetuning"]

_BATCH = 32


def measure_finetuning(
    photos: Sequence[Path], name: str, folder: Path, rounds: int, device: str, advance: Callable[[int], None]
) -> dict[str, Any]:
    """Measure every way to compute, the loop against a bare step, and partial training with and without its prefix.

    The loop is `finetune` itself on `photos`, light augmentation included; images per second are those of its training
    epoch, without validation. `prefix` compares seconds an epoch, validation included.
    """
    row = find(name)
    model, head = untrained(row, seed=0), nn.Linear(row.dim, 4)
    preprocess = row.checkpoints["imagenet"].preprocess
    layers = trained_layers(row, model, "all")
    network = Classifier(row, model, head, preprocess, layers).to(device)
    ways = in_turn(
        {str(way): partial(images_per_s, way, network, preprocess.crop, device, _BATCH) for way in WAYS},
        rounds,
        advance,
    )
    best = WAYS[int(np.argmax([ways[str(way)].median for way in WAYS]))]
    data = write_manifest(photos)
    setting = {"precision": best.precision, "layout": best.layout, "batch_size": _BATCH, "device": device}

    def tune(**settings: Any) -> dict[str, Any]:
        recipe: dict[str, Any] = {**setting, "epochs": 1, "patience": 9, **settings}
        places: dict[str, Any] = {"features": folder / "features", "runs": folder / "runs"}
        return dict(finetune(data, name, "random", **places, **recipe, again=True).fields)

    tune()  # decodes the images, once for all rounds
    optimizer = make_optimizer(Recipe(), 1e-3, model, head, layers)
    loop = in_turn(
        {
            "bare": partial(_bare_step, best, network, optimizer, preprocess.crop, device, len(photos) // 2),
            "loop": lambda: float(tune()["images_per_s"]),
        },
        rounds,
        advance,
    )
    part: dict[str, Any] = {"unfreeze": f"stage:{len(row.stages) + 1}", "augment": "none", "epochs": 2}
    tune(**part, cached_prefix=True)  # computes the activations, once for all rounds
    prefix = in_turn(
        {
            cached: partial(_epochs_per_s, tune, {**part, "cached_prefix": cached == "cached"})
            for cached in ("plain", "cached")
        },
        rounds,
        advance,
    )
    return {
        "backbone": name,
        "device": device,
        "batch_size": _BATCH,
        "ways": {way: rates.as_json() for way, rates in ways.items()},
        "chosen": str(best),
        **{each: rates.as_json() for each, rates in loop.items()},
        "of_bare": ratio(loop["loop"], loop["bare"]).as_json("ratio"),
        "unfreeze": part["unfreeze"],
        "prefix": {each: rates.as_json("epochs_per_s") for each, rates in prefix.items()},
        "prefix_speedup": ratio(prefix["cached"], prefix["plain"]).as_json("ratio"),
    }


def _epochs_per_s(tune: Callable[..., dict[str, Any]], settings: dict[str, Any]) -> float:
    return 1 / float(tune(**settings)["epoch_s"])


def _bare_step(
    way: Way, network: Classifier, optimizer: torch.optim.Optimizer, crop: int, device: str, images: int
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


def finetuning_table(figures: dict[str, Any]) -> RenderableType:
    """Return the figures for a terminal."""
    title = f"Training {figures['backbone']} whole, batches of {figures['batch_size']}, images per second"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for way in figures["ways"]:
        table.add_column(way.replace(" ", "\n"), justify="right")
    for name in ("Bare step,\noptimizer", "finetune", "of bare"):
        table.add_column(name, justify="right")
    rates = [*figures["ways"].values(), figures["bare"], figures["loop"]]
    ratios = [
        f"{'~' if each['noisy'] else ''}{each['ratio']:.2f}" for each in (figures["of_bare"], figures["prefix_speedup"])
    ]
    table.add_row(*(f"{'~' if each['noisy'] else ''}{each['images_per_s']:.1f}" for each in rates), ratios[0])
    seconds = {name: 1 / each["epochs_per_s"] for name, each in figures["prefix"].items()}
    note = (
        f"--unfreeze {figures['unfreeze']}, seconds an epoch with validation: plain {seconds['plain']:.1f}, "
        f"--cached-prefix {seconds['cached']:.1f}; {ratios[1]} times as fast."
    )
    return Group(table, Text(note))


def main() -> None:
    """Measure MobileNetV2 on made photographs, and print a table and JSON."""
    with (
        tempfile.TemporaryDirectory(prefix="tlcache-bench-") as scratch,
        step_bar("fine-tuning", 3 * (len(WAYS) + 4)) as advance,
    ):
        photos = write_images(Path(scratch) / "photos", list(make_photos(16, 500, 667)), 320)
        figures = measure_finetuning(photos, "mobilenetv2", Path(scratch), 3, find_torch_device("auto"), advance)
    Console().print(finetuning_table(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
