"""Real images and real weights: figures of published networks, run through the command line as a user would.

The expected accuracies are those of plain scikit-learn heads on the same networks' features.
"""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tlcache.cache.feature_file import open_features
from tlcache.heads.table import HEADS

pytestmark = [pytest.mark.real, pytest.mark.slow]


def run(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "tlcache", *map(str, arguments)], check=True)


def heads(folder: Path, *names: str) -> dict[str, dict[str, float]]:
    report = folder / "fit.json"
    chosen = ["--heads", ",".join(names)] if names else []
    run("fit-heads", *chosen, "--json", report)
    return {one["head"]: one["test"] for one in json.loads(report.read_text())["runs"]}


def test_flowers_with_mobilenetv2(real: Path, tmp_path: Path) -> None:
    """1,434 train + val images, 89 classes, 1,333 test images; logistic regression is known to give 0.903."""
    weights = real / "weights" / "mobilenet_v2-imagenet.pth"
    run("extract", "-m", "mobilenetv2", "-w", weights, "-d", real / "data" / "flowers102_small")
    figures = heads(tmp_path)
    assert figures.keys() == HEADS.keys()
    assert figures["logreg"]["accuracy"] >= 0.895
    assert max(test["accuracy"] for test in figures.values()) >= 0.90


COUNT = '''
"""Imported by every Python process of the test: one byte in a file for every image that leaves the network."""
import os, sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder


class Counter(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target) if name == "tlcache.backbones.network" else None
        if spec is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                original = module.Network.embed
                counted = os.open(os.environ["COUNTED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

                def embed(network, images):
                    features = original(network, images)
                    os.write(counted, b"x" * len(images))
                    return features

                module.Network.embed = embed

            spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Counter())
'''


def test_killed_ten_times_and_finished(real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, data = real / "weights" / "mobilenet_v2-imagenet.pth", real / "data" / "flowers102_small"
    command = ["extract", "-m", "mobilenetv2", "-w", str(weights), "-d", str(data)]
    run(*command, "--features", tmp_path / "reference")
    (tmp_path / "sitecustomize.py").write_text(COUNT)
    counted, chance = tmp_path / "counted", random.Random(7)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("COUNTED", str(counted))
    counted.write_bytes(b"")
    for kill in range(1, 11):  # each at a random moment of the work that is left, so that ten fit in
        process = subprocess.Popen([sys.executable, "-m", "tlcache", *command])
        before = counted.stat().st_size
        moment = before + chance.uniform(0, 2766 - before) * 2 / (12 - kill)
        while counted.stat().st_size < moment:
            time.sleep(0.005)
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    run(*command, "--json", tmp_path / "report.json")
    (file,) = json.loads((tmp_path / "report.json").read_text())["files"]
    assert content(Path(file["path"])) == content(*(tmp_path / "reference").glob("*/*.h5"))
    assert 2766 <= counted.stat().st_size <= 1.15 * 2766


def content(path: Path) -> dict[str, bytes]:
    with open_features(path) as file:
        rows = file.split("train", "val", "test")
    return {name: row.tobytes() for name, row in zip(rows.paths, rows.features, strict=True)}


def test_flowers_with_mobilenetv3_small(real: Path, tmp_path: Path) -> None:
    weights = real / "weights" / "mobilenet_v3_small-imagenet.pth"
    run("extract", "-m", "mobilenetv3_small", "-w", weights, "-d", real / "data" / "flowers102_small")
    assert heads(tmp_path, "logreg")["logreg"]["accuracy"] >= 0.87


def test_alzheimer_with_mobilenetv2(real: Path, tmp_path: Path) -> None:
    """Validation comes from train; neighbouring slices lie in train and test, which is why 1-NN is so far ahead."""
    weights = real / "weights" / "mobilenet_v2-imagenet.pth"
    run("extract", "-m", "mobilenetv2", "-w", weights, "-d", real / "data" / "alzheimer_mri")
    figures = heads(tmp_path, "logreg", "knn")
    assert figures["logreg"]["n"] == 1279
    assert figures["logreg"]["accuracy"] == pytest.approx(0.62, abs=0.02)
    assert figures["knn"]["accuracy"] == pytest.approx(0.73, abs=0.02)


def test_an_exported_file_alone_gives_the_same_embeddings(real: Path, tmp_path: Path) -> None:
    weights, data = real / "weights" / "squeezenet1_1-imagenet.pth", real / "data" / "flowers102_small"
    run("export", "-m", "squeezenet1_1", "-w", weights, "-o", "squeezenet1_1-imagenet.onnx")
    run("extract", "-m", "squeezenet1_1", "-w", weights, "-d", data)
    run("extract", "-m", "squeezenet1_1-imagenet.onnx", "-d", data)
    first, second = sorted((tmp_path / "features" / "flowers102_small").glob("*.h5"))
    with open_features(first) as one, open_features(second) as other:
        splits = [file.split("train", "val", "test") for file in (one, other)]
    assert splits[0].paths == splits[1].paths
    assert np.array_equal(splits[0].features, splits[1].features)


def test_scans_lose_their_dark_borders(real: Path) -> None:
    from tlcache.images import cut_borders, decode

    path = next((real / "data" / "alzheimer_mri" / "test").rglob("*.jpg"))
    pixels, _ = decode(path.read_bytes())
    inside = cut_borders(pixels)
    assert 0.3 * pixels.size < inside.size < 0.95 * pixels.size
    assert (pixels.max(axis=2) > 16).sum() - (inside.max(axis=2) > 16).sum() < 0.01 * pixels.shape[0] * pixels.shape[1]
