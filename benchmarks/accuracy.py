"""What a shortcut costs in accuracy: a head on embeddings in another precision, or of JPEGs decoded at a reduced size.

python -m benchmarks.accuracy --data flowers/ --model mobilenetv2 --weights mobilenet_v2.pth [--enlarge 8]

With --enlarge, a copy of the dataset is made whose images are that many times as long and wide, as from a camera of
today, so that the JPEG decoder may reduce them, and is embedded with each `--jpeg-size`. Predictions are compared
image by image; p is that of McNemar's exact test.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from benchmarks.extraction import variants_here
from benchmarks.timing import in_threads
from tlcache.backbones.engines import find_device
from tlcache.datasets.dataset import Dataset, load_dataset
from tlcache.extraction.extract import extract
from tlcache.probing.fit import fit_heads
from tlcache.runs.frozen import FrozenRun
from tlcache.threads import available_cpus


def main() -> None:
    """Fit the same head on each kind of embeddings, and compare with the first."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="mobilenetv3_large")
    parser.add_argument("--weights")
    parser.add_argument("--head", default="logreg")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--enlarge", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tlcache-accuracy-") as scratch:
        folder = Path(scratch)
        if options.enlarge > 1:
            data = _enlarged(load_dataset(options.data), options.enlarge, folder / "enlarged")
            settings: dict[str, dict[str, Any]] = {name: {"jpeg_size": name} for name in ("full", "twice", "nearest")}
        else:
            data = options.data
            settings = {
                variant.name: {"engine": variant.engine, "precision": variant.precision}
                for variant in variants_here(find_device(options.device))
            }
        runs = {}
        for name, setting in settings.items():
            path = extract(data, options.model, options.weights, features=folder / name, **setting).path
            (runs[name],) = fit_heads([path], [options.head], runs=folder / f"runs {name}")
        figures = _compare(runs)
    Console().print(_table(figures, options.head))
    print(json.dumps(figures))


def _enlarged(dataset: Dataset, factor: int, folder: Path) -> Path:
    """Write a dataset again with larger images, and a manifest with its labels and splits."""

    def enlarge(number: int) -> None:
        path = folder / f"{number:06d}.jpg"
        with Image.open(io.BytesIO(dataset.read(number))) as image:
            large = image.convert("RGB").resize((factor * image.width, factor * image.height), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        large.save(buffer, "JPEG", quality=92)
        path.write_bytes(buffer.getvalue())

    folder.mkdir()
    in_threads(enlarge, range(len(dataset)), available_cpus())
    rows = (
        f"{number:06d}.jpg,{dataset.classes[label]},{split}"
        for number, (label, split) in enumerate(zip(dataset.labels, dataset.splits, strict=True))
    )
    manifest = folder / "enlarged.csv"
    manifest.write_text("\n".join(["path,label,split", *rows]) + "\n")
    return manifest


def _compare(runs: dict[str, FrozenRun]) -> list[dict[str, Any]]:
    right = {name: _right(run) for name, run in runs.items()}
    first, figures = next(iter(right)), []
    for name, run in runs.items():
        lost, won = int((right[first] & ~right[name]).sum()), int((~right[first] & right[name]).sum())
        p = binomtest(lost, lost + won).pvalue if lost + won else 1.0
        test = {key: getattr(run.test, key) for key in ("n", "accuracy", "accuracy_low", "accuracy_high")}
        figures.append({"embeddings": name, **test, "lost": lost, "won": won, "p": float(p)})
    return figures


def _right(run: FrozenRun) -> Any:
    return run.predictions().top().right


def _table(figures: list[dict[str, Any]], head: str) -> Table:
    table = Table(title=f"{head} on {figures[0]['n']:,} test images", box=None, pad_edge=False, title_justify="left")
    for column in ("Embeddings", "Accuracy (95 %)", "Lost", "Won", "p"):
        table.add_column(column, justify="left" if column == "Embeddings" else "right")
    for row in figures:
        interval = f"{row['accuracy']:.4f} ({row['accuracy_low']:.3f}-{row['accuracy_high']:.3f})"
        table.add_row(row["embeddings"], interval, str(row["lost"]), str(row["won"]), f"{row['p']:.2f}")
    return table


if __name__ == "__main__":
    main()
