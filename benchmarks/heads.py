"""Heads on cached embeddings, and what the cache saves: extract + fit against fit alone.

python -m benchmarks.heads [--rows 34000] [--dim 960] [--classes 4]

measures seconds and peak memory of each head on made embeddings, in a process of its own, and of all but lightgbm.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.growth import publish_large
from benchmarks.images import write_manifest
from benchmarks.timing import in_turn
from tlcache.extraction.extract import extract
from tlcache.heads.table import HEADS
from tlcache.probing.fit import fit_heads

__all__ = ["measure_heads", "measure_memory"]

FIT = """
import json, sys, time
from importlib import import_module
from tlcache.probing.fit import fit_heads
from tlcache.heads.table import HEADS
from tlcache.machine import peak_rss_bytes
names = sys.argv[3].split(",")
for name in names:
    HEADS[name].type()
if {"linear", "dense"} & set(names):
    import_module("tlcache.heads.training")
imported, began = peak_rss_bytes(), time.perf_counter()
runs = fit_heads([sys.argv[1]], names, runs=sys.argv[2])
print(json.dumps({"heads": names, "fit_s": time.perf_counter() - began, "imported_bytes": imported,
                  "peak_rss_bytes": peak_rss_bytes(), "accuracy": [run.test.accuracy for run in runs]}))
"""


def measure_heads(
    photos: Sequence[Path], name: str, folder: Path, rounds: int, advance: Callable[[int], None]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Fit every head, its search included, some rounds in turn; return a row per head, and cold against warm."""
    done = extract(write_manifest(photos), name, "random", features=folder / "features", device="cpu")

    def fits_per_s(head: str) -> float:
        (run,) = fit_heads([done.path], [head], runs=folder / "runs")
        return 1 / run.fit_s

    rates = in_turn({head: partial(fits_per_s, head) for head in HEADS}, rounds, advance)
    rows: list[dict[str, Any]] = [
        {
            "head": head,
            "fit_s": 1 / each.median,
            "fit_s_low": 1 / max(each.rounds),
            "fit_s_high": 1 / min(each.rounds),
            "noisy": each.noisy,
        }
        for head, each in rates.items()
    ]
    warm = sum(row["fit_s"] for row in rows)
    saved = {"backbone": name, "images": done.rows, "cold_s": done.seconds["wall_s"] + warm, "warm_s": warm}
    return rows, saved


def measure_memory(
    together: Sequence[Sequence[str]], rows: int, dim: int, classes: int, folder: Path
) -> list[dict[str, Any]]:
    """Fit heads on made embeddings, those that stand together in a process of their own."""
    centres = np.random.default_rng(0).normal(0, 0.12, (classes, dim)).astype(np.float32)

    def make(start: int, stop: int) -> NDArray[np.float32]:
        noise = np.random.default_rng(start).standard_normal((stop - start, dim), np.float32)
        return noise + centres[np.arange(start, stop) % classes]

    key = json.dumps({"pool": "none", "precision": "fp32", "preprocess": {}})
    path = publish_large(rows, dim, folder, make, classes, source="made", arguments="{}", key_json=key)
    found = []
    for heads in together:
        command = [sys.executable, "-c", FIT, str(path), str(folder / "runs"), ",".join(heads)]
        figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        found.append({**figures, "features_bytes": 4 * rows * dim})
    return found


def main() -> None:
    """Print a table, and the figures as a line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=34_000)
    parser.add_argument("--dim", type=int, default=960)
    parser.add_argument("--classes", type=int, default=4)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        together = [*([head] for head in HEADS), [head for head in HEADS if head != "lightgbm"]]
        found = measure_memory(together, asked.rows, asked.dim, asked.classes, Path(folder))
    table = Table(title="Heads on made embeddings; memory in multiples of them", title_justify="left")
    for name in ("Heads", "Seconds", "Imports", "Peak", "Growth"):
        table.add_column(name, justify="left" if name == "Heads" else "right")
    for one in found:
        imported, peak = (one[name] / one["features_bytes"] for name in ("imported_bytes", "peak_rss_bytes"))
        figures = (f"{value:.2f}" for value in (imported, peak, peak - imported))
        table.add_row(", ".join(one["heads"]), f"{one['fit_s']:.1f}", *figures)
    Console().print(table)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
