"""Several backbones in one pass over a dataset against one after the other: wall and CPU seconds, in turn.

python -m benchmarks.together DATA [--models study] [--weights random] [--rounds 2]

Networks are exported, and tried, before the first round. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.timing import cpu_seconds
from tlcache.backbones.groups import ungrouped
from tlcache.extraction.extract import extract, extract_layers
from tlcache.machine import hardware

__all__ = ["main"]


def main() -> None:
    """Print a line for each round and way, and the medians as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", default="study")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    models = ungrouped(asked.models.split(","))

    def one_pass(features: str) -> None:
        extract_layers(asked.data, models, weights=asked.weights, features=features)

    def one_by_one(features: str) -> None:
        for model in models:
            extract(asked.data, model, asked.weights, features=features)

    _seconds(one_pass)
    ways = {"one pass": one_pass, "one by one": one_by_one}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(asked.rounds):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            found[name].append(_seconds(ways[name]))
            print(f"{name}: {found[name][-1][0]:.1f} s wall, {found[name][-1][1]:.1f} s CPU")
    medians = {
        name: dict(zip(("wall_s", "cpu_s"), map(median, zip(*each, strict=True)), strict=True))
        for name, each in found.items()
    }
    print(json.dumps({"models": models, **hardware(), **medians}))


def _seconds(act: Callable[[str], None]) -> tuple[float, float]:
    """Return the wall and CPU seconds of an extraction into a new folder, those of its processes included."""
    with tempfile.TemporaryDirectory() as features:
        wall_s, cpu_s = time.perf_counter(), cpu_seconds()
        act(features)
        return time.perf_counter() - wall_s, cpu_seconds() - cpu_s


if __name__ == "__main__":
    main()
