"""A bundle whose network computes in less than float32, and what that costs on validation images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import InferenceSession

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
from tlcache.heads.fitted import FittedHead
from tlcache.heads.rows import blocks
from tlcache.images import BadImageError, Preprocess, Resizing, prepare
from tlcache.keys import canonical_json, slug
from tlcache.probing.session import opened
from tlcache.progress import image_bar, say
from tlcache.runs.frozen import FrozenRun
from tlcache.runs.record import Run
from tlcache.threads import in_threads

__all__ = ["Cost", "make_smaller"]

_CALIBRATED, _MEASURED = 128, 2_000  # train images that show the ranges, validation images at most
_BATCH, _TIMED = 16, 64  # images at a time, and those that show how fast it is
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
    shown = source.images([train.paths[row] for row in np.sort(random.permutation(len(train))[:_CALIBRATED])])
    measured = val.of(np.sort(random.permutation(len(val))[:_MEASURED]))
    say(f"converting the network to {precision}, and measuring it on {len(measured):,} validation images ...")
    whole = onnx.load_model_from_string(bundle)
    network = to_precision(serialized(alone(whole, "embedding")), precision, shown)
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
    sessions = [open_session(each) for each in bundles]
    judge = None if saved.tuned else saved.head.refitted(train.features, train.labels)  # whose own has seen validation
    cached = judge is not None and source.precision == "fp32"
    found = _right(sessions[cached:], judge, val, source, f"measuring {precision}")
    after, before = found[-1], found[0]
    if judge is not None and cached:
        before = judge.predict_proba(val.features).argmax(axis=1) == val.labels
    difference: Difference = compare_paired(after, before, unit_numbers(val.groups))
    accuracies = {"before": float(before.mean()), "after": float(after.mean())}
    spent = [_seconds(session, source.images(val.paths[:_TIMED])) for session in sessions]
    return Cost(precision, len(val), **accuracies, low=difference.low, high=difference.high, faster=spent[0] / spent[1])


def _right(
    sessions: Sequence[InferenceSession], judge: FittedHead | None, val: Split, source: _Source, what: str
) -> NDArray[np.bool_]:
    """Return which images are classified rightly, (bundles, n), by the bundles' own heads or by `judge`."""

    def some_right(some: slice) -> NDArray[np.bool_]:
        images = source.images(val.paths[some])
        both = [run(session, images, ["probabilities", "embedding"]) for session in sessions]
        answers = [own if judge is None else judge.predict_proba(rows) for own, rows in both]
        return np.stack([each.argmax(axis=1) == val.labels[some] for each in answers])

    parts = list[NDArray[np.bool_]]()
    with Resizing(len(val)), image_bar(what, len(val)) as advance:
        for part in in_threads(some_right, blocks(len(val), _BATCH)):
            parts.append(part)
            advance(part.shape[1])
    return np.concatenate(parts, axis=1)


def _seconds(session: InferenceSession, images: NDArray[np.uint8]) -> float:
    """Return how long one core takes for some images."""
    began = time.thread_time()
    for some in blocks(len(images), _BATCH):
        run(session, images[some], ["probabilities"])
    return time.thread_time() - began


def _splits(saved: Saved) -> tuple[Split, Split]:
    """Return the train and validation rows of a run, from its feature file."""
    record = saved.run
    assert record is not None
    place = features_folder() / record.dataset / f"{slug(record.backbone)}-{record.key[:12]}.h5"
    paths = [*map(Path, record.feature_files)] if isinstance(record, FrozenRun) else [place]
    try:
        with opened(paths, record.split, saved.path.parents[1], record.drawn_by) as file:
            train, val = file.split("train"), file.split("val")
    except CacheError as error:
        raise CacheError(f"What was trained and validated on says the feature file of the run. {error}") from None
    if not len(val):
        raise OptionError(f"'{paths[0]}' has no validation images, by which a loss could be seen.")
    return train, val


class _Source:
    """The images of a run, as its network takes them, and the precision of their embeddings."""

    def __init__(self, run: Run, preprocess: Preprocess) -> None:
        self.precision = run.precision
        self._read, self._preprocess = reopen(run.source).read, preprocess

    def images(self, paths: Sequence[str]) -> NDArray[np.uint8]:
        """Return some of the images, uint8 (n, 3, H, W)."""
        return np.stack([self.image(path) for path in paths])

    def image(self, path: str) -> NDArray[np.uint8]:
        """Return one of the images, uint8 (3, H, W)."""
        try:
            return prepare(self._read(path), self._preprocess)[0]
        except (ImageReadError, BadImageError) as error:
            raise CacheError(
                f"Another precision is measured on the images of the run, and one cannot be had. {error}"
            ) from None
