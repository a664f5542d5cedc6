"""What learning classes, several labels, or a number differ in: what is learned, answered, chosen by, and told.

The rows of `wanted` are those of `tlcache.cache.feature_file.Split.wanted`; `answers` are what a head says of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tlcache.cache.feature_file import Split
from tlcache.errors import DataError
from tlcache.evaluation import metrics, multilabel, regression
from tlcache.evaluation.calibration import calibration_error, fit_temperature
from tlcache.evaluation.estimates import Estimate
from tlcache.evaluation.metrics import METRICS, Metric
from tlcache.evaluation.perclass import class_figures
from tlcache.evaluation.significance import Units
from tlcache.heads.answering import Answering
from tlcache.heads.logits import softmax
from tlcache.heads.rows import Array
from tlcache.runs.base import Figures
from tlcache.runs.classes import ClassFigures
from tlcache.tasks import CLASSIFY, MULTILABEL, REGRESSION, USUAL

__all__ = [
    "CLASSES",
    "TASKS",
    "Task",
    "figure_names",
    "figure_of",
    "larger_is_better",
    "task_named",
    "task_on",
]

Wanted = NDArray[Any]


class Task(Protocol):
    """What is learned."""

    @property
    def name(self) -> str:
        """A name of `tlcache.tasks.TASKS`."""

    @property
    def answering(self) -> Answering | None:
        """How logits are read, where they are not of classes."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """What settings and runs are chosen by."""

    def learned(self, wanted: Wanted) -> Wanted:
        """Return what heads are fitted on."""

    def temperature(self, logits: Array, wanted: Wanted) -> float:
        """Return what logits are divided by."""

    def answers(self, logits: Array, temperature: float = 1.0) -> Array:
        """Return probabilities or numbers (n, C)."""

    def known(self, logits: Array, wanted: Wanted) -> NDArray[np.bool_]:
        """Return whether the head could have said what is wanted (n,)."""

    def seen(self, fitted: Wanted, wanted: Wanted) -> NDArray[np.bool_]:
        """Return whether what is wanted (n,) can be learned of rows to fit on: whether they have its class."""

    def calibration_error(self, wanted: Wanted, answers: Array) -> float:
        """Return how far probabilities are from what happens; nan of numbers."""

    def chosen_on(self, wanted: Wanted, answers: Array, coverage: float | None) -> Task:
        """Return the task with what is chosen on images that were held out of training."""

    def figures(self, wanted: Wanted, answers: Array, units: Units | None) -> Figures:
        """Return the figures of a run."""

    def per_class(
        self, names: Sequence[str], wanted: Wanted, answers: Array, units: Units | None
    ) -> tuple[ClassFigures, ...]:
        """Return those of each class or label."""

    def estimates(self, wanted: Wanted, answers: Array) -> Mapping[str, Estimate]:
        """Return those that runs can be compared by."""


@dataclass(frozen=True)
class _Classes:
    name: str = CLASSIFY
    answering: Answering | None = None

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return METRICS

    def learned(self, wanted: Wanted) -> Wanted:
        return wanted

    def temperature(self, logits: Array, wanted: Wanted) -> float:
        return fit_temperature(logits, wanted)

    def answers(self, logits: Array, temperature: float = 1.0) -> Array:
        return softmax(logits / temperature)

    def known(self, logits: Array, wanted: Wanted) -> NDArray[np.bool_]:
        return np.isfinite(logits[np.arange(len(wanted)), wanted])

    def seen(self, fitted: Wanted, wanted: Wanted) -> NDArray[np.bool_]:
        return np.isin(wanted, fitted)

    def calibration_error(self, wanted: Wanted, answers: Array) -> float:
        return calibration_error(wanted, answers)

    def chosen_on(self, wanted: Wanted, answers: Array, coverage: float | None) -> Task:
        del wanted, answers, coverage
        return self

    def figures(self, wanted: Wanted, answers: Array, units: Units | None) -> Figures:
        return metrics.evaluate(wanted, answers, units)

    def per_class(
        self, names: Sequence[str], wanted: Wanted, answers: Array, units: Units | None
    ) -> tuple[ClassFigures, ...]:
        return class_figures(names, wanted, answers, units)

    def estimates(self, wanted: Wanted, answers: Array) -> Mapping[str, Estimate]:
        return metrics.estimates(wanted, answers)


@dataclass(frozen=True)
class _Columns:
    """What several labels and numbers have in common: there is something to say of every image."""

    answering: Answering

    def answers(self, logits: Array, temperature: float = 1.0) -> Array:
        return self.answering.answers(logits, temperature)

    def known(self, logits: Array, wanted: Wanted) -> NDArray[np.bool_]:
        del logits
        return np.ones(len(wanted), bool)

    def seen(self, fitted: Wanted, wanted: Wanted) -> NDArray[np.bool_]:
        del fitted
        return np.ones(len(wanted), bool)


@dataclass(frozen=True)
class _Labels(_Columns):
    name: str = MULTILABEL

    @property
    def thresholds(self) -> NDArray[np.float64]:
        return np.array(self.answering.thresholds or [0.5] * len(self.answering.names))

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return _OF_LABELS

    def learned(self, wanted: Wanted) -> Wanted:
        return wanted

    def temperature(self, logits: Array, wanted: Wanted) -> float:
        """Fit that of yes and no: every label of every image is a question with two logits, half up and half down."""
        half = logits.reshape(-1, 1) / 2
        return fit_temperature(np.hstack([-half, half]), wanted.reshape(-1).astype(np.int64))

    def calibration_error(self, wanted: Wanted, answers: Array) -> float:
        return multilabel.binary_error(wanted, answers)

    def chosen_on(self, wanted: Wanted, answers: Array, coverage: float | None) -> Task:
        del coverage
        return replace(
            self,
            answering=replace(self.answering, thresholds=tuple(multilabel.best_thresholds(wanted, answers).tolist())),
        )

    def figures(self, wanted: Wanted, answers: Array, units: Units | None) -> Figures:
        return multilabel.evaluate(wanted, answers, self.thresholds, units)

    def per_class(
        self, names: Sequence[str], wanted: Wanted, answers: Array, units: Units | None
    ) -> tuple[ClassFigures, ...]:
        return multilabel.label_figures(names, wanted, answers, self.thresholds, units)

    def estimates(self, wanted: Wanted, answers: Array) -> Mapping[str, Estimate]:
        return multilabel.estimates(wanted, answers, self.thresholds)


@dataclass(frozen=True)
class _Numbers(_Columns):
    name: str = REGRESSION

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return _OF_NUMBERS

    def learned(self, wanted: Wanted) -> Wanted:
        scaled: Wanted = ((wanted - self.answering.middle) / self.answering.spread).astype(np.float32)
        return scaled

    def temperature(self, logits: Array, wanted: Wanted) -> float:
        del logits, wanted
        return 1.0

    def calibration_error(self, wanted: Wanted, answers: Array) -> float:
        del wanted, answers
        return float("nan")

    def chosen_on(self, wanted: Wanted, answers: Array, coverage: float | None) -> Task:
        coverage = coverage or _COVERAGE
        margin = regression.conformal_margin(wanted - answers, coverage)
        if not np.isfinite(margin):  # of too few images nothing can be promised
            return self
        return replace(self, answering=replace(self.answering, margin=margin, coverage=coverage))

    def figures(self, wanted: Wanted, answers: Array, units: Units | None) -> Figures:
        return regression.evaluate(wanted, answers, units)

    def per_class(
        self, names: Sequence[str], wanted: Wanted, answers: Array, units: Units | None
    ) -> tuple[ClassFigures, ...]:
        del names, wanted, answers, units
        return ()

    def estimates(self, wanted: Wanted, answers: Array) -> Mapping[str, Estimate]:
        return regression.estimates(wanted, answers)


_COVERAGE = 0.9  # of a number's interval, unless --coverage says otherwise


def _metrics(
    estimates: Callable[[Wanted, Array], Mapping[str, Estimate]], larger: Sequence[str], smaller: Sequence[str]
) -> Mapping[str, Metric]:
    """Return the metrics of these names; where images have no say in one, all settings are equal in it."""

    def row(name: str, larger_is_better: bool) -> Metric:
        def value(wanted: Wanted, answers: Array) -> float:
            return found.value if (found := estimates(wanted, answers).get(name)) else 0.0

        def error(wanted: Wanted, answers: Array) -> float:
            return found.error() if (found := estimates(wanted, answers).get(name)) else 0.0

        return Metric(name, larger_is_better, value, error, always=False)

    return {name: row(name, name in larger) for name in (*larger, *smaller)}


def _halves(wanted: Wanted, answers: Array) -> Mapping[str, Estimate]:
    """Return the estimates of several labels with thresholds of 0.5: while settings are chosen there are no others."""
    return multilabel.estimates(wanted, answers, np.full(wanted.shape[1], 0.5))


_LARGER = ("mean_average_precision", "micro_f1", "macro_f1", "subset_accuracy", "auroc")
_OF_LABELS = _metrics(_halves, _LARGER, ("hamming", "log_loss"))
_OF_NUMBERS = _metrics(regression.estimates, ("r2", "spearman"), ("mae", "rmse"))
CLASSES: Task = _Classes()
TASKS: Mapping[str, Mapping[str, Metric]] = {CLASSIFY: METRICS, MULTILABEL: _OF_LABELS, REGRESSION: _OF_NUMBERS}


def figure_names() -> list[str]:
    """Return the names of all figures that settings and runs can be chosen by, of whatever task."""
    return list(dict.fromkeys(name for table in TASKS.values() for name in table))


def larger_is_better(figure: str) -> bool:
    """Return whether that is so; figures of one name are alike in that, whatever the task."""
    return next(table[figure].larger_is_better for table in TASKS.values() if figure in table)


def figure_of(task: str, by: str) -> str:
    """Return what runs of a task are compared by: `by`, and instead of accuracy, which it may lack, its usual figure.

    >>> figure_of("regression", "accuracy"), figure_of("regression", "r2")
    ('mae', 'r2')
    """
    return USUAL[task] if by == USUAL[CLASSIFY] else by


def task_named(name: str, answering: Answering | None) -> Task:
    """Return a task by its name and how its logits are read."""
    if answering is None:
        return CLASSES
    return _Labels(answering) if name == MULTILABEL else _Numbers(answering)


def task_on(rows: Split) -> Task:
    """Return what is learned of rows to fit on; of numbers, mean and standard deviation are these rows'.

    Raises
    ------
    DataError
        All numbers are equal.
    """
    targets = rows.targets
    if targets is None:
        return CLASSES
    if targets.task == MULTILABEL:
        return _Labels(Answering(MULTILABEL, targets.names))
    values = rows.wanted
    if values.min() == values.max():
        raise DataError(
            f"All {len(values):,} images to learn from have the label {float(values.min())!r}; there is nothing to "
            "learn. Give images with other numbers."
        )
    return _Numbers(Answering(REGRESSION, targets.names, middle=float(values.mean()), spread=float(values.std())))
