"""Choosing a head's settings: each is judged on rows that it was not fitted on; test rows are not among them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlcache.cache.feature_file import Split
from tlcache.errors import HeadError, TlcacheError, first_line
from tlcache.evaluation.metrics import Metric
from tlcache.evaluation.task import CLASSES, Task
from tlcache.heads.rows import Array, Features, Labels, Scaler
from tlcache.heads.table import HeadRow

if TYPE_CHECKING:
    from tlcache.heads.base import Head

__all__ = ["Candidate", "Fold", "agreed", "choose", "fit_each", "fitting", "search"]

_Tried = tuple[Mapping[str, Any], Sequence[Mapping[str, float]], Array]  # parameters, history, logits (n, C)


@dataclass(frozen=True)
class Fold:
    """Rows to fit on and rows to judge by: features float32 (n, dim), what is wanted, and the numbers of the latter."""

    X: Features
    y: NDArray[Any]
    X_val: Features
    y_val: NDArray[Any]
    held: Labels | None = None

    @classmethod
    def of(cls, rows: Split, fit: Labels, held: Labels) -> Fold:
        """Return the fold that fits on some rows, by their numbers, and judges by others."""
        return cls(rows.view(fit), rows.wanted[fit], rows.view(held), rows.wanted[held], held)


@dataclass(frozen=True)
class Candidate:
    """One setting and how it does on rows it was not fitted on.

    Parameters
    ----------
    params
        All parameters to fit again with; what early stopping found is the median over the folds.
    scores
        Those of `tlcache.evaluation.metrics.METRICS` that are always told, and the one that is chosen by, the
        temperature applied.
    errors
        Their standard errors.
    temperature
        Divides the logits; fitted on the same rows.
    ece_before, ece_after
        Expected calibration error without and with the temperature.
    fit_s
        Seconds to fit and judge; settings that are fitted together share them evenly.
    history
        Of the first fold, for heads that are trained by steps.
    logits
        (n, classes) of the rows held out, all folds after each other; None where there are none.
    """

    params: Mapping[str, Any]
    scores: Mapping[str, float]
    errors: Mapping[str, float]
    temperature: float
    ece_before: float
    ece_after: float
    fit_s: float
    history: Sequence[Mapping[str, float]]
    logits: Array | None = None

    @classmethod
    def untried(cls, params: Mapping[str, Any]) -> Candidate:
        """Return a setting that there is nothing to judge by."""
        return cls(params, {}, {}, 1.0, float("nan"), float("nan"), 0.0, [])


def search(
    row: HeadRow,
    settings: Sequence[Mapping[str, Any]],
    folds: Sequence[Fold],
    classes: int,
    budget_s: float | None,
    metric: str = "accuracy",
    task: Task = CLASSES,
    one_se: bool = False,
) -> list[Candidate]:
    """Fit every setting on every fold and judge it on the rows held out, all folds pooled.

    Parameters
    ----------
    row, settings
        The head, and complete parameters for each candidate, from the simplest to the most flexible.
    folds
        One, if there is a validation split; several for cross-validation.
    classes
        Number of classes, or columns, of the dataset; a fold may lack some classes.
    budget_s
        When given, settings are fitted one by one, those nearest to the head's defaults first, and no more are begun
        once another one like the slowest, and the last fit of all, would not be done within so many seconds. One is
        always fitted; boosting stops in time.
    metric
        What is to be chosen by.
    task
        What is learned.
    one_se
        As for `choose`: without it, logits of a candidate than which another is better are not kept.

    Raises
    ------
    HeadError
        The head cannot be fitted on these rows.
    """
    ready = [_scaled(row, fold) for fold in folds]
    told = [each for each in task.metrics.values() if each.always or each.name == metric]

    def kept(found: Sequence[Candidate]) -> list[Candidate]:
        best = choose(found, metric, one_se, task)
        rank = _rank(best, metric, task)  # which another may have as well
        return [
            each if one_se or each is best or _rank(each, metric, task) == rank else replace(each, logits=None)
            for each in found
        ]

    if budget_s is None:
        return _fit(row, settings, ready, classes, told, task, kept)
    found: dict[int, Candidate] = {}
    started = time.perf_counter()
    limit = {"seconds": budget_s / 3 / len(folds)} if "seconds" in row.defaults() else {}
    for number in _nearest_first(row, settings):
        slowest = max((each.fit_s for each in found.values()), default=0.0)
        if found and time.perf_counter() - started + 2 * slowest > budget_s:
            break
        (found[number],) = _fit(row, [{**settings[number], **limit}], ready, classes, told, task)
        found = dict(zip(found, kept([*found.values()]), strict=True))
    return [found[number] for number in sorted(found)]


def _nearest_first(row: HeadRow, settings: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the numbers of settings: first the one most like the defaults, then by their distance in the list.

    The first in the list is the simplest, which alone may be next to nothing.
    """
    usual = row.defaults()
    alike = [sum(value == usual[name] for name, value in setting.items()) for setting in settings]
    middle = alike.index(max(alike))
    return sorted(range(len(settings)), key=lambda number: abs(number - middle))


def choose(candidates: Sequence[Candidate], metric: str, one_se: bool, task: Task = CLASSES) -> Candidate:
    """Return the candidate with the best `metric`, ties decided by log-loss.

    With `one_se`, the first candidate that is no more than one standard error of the best worse than it (Breiman et
    al., 1984); they are in the order of their flexibility.
    """
    best = max(candidates, key=lambda each: _rank(each, metric, task))
    if not one_se:
        return best
    least = _rank(best, metric, task)[0] - best.errors[metric]
    return next(each for each in candidates if _rank(each, metric, task)[0] >= least)


def _rank(each: Candidate, metric: str, task: Task) -> tuple[float, float]:
    sign = 1 if task.metrics[metric].larger_is_better else -1
    return sign * each.scores[metric], -each.scores.get("log_loss", 0.0)


def _scaled(row: HeadRow, fold: Fold) -> Fold:
    scaler = Scaler.of(fold.X, row.scaled)
    return replace(fold, X=scaler.over(fold.X), X_val=scaler.over(fold.X_val))


@contextmanager
def fitting(row: HeadRow) -> Iterator[None]:
    """Turn whatever goes wrong in a head into an error that says which head it was.

    Raises
    ------
    HeadError
        Anything was raised; heads may be anyone's, and are made of libraries with errors of their own.
    """
    try:
        yield
    except TlcacheError:
        raise
    except Exception as error:
        what = "" if isinstance(error, (ValueError, FloatingPointError)) else f"{type(error).__name__}: "
        raise HeadError(f"The {row.name} head could not be fitted: {what}{first_line(error)}") from error


def _fit(
    row: HeadRow,
    settings: Sequence[Mapping[str, Any]],
    folds: Sequence[Fold],
    classes: int,
    told: Sequence[Metric],
    task: Task,
    kept: Callable[[Sequence[Candidate]], list[Candidate]] = list,
) -> list[Candidate]:
    """Fit and judge settings; of one fold, the logits of a setting are there when it is judged and no longer."""
    started = time.perf_counter()
    folds_tried: Iterable[Iterable[_Tried]] = (_on_fold(row, settings, fold, classes, task) for fold in folds)
    tried = folds_tried if len(folds) == 1 else map(list, folds_tried)
    labels, found = np.concatenate([fold.y_val for fold in folds]), list[Candidate]()
    for of_setting in zip(*tried, strict=True):
        params, histories, logits = zip(*of_setting, strict=True)
        together = np.concatenate(logits) if len(logits) > 1 else logits[0]
        found.append(_judge(agreed(params), together, labels, histories[0], told, task))
        found = kept(found)
    seconds = (time.perf_counter() - started) / len(settings)
    return [replace(each, fit_s=seconds) for each in found]


def fit_each(
    row: HeadRow,
    settings: Sequence[Mapping[str, Any]],
    task: Task,
    X: Features,
    y: NDArray[Any],
    X_val: Features | None = None,
    y_val: NDArray[Any] | None = None,
) -> list[Head]:
    """Return a head for each of these settings, fitted on rows and what is wanted of them."""
    held_out = (X_val, None if y_val is None else task.learned(y_val))
    fit = row.type().fit_each if task.answering is None else row.type().fit_columns
    return fit(settings, X, task.learned(y), *held_out)


def _on_fold(
    row: HeadRow, settings: Sequence[Mapping[str, Any]], fold: Fold, classes: int, task: Task
) -> Iterator[_Tried]:
    """Fit every setting on a fold; of the heads, which may hold all rows, no more than this is left."""
    with fitting(row):
        heads = fit_each(row, settings, task, fold.X, fold.y, fold.X_val, fold.y_val)
        for head, logits in zip(heads, row.type().logits_each(heads, fold.X_val), strict=True):
            yield head.chosen(), getattr(head, "history_", []), _of_all(classes, head, logits, len(fold.X_val))


def _of_all(classes: int, head: Head, logits: Array, n: int) -> Array:
    """Return logits (n, C) of all classes, -inf for those that the head has not seen; raises ValueError."""
    logits = np.asarray(logits, np.float32)
    if logits.shape != (n, len(head.classes_)):
        raise ValueError(f"its logits are {logits.shape} of {n} rows and {len(head.classes_)} classes")
    if len(head.classes_) == classes:
        return logits
    wide = np.full((n, classes), -np.inf, np.float32)
    wide[:, head.classes_] = logits
    return wide


def agreed(chosen: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the folds agree on, and the median of what was found beside the setting: of counts a whole number."""
    return {name: _middle([each[name] for each in chosen]) for name in chosen[0]}


def _middle(values: Sequence[Any]) -> Any:
    if all(value == values[0] for value in values):
        return values[0]
    middle = median(values)
    return round(middle) if all(isinstance(value, int) for value in values) else middle


def _judge(
    params: Mapping[str, Any],
    logits: Array,
    labels: NDArray[Any],
    history: Sequence[Mapping[str, float]],
    told: Sequence[Metric],
    task: Task,
) -> Candidate:
    known, all_rows = task.known(logits, labels), slice(None)
    temperature = task.temperature(logits, labels)
    before = task.calibration_error(labels, task.answers(logits))
    answers = task.answers(logits, temperature)
    judged = [(metric, known if metric.seen_only and not known.all() else all_rows) for metric in told]
    return Candidate(
        params,
        {metric.name: metric.value(labels[rows], answers[rows]) for metric, rows in judged},
        {metric.name: metric.error(labels[rows], answers[rows]) for metric, rows in judged},
        temperature,
        before,
        task.calibration_error(labels, answers),
        float("nan"),
        history,
        logits,
    )
