"""The cache alone, as datasets grow: a network of 8 numbers on images of 8 x 8 pixels, and a file of a million rows."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.images import write_dots
from tlcache.cache.feature_file import STAGES
from tlcache.cache.plan import Plan
from tlcache.cache.publish import publish
from tlcache.cache.shards import Shard, write_shard
from tlcache.extraction.extract import extract
from tlcache.images import Preprocess
from tlcache.keys import canonical_json

__all__ = ["measure_growth", "measure_large_file", "publish_large"]

OPEN = """
import json, sys, time
from pathlib import Path
import tlcache.cache.feature_file

def read_so_far():
    lines = Path("/proc/self/io").read_text().splitlines() if Path("/proc/self/io").exists() else ["rchar: 0"]
    return int(lines[0].split()[1])

began = time.perf_counter()
file = tlcache.cache.feature_file.open_features(sys.argv[1])
opened = time.perf_counter()
before = read_so_far()
rows = len(file.split(sys.argv[2]))
print(json.dumps({"open_s": opened - began, "split_s": time.perf_counter() - opened, "rows": rows,
                  "read_bytes": read_so_far() - before}))
"""


def measure_growth(sizes: Sequence[int], folder: Path, advance: Callable[[int], None]) -> list[dict[str, Any]]:
    """Extract datasets of growing size: seconds per 1,000 images, and peak memory, first and when up to date."""
    model, found = folder / "dots.onnx", []
    onnx.save(_dots_network(), model)
    for n in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            photos = Path(scratch) / "dots"
            write_dots(photos, n)
            first = extract(photos, str(model), features=Path(scratch) / "features", device="cpu")
            again = extract(photos, str(model), features=Path(scratch) / "features", device="cpu")
            found.append(
                {
                    "rows": n,
                    "first_s_per_1000": 1000 * first.seconds["wall_s"] / n,
                    "first_peak_rss_bytes": first.peak_rss_bytes,
                    "again_s_per_1000": 1000 * again.seconds["wall_s"] / n,
                    "again_peak_rss_bytes": again.peak_rss_bytes,
                    "file_bytes": first.path.stat().st_size,
                }
            )
        advance(1)
    return found


def measure_large_file(rows: int, dim: int, folder: Path) -> dict[str, Any]:
    """Publish a feature file of so many rows, then, in fresh processes, open it and read its test split."""
    began = time.perf_counter()
    path = publish_large(rows, dim, folder)
    published = time.perf_counter() - began
    opened = [
        json.loads(
            subprocess.run([sys.executable, "-c", OPEN, path, "test"], stdout=subprocess.PIPE, check=True).stdout
        )
        for _ in range(3)
    ]
    best = sorted(opened, key=lambda one: one["open_s"])[1]
    return {
        "rows": rows,
        "dim": dim,
        "file_bytes": path.stat().st_size,
        "publish_s": published,
        "open_s": best["open_s"],
        "test_rows": best["rows"],
        "test_split_s": best["split_s"],
        "test_split_read_bytes": best["read_bytes"],
    }


def publish_large(
    rows: int,
    dim: int,
    folder: Path,
    make: Callable[[int, int], NDArray[np.float32]] | None = None,
    classes: int = 100,
    held: int | None = None,
    **more: str,
) -> Path:
    """Publish a feature file of so many rows; `make` gives those from one number to another, else they are noise.

    The label of a row is its number modulo `classes`; `held` rows, else a fifth, are for validation, and as many for
    testing.
    """
    held = rows // 5 if held is None else held
    random, parts, part_rows = np.random.default_rng(0), [], 10_000
    hashes = np.array([hashlib.sha256(number.to_bytes(8, "big")).hexdigest() for number in range(rows)], "S64")
    for start in range(0, rows, part_rows):
        some = hashes[start : start + part_rows]
        features = make(start, start + len(some)) if make else random.standard_normal((len(some), dim), np.float32)
        stored = np.full((len(some), 3), 8, np.int32)
        parts.append(write_shard(folder, Shard(some, features, stored, [], np.zeros(4), "none")))
    number = np.arange(rows)
    columns = {
        "path": np.char.add(b"class/", np.char.zfill(number.astype("S"), 9)),
        "group": np.full(rows, b"", "S1"),
        "sha256": hashes,
        "label": number % classes,
        "split": np.repeat(np.arange(3, dtype=np.uint8), [rows - 2 * held, held, held]),
        "source": number // part_rows,
        "index": number % part_rows,
        **{name: np.full(rows, 8, np.int32) for name in ("width", "height", "frames")},
        "classes": np.array([f"{label:02d}" for label in range(classes)], "S"),
        **{f"quarantine_{name}": np.empty(0, "S1") for name in ("path", "sha256", "code", "message")},
    }
    attrs = {"key": "0" * 64, "key_json": "{}", **dict.fromkeys(STAGES, 0.0)}
    attrs |= {"dataset": "made", "dataset_digest": "0" * 64, "backbone": "made", "weights": "none", **more}
    target = folder / "large.h5"
    publish(Plan(target, dim, columns, parts, attrs))
    for part in parts:
        part.unlink()
    return target


def _dots_network() -> onnx.ModelProto:
    kernel = np.random.default_rng(0).normal(0, 0.01, (8, 3, 8, 8)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "kernel"], ["y"]),
        helper.make_node("Flatten", ["y"], ["embedding"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "dots",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    preprocess = canonical_json(Preprocess(8, 8).as_json())
    helper.set_model_props(model, {"exporter": "tlcache benchmarks", "preprocess": preprocess, "pool": "flatten"})
    return model
