"""Recorded runs -> comparisons: every two runs on the same test images, image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlcache.backbones.backbone import BACKBONES
from tlcache.datasets.dataset import names_of
from tlcache.errors import CacheError
from tlcache.evaluation.baseline import Baseline
from tlcache.evaluation.comparison import Comparison, Entry, Pair
from tlcache.evaluation.metrics import balanced_accuracy, confusion
from tlcache.evaluation.significance import (
    LEVEL,
    clustered_interval,
    compare_paired,
    correct_for_many,
    unit_numbers,
)
from tlcache.evaluation.verdict import verdict
from tlcache.keys import slug
from tlcache.progress import warn
from tlcache.runs.naming import backbone_label, head_label
from tlcache.runs.record import Run, read_predictions, read_runs, runs_folder

__all__ = ["compare", "compare_runs"]


def compare(
    runs: str | Path | None = None, data: str | None = None, tell: Callable[[str], None] = warn
) -> list[Comparison]:
    """Compare all recorded runs, those of each dataset and split among themselves.

    The best is the most accurate on the test images; a run that is not shown to be less accurate, by McNemar's test on
    the same images, is called best too. p is corrected for all pairs of runs (Holm, 1979), not for those with the best
    alone: which one that is was seen on these images. (Simulated with 16 equal runs, that would call some run worse
    14 % of the time, this 2 %.)

    Parameters
    ----------
    runs
        Folder of run records; default `TLCACHE_RUNS`, else `runs`.
    data
        Name of a dataset, or its folder or manifest; default: all.
    tell
        Called with a sentence for each record that cannot be read and is left out; default: warns on standard error.

    Returns
    -------
    list of Comparison
        By dataset; of one dataset, the split that was used last first.

    Raises
    ------
    CacheError
        No runs that can be read, or none of that dataset.

    Examples
    --------
    >>> runs = fit_heads([feature_file], heads=["ridge", "knn", "logreg"], runs=folder)
    >>> (found,) = compare(folder)
    >>> len(found.entries), len(found.pairs)
    (3, 3)
    """
    folder = runs_folder(runs)
    only = None if data is None else [slug(name) for name in names_of(data)]
    read = read_runs(folder, tell, only) or read_runs(folder, tell)  # all of them where it is to be said what there is
    found = compare_runs(_chosen(read, folder, data), tell)
    if not found:
        raise CacheError(f"No run in '{folder}' has predictions that can be read. Do them again: tlcache fit-heads")
    return found


def compare_runs(runs: Iterable[Run], tell: Callable[[str], None] = warn) -> list[Comparison]:
    """Compare these runs, those of each dataset and split among themselves."""
    alike: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.fields["created"], reverse=True):
        alike.setdefault((run.fields["dataset"], run.fields["dataset_digest"]), []).append(run)
    ordered = sorted(alike.items(), key=lambda item: item[0][0])
    found = (_compare(dataset, digest, group, tell) for (dataset, digest), group in ordered)
    return [each for each in found if each]


def _chosen(runs: Iterable[Run], folder: Path, data: str | None) -> Iterator[Run]:
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.fields["dataset"], []).append(run)
    if not by_name:
        raise CacheError(f"No runs are recorded in '{folder}'. Make some with: tlcache fit-heads")
    if data is None:
        wanted = list(by_name)
    else:
        wanted = [name for name in names_of(data) if name in by_name][:1]
        if not wanted:
            raise CacheError(
                f"No runs on '{data}' are recorded in '{folder}'; there are some on: {', '.join(by_name)}."
            )
    for name in wanted:
        yield from by_name[name]


@dataclass(frozen=True)
class _Tested:
    """A run with what it said of each test image, in one order for all runs."""

    run: Run
    right: NDArray[np.bool_]
    balanced_accuracy: float
    interval: tuple[float, float]


def _compare(dataset: str, digest: str, runs: Sequence[Run], tell: Callable[[str], None]) -> Comparison | None:
    """Compare runs on the same test images; None when the predictions of none can be read."""
    rows = units = None
    tested = []
    for run, stored in read_predictions(runs, tell):
        order = np.argsort(stored["row"])
        if rows is None:
            rows, units = stored["row"][order], unit_numbers(stored["group"][order])
        if not np.array_equal(stored["row"][order], rows):
            raise CacheError(
                f"The predictions of '{run.path}' are not those of its dataset. Remove it, and run it again."
            )
        labels = stored["label"][order]
        tested.append(_test(run, labels, stored["probabilities"][order], units))
    if not tested:
        return None
    tested.sort(key=_rank)
    two = list(combinations(range(len(tested)), 2))
    found = [compare_paired(tested[a].right, tested[b].right, units) for a, b in two]
    corrected = correct_for_many([each.p for each in found])
    worse = {b for (a, b), p in zip(two, corrected, strict=True) if a == 0 and p < LEVEL}
    named = [each.run for each in tested]
    entries = tuple(_entry(each, named, best=number not in worse) for number, each in enumerate(tested))
    pairs = tuple(
        Pair(entries[a], entries[b], difference, float(p))
        for (a, b), difference, p in zip(two, found, corrected, strict=True)
    )
    groups = None if units is None else int(units.max()) + 1
    baseline = Baseline.of(labels, named[0].fields["classes"])
    comparison = Comparison(dataset, digest, entries, pairs, "", groups, baseline)
    return replace(comparison, verdict=verdict(comparison))


def _test(
    run: Run, labels: NDArray[np.int64], probabilities: NDArray[np.float32], units: NDArray[np.int64] | None
) -> _Tested:
    predicted = probabilities.argmax(axis=1)
    right = predicted == labels
    balanced = balanced_accuracy(confusion(labels, predicted, probabilities.shape[1]))
    return _Tested(run, right, balanced, clustered_interval(right, units))


def _rank(tested: _Tested) -> tuple[float, float, str]:
    return -float(tested.right.mean()), tested.run.fields["test"]["log_loss"], str(tested.run.path)


def _entry(tested: _Tested, runs: Sequence[Run], best: bool) -> Entry:
    run, fields = tested.run, tested.run.fields
    extract_s, train_s = fields["extract"]["wall_s"], run.train_s
    low, high = tested.interval
    known = BACKBONES.get(fields["backbone"])
    return Entry(
        run=run,
        backbone=backbone_label(run, runs),
        head=head_label(run, runs),
        accuracy=float(tested.right.mean()),
        low=low,
        high=high,
        **{name: fields["test"][name] for name in ("macro_f1", "log_loss", "ece")},
        balanced_accuracy=tested.balanced_accuracy,
        extract_s=extract_s,
        train_s=train_s,
        first_s=extract_s + train_s,
        images_per_s=sum(fields["rows"].values()) / extract_s,
        parameters=known.parameters if known else None,
        best=best,
    )
