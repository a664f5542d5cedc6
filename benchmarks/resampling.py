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

from tlcache.evaluation.resampled import compare_folds, error_of, resampled

__all__ = ["simulate"]

_DIM, _FOLDS, _REPEATS, _APART = 12, 5, 2, 0.35
_SHARE = 1 / (_FOLDS - 1)


def simulate(images: int, times: int, seed: int = 0) -> dict[str, float]:
    """Return the shares of so many simulations."""
    random, sums = np.random.default_rng(seed), np.zeros(4)
    fitted = images - images // _FOLDS
    truth = np.mean([_right(*_draw(random, fitted), *_draw(random, 5000)).mean() for _ in range(400)])
    for _ in range(times):
        X, y = _draw(random, images)
        folds = [random.permutation(images) % _FOLDS for _ in range(_REPEATS)]
        halves = [_tested(X[:, half], y, folds) for half in (slice(0, _DIM // 2), slice(_DIM // 2, None))]
        fold = np.concatenate([each + _FOLDS * number for number, each in enumerate(folds)])
        right, counts = _tested(X, y, folds), np.bincount(fold)
        apart = np.bincount(fold, halves[0].astype(float) - halves[1]) / counts
        found = resampled(np.bincount(fold, right) / counts, _SHARE, error_of(right))
        plain = resampled(np.bincount(fold, right) / counts, 0.0)
        sums += [
            found.low <= truth <= found.high,
            plain.low <= truth <= plain.high,
            compare_folds(halves[0], halves[1], fold, _SHARE).p < 0.05,
            resampled(apart, 0.0).p < 0.05,
        ]
    names = ("covers", "covers_uncorrected", "calls_equal_different", "calls_equal_different_uncorrected")
    shares = {name: round(float(value) / times, 4) for name, value in zip(names, sums, strict=True)}
    return {"images": images, "simulations": times, **shares}


def _draw(random: np.random.Generator, images: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    y = np.arange(images) % 2
    return random.standard_normal((images, _DIM)) + _APART * (2 * y[:, None] - 1), y


def _right(
    X: NDArray[np.float64], y: NDArray[np.int64], X_test: NDArray[np.float64], y_test: NDArray[np.int64]
) -> NDArray[np.bool_]:
    wide, wide_test = (np.column_stack([each, np.ones(len(each))]) for each in (X, X_test))
    weights = np.linalg.lstsq(wide, 2.0 * y - 1, rcond=None)[0]
    found: NDArray[np.bool_] = (wide_test @ weights > 0) == y_test
    return found


def _tested(X: NDArray[np.float64], y: NDArray[np.int64], folds: Sequence[NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Return whether each image was classified rightly, in every repetition."""
    found = np.empty((len(folds), len(y)), np.bool_)
    for row, fold in zip(found, folds, strict=True):
        for k in range(_FOLDS):
            row[fold == k] = _right(X[fold != k], y[fold != k], X[fold == k], y[fold == k])
    return found.ravel()


if __name__ == "__main__":
    simulations = int(sys.argv[1]) if sys.argv[1:] else 2000
    for n in (100, 400):
        print(json.dumps(simulate(n, simulations)), flush=True)
