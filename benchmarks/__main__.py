"""`make bench`: how fast images are embedded, against the bound that decoding and the network set, and heads fitted.

The last line of standard output is JSON; the same goes to `benchmarks/results/`. `QUICK=1` takes one backbone.
"""

from __future__ import annotations

import datetime
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.images import write_photos
from tlcache.extraction import extract
from tlcache.fit import fit_heads
from tlcache.heads import HEADS
from tlcache.images import prepare
from tlcache.machine import available_cpus, hardware, versions
from tlcache.models import load_model
from tlcache.runtime import Session

REPEATS = 3
BATCH = 32
LONG_ENOUGH_S = 4
NOISY = 1.15  # slowest over fastest repeat


def main() -> None:
    """Run everything and print the tables."""
    quick = os.environ.get("QUICK") == "1"
    models = ["mobilenetv3_small"] if quick else ["mobilenetv3_small", "mobilenetv3_large", "resnet50"]
    console, threads = Console(), available_cpus()
    torch.set_num_threads(1)  # as in extraction
    console.print(f"{hardware()['cpu']}, {threads} CPUs; random weights; {REPEATS} interleaved repeats, medians")
    with tempfile.TemporaryDirectory() as scratch:
        photos = write_photos(Path(scratch) / "photos", 2048)
        figures: dict[str, Any] = {"hardware": hardware(), "versions": versions(), "extraction": [], "heads": []}
        for name in models:
            figures["extraction"].append(_extraction(name, photos, threads))
        torch.set_num_threads(threads)
        figures["heads"] = _heads(photos, Path(scratch), models[0])
    console.print(_table("Images per second on all cores", figures["extraction"]))
    console.print(_table("Fitting heads on cached embeddings", figures["heads"]))
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    path = Path(__file__).parent / "results" / f"{date}-cpu.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))


def _extraction(name: str, photos: Path, threads: int) -> dict[str, Any]:
    """Time decoding alone, the network alone, and the whole, on every core.

    The whole is the time of many images less that of few, so that the start of a session does not count.
    """
    model = load_model(name, "random")
    session = Session(model.onnx(), "cpu")
    files = [path.read_bytes() for path in sorted(photos.rglob("*.jpg"))]
    batch = np.stack([prepare(data, model.preprocess)[0] for data in files[:BATCH]])
    rate = BATCH / _parallel(lambda _: session(batch), range(threads), threads) * threads
    many = min(len(files), int(rate * LONG_ENOUGH_S) // BATCH * BATCH + 4 * BATCH)
    times: dict[str, list[float]] = {"decode": [], "network": [], "whole": []}
    for _ in range(REPEATS):
        times["decode"].append(many / _parallel(lambda data: prepare(data, model.preprocess), files[:many], threads))
        rounds = range(many // BATCH)
        times["network"].append(len(rounds) * BATCH / _parallel(lambda _: session(batch), rounds, threads))
        times["whole"].append((many - 2 * BATCH) / (_whole(name, files[:many]) - _whole(name, files[: 2 * BATCH])))
    middle = {stage: median(values) for stage, values in times.items()}
    bound = 1 / (1 / middle["decode"] + 1 / middle["network"])
    return {
        "backbone": name,
        "images": many,
        "decode_images_per_s": middle["decode"],
        "network_images_per_s": middle["network"],
        "bound_images_per_s": bound,
        "extract_images_per_s": middle["whole"],
        "ratio_to_bound": middle["whole"] / bound,
        "noisy": any(max(values) / min(values) > NOISY for values in times.values()),
    }


def _whole(name: str, files: list[bytes]) -> float:
    """Return the seconds of an extraction from nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        for number, data in enumerate(files):
            path = Path(scratch) / "photos" / f"class{number % 2}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        photos = Path(scratch) / "photos"
        done = extract(photos, name, "random", features=Path(scratch) / "features", device="cpu")
        return done.seconds["wall_s"]


def _parallel(work: Callable[[Any], object], items: Any, threads: int) -> float:
    """Return the seconds that `threads` threads need for all items, after a warm-up."""
    work(items[0])
    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        list(pool.map(work, items))
        return time.perf_counter() - started


def _heads(photos: Path, scratch: Path, name: str) -> list[dict[str, Any]]:
    """Time every head, search included, on the embeddings of the photos."""
    path = extract(photos, name, "random", features=scratch / "features-heads", device="cpu").path
    rows = []
    for head in HEADS:
        seconds = [fit_heads([path], [head], runs=scratch / "runs")[0].fields["fit_s"] for _ in range(REPEATS)]
        rows.append({"head": head, "fit_s": median(seconds), "noisy": max(seconds) / min(seconds) > NOISY})
    return rows


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name.replace("_images_per_s", "").replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    return table


if __name__ == "__main__":
    main()
