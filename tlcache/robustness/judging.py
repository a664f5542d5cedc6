"""A comparison -> what each of its runs reaches on the same images made worse, and what fine-tuning gains on them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.deploying.answers import Answers, find_answers
from tlcache.errors import DataError
from tlcache.evaluation.comparison import Comparison, Entry
from tlcache.evaluation.significance import Units, clustered_interval, compare_paired, correct_for_many, unit_numbers
from tlcache.keys import canonical_json
from tlcache.robustness.judged import TestImages, judge
from tlcache.robustness.records import Gain, Gains, Reached, Robustness, RobustRun, record_path, write_robustness

__all__ = ["judged"]

Right = NDArray[np.int8]
MEAN, CLEAN = "mean", "clean"


def judged(
    found: Comparison, entries: Sequence[Entry], corruptions: Sequence[str], runs: Path, **how: Any
) -> Robustness:
    """Judge runs of a comparison on its test images, made worse, and record it.

    Parameters
    ----------
    entries
        Those that can be judged.
    corruptions
        Kinds and severities, like `blur:3`.
    runs
        Folder of run records.
    **how
        As for `tlcache.robustness.judged.judge`, whose errors these are.

    Raises
    ------
    DataError
        None of the images can be read any more.
    """
    predictions = entries[0].run.predictions().in_order()
    paths = [os.fsdecode(row) for row in predictions.row.tolist()]
    images = TestImages(entries[0].run.source, paths, predictions.label)
    right, embedded = _right(images, entries, corruptions, how)
    usable = np.logical_and.reduce([(each >= 0).all(axis=0) for each in right.values()])
    if not usable.any():
        raise DataError(
            f"None of the {len(paths):,} test images of '{found.dataset}' can be used any more; they were in "
            f"'{images.source}'. Put them back."
        )
    units = unit_numbers(predictions.group[usable])
    kept = {path: each[:, usable].astype(bool) for path, each in right.items()}
    pairs = [pair for pair in found.tunings if {pair.a.run.path, pair.b.run.path} <= kept.keys()]
    made = Robustness(
        dataset=found.dataset,
        digest=found.digest,
        images=int(usable.sum()),
        unusable=int((~usable).sum()),
        corruptions=tuple(corruptions),
        embedded=embedded,
        runs=tuple(_run(entry, kept[entry.run.path], corruptions, units) for entry in entries),
        tunings=tuple(
            _gains(pair.a, pair.b, kept[pair.a.run.path], kept[pair.b.run.path], corruptions, units) for pair in pairs
        ),
        record=record_path(runs, found.dataset, found.digest),
    )
    write_robustness(made)
    return made


def _right(
    images: TestImages, entries: Sequence[Entry], corruptions: Sequence[str], how: Mapping[str, Any]
) -> tuple[dict[Path, Right], int]:
    """Return by record which images each run classifies rightly, and how many were embedded; a network at a time."""
    by_network: dict[str, list[Entry]] = {}
    answers = dict[Path, Answers]()
    for entry in entries:
        answers[entry.run.path] = own = find_answers(entry.run.path)
        by_network.setdefault(canonical_json([list(each) for each in own.networks]), []).append(entry)
    found, embedded = dict[Path, Right](), 0
    for group in by_network.values():
        own_answers = [answers.pop(entry.run.path) for entry in group]  # heads may be large: those of one network
        right, count = judge(images, own_answers, corruptions, **how)
        found |= {entry.run.path: each for entry, each in zip(group, right, strict=True)}
        embedded += count
    return found, embedded


def _tiled(right: NDArray[np.bool_], units: Units | None) -> Units:
    """Return the number of each image's group for all corruptions: one image, made worse in many ways, stays one."""
    own = np.arange(right.shape[1]) if units is None else units
    return np.tile(own, len(right))


def _run(entry: Entry, right: NDArray[np.bool_], corruptions: Sequence[str], units: Units | None) -> RobustRun:
    each = tuple(
        Reached(name, float(row.mean()), *clustered_interval(row, units))
        for name, row in zip(corruptions, right, strict=True)
    )
    mean = Reached(MEAN, float(right.mean()), *clustered_interval(right.ravel(), _tiled(right, units)))
    clean = Reached(CLEAN, entry.accuracy, entry.low, entry.high)
    return RobustRun(entry.run.path.stem, entry.backbone, entry.head, entry.run.strategy, clean, mean, each)


def _gains(
    tuned: Entry,
    frozen: Entry,
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    corruptions: Sequence[str],
    units: Units | None,
) -> Gains:
    found = [compare_paired(a, b, units) for a, b in zip(first, second, strict=True)]
    over = compare_paired(first.ravel(), second.ravel(), _tiled(first, units))
    corrected = correct_for_many([each.p for each in found])
    each = tuple(
        Gain(name, one.difference, one.low, one.high, float(p))
        for name, one, p in zip(corruptions, found, corrected, strict=True)
    )
    mean = Gain(MEAN, over.difference, over.low, over.high, over.p)
    return Gains(tuned.name, frozen.name, mean, each)
