"""Recorded runs -> comparisons: every two runs on the same test images, image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from tlcache.arguments import OnlyDatasets, Runs
from tlcache.backbones.sources import lookup
from tlcache.errors import CacheError
from tlcache.evaluation.baseline import Baseline
from tlcache.evaluation.comparison import Comparison, Entry, Pair
from tlcache.evaluation.metrics import figures
from tlcache.evaluation.significance import (
    LEVEL,
    Units,
    clustered_interval,
    compare_paired,
    correct_for_many,
    unit_numbers,
)
from tlcache.options import described
from tlcache.progress import warn
from tlcache.runs.folder import list_runs, runs_folder
from tlcache.runs.naming import backbone_label, head_label
from tlcache.runs.predictions import Predictions, TopPredictions
from tlcache.runs.record import Run

__all__ = ["compare", "compare_runs"]


@described()
def compare(runs: Runs = None, data: OnlyDatasets = None, on_warning: Callable[[str], None] = warn) -> list[Comparison]:
    """Compare all recorded runs, those of each dataset and split among themselves.

    The best is the most accurate on the test images; a run that is not shown to be less accurate, by McNemar's test on
    the same images, is called best too. p is corrected for all pairs of runs (Holm, 1979), not for those with the best
    alone: which one that is was seen on these images. (Simulated with 16 equal runs, that would call some run worse
    14 % of the time, this 2 %.)

    Parameters
    ----------
    on_warning
        Called with a sentence for each record that cannot be read and is left out; default: it is logged as a warning.

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
    found = compare_runs(list_runs(runs, data, on_warning), on_warning)
    if not found:
        where = runs_folder(runs)
        raise CacheError(f"No run in '{where}' has predictions that can be read. Do them again: tlcache fit-heads")
    return found


def compare_runs(runs: Iterable[Run], on_warning: Callable[[str], None] = warn) -> list[Comparison]:
    """Compare these runs, those of each dataset and split among themselves."""
    alike: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.created, reverse=True):
        alike.setdefault((run.dataset, run.dataset_digest), []).append(run)
    ordered = sorted(alike.items(), key=lambda item: item[0][0])
    found = (_compare(dataset, digest, group, on_warning) for (dataset, digest), group in ordered)
    return [each for each in found if each]


@dataclass(frozen=True)
class _Tested:
    """A run with what it said of each test image, in one order for all runs."""

    run: Run
    top: TopPredictions
    figures: Mapping[str, float]
    interval: tuple[float, float]

    @classmethod
    def of(cls, run: Run, found: Predictions, units: Units | None) -> _Tested:
        top, known = found.top(), run.test.others
        if "balanced_accuracy" not in known:  # in records of earlier versions
            known = {**known, **figures(found.label, found.probabilities, units)}
        return cls(run, top, known, clustered_interval(top.right, units))


def _compare(dataset: str, digest: str, runs: Sequence[Run], on_warning: Callable[[str], None]) -> Comparison | None:
    """Compare runs on the same test images; None when the predictions of none can be read."""
    rows = units = None
    tested = []
    for run in runs:
        try:
            found = run.predictions().in_order()
        except CacheError as error:
            on_warning(f"{error} Until then it is left out.")
            continue
        if rows is None:
            rows, units = found.row, unit_numbers(found.group)
        if not np.array_equal(found.row, rows):
            raise CacheError(
                f"The predictions of '{run.path}' are not those of its dataset. Remove it, and run it again."
            )
        tested.append(_Tested.of(run, replace(found, row=rows), units))
    if not tested:
        return None
    tested.sort(key=_rank)
    two = list(combinations(range(len(tested)), 2))
    differences = [compare_paired(tested[a].top.right, tested[b].top.right, units) for a, b in two]
    corrected = correct_for_many([each.p for each in differences])
    worse = {b for (a, b), p in zip(two, corrected, strict=True) if a == 0 and p < LEVEL}
    named = [each.run for each in tested]
    entries = tuple(_entry(each, named, best=number not in worse) for number, each in enumerate(tested))
    pairs = tuple(
        Pair(entries[a], entries[b], difference, float(p))
        for (a, b), difference, p in zip(two, differences, corrected, strict=True)
    )
    groups = None if units is None else int(units.max()) + 1
    baseline = Baseline.of(tested[0].top.label, named[0].classes)
    return Comparison(dataset, digest, entries, pairs, groups, baseline)


def _rank(tested: _Tested) -> tuple[float, float, str]:
    return -float(tested.top.right.mean()), tested.run.test.log_loss, str(tested.run.path)


def _entry(tested: _Tested, runs: Sequence[Run], best: bool) -> Entry:
    run = tested.run
    extract_s, train_s = run.extract.wall_s, run.train_s
    low, high = tested.interval
    known = lookup(run.backbone)
    return Entry(
        run=run,
        top=tested.top,
        backbone=backbone_label(run, runs),
        head=head_label(run, runs),
        accuracy=float(tested.top.right.mean()),
        low=low,
        high=high,
        macro_f1=run.test.macro_f1,
        log_loss=run.test.log_loss,
        ece=run.test.ece,
        figures=tested.figures,
        extract_s=extract_s,
        train_s=train_s,
        first_s=extract_s + train_s,
        images_per_s=run.rows.total / extract_s,
        parameters=known.parameters or None if known else None,
        best=best,
    )
