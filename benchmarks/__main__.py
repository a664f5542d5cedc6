"""`make bench`: how fast this machine embeds images, what the limit is, what others reach, and what heads cost.

Tables go to standard output, whose last line is JSON; the same JSON goes to `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks import tables
from benchmarks.extraction import Bench, measure_backbone, measure_large_photos, measure_network, variants_here
from benchmarks.finetuning import measure_finetuning
from benchmarks.growth import measure_growth, measure_large_file
from benchmarks.heads import measure_heads
from benchmarks.images import describe, find_images, make_photos, write_images
from benchmarks.peers import candidates, has_timm
from benchmarks.timing import cpu_seconds
from tlcache.backbones.engines import find_device
from tlcache.backbones.sources import list_models
from tlcache.finetuning.speed import COMPUTE_FORMATS, find_torch_device
from tlcache.heads.table import HEADS
from tlcache.machine import cpu_flags, hardware, versions
from tlcache.progress import show_progress, step_bar
from tlcache.threads import available_cpus

CHOSEN = ("mobilenetv3_small", "mobilenetv3_large", "resnet50")


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", default=os.environ.get("QUICK") == "1", help="under two minutes"
    )
    parser.add_argument("--images", type=Path, help="folder of JPEGs to measure with; default: made ones")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options = parser.parse_args()
    show_progress()
    device, began, spent = find_device(options.device), time.perf_counter(), cpu_seconds()
    load = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="tlcache-bench-") as scratch:
        figures = _measure(options.quick, options.images, device, Path(scratch))
    figures |= {"wall_s": time.perf_counter() - began, "cpu_s": cpu_seconds() - spent}
    figures["load"] = {"before": load, "after": os.getloadavg()}
    path = Path(__file__).parent / "results" / f"{figures['date']}-{device.replace('cuda', 'gpu')}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
    Console(stderr=True).print(
        f"{figures['wall_s']:.0f} s, {figures['cpu_s']:.0f} CPU s; the same figures: {path}", highlight=False
    )
    print(json.dumps(figures))


def _measure(quick: bool, images: Path | None, device: str, scratch: Path) -> dict[str, Any]:
    console, seconds, rounds = Console(), *((1.2, 2) if quick else (4.0, 3))
    names = CHOSEN[:1] if quick else CHOSEN
    torch.set_num_threads(1)  # as in extraction, where every thread has a core of its own
    encoded = find_images(images) if images else list(make_photos(16 if quick else 64, 500, 667))
    photos = write_images(scratch / "photos", encoded, 2_048 if quick else 8_192)
    bench = Bench(photos, seconds, rounds, quick, variants_here(device), device)
    figures: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "quick": quick,
        "hardware": {**hardware(), "flags": sorted(cpu_flags())},
        "versions": versions(),
        "device": device,
        "images": describe(encoded),
    }
    console.print(tables.heading(figures), highlight=False)
    contenders = len(names) * (5 * len(bench.variants) + 2) + sum(map(has_timm, names))
    trials = len(candidates(bench.threads, quick))
    with step_bar("extraction", len(names) * trials + rounds * contenders) as advance:
        figures["extraction"] = [measure_backbone(bench, name, advance) for name in names]
    console.print(tables.extraction(figures["extraction"]))
    others = [] if quick else [row.name for row in list_models()]
    with step_bar("every backbone", len(others)) as advance:
        figures["networks"] = []
        for name in others:
            figures["networks"].append(measure_network(bench, name))
            advance(1)
    console.print(tables.networks(figures["networks"]))
    with step_bar("12-megapixel photographs", 2 * rounds) as advance:
        large = list(make_photos(1 if quick else 6, 3000, 4000))
        figures["large_photos"] = measure_large_photos(bench, names[0], large, advance)
    console.print(tables.large_photos(figures["large_photos"]))
    sizes = (1_000, 3_000) if quick else (1_000, 10_000, 100_000)
    with step_bar("growing datasets", len(sizes) + 1) as advance:
        figures["growth"] = measure_growth(sizes, scratch, advance)
        figures["large_file"] = measure_large_file(20_000 if quick else 1_000_000, 768, scratch)
        advance(1)
    console.print(tables.growth(figures["growth"], figures["large_file"]))
    torch.set_num_threads(available_cpus())
    turns = 1 if quick else rounds
    with step_bar("heads", len(HEADS) * turns) as advance:
        some = photos[: 512 if quick else 1024]
        figures["heads"], figures["cache"] = measure_heads(some, names[0], scratch, turns, advance)
    console.print(tables.heads(figures["heads"], figures["cache"]))
    with step_bar("fine-tuning", turns * (len(COMPUTE_FORMATS) + 4)) as advance:
        some = photos[: 96 if quick else 320]
        figures["finetuning"] = measure_finetuning(some, names[0], scratch, turns, find_torch_device(device), advance)
    console.print(tables.finetuning(figures["finetuning"]))
    return figures


if __name__ == "__main__":
    main()
