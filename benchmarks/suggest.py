"""How many labels `tlcache suggest` saves: images are labelled by its lists, and at random, until that is enough.

    python -m benchmarks.suggest features/flowers102_small/mobilenetv2-....h5 [--draws 20]

Of a labelled feature file, train and val are the pool and test is the test. A draw labels some images at random, then
goes on in steps, each strategy by its own list and "random" at random. What counts is how many labels it takes until
the test accuracy of a ridge head is 95 % of what all labels give, linear between steps; differences to random are
paired by draw, with 95 % intervals. Before that: what as many labels are worth that are the first ones, by typicality
and at random. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.auditing.neighbours import fit_space
from tlcache.cache.feature_file import FeatureFile, Split
from tlcache.heads.ridge import Ridge
from tlcache.heads.rows import Array, Indices, Scaler
from tlcache.suggesting.strategies import STRATEGIES, Pool, choose

ENOUGH = 0.95  # of the accuracy with all labels
SAME = 0.95  # cosine in the whitened space from which images are nearly the same, as pixels are not looked at here
GROWTH = 1.35  # of the labels, from step to step


class Head:
    """A ridge head on some labelled rows: accuracy on others, and doubt about them."""

    def __init__(self, rows: Split) -> None:
        self._scaler = Scaler.of(rows.features)
        self._head = Ridge(1000.0).fit(self._scaler.over(rows.features), rows.labels)

    def logits(self, X: Array) -> Array:
        """Return float32 (n, C)."""
        return self._head.logits(self._scaler.over(X))

    def accuracy(self, rows: Split) -> float:
        """Return the share of rows that are right."""
        return float((self._head.classes_[self.logits(rows.features).argmax(axis=1)] == rows.labels).mean())

    def doubt(self, X: Array) -> Array:
        """Return 1 less the margin between the two largest logits: float32 (n,)."""
        highest = np.partition(self.logits(X), -2, axis=1)[:, -2:]
        return 1 - (highest[:, 1] - highest[:, 0])


def main() -> None:
    """Simulate each feature file and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suggest", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    options = parser.parse_args()
    print(
        json.dumps({str(path): simulate(path, options.draws, options.strategies.split(",")) for path in options.files})
    )


def simulate(path: Path, draws: int, strategies: list[str]) -> dict[str, Any]:
    """Return and print, per strategy, labels needed and the difference to random."""
    with FeatureFile(path) as file:
        pool, test, name = file.split("train", "val"), file.split("test"), file.attrs["dataset"]
    rows, full = fit_space(pool.features)(pool.features), Head(pool).accuracy(test)
    print(f"\n{name}: {len(pool):,} images, {full:.3f} with all labels, {ENOUGH * full:.3f} is enough", flush=True)
    _print_first(pool, test, rows, draws)
    needed: dict[str, list[float]] = {each: [] for each in ("random", *strategies)}
    for draw in range(draws):
        for each, found in needed.items():
            found.append(_labels_needed(pool, test, rows, each, draw, ENOUGH * full))
    random = np.array(needed["random"])
    return {each: _told(each, np.array(found), random) for each, found in needed.items()}


def _print_first(pool: Split, test: Split, rows: Array, draws: int) -> None:
    """Print the accuracy with as few labels as a draw begins with, where nothing is labelled before."""
    count = 2 * (int(pool.labels.max()) + 1)
    picks = choose(Pool(rows, rows[:0], partial(_is_known, rows, rows[:0])), count, "typicality")
    typical = Head(pool.of(np.array([pick.row for pick in picks]))).accuracy(test)
    drawn = (np.random.default_rng(draw).permutation(len(pool))[:count] for draw in range(draws))
    random = [Head(pool.of(some)).accuracy(test) for some in drawn]
    below = sum(each < typical for each in random)
    print(
        f"the first {count}: typicality {typical:.3f}, random {np.mean(random):.3f}, less in {below} of {draws} draws"
    )


def _labels_needed(pool: Split, test: Split, rows: Array, strategy: str, draw: int, enough: float) -> float:
    random = np.random.default_rng(draw)
    classes = int(pool.labels.max()) + 1
    labelled = random.permutation(len(pool))[: 2 * classes]
    before: tuple[int, float] | None = None
    while True:
        head = Head(pool.of(labelled))
        accuracy = head.accuracy(test)
        if accuracy >= enough or len(labelled) == len(pool):
            break
        before = len(labelled), accuracy
        rest = np.setdiff1d(np.arange(len(pool)), labelled)
        wanted = min(len(rest), round((GROWTH - 1) * len(labelled)))
        labelled = np.concatenate([labelled, rest[_chosen(pool, rows, labelled, rest, strategy, head, wanted, random)]])
    if before is None:
        return float(len(labelled))
    share = (enough - before[1]) / max(accuracy - before[1], 1e-9)
    return before[0] + min(1.0, share) * (len(labelled) - before[0])


def _chosen(
    pool: Split,
    rows: Array,
    labelled: Indices,
    rest: Indices,
    strategy: str,
    head: Head,
    wanted: int,
    random: np.random.Generator,
) -> Indices:
    """Return which of the rest are labelled next; at random where a strategy has no more that are not nearly known."""
    order = random.permutation(len(rest))
    if strategy == "random":
        return order[:wanted]
    own, known = rows[rest], rows[labelled]
    picks = choose(Pool(own, known, partial(_is_known, own, known), head.doubt(pool.features[rest])), wanted, strategy)
    first = np.array([pick.row for pick in picks], np.int64)
    return np.concatenate([first, order[~np.isin(order, first)]])[:wanted]


def _is_known(own: Array, known: Array, row: int, taken: list[int]) -> bool:
    return bool(max((known @ own[row]).max(initial=-1), (own[taken] @ own[row]).max(initial=-1)) > SAME)


def _told(name: str, found: NDArray[np.float64], random: NDArray[np.float64]) -> Mapping[str, float]:
    difference = found - random
    spread = 1.96 * float(difference.std(ddof=1)) / len(found) ** 0.5 if len(found) > 1 else float("nan")
    print(
        f"{name:12} {found.mean():7.0f} labels   against random {difference.mean():+6.0f} (+- {spread:.0f}), "
        f"fewer in {int((difference < 0).sum())} of {len(found)} draws",
        flush=True,
    )
    return {"labels": float(found.mean()), "difference": float(difference.mean()), "interval": spread}


if __name__ == "__main__":
    main()
