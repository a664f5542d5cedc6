"""Train the embedded backbone on CIFAR-10: `python -m benchmarks.resnet20_cifar.train --images FOLDER --out FOLDER`.

Data      50,000 training images of CIFAR-10, of which 2,000 are held out (seed 0) and give the curve; the 10,000 test
          images are read after the last epoch.
Network   ResNet-20 with 1 x 1 shortcuts, 0.27 M parameters.
Recipe    32 epochs, batches of 128, SGD with Nesterov momentum 0.9; learning rate 0 to 0.2 in 4 epochs and to 0 in 28,
          linear in steps; weight decay 5e-4, not on norms and biases; random crops of images padded by 4 (reflected),
          random flips; no label smoothing, which costs transfer (Kornblith et al., 2021). bfloat16, channels last.
Seed      0 for the weights and the held-out images, and (0, epoch) for order, crops and flips: a run that is stopped
          and continued gives what an uninterrupted one gives. Other machines round otherwise and end a little apart.
Expected  87.5 % of the test images when all images are recompressed as JPEG; see the model card, `resnet20_cifar.md`.

The folder of `--out` receives `checkpoint.pt` after every epoch, `history.json`, and at the end the weights. A stopped
run continues when the same command is given again.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from benchmarks.resnet20_cifar.cifar import PREPROCESS, Images, read_folder, read_torchvision
from tlcache.backbones.sources import find
from tlcache.backbones.torch_network import untrained
from tlcache.errors import TlcacheError, WeightsError
from tlcache.files import write_whole
from tlcache.machine import hardware, versions
from tlcache.progress import image_bar, say, show_progress

__all__ = ["Recipe", "accuracy", "train"]

_EVALUATED = 500  # images of a batch that is not trained on


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run, apart from its images."""

    epochs: int = 32
    batch: int = 128
    peak_rate: float = 0.2
    warmup_epochs: float = 4
    momentum: float = 0.9
    weight_decay: float = 5e-4
    padding: int = 4
    held_out: int = 2_000
    seed: int = 0


@dataclass
class _Run:
    """What a checkpoint keeps."""

    model: nn.Module
    optimizer: torch.optim.SGD
    history: list[dict[str, float]] = field(default_factory=list)


def main() -> None:
    """Train, or continue, and write the weights."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.resnet20_cifar.train", description=__doc__.partition("\n")[0]
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, help="folder with train/ and test/, a folder for every class in each")
    source.add_argument("--torchvision", type=Path, help="folder for torchvision's CIFAR10, downloaded if not there")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, history and weights")
    options = parser.parse_args()
    show_progress()
    read, folder = (read_folder, options.images) if options.images else (read_torchvision, options.torchvision)
    recipe = Recipe()
    try:
        model, history = train(read(folder, "train"), recipe, options.out)
        tested = accuracy(model, read(folder, "test"))
        _finish(model, recipe, history, tested, options.out)
    except TlcacheError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; run the same command to continue")
    say(f"test accuracy {100 * tested:.2f} %")


def train(images: Images, recipe: Recipe, out: Path) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train on all but the held-out images, continuing from `out/checkpoint.pt` when it is there.

    Returns
    -------
    model
        The network of the last epoch, its weights rounded to float16 as they are published.
    history
        For every epoch its loss, the shares of right answers on the training batches as they came and on the
        held-out images, and its seconds: of the clock, pauses included, and of the processor, all cores added up.

    Raises
    ------
    WeightsError
        The checkpoint belongs to another recipe.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(recipe.seed))
    held_out, images = images.take(order[: recipe.held_out]), images.take(order[recipe.held_out :])
    padded = pad(images.pixels, (recipe.padding,) * 4, mode="reflect")
    run = _begin(recipe, out / "checkpoint.pt")
    for epoch in range(len(run.history), recipe.epochs):
        clock, processor = time.perf_counter(), time.process_time()
        figures = _epoch(run, padded, images.labels, recipe, epoch)
        figures["held_out_accuracy"] = accuracy(run.model, held_out)
        figures |= {"wall_s": time.perf_counter() - clock, "cpu_s": time.process_time() - processor}
        run.history.append(figures)
        _keep(run, recipe, out)
        say(f"epoch {epoch + 1}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    with torch.no_grad():
        for value in [*run.model.parameters(), *run.model.buffers()]:
            if value.is_floating_point():
                value.copy_(value.half())
    return run.model, run.history


def accuracy(model: nn.Module, images: Images) -> float:
    """Return the share of `images` whose class `model`, in float32, has the largest logit for."""
    model.eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(images), _EVALUATED):
            rows = slice(start, start + _EVALUATED)
            right += int((model(_normal(images.pixels[rows])).argmax(1) == images.labels[rows]).sum())
    return right / len(images)


def _begin(recipe: Recipe, checkpoint: Path) -> _Run:
    model = untrained(find("resnet20_cifar"), recipe.seed).module.to(memory_format=torch.channels_last)
    weights: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for value in model.parameters():
        (weights if value.ndim > 1 else rest).append(value)
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    run = _Run(model, torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=True))
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["recipe"] != asdict(recipe):
            raise WeightsError(f"'{checkpoint}' belongs to {state['recipe']}; asked: {recipe}. Give another --out.")
        model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.history = state["history"]
    return run


def _epoch(run: _Run, padded: Tensor, labels: Tensor, recipe: Recipe, epoch: int) -> dict[str, float]:
    run.model.train()
    steps = len(labels) // recipe.batch
    loss_sum, right = 0.0, 0
    with image_bar(f"epoch {epoch + 1} of {recipe.epochs}", steps * recipe.batch) as advance:
        for step, (pixels, expected) in enumerate(_batches(padded, labels, recipe, epoch)):
            for group in run.optimizer.param_groups:
                group["lr"] = _rate(epoch + step / steps, recipe)
            with torch.autocast("cpu", torch.bfloat16):
                logits = run.model(_normal(pixels)).float()
            loss = cross_entropy(logits, expected)
            run.optimizer.zero_grad()
            torch.autograd.backward(loss)
            run.optimizer.step()
            loss_sum += loss.item()
            right += int((logits.argmax(1) == expected).sum())
            advance(recipe.batch)
    return {"loss": loss_sum / steps, "train_accuracy": right / (steps * recipe.batch)}


def _batches(padded: Tensor, labels: Tensor, recipe: Recipe, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield whole batches of shuffled, cropped and flipped images; an incomplete one at the end is left out."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    order = torch.randperm(len(labels), generator=generator)
    batch, places = recipe.batch, 2 * recipe.padding + 1
    for start in range(0, len(order) - batch + 1, batch):
        rows = order[start : start + batch]
        top, left = torch.randint(places, (2, batch), generator=generator)
        windows = padded[rows].unfold(2, PREPROCESS.crop, 1).unfold(3, PREPROCESS.crop, 1)
        pixels = windows[torch.arange(batch), :, top, left]
        flip = torch.rand(batch, generator=generator) < 0.5
        yield torch.where(flip[:, None, None, None], pixels.flip(3), pixels), labels[rows]


def _normal(pixels: Tensor) -> Tensor:
    mean, std = (255 * torch.tensor(value).view(1, 3, 1, 1) for value in (PREPROCESS.mean, PREPROCESS.std))
    return ((pixels.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def _rate(epoch: float, recipe: Recipe) -> float:
    rise, fall = epoch / recipe.warmup_epochs, (recipe.epochs - epoch) / (recipe.epochs - recipe.warmup_epochs)
    return recipe.peak_rate * min(rise, fall)


def _keep(run: _Run, recipe: Recipe, out: Path) -> None:
    """Write checkpoint and history whole, so that a kill leaves those of this epoch or of the one before."""
    buffer = io.BytesIO()
    state = {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict()}
    torch.save({**state, "history": run.history, "recipe": asdict(recipe)}, buffer)
    write_whole(out / "checkpoint.pt", buffer.getvalue())
    _write_json(out, recipe, run.history)


def _write_json(out: Path, recipe: Recipe, history: list[dict[str, float]], **more: Any) -> None:
    machine = {name: hardware()[name] for name in ("cpu", "cpus")}
    figures = {"recipe": asdict(recipe), **more, "machine": machine, "versions": versions(), "epochs": history}
    write_whole(out / "history.json", (json.dumps(figures, indent=1) + os.linesep).encode())


def _finish(model: nn.Module, recipe: Recipe, history: list[dict[str, float]], tested: float, out: Path) -> None:
    from safetensors.torch import save

    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    data = save(state)
    write_whole(out / f"resnet20_cifar-{hashlib.sha256(data).hexdigest()[:8]}.safetensors", data)
    _write_json(out, recipe, history, test_accuracy=tested)


if __name__ == "__main__":
    main()
