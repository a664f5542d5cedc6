"""Whether intervals of cross-validation hold the truth: `python -m benchmarks.resampling`, a minute.

Least squares on two normal classes, 5 x 2 folds. One line of JSON for each number of images: how often the 95 %
interval holds the accuracy that heads of so many images have on average, by the corrected resampled test and without
its correction, and how often two that are equal on average are called different, with and without it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.resampled import resampled

__all__ = ["simulate"]

_DIM, _FOLDS, _REPEATS, _APART = 12, 5, 2, 0.35


def simulate(images: int, times: int, seed: int = 0) -> dict[str, float]:
    """Return the shares of so many simulations."""
    random, sums = np.random.default_rng(seed), np.zeros(4)
    fitted = images - images // _FOLDS
    truth = np.mean([_accuracy(*_draw(random, fitted), *_draw(random, 5000)) for _ in range(400)])
    for _ in range(times):
        X, y = _draw(random, images)
        folds = [random.permutation(images) % _FOLDS for _ in range(_REPEATS)]
        halves = [_each(X[:, half], y, folds) for half in (slice(0, _DIM // 2), slice(_DIM // 2, None))]
        each = _each(X, y, folds)
        for place, ratio in enumerate((1 / (_FOLDS - 1), 0.0)):
            found = resampled(each, ratio)
            sums[place] += found.low <= truth <= found.high
            sums[2 + place] += resampled(halves[0] - halves[1], ratio).p < 0.05
    names = ("covers", "covers_uncorrected", "calls_equal_different", "calls_equal_different_uncorrected")
    shares = {name: round(float(value) / times, 4) for name, value in zip(names, sums, strict=True)}
    return {"images": images, "simulations": times, **shares}


def _draw(random: np.random.Generator, images: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    y = np.arange(images) % 2
    return random.standard_normal((images, _DIM)) + _APART * (2 * y[:, None] - 1), y


def _accuracy(
    X: NDArray[np.float64], y: NDArray[np.int64], X_test: NDArray[np.float64], y_test: NDArray[np.int64]
) -> float:
    wide, wide_test = (np.column_stack([each, np.ones(len(each))]) for each in (X, X_test))
    weights = np.linalg.lstsq(wide, 2.0 * y - 1, rcond=None)[0]
    return float(((wide_test @ weights > 0) == y_test).mean())


def _each(X: NDArray[np.float64], y: NDArray[np.int64], folds: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the accuracy on every fold of every repetition."""
    found = []
    for fold in folds:
        found += [_accuracy(X[fold != k], y[fold != k], X[fold == k], y[fold == k]) for k in range(_FOLDS)]
    return np.array(found)


if __name__ == "__main__":
    simulations = int(sys.argv[1]) if sys.argv[1:] else 2000
    for n in (100, 400):
        print(json.dumps(simulate(n, simulations)), flush=True)
