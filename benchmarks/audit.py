"""An audit of a large feature file, whole, in a process of its own: seconds, peak memory, planted pairs found.

python -m benchmarks.audit [--rows 100000] [--dim 1280]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.growth import publish_large

__all__ = ["measure_audit"]

_FACTORS = 400  # embeddings of real images vary in a few hundred directions
_EVERY = 100  # the last of so many rows is a near-duplicate of the first of them

AUDIT = """
import json, sys, time
from tlcache.auditing.run import audit
from tlcache.machine import peak_rss_bytes
began = time.perf_counter()
(found,) = audit([sys.argv[1]], runs=sys.argv[2])
pairs = [[pair.first, pair.second] for pair in found.near]
print(json.dumps({"audit_s": time.perf_counter() - began, "peak_rss_bytes": peak_rss_bytes(), "pairs": pairs}))
"""


def measure_audit(rows: int, dim: int, folder: Path) -> dict[str, Any]:
    """Audit so many made embeddings, of which one in a hundred is a near-duplicate of another."""
    basis = np.random.default_rng(0).normal(size=(_FACTORS, dim)).astype(np.float32) / np.float32(_FACTORS**0.5)

    def make(start: int, stop: int) -> NDArray[np.float32]:
        random = np.random.default_rng(start)
        noise = random.standard_normal((stop - start, dim), np.float32)
        found = random.standard_normal((stop - start, _FACTORS), np.float32) @ basis + np.float32(0.3) * noise
        found[_EVERY - 1 :: _EVERY] = found[::_EVERY] + np.float32(0.15) * noise[::_EVERY]
        made: NDArray[np.float32] = np.maximum(found + np.float32(0.5), np.float32(0))
        return made

    arguments = dict.fromkeys(("weights", "pool", "output", "crop_borders", "resize", "crop", "mean", "std"))
    told = json.dumps({**arguments, "model": "made.onnx", "precision": "fp32"})
    path = publish_large(rows, dim, folder, make, source=str(folder / "gone"), arguments=told)
    began = time.perf_counter()
    command = [sys.executable, "-c", AUDIT, str(path), str(folder / "runs")]
    figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    found = {frozenset(int(name.rpartition("/")[2]) for name in pair) for pair in figures.pop("pairs")}
    planted = {frozenset((row, row + _EVERY - 1)) for row in range(0, rows - _EVERY + 1, _EVERY)}
    return {
        "rows": rows,
        "dim": dim,
        **figures,
        "process_s": time.perf_counter() - began,
        "file_bytes": path.stat().st_size,
        "planted": len(planted),
        "planted_found": len(planted & found),
        "other_pairs": len(found - planted),
    }


def main() -> None:
    """Print the figures as a line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1280)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure_audit(asked.rows, asked.dim, Path(folder))))


if __name__ == "__main__":
    main()
