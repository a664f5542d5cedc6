"""An epoch of fine-tuning in one process and in two of one thread each: seconds on the clock, and of processors.

`python -m benchmarks.processes [ROUNDS]` measures MobileNetV3-Small at 96 pixels on made photographs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from torch import distributed

from benchmarks.images import make_photos, write_images, write_manifest
from tlcache.cache.feature_file import FeatureFile
from tlcache.extraction.extract import extract
from tlcache.finetuning.checkpoints import Checkpoints
from tlcache.finetuning.data import TuningData
from tlcache.finetuning.ranks import joined, rank
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.speed import ComputeFormat
from tlcache.finetuning.trial import Trial

__all__ = ["measure"]

_MODEL, _SIDE, _IMAGES, _EPOCHS = "mobilenetv3_small", 96, 320, 3
_WAY = ComputeFormat("fp32", "contiguous")


def measure(folder: Path, processes: int) -> dict[str, float]:
    """Return the seconds of the quickest epoch but the first: the slowest process's, and those of processors in all."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [*command, "-m", "benchmarks.processes", str(folder)],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    each = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[[")]
    epochs = list(zip(*each, strict=True))  # of each epoch, what each process says
    return {
        "wall_s": min(max(wall for wall, _ in epoch) for epoch in epochs),
        "cpu_s": min(sum(cpu for _, cpu in epoch) for epoch in epochs),
    }


def _extract(folder: Path) -> Path:
    data = write_manifest(sorted((folder / "photos").rglob("*.jpg")))
    where = folder / "features"
    return extract(data, _MODEL, "random", resize=_SIDE, crop=_SIDE, features=where, device="cpu").path


def _train(folder: Path) -> None:
    """Train as one of several processes, and print the seconds of each epoch, on the clock and of the processor."""
    torch.set_num_threads(1)
    with FeatureFile(_extract(folder)) as file:
        data = TuningData.of(file, "random", "cpu")
    ends = list[tuple[float, float]]()
    with joined("cpu"), tempfile.TemporaryDirectory() as kept:
        trial = Trial(data, Recipe(batch_size=32, lr=1e-3), refit={"backbone": _EPOCHS})
        tell = lambda _: ends.append((time.perf_counter(), time.process_time()))  # noqa: E731
        trial.train(Checkpoints(Path(kept)), _WAY, tell)
        spent = [[b - a for a, b in zip(*pair, strict=True)] for pair in zip(ends, ends[1:], strict=False)]
        for turn in range(distributed.get_world_size()):
            if turn == rank():
                print(json.dumps(spent), flush=True)
            distributed.barrier()


def main() -> None:
    """Measure one process and two in turn, and print a line of JSON for each round."""
    rounds = int(sys.argv[1]) if sys.argv[1:] else 5
    with tempfile.TemporaryDirectory(prefix="tlcache-bench-") as scratch:
        folder = Path(scratch)
        os.environ["TLCACHE_CACHE"] = str(folder / "cache")
        write_images(folder / "photos", list(make_photos(16, 120, 160)), _IMAGES)
        _extract(folder)
        found = [{count: measure(folder, count) for count in (1, 2)} for _ in range(rounds)]
    for unit in ("wall_s", "cpu_s"):
        ratios = [each[2][unit] / each[1][unit] for each in found]
        print(f"{unit}: two / one {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(json.dumps(found))


if __name__ == "__main__":
    _train(Path(sys.argv[1])) if distributed.is_torchelastic_launched() else main()
