"""`python -m benchmarks.pointing CIFAR --weights FILE`: how often maps of `tlcache explain` point at the right place.

Heads are fitted on CIFAR-10 images (a folder with `train` and `test`) of 112 pixels. Four test images of other classes
each make a mosaic of 224, and the map of each class has to have its largest value in the quarter of its image; once of
any images, once of those that are classified rightly on their own with a confidence of 0.9 (as in the grid pointing
game of Boehle et al., 2021). Deletion and insertion (Petsiuk et al., 2018) are the mean probability while cells are
covered, or uncovered, from the largest value on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import tlcache
from tlcache.backbones.engines import open_network
from tlcache.backbones.load import load_model
from tlcache.backbones.model import Model
from tlcache.backbones.onnx_weights import joined
from tlcache.deploying.saved import Saved, find_saved
from tlcache.images import prepare
from tlcache.pictures.activation import ClassActivation
from tlcache.pictures.heat import Pixels, Values
from tlcache.pictures.occlusion import Occlusion

__all__ = ["measure"]

SIDE, HALF = 224, 112
Map = Callable[[Pixels, int], Values]


def measure(cifar: Path, weights: Path, folder: Path, mosaics: int, images: int) -> dict[str, Any]:
    """Return how often maps point at the right quarter, and what deletion and insertion say."""
    data, random = folder / "cifar", np.random.default_rng(0)
    for split, count in (("train", 600), ("val", 100), ("test", 40)):
        for name in sorted(path.name for path in (cifar / "train").iterdir()):
            place = data / split / name
            place.mkdir(parents=True)
            found = sorted((cifar / ("test" if split == "test" else "train") / name).iterdir())
            for path in found[100:700] if split == "train" else found[:count]:
                shutil.copy(path, place)
    file = tlcache.extract(data, "mobilenetv2", str(weights), resize=HALF, crop=HALF, features=folder / "features").path
    figures: dict[str, Any] = {}
    for run in tlcache.fit_heads([file], heads=["ridge", "logreg"], runs=folder / "runs"):
        saved = find_saved(run.path)
        maps = _maps(saved, load_model("mobilenetv2", str(weights)), random)
        spare = {name: sorted((cifar / "test" / name).iterdir())[40:190] for name in run.classes}
        sure = {name: _sure(saved, number, paths) for number, (name, paths) in enumerate(spare.items())}
        figures[run.head] = {
            "accuracy": run.test.accuracy,
            "pointing": _pointing(saved, maps, spare, mosaics),
            "pointing_sure": _pointing(saved, maps, sure, mosaics),
            "sure": sum(map(len, sure.values())),
        }
        if "exact" in maps:
            small = _maps(saved, saved.model(), random)
            figures[run.head]["curves"] = _curves(saved, small, spare, images)
        print(json.dumps({run.head: figures[run.head]}), flush=True)
    return figures


def _sure(saved: Saved, label: int, paths: list[Path]) -> list[Path]:
    """Return those that are classified rightly on their own, with a confidence of 0.9 or more."""
    model = saved.model()
    network = open_network(joined(model.onnx()), "cpu")
    pixels = np.stack([prepare(path.read_bytes(), model.preprocess)[0] for path in paths])
    likely = _likely(saved, network.embed(pixels), label)
    return [path for path, probability in zip(paths, likely, strict=True) if probability >= 0.9]


def _maps(saved: Saved, model: Model, random: np.random.Generator) -> dict[str, Map]:
    """Return maps of a head by a network, which may take larger images than the one that it was fitted on."""
    cells = model.preprocess.crop // 32
    network = open_network(joined(model.onnx()), "cpu")
    found: dict[str, Map] = {"random": lambda *_: random.random((cells, cells)).astype(np.float32)}
    exact = ClassActivation.of(model, saved.asked, network)
    if not isinstance(exact, str):
        bias = saved.asked.logits(np.zeros((1, network.dim), np.float32))[0] / cells**2
        found["exact"] = exact.heat
        found["gradcam"] = lambda pixels, label: np.maximum(exact.heat(pixels, label) - bias[label], 0)
    occlusion = Occlusion(network, saved.asked.predict_proba)
    return {**found, "occlusion": occlusion.heat}


def _pointing(saved: Saved, maps: dict[str, Map], spare: dict[str, list[Path]], mosaics: int) -> dict[str, float]:
    hits: dict[str, list[bool]] = {name: [] for name in maps}
    random, classes = np.random.default_rng(1), saved.asked.classes
    for number in range(mosaics):
        chosen = random.choice(len(classes), 4, replace=False)
        tiles = [Image.open(random.choice(spare[classes[each]])) for each in chosen]  # type: ignore[arg-type]
        pixels = np.zeros((3, SIDE, SIDE), np.uint8)
        for place, tile in enumerate(tiles):
            row, column = (HALF * each for each in divmod(place, 2))
            large = tile.convert("RGB").resize((HALF, HALF), Image.Resampling.BICUBIC)
            pixels[:, row : row + HALF, column : column + HALF] = np.asarray(large).transpose(2, 0, 1)
        for name, heat in maps.items():
            if name == "occlusion" and number >= mosaics // 25:
                continue
            for place, label in enumerate(chosen.tolist()):
                fine = Image.fromarray(heat(pixels, label)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
                row, column = divmod(int(np.asarray(fine).argmax()), SIDE)
                hits[name].append(bool(2 * (row >= HALF) + (column >= HALF) == place))
    return {name: float(np.mean(each)) for name, each in hits.items()}


def _curves(saved: Saved, maps: dict[str, Map], spare: dict[str, list[Path]], images: int) -> dict[str, Any]:
    model, names = saved.model(), [name for name in maps if name != "occlusion"]
    network, classes = open_network(joined(model.onnx()), "cpu"), saved.asked.classes
    areas: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(images):
        path = spare[classes[number % len(classes)]][-1 - number // len(classes)]
        pixels, _ = prepare(path.read_bytes(), model.preprocess)
        label = int(saved.asked.predict_proba(network.embed(pixels[None])).argmax())
        for name in names:
            order = np.argsort(-maps[name](pixels, label).ravel(), kind="stable")
            areas[name].append(_areas(pixels, order, lambda some: _likely(saved, network.embed(some), label)))  # noqa: B023
    found: dict[str, Any] = {name: np.mean(each, axis=0).round(4).tolist() for name, each in areas.items()}
    apart = np.array(areas["exact"]) - np.array(areas["gradcam"])
    error = 1.96 * apart.std(axis=0, ddof=1) / images**0.5
    found["exact_less_gradcam"] = [
        [round(float(m), 4), round(float(e), 4)] for m, e in zip(apart.mean(axis=0), error, strict=True)
    ]
    return found


def _likely(saved: Saved, rows: Values, label: int) -> Values:
    found: Values = saved.asked.predict_proba(rows)[:, label]
    return found


def _areas(pixels: Pixels, order: NDArray[np.int64], likely: Callable[[Pixels], Values]) -> tuple[float, float]:
    """Return the mean probability while cells are covered in an order, and while they are uncovered in it."""
    cells = round(len(order) ** 0.5)
    size, mean = pixels.shape[1] // cells, pixels.mean(axis=(1, 2)).astype(np.uint8)[:, None, None]
    steps = np.arange(0, len(order) + 1, cells)
    images = []
    for covers in (True, False):
        for step in steps:
            image = pixels.copy() if covers else np.broadcast_to(mean, pixels.shape).copy()
            for row, column in (divmod(int(each), cells) for each in order[:step]):
                cell = np.s_[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
                image[cell] = mean if covers else pixels[cell]
            images.append(image)
    values = likely(np.stack(images))
    return float(values[: len(steps)].mean()), float(values[len(steps) :].mean())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pointing", description=__doc__)
    parser.add_argument("cifar", type=Path, help="a folder with train and test, each with a folder for every class")
    parser.add_argument("--weights", type=Path, required=True, help="of torchvision's MobileNetV2")
    parser.add_argument("--mosaics", type=int, default=250)
    parser.add_argument("--images", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tlcache-bench-") as folder:
        figures = measure(options.cifar, options.weights, Path(folder), options.mosaics, options.images)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
