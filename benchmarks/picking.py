"""What picking the best of many runs does to what is said of it: `python -m benchmarks.picking`, some minutes.

Equal runs of the true accuracy 0.9, which find the same images hard, as heads on one backbone do. One line of JSON for
each number of runs and of test images: how often the 95 % interval of the run that is shown holds 0.9, and by how many
points it is shown too good, where the best on the test images is shown and where the best on as many validation images
is; and how often some run is called worse than the one that is shown, where all are equal, and one that is 5 points
worse is.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tlcache.evaluation.significance import LEVEL, clustered_interval, compare_paired, correct_for_many

__all__ = ["simulate"]

_ACCURACY, _WORSE, _ALIKE = 0.9, 0.05, 0.8


def simulate(runs: int, images: int, times: int, seed: int = 0) -> dict[str, float]:
    """Return shares of so many simulations of equal runs, and of such where the last run is 5 points worse."""
    random, sums = np.random.default_rng(seed), dict[str, float]()
    for _ in range(times):
        val, test = (_right(random, runs, images, 0.0) for _ in range(2))
        shown = {"test": int(test.mean(axis=1).argmax()), "val": int(val.mean(axis=1).argmax())}
        for name, run in shown.items():
            low, high = clustered_interval(test[run])
            _add(sums, f"{name}_covers", low <= _ACCURACY <= high)
            _add(sums, f"{name}_points_too_good", 100 * (test[run].mean() - _ACCURACY))
        _add(sums, "val_calls_equal_worse", bool(_worse(test, shown["val"])))
        val, test = (_right(random, runs, images, _WORSE) for _ in range(2))
        _add(sums, "val_finds_worse", runs - 1 in _worse(test, int(val.mean(axis=1).argmax())))
    shares = {name: round(value / times, 4) for name, value in sums.items()}
    return {"runs": runs, "test_images": images, "simulations": times, **shares}


def _add(sums: dict[str, float], name: str, value: float) -> None:
    sums[name] = sums.get(name, 0.0) + float(value)


def _right(random: np.random.Generator, runs: int, images: int, worse: float) -> NDArray[np.bool_]:
    """Return which images each run answers rightly (runs, images); the last is less accurate by so much."""
    hard = _ALIKE * random.standard_normal(images)
    scores = hard + (1 - _ALIKE**2) ** 0.5 * random.standard_normal((runs, images))
    accuracies = np.full((runs, 1), _ACCURACY)
    accuracies[-1] -= worse
    right: NDArray[np.bool_] = scores < stats.norm.ppf(accuracies)
    return right


def _worse(test: NDArray[np.bool_], shown: int) -> set[int]:
    others = [run for run in range(len(test)) if run != shown]
    found = [compare_paired(test[shown], test[run]) for run in others]
    corrected = correct_for_many([each.p for each in found])
    three = zip(others, found, corrected, strict=True)
    return {run for run, each, p in three if p < LEVEL and each.difference > 0}


if __name__ == "__main__":
    simulations = int(sys.argv[1]) if sys.argv[1:] else 2000
    for k, n in ((14, 150), (14, 1333), (48, 150), (48, 1333), (16, 300)):
        print(json.dumps(simulate(k, n, simulations)), flush=True)
