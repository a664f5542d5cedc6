"""A bundle whose network computes in less than float32, and what that costs on validation images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from exporters.classify import serialized, stated
from exporters.smaller import swapped, to_precision
from tlcache.backbones.engines import open_session
from tlcache.backbones.onnx_graph import alone
from tlcache.cache.feature_file import Split
from tlcache.cache.find import features_folder
from tlcache.datasets.dataset import reopen
from tlcache.deploying.parity import run
from tlcache.deploying.saved import Saved
from tlcache.errors import CacheError, ImageReadError, ModelError, OptionError
from tlcache.evaluation.significance import Difference, compare_paired, unit_numbers
from tlcache.heads.rows import blocks
from tlcache.images import BadImageError, Preprocess, prepare
from tlcache.keys import canonical_json, slug
from tlcache.probing.run import opened
from tlcache.progress import say
from tlcache.runs.frozen import FrozenRun
from tlcache.runs.record import Run

__all__ = ["Cost", "make_smaller"]

_CALIBRATED, _MEASURED = 128, 2_000  # train images that show the ranges, validation images at most
_BATCH = 16
_OF_NETWORK = ("identity", "network", "key")  # of the float32 one


@dataclass(frozen=True)
class Cost:
    """What a precision costs on `n` validation images that the head was not fitted on.

    Parameters
    ----------
    precision
        `fp16` or `int8`.
    n
        Validation images.
    before, after
        Accuracy in float32, and in this precision.
    low, high
        The 95 % interval of the difference (paired; by group where there are groups).
    faster
        How many times as fast it is here, on one core.
    """

    precision: str
    n: int
    before: float
    after: float
    low: float
    high: float
    faster: float

    def __str__(self) -> str:
        points = [f"{100 * each:+.1f}" for each in (self.after - self.before, self.low, self.high)]
        return (
            f"In {self.precision} the accuracy on {self.n:,} validation images is {self.after:.3f}, in fp32 "
            f"{self.before:.3f}: {points[0]} points (95 % interval {points[1]} to {points[2]}), "
            f"{self.faster:.2g} times as fast here."
        )


def make_smaller(
    saved: Saved, bundle: bytes, precision: str, preprocess: Preprocess, max_loss: float
) -> tuple[bytes, Cost]:
    """Return a bundle in another precision, and what it costs.

    Accuracies are those of the run's setting, fitted on the train images alone; a fine-tuned network is taken as it is.

    Parameters
    ----------
    max_loss
        Most points of accuracy that it may lose.

    Raises
    ------
    OptionError, CacheError, ModelError
        No record, images or embeddings to measure it by; the network cannot be converted; or it loses more, by all of
        the interval.
    """
    if saved.run is None:
        raise OptionError(f"What {precision} costs is measured on the images of the run, and its record is not here.")
    train, val = _splits(saved)
    source, random = _Source(saved.run, preprocess), np.random.default_rng(0)
    some = np.sort(random.permutation(len(train))[:_CALIBRATED])
    measured = val.of(np.sort(random.permutation(len(val))[:_MEASURED]))
    say(f"converting the network to {precision}, and measuring it on {len(measured):,} validation images ...")
    whole = onnx.load_model_from_string(bundle)
    network = to_precision(serialized(alone(whole, "embedding")), precision, source.images(train.paths, some))
    made = swapped(whole, network)
    kept = [entry for entry in made.metadata_props if entry.key not in _OF_NETWORK]
    del made.metadata_props[:]
    made.metadata_props.extend(kept)
    cost = _cost(saved, precision, (bundle, serialized(made)), train, measured, source)
    if 100 * cost.high < -max_loss:
        raise ModelError(f"{cost} It loses more than --max-loss {max_loss:g}. Nothing was written. Export it in fp32.")
    return serialized(stated(made, {"precision": precision, "cost": canonical_json(vars(cost))})), cost


def _cost(
    saved: Saved, precision: str, bundles: tuple[bytes, bytes], train: Split, val: Split, source: _Source
) -> Cost:
    sessions, judge = [open_session(each) for each in bundles], None
    if not saved.tuned:  # the run's own head has seen validation
        judge = saved.head.refitted(train.features, train.labels)
    right, spent = [np.empty(len(val), bool) for _ in bundles], [0.0, 0.0]
    for some in blocks(len(val), _BATCH):
        images = source.images(val.paths, np.arange(len(val))[some])
        for number, session in enumerate(sessions):
            began = time.thread_time()
            probabilities, embeddings = run(session, images, ["probabilities", "embedding"])
            spent[number] += time.thread_time() - began
            found = probabilities if judge is None else judge.predict_proba(embeddings)
            right[number][some] = found.argmax(axis=1) == val.labels[some]
    units = unit_numbers(val.groups)
    difference: Difference = compare_paired(right[1], right[0], units)
    accuracies = {"before": float(right[0].mean()), "after": float(right[1].mean())}
    interval = {"low": difference.low, "high": difference.high}
    return Cost(precision, len(val), **accuracies, **interval, faster=spent[0] / spent[1])


def _splits(saved: Saved) -> tuple[Split, Split]:
    """Return the train and validation rows of a run, from its feature file."""
    record = saved.run
    assert record is not None
    place = features_folder() / record.dataset / f"{slug(record.backbone)}-{record.key[:12]}.h5"
    path = Path(record.features) if isinstance(record, FrozenRun) else place
    try:
        with opened(path, record.split, saved.path.parents[1], record.drawn_by) as file:
            train, val = file.split("train"), file.split("val")
    except CacheError as error:
        raise CacheError(f"What was trained and validated on says the feature file of the run. {error}") from None
    if not len(val):
        raise OptionError(f"'{path}' has no validation images, by which a loss could be seen.")
    return train, val


class _Source:
    """The images of a run, as its network takes them."""

    def __init__(self, run: Run, preprocess: Preprocess) -> None:
        self._read, self._preprocess = reopen(run.source).read, preprocess

    def images(self, paths: tuple[str, ...], numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return some of the images, uint8 (n, 3, H, W)."""
        return np.stack(list(self._prepared(paths, numbers)))

    def _prepared(self, paths: tuple[str, ...], numbers: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        for number in numbers.tolist():
            try:
                yield prepare(self._read(paths[number]), self._preprocess)[0]
            except (ImageReadError, BadImageError) as error:
                raise CacheError(
                    f"Another precision is measured on the images of the run, and one cannot be had. {error}"
                ) from None
