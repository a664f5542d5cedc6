"""What the embedded weights are worth at few labels: against random weights of the same network, on digits.

python -m benchmarks.embedded [--seeds 5]

For every seed another fifth of the digits is the test set, other labels are given, and the random network is another.
The head is logistic regression on standardised embeddings with its default penalty, the same everywhere: with one label
for each class there is nothing to choose on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tlcache.backbones import find
from tlcache.extraction import extract
from tlcache.folds import draw_shots
from tlcache.heads.fitted import Scaler
from tlcache.heads.linear import LogReg
from tlcache.networks import untrained
from tlcache.progress import step_bar
from tlcache.store import Split, open_features

MODEL = "resnet20_cifar"
WEIGHTS = ("embedded", "random")
LABELS: tuple[int | None, ...] = (10, 100, None)  # None: all


def main() -> None:
    """Measure and print a table, and JSON on the last line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedded", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    with tempfile.TemporaryDirectory(prefix="tlcache-embedded-") as scratch:
        figures = measure(range(seeds), Path(scratch))
    Console().print(_table(figures))
    print(json.dumps(figures))


def measure(seeds: range, folder: Path) -> list[dict[str, Any]]:
    """Return for every kind of weights and number of labels the test accuracy of each seed."""
    reached: dict[tuple[str, int | None], list[float]] = {(kind, n): [] for kind in WEIGHTS for n in LABELS}
    with step_bar("embedding and fitting", len(seeds) * len(WEIGHTS)) as advance:
        for seed in seeds:
            for kind in WEIGHTS:
                weights = kind if kind != "random" else str(_random(seed, folder))
                done = extract("digits", MODEL, weights, seed=seed, features=folder / kind)
                with open_features(done.path) as file:
                    given, test = file.split("train", "val"), file.split("test")
                for n in LABELS:
                    some = given.of(draw_shots(given, n // len(file.classes), seed)) if n else given
                    reached[kind, n].append(_accuracy(some, test))
                advance(1)
    return [
        {"weights": kind, "labels": n or len(given), "accuracy": values, "mean": fmean(values), "sd": _spread(values)}
        for (kind, n), values in reached.items()
    ]


def _random(seed: int, folder: Path) -> Path:
    path = folder / f"random-{seed}.pth"
    torch.save(untrained(find(MODEL), seed).state_dict(), path)
    return path


def _accuracy(given: Split, test: Split) -> float:
    scaler = Scaler.of(given.features)
    head = LogReg().fit(scaler(given.features), given.labels)
    return float(np.mean(head.predict(scaler(test.features)) == test.labels))


def _spread(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _table(figures: list[dict[str, Any]]) -> Table:
    seeds = len(figures[0]["accuracy"])
    table = Table(title=f"{MODEL}, {seeds} seeds: mean (sd)", box=None, title_justify="left")
    kinds = list(dict.fromkeys(row["weights"] for row in figures))
    for column in ("Labels", *kinds):
        table.add_column(column, justify="right")
    for labels in dict.fromkeys(row["labels"] for row in figures):
        cells = [f"{row['mean']:.3f} ({row['sd']:.3f})" for row in figures if row["labels"] == labels]
        table.add_row(f"{labels:,}", *cells)
    return table


if __name__ == "__main__":
    main()
