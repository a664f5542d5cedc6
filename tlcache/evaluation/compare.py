"""Recorded runs -> comparisons: every two runs on the same test images, image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import isnan, nan

import numpy as np
from numpy.typing import NDArray

from tlcache.arguments import By, Margin, OnlyDatasets, Runs
from tlcache.backbones.sources import lookup
from tlcache.errors import CacheError, OptionError
from tlcache.evaluation.baseline import Baseline
from tlcache.evaluation.comparison import Comparison, Entry, Groups, Pair
from tlcache.evaluation.estimates import Estimate, compare_figures
from tlcache.evaluation.metrics import estimates, figures
from tlcache.evaluation.multilabel import right as multilabel_right
from tlcache.evaluation.perclass import class_figures
from tlcache.evaluation.picking import pick_order
from tlcache.evaluation.resampled import compare_folds
from tlcache.evaluation.significance import (
    LEVEL,
    Difference,
    Units,
    clustered_interval,
    compare_paired,
    correct_for_many,
    unit_numbers,
)
from tlcache.evaluation.task import TASKS, figure_of, larger_is_better, task_named
from tlcache.options import described
from tlcache.progress import warn
from tlcache.runs.classes import ClassFigures
from tlcache.runs.folder import list_runs, runs_folder
from tlcache.runs.naming import backbone_label, head_label
from tlcache.runs.predictions import Predictions, TopPredictions
from tlcache.runs.record import Run
from tlcache.tasks import CLASSIFY, MULTILABEL, REGRESSION, USUAL

__all__ = ["compare", "compare_runs"]

_ROUNDING = 1e-4  # of probabilities: another number of threads adds up in another order


@described()
def compare(
    runs: Runs = None,
    data: OnlyDatasets = None,
    on_warning: Callable[[str], None] = warn,
    by: By = "accuracy",
    margin: Margin = None,
) -> list[Comparison]:
    """Compare all recorded runs, those of each dataset and split among themselves.

    The same head with and without `--coverage` is one, that with it.

    One is picked by what was held out of train and test alike, so that its figures on the test images are not those of
    the luckiest of many; where there are heads, that is no fine-tuning of which no epoch was kept. It is called best,
    and so is every run that is not shown to be worse than it, by McNemar's test on the same images, corrected for their
    number (Holm, 1979). Where a record does not say what it reached on validation, the best on the test images is
    picked, and p is corrected for all pairs of runs.

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
    CacheError, OptionError
        No runs that can be read, or none of that dataset; none that has the figure.

    Examples
    --------
    >>> runs = fit_heads([feature_file], heads=["ridge", "knn", "logreg"], runs=folder)
    >>> (found,) = compare(folder)
    >>> len(found.entries), len(found.pairs)
    (3, 3)
    """
    recorded = list_runs(runs, data, on_warning)
    if not any(figure_of(run.task, by) in TASKS[run.task] for run in recorded):
        task = recorded[0].task
        raise OptionError(f"--by {by} is no figure of --task {task}, which has {', '.join(TASKS[task])}.")
    found = compare_runs(recorded, on_warning, by, margin)
    if not found:
        where = runs_folder(runs)
        raise CacheError(f"No run in '{where}' has predictions that can be read. Do them again: tlcache fit-heads")
    return found


def compare_runs(
    runs: Iterable[Run],
    on_warning: Callable[[str], None] = warn,
    by: str = "accuracy",
    margin: float | None = None,
) -> list[Comparison]:
    """Compare these runs, those of each dataset and split among themselves."""
    alike: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.created, reverse=True):
        alike.setdefault((run.dataset, run.dataset_digest), []).append(run)
    ordered = sorted(alike.items(), key=lambda item: item[0][0])
    found = []
    for (dataset, digest), group in ordered:
        own, task = figure_of(group[0].task, by), group[0].task
        if own in TASKS[task]:
            found.append(_compare(dataset, digest, group, own, on_warning))
        else:
            on_warning(f"{dataset} is left out, as --task {task} has no {by}, but {', '.join(TASKS[task])}.")
    return [replace(each, margin=margin) for each in found if each]


@dataclass(frozen=True)
class _Tested:
    """A run with what it said of each test image, in one order for all runs, and the figure that is compared."""

    run: Run
    top: TopPredictions
    figures: Mapping[str, float]
    per_class: tuple[ClassFigures, ...]
    compared: Estimate | None
    fold: NDArray[np.int64] | None
    errors: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, run: Run, found: Predictions, units: Units | None, by: str) -> _Tested:
        known, classes = run.test.others, run.per_class
        if run.task != CLASSIFY:
            return cls._of_columns(run, found, by)
        if not classes:  # in records of earlier versions
            known = {**known, **figures(found.label, found.probabilities, units)}
            classes = class_figures(run.classes, found.label, found.probabilities, units)
        compared = None
        if by != "accuracy":
            compared = estimates(found.label, found.probabilities).get(by)
            if compared is None:
                raise OptionError(
                    f"--by {by} needs test images of several classes, top5 of more than five; those of "
                    f"'{run.dataset}' have no such figure. Leave --by out."
                )
        return cls(run, found.top(), known, classes, compared, found.fold)

    @classmethod
    def _of_columns(cls, run: Run, found: Predictions, by: str) -> _Tested:
        """Return a run on several labels, of which all of an image are right or not, or on numbers."""
        compared = task_named(run.task, run.answering).estimates(found.label, found.probabilities).get(by)
        if compared is None:
            raise OptionError(f"The test images of '{run.dataset}' have no say in {by}; leave --by out.")
        if run.task == MULTILABEL:
            right, errors = multilabel_right(found.label, found.probabilities, np.array(run.thresholds)), None
        else:
            right, errors = np.zeros(len(found.row), bool), np.abs(found.label - found.probabilities)[:, 0]
        top = TopPredictions(
            found.row, np.ones(len(right), np.int64), right.astype(np.int64), found.probabilities[:, 0]
        )
        return cls(run, top, run.test.others, run.per_class, compared, None, errors)

    def answers_as(self, other: _Tested) -> bool:
        """Return whether the two are one, save for what they promise of their answers (`--coverage`)."""
        return _without_promise(self.run) == _without_promise(other.run) and (
            np.array_equal(self.top.predicted, other.top.predicted)
            and np.allclose(self.top.confidence, other.top.confidence, rtol=0, atol=_ROUNDING)
        )

    def over(self, other: _Tested, units: Units | None) -> Difference:
        """Return what it has over another."""
        if self.compared and other.compared:
            right = self.top.right, other.top.right
            if self.errors is not None and other.errors is not None:
                right = self.errors < other.errors, other.errors < self.errors  # of numbers, which is nearer
            return compare_figures(self.compared, other.compared, right, units)
        if self.run.cross_validation and self.fold is not None:
            return compare_folds(self.top.right, other.top.right, self.fold, self.run.cross_validation.share)
        return compare_paired(self.top.right, other.top.right, units)

    def interval(self, units: Units | None) -> tuple[float, float]:
        """Return the interval of its accuracy; of a cross-validation as recorded, by the spread of its folds."""
        if self.fold is not None:
            return self.run.test.accuracy_low, self.run.test.accuracy_high
        return clustered_interval(self.top.right, units)


def _without_promise(run: Run) -> tuple[object, ...]:
    """Return what a run was asked for, without what is to be promised of its answers."""
    asked = {name: value for name, value in run.arguments.items() if name not in ("coverage", "per_class")}
    return run.strategy, run.backbone, run.key, run.head, asked


def _compare(
    dataset: str, digest: str, runs: Sequence[Run], by: str, on_warning: Callable[[str], None]
) -> Comparison | None:
    """Compare runs on the same test images; None when the predictions of none can be read."""
    tested, units, groups = _tested(runs, by, on_warning)
    if not tested:
        return None
    named, sign = [each.run for each in tested], 1 if larger_is_better(by) else -1
    scores = [_held_out(run, by) for run in named]
    without_test = None not in scores
    order, same = pick_order(named, scores, by)
    two = list(combinations(range(len(tested)), 2))
    differences = [tested[a].over(tested[b], units) for a, b in two]
    corrected = correct_for_many([each.p for each in differences])
    worse = _worse(order[0], two, differences, sign, None if without_test else corrected)
    entries = tuple(
        _entry(each, named, units, scores[number], number not in worse) for number, each in enumerate(tested)
    )
    pairs = tuple(
        Pair(entries[a], entries[b], difference, float(p), len(two))
        for (a, b), difference, p in zip(two, differences, corrected, strict=True)
    )
    baseline = _baseline(tested[0], by)
    picked = tuple(entries[number] for number in order)
    return Comparison(dataset, digest, by, entries, picked, without_test, pairs, groups, baseline, same)


def _tested(
    runs: Sequence[Run], by: str, on_warning: Callable[[str], None]
) -> tuple[list[_Tested], Units | None, Groups | None]:
    """Return the runs whose predictions can be read, the best first, and which of their images count as one."""
    rows = units = groups = None
    tested = []
    for run in runs:
        try:
            found = run.predictions().in_order()
        except CacheError as error:
            on_warning(f"{error} Until then it is left out.")
            continue
        if rows is None:
            rows, units, groups = found.row, unit_numbers(found.units), Groups.of(unit_numbers(found.group))
        if not np.array_equal(found.row, rows):
            raise CacheError(
                f"The predictions of '{run.path}' are not those of its dataset. Give the command again that made the "
                "run, with --force."
            )
        tested.append(_Tested.of(run, replace(found, row=rows), units, by))
    sign = 1 if larger_is_better(by) else -1
    return sorted(_told_apart(tested), key=lambda each: _rank(each, sign)), units, groups


def _told_apart(tested: Sequence[_Tested]) -> list[_Tested]:
    """Return one of those that answer alike and differ in what they promise alone: the first that promises anything."""
    kept: list[_Tested] = []
    for each in sorted(tested, key=lambda each: each.run.arguments.get("coverage") is None):
        if not any(each.answers_as(other) for other in kept):
            kept.append(each)
    return kept


def _baseline(tested: _Tested, by: str) -> Baseline | None:
    """Return what a constant answer would reach, where runs are compared by the usual figure of their task."""
    run = tested.run
    if run.task == CLASSIFY:
        return Baseline.of(tested.top.label, run.classes)
    return Baseline.of_columns(run.predictions().label) if by == USUAL[run.task] else None


def _held_out(run: Run, by: str) -> float | None:
    """Return a figure on the images that were held out of training; None where the record does not say it."""
    if by in run.validated:
        return run.validated[by]
    found = None if by == "accuracy" else run.held_out()
    return None if found is None else TASKS[run.task][by].value(found.label, found.probabilities)


def _worse(
    picked: int,
    two: Sequence[tuple[int, int]],
    differences: Sequence[Difference],
    sign: int,
    corrected: NDArray[np.float64] | None,
) -> set[int]:
    """Return the runs that are shown to be worse than the picked one.

    Where that was picked without the test images, p is corrected for its own pairs, else `corrected` for all pairs.
    """
    own = [number for number, pair in enumerate(two) if picked in pair]
    p = correct_for_many([differences[each].p for each in own]) if corrected is None else corrected[own]
    found = set()
    for number, value in zip(own, p, strict=True):
        a, b = two[number]
        gain = sign * differences[number].difference
        loser = b if gain > 0 else a
        if value < LEVEL and loser != picked:
            found.add(loser)
    return found


def _rank(tested: _Tested, sign: int) -> tuple[float, float, str]:
    best = -float(tested.top.right.mean())
    if tested.compared:
        best = -sign * tested.compared.value
    loss = tested.run.test.log_loss
    return best, 0.0 if isnan(loss) else loss, str(tested.run.path)


def _entry(tested: _Tested, runs: Sequence[Run], units: Units | None, score: float | None, best: bool) -> Entry:
    run = tested.run
    extract_s, train_s = run.extract.wall_s, run.train_s
    low, high = tested.interval(units)
    parameters = [known.parameters if (known := lookup(name)) else 0 for name in run.backbones]
    return Entry(
        run=run,
        top=tested.top,
        backbone=backbone_label(run, runs),
        head=head_label(run, runs),
        accuracy=float(tested.top.right.mean()) if run.task != REGRESSION else nan,
        low=low,
        high=high,
        macro_f1=run.test.macro_f1,
        log_loss=run.test.log_loss,
        ece=run.test.ece,
        figures=tested.figures,
        per_class=tested.per_class,
        val_score=score,
        extract_s=extract_s,
        train_s=train_s,
        first_s=extract_s + train_s,
        images_per_s=run.rows.total / extract_s if extract_s else 0.0,  # of embeddings that were adopted
        parameters=sum(parameters) if all(parameters) else None,
        best=best,
    )
