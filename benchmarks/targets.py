"""What paths of several labels cost, and what intervals of numbers hold: `python -m benchmarks.targets [RUN ...]`.

Without a run, a head's whole path of eight penalties is fitted on 5,000 x 1,280 made-up embeddings with 80 labels and
with 80 classes, in turn. Of recorded runs that learned a number, the conformal interval is measured on their test
predictions: thousands of times half of these say the margin, and the others how often it holds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from tlcache.evaluation.multilabel import estimates
from tlcache.evaluation.regression import conformal_margin
from tlcache.heads.logits import logistic
from tlcache.heads.rows import View
from tlcache.heads.table import find_head
from tlcache.runs.record import RUNS

__all__ = ["held", "main", "measure_coverage", "measure_paths"]

_TIMES, _DRAWS = 3, 5_000
_PATHS = {
    "logreg": ("C", (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)),
    "ridge": ("alpha", (1e5, 3e4, 1e4, 3e3, 1e3, 3e2, 1e2, 1e1)),
}


def main(runs: Sequence[str]) -> None:
    """Print one line of JSON for each run, or without any for each head."""
    for found in map(measure_coverage, runs) if runs else map(measure_paths, _PATHS):
        print(json.dumps(found))  # noqa: T201


def measure_paths(name: str, n: int = 5_000, dim: int = 1_280, labels: int = 80) -> dict[str, Any]:
    """Return the seconds of a path with labels and with classes, the least of three rounds.

    `map_apart` is how far the mean average precision of the last head is from scikit-learn's.
    """
    random, (parameter, values) = np.random.default_rng(0), _PATHS[name]
    X = random.normal(size=(n, dim)).astype(np.float32)
    scores = X @ random.normal(size=(dim, labels)) / np.sqrt(dim) + random.normal(size=(n, labels))
    has, classes = (scores > 1.5).astype(np.uint8), scores.argmax(axis=1)
    kind, settings = find_head(name).type(), [{parameter: value} for value in values]
    ways: dict[str, Callable[[], Any]] = {
        "labels": lambda: kind.fit_columns(settings, View(X), has),
        "classes": lambda: kind.fit_each(settings, View(X), classes),
    }
    rounds = [{way: _seconds(fit) for way, fit in ways.items()} for _ in range(_TIMES)]
    found: dict[str, Any] = {"head": name}
    for way in ways:
        cpu, wall = np.min([each[way] for each in rounds], axis=0)
        found |= {f"{way}_cpu_s": round(float(cpu), 2), f"{way}_wall_s": round(float(wall), 2)}
    probabilities = logistic(kind.fit_columns(settings[-1:], View(X), has)[0].logits(X))
    ours = estimates(has, probabilities, np.full(labels, 0.5))["mean_average_precision"].value
    return {**found, "map_apart": float(abs(ours - average_precision_score(has, probabilities)))}


def _seconds(fit: Callable[[], Any]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    fit()
    return time.process_time() - cpu, time.perf_counter() - wall


def measure_coverage(record: str) -> dict[str, Any]:
    """Return how often intervals for 90 % hold, over random halves of the test predictions of a record."""
    run = RUNS.read(Path(record))
    found = run.predictions()
    apart = np.abs(found.label - found.probabilities).ravel()
    shares = np.fromiter(held(apart, 0.9), float)
    low, high = np.quantile(shares, [0.05, 0.95])
    return {
        "run": run.path.stem,
        "n": len(apart),
        "mae": round(float(apart.mean()), 4),
        "coverage": round(float(shares.mean()), 4),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "recorded": run.interval and round(run.interval.test_coverage, 3),
    }


def held(apart: NDArray[np.float64], coverage: float, draws: int = _DRAWS) -> Iterator[float]:
    """Yield how often the margin that half of some absolute errors (n,) say holds for the other half."""
    random = np.random.default_rng(0)
    for _ in range(draws):
        first, rest = np.array_split(random.permutation(apart), 2)
        yield float((rest <= conformal_margin(first, coverage)).mean())


if __name__ == "__main__":
    main(sys.argv[1:])
