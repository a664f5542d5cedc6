"""Ways to run a network, timed in turn, and what a head loses on the embeddings of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.backbones.calibration import made_images
from tlcache.backbones.engines import default_batch
from tlcache.backbones.integers import share_apart
from tlcache.backbones.load import load_model
from tlcache.backbones.network import Network
from tlcache.backbones.paces import Way, measure, opened, ways
from tlcache.cache.feature_file import Split
from tlcache.datasets.dataset import Dataset
from tlcache.errors import DataError, DeviceError, ImageReadError, ModelError
from tlcache.evaluation.significance import Difference, compare_paired, unit_numbers
from tlcache.heads.ridge import Ridge
from tlcache.heads.rows import Array, Scaler, blocks
from tlcache.images import BadImageError, Preprocess, Resizing, prepare
from tlcache.probing.folds import fold_count, split_folds
from tlcache.progress import image_bar, say
from tlcache.records import as_json
from tlcache.tasks import CLASSIFY
from tlcache.threads import in_threads

__all__ = ["EngineCost", "measure_engines"]

_SHOWN = 64  # images that networks are timed with
_Ready = Mapping[Way, tuple[Network, int]]


@dataclass(frozen=True)
class EngineCost:
    """What one way to run a network is worth here.

    Parameters
    ----------
    engine, precision, device
        The way.
    why_not
        Why it cannot be had here; empty where it can, and only then there are figures.
    images_per_s
        Of the network alone on all cores: of the first way the median of three rounds in which all took turns, of
        others `times` as many, whatever else the machine did in a round.
    times
        How many times as many as by the first way: the median of the rounds' ratios.
    differs
        Median length of the differences between its embeddings and those of the first, in lengths of these.
    accuracy, n
        Of ridge regression, cross-validated on so many images; None and 0 where there are no labels.
    against_first
        How much more accurate it is than the first, image by image.
    """

    engine: str
    precision: str
    device: str
    why_not: str = ""
    images_per_s: float | None = None
    times: float | None = None
    differs: float | None = None
    accuracy: float | None = None
    n: int = 0
    against_first: Difference | None = None

    @property
    def exact(self) -> bool:
        """Whether its embeddings are those of fp32, but for the last digits."""
        return self.precision == "fp32"

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        return {**as_json(self), "exact": self.exact}


def measure_engines(
    model: str, weights: str | None, dataset: Dataset | None, sample: int, *, device: str, seconds: float
) -> list[EngineCost]:
    """Do what `tlcache.probing.engines.engines` says; arguments and errors are its."""
    exact = load_model(model, weights)
    drawn = None if dataset is None else _drawn(dataset, sample, exact.preprocess)
    found, networks = dict[Way, EngineCost](), dict[Way, tuple[Network, int]]()
    for way, why in ways(device):
        found[way] = EngineCost(way.engine, way.precision, way.device, why)
        if why:
            continue
        try:
            network = opened(load_model(model, weights, precision=way.precision), way)
        except (ModelError, DeviceError) as error:
            found[way] = replace(found[way], why_not=str(error))
        else:
            networks[way] = network, default_batch(way.engine, way.device, exact.preprocess.crop)
    shown = made_images(8, *exact.preprocess.size) if drawn is None else drawn[0][:_SHOWN]
    say(f"timing {', '.join(map(str, networks))} ...")
    found |= _timed(found, networks, shown, seconds)
    return [*(found if drawn is None else _judged(found, networks, *drawn)).values()]


def _timed(
    found: Mapping[Way, EngineCost], networks: _Ready, images: NDArray[np.uint8], seconds: float
) -> dict[Way, EngineCost]:
    rates = dict(zip(networks, measure(list(networks.values()), images, seconds), strict=True))
    first = next(iter(rates.values()), [])
    times = {way: median(a / b for a, b in zip(each, first, strict=True)) for way, each in rates.items()}
    return {way: replace(found[way], images_per_s=median(first) * times[way], times=times[way]) for way in networks}


def _judged(
    found: Mapping[Way, EngineCost], networks: _Ready, images: NDArray[np.uint8], rows: Split
) -> dict[Way, EngineCost]:
    """Return the same with how far embeddings are from those of the first way, and how right a head is on them."""
    judged, first = dict(found), None
    usual: NDArray[np.bool_] | None = None  # what the head is right of on the first way's embeddings
    for way, (network, size) in networks.items():
        own = replace(rows, features=_embedded(network, size, images, str(way)))
        first = first or own
        cost = replace(found[way], differs=share_apart(first.features, own.features))
        if (rows.labels >= 0).all():
            right = _right(first, own)
            against = None if usual is None else compare_paired(right, usual, unit_numbers(rows.groups))
            usual = right if usual is None else usual
            cost = replace(cost, accuracy=float(right.mean()), n=len(right), against_first=against)
        judged[way] = cost
    return judged


def _embedded(network: Network, size: int, images: NDArray[np.uint8], what: str) -> Array:
    parts = list[Array]()
    with image_bar(what, len(images)) as advance:
        for part in in_threads(lambda some: network.embed(images[some]), blocks(len(images), size)):
            parts.append(part)
            advance(len(part))
    return np.concatenate(parts)


def _right(exact: Split, rows: Split) -> NDArray[np.bool_]:
    """Return which rows (n,) a head is right of that was fitted on others; folds are those of the exact rows."""
    right = np.zeros(len(rows), bool)
    for fit, held in split_folds(exact, fold_count(exact), seed=0):
        scaler = Scaler.of(rows.view(fit))
        head = Ridge(float(len(fit))).fit(scaler.over(rows.view(fit)), rows.labels[fit])
        right[held] = head.predict(scaler(rows.features[held])) == rows.labels[held]
    return right


def _drawn(dataset: Dataset, sample: int, preprocess: Preprocess) -> tuple[NDArray[np.uint8], Split]:
    """Return images that are not for testing, as the network takes them, and their labels, -1 where there are none.

    Labels that are no classes are left out.
    """
    if dataset.task != CLASSIFY:
        say("Accuracy is told of classes alone; the labels are left out.")
    open_ = np.flatnonzero(np.array(dataset.splits) != "test")
    order = np.random.default_rng(0).permutation(open_)[:sample]

    def decoded(number_: int) -> NDArray[np.uint8] | None:
        try:
            return prepare(dataset.read(number_), preprocess, kernel=kernel)[0]
        except (ImageReadError, BadImageError):
            return None

    numbers, pixels = list[int](), list[NDArray[np.uint8]]()
    with Resizing(len(order)) as kernel, image_bar("decoding", len(order)) as advance:
        for row, image in zip(np.sort(order).tolist(), in_threads(decoded, np.sort(order).tolist()), strict=True):
            advance(1)
            if image is not None:
                numbers.append(row)
                pixels.append(image)
    if len(pixels) < 2:
        raise DataError(f"{dataset.name}: of {len(order)} images that are not for testing, {len(pixels)} can be used.")
    labels = dataset.labels[numbers] if dataset.task == CLASSIFY else np.full(len(numbers), -1)
    paths, groups = (tuple(names[row] for row in numbers) for names in (dataset.paths, dataset.groups))
    return np.stack(pixels), Split(np.empty((len(numbers), 0), np.float32), labels, paths, groups)
