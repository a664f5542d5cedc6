"""What the embedded weights are worth at few labels: against random weights of the same network, on digits.

python -m benchmarks.embedded [--seeds 5]

For every seed another fifth of the digits is the test set, other labels are given, and the random network is another.
The head is logistic regression on standardised embeddings with its default penalty, the same everywhere: with one label
for each class there is nothing to choose on. Fine-tuning begins with that head and trains everything, for a fixed
number of steps and by one recipe, which was chosen on validation splits of seeds that are not among those measured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import nn

from tlcache.backbones.sources import find
from tlcache.backbones.torch_network import pretrained, untrained
from tlcache.backbones.weights import load_state
from tlcache.cache.feature_file import FeatureFile, Split
from tlcache.extraction.extract import extract
from tlcache.finetuning.checkpoints import Checkpoints
from tlcache.finetuning.classifier import Classifier, trained_layers
from tlcache.finetuning.data import TuningData
from tlcache.finetuning.heads import as_module
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.recipes import RECIPES
from tlcache.finetuning.sources import from_pixels
from tlcache.finetuning.speed import ComputeFormat
from tlcache.finetuning.training import Phase, State, Training, logits_of
from tlcache.heads.logreg import LogReg
from tlcache.heads.rows import Scaler
from tlcache.probing.folds import draw_shots
from tlcache.progress import show_progress, step_bar

MODEL = "resnet20_cifar"
WEIGHTS = ("embedded", "random")
LABELS: tuple[int | None, ...] = (10, 100, None)  # None: all
STRATEGIES = ("frozen", "finetune")
RECIPE = Recipe(  # a mirrored digit is another digit
    **{**RECIPES["before"], "augment": "none", "epochs": 4, "lr": 1e-3, "batch_norm": "eval"}
)
_ROUND = 1_600  # images of what is called an epoch here, however few are labelled: 50 steps


def main() -> None:
    """Measure and print a table, and JSON on the last line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedded", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    show_progress()
    with tempfile.TemporaryDirectory(prefix="tlcache-embedded-") as scratch:
        figures = measure(range(seeds), Path(scratch))
    Console().print(_table(figures))
    print(json.dumps(figures))


def measure(seeds: range, folder: Path) -> list[dict[str, Any]]:
    """Return for every strategy, kind of weights and number of labels the test accuracy of each seed."""
    reached: dict[tuple[str, str, int | None], list[float]] = {
        cell: [] for cell in product(STRATEGIES, WEIGHTS, LABELS)
    }
    with step_bar("embedding, fitting, training", len(seeds) * len(WEIGHTS) * len(LABELS)) as advance:
        for seed, kind in product(seeds, WEIGHTS):
            data = digits(seed, kind, folder)
            given, test = data.splits["train"].joined(data.splits["val"]), data.splits["test"]
            for n in LABELS:
                rows = draw_shots(given, n // len(data.classes), seed) if n else np.arange(len(given))
                scaler, head = _head(given.of(rows))
                frozen = head.predict(scaler(test.features))
                reached["frozen", kind, n].append(float(np.mean(frozen == test.labels)))
                tuned = fine_tuned(
                    data, replace(RECIPE, seed=seed), rows, as_module("linear", head, scaler, 10), "test"
                )
                reached["finetune", kind, n].append(float(np.mean(tuned == test.labels)))
                advance(1)
    columns = ("strategy", "weights", "labels")
    return [
        dict(zip(columns, (*cell[:2], cell[2] or len(given)), strict=True))
        | {"accuracy": values, "mean": fmean(values), "sd": _spread(values)}
        for cell, values in reached.items()
    ]


def digits(seed: int, kind: str, folder: Path) -> TuningData:
    """Return the digits, embedded with one kind of weights, another of whose fifths is the test set."""
    weights = kind if kind != "random" else str(_random(seed, folder))
    done = extract("digits", MODEL, weights, split_seed=seed, features=folder / kind)
    with FeatureFile(done.path) as file:
        return TuningData.of(file, weights, "cpu")


def _head(given: Split) -> tuple[Scaler, LogReg]:
    scaler = Scaler.of(given.features)
    return scaler, LogReg().fit(scaler(given.features), given.labels)


def fine_tuned(
    data: TuningData, recipe: Recipe, rows: NDArray[np.int64], head: nn.Module, split: str
) -> NDArray[np.int64]:
    """Train on some of the rows of train + val, for a fixed number of steps, and return the labels given to a split."""
    backbone, way = data.backbone, ComputeFormat("fp32", "channels_last")
    whole = pretrained(backbone, load_state(data.weights), data.weights.label, data.preprocess)
    layers = trained_layers(backbone, whole, recipe.unfreeze)
    network = Classifier(backbone, whole, head, data.preprocess, layers, recipe.batch_norm == "eval")
    again = np.resize(rows, _ROUND)
    known = data.rows("train", "val")[again], data.labels("train", "val")[again]
    train = from_pixels(data.pixels, *known, recipe.augment, recipe.seed, data.device)
    phase = Phase("backbone", network, layers, recipe.epochs, recipe.epochs, recipe.learning_rate, train, None)
    with tempfile.TemporaryDirectory() as kept, torch.random.fork_rng(devices=[]):
        learned = data.target, len(data.classes)
        training = Training(whole.module, head, recipe, *learned, data.device, Checkpoints(Path(kept)))
        training.run([phase], State(way.precision, way.layout, {}, training.both.state_dict()))
    wanted = from_pixels(data.pixels, data.rows(split), data.labels(split), "none", 0, data.device)
    labels: NDArray[np.int64] = logits_of(network, wanted, data.device, way).argmax(1)
    return labels


def _random(seed: int, folder: Path) -> Path:
    path = folder / f"random-{seed}.pth"
    torch.save(untrained(find(MODEL), seed).module.state_dict(), path)
    return path


def _spread(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _table(figures: list[dict[str, Any]]) -> Table:
    seeds = len(figures[0]["accuracy"])
    table = Table(title=f"{MODEL}, {seeds} seeds: mean (sd)", box=None, title_justify="left")
    columns = list(dict.fromkeys((row["strategy"], row["weights"]) for row in figures))
    for column in ("Labels", *(", ".join(column) for column in columns)):
        table.add_column(column, justify="right")
    for labels in dict.fromkeys(row["labels"] for row in figures):
        cells = [f"{row['mean']:.3f} ({row['sd']:.3f})" for row in figures if row["labels"] == labels]
        table.add_row(f"{labels:,}", *cells)
    return table


if __name__ == "__main__":
    main()
