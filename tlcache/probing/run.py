"""Feature file + head -> run record: settings chosen without the test split, fitted again on the rest, tested once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from tlcache.cache.feature_file import Split
from tlcache.cache.resplit import FeatureSet
from tlcache.datasets.tasks import task_of
from tlcache.errors import DataError
from tlcache.evaluation.pergroup import Grouped, per_group
from tlcache.evaluation.regression import interval_on
from tlcache.evaluation.significance import Units, unit_numbers
from tlcache.evaluation.task import CLASSES, Task
from tlcache.evaluation.uncertainty import uncertainty_figures
from tlcache.heads.fitted import FittedHead
from tlcache.heads.rows import Array, Scaler
from tlcache.heads.table import HEADS, HeadRow
from tlcache.heads.uncertainty import Uncertainty
from tlcache.keys import some
from tlcache.machine import Energy, hardware, now, versions
from tlcache.probing.data import Data
from tlcache.probing.heldout import uncertainty_of
from tlcache.probing.protocol import SearchProtocol
from tlcache.probing.search import Candidate, Fold, choose, fit_each, fitting, search
from tlcache.probing.session import Session
from tlcache.progress import warn
from tlcache.records import from_json
from tlcache.runs.base import Figures, Hardware, Identity, SplitSizes, fields_of_features
from tlcache.runs.folder import path_of, recorded, write_run
from tlcache.runs.frozen import FrozenRun, HeadCandidate, HeadEpoch, Repeats, TemperatureScaling
from tlcache.runs.joined import kind_of_run, strategy_of
from tlcache.runs.pergroup import PerGroup
from tlcache.runs.predictions import Predictions
from tlcache.runs.uncertainty import UncertaintyFigures
from tlcache.tasks import REGRESSION

__all__ = ["able_rows", "chosen_setting", "fit_file", "frozen_identity", "refit", "tried"]


_KEPT = 20_000_000  # probabilities: 80 MB before compression


def fit_file(file: FeatureSet, rows: Sequence[HeadRow], session: Session) -> list[FrozenRun]:
    """Return a run for each of these heads that can be fitted."""
    session = replace(session, protocol=session.protocol.of_task(task_of(file.attrs)))
    known = {} if session.force else _known(file.attrs, rows, session)
    session.advance(len(known))
    known |= _fit_all(file, [row for row in rows if row.name not in known], session)
    return [known[row.name] for row in rows if row.name in known]


def able_rows(
    rows: Sequence[HeadRow], task: str, asked: bool, on_warning: Callable[[str], None] = warn
) -> list[HeadRow]:
    """Return the heads that learn such labels; of others, where they were asked for, it is said that they do not."""
    unable = [row.name for row in rows if task not in row.tasks]
    if unable and asked:
        able = [row.name for row in HEADS.values() if task in row.tasks]
        on_warning(f"--task {task} is not of the {' and '.join(unable)} head, but of {', '.join(able)}.")
    return [row for row in rows if task in row.tasks]


def frozen_identity(attrs: Mapping[str, Any], row: HeadRow, protocol: SearchProtocol) -> Identity:
    """Return what tells the run of a head on a feature file, given by its attributes, from all others."""
    protocol = protocol.of_task(task_of(attrs))
    space = {name: list(values) for name, values in row.space(protocol.search).items()}
    return Identity.of(
        attrs, strategy_of(attrs), row.name, {**protocol.arguments(int(attrs["val_rows"])), "space": space}
    )


def _known(attrs: Mapping[str, Any], rows: Sequence[HeadRow], session: Session) -> dict[str, FrozenRun]:
    """Return the runs of these heads that are recorded."""
    found = {row.name: recorded(session.folder, frozen_identity(attrs, row, session.protocol)) for row in rows}
    return {name: run for name, run in found.items() if isinstance(run, FrozenRun)}


def _fit_all(file: FeatureSet, rows: Sequence[HeadRow], session: Session) -> dict[str, FrozenRun]:
    """Fit these heads, one after the other, each with its share of the budget that is left."""
    if not rows:
        return {}
    data, began, fitted, protocol = Data.of(file), time.perf_counter(), dict[str, FrozenRun](), session.protocol
    check_groups(protocol, data.groups, file.attrs["dataset"])
    folds = data.folds(protocol)
    unseen = [file.classes[label] for label in np.setdiff1d(data.val.labels, data.train.labels)]
    if unseen and not protocol.folds and not data.fitting.targets:
        warn(
            f"Settings are chosen by {len(folds)}-fold cross-validation over train and val, "
            f"since train has no image of {some(unseen)}."
        )
    for number, row in enumerate(rows):
        spent = time.perf_counter() - began
        budget_s = protocol.budget_s and max(0.0, protocol.budget_s - spent) / (len(rows) - number)
        with session.leaving_out(file.attrs["dataset"], file.attrs["backbone"]):
            fitted[row.name] = _fit_one(file, data, folds, row, session.folder, protocol, budget_s)
        session.advance(1)
    return fitted


def _fit_one(
    file: FeatureSet,
    data: Data,
    folds: Sequence[Fold],
    row: HeadRow,
    folder: Path,
    protocol: SearchProtocol,
    budget_s: float | None,
) -> FrozenRun:
    started, energy, settings = time.perf_counter(), Energy(), protocol.settings(row)
    candidates = search(row, settings, folds, data.classes, budget_s, protocol.metric, data.task, protocol.one_se)
    best = choose(candidates, protocol.metric, protocol.one_se, data.task)
    task = _chosen_on(data.task, folds, best, protocol)
    searched = time.perf_counter()
    fitted = refit(row, file, data.fitting, best, protocol, task)
    ended, energy_j = time.perf_counter(), energy.joules()
    promised = _promised(row, data, best, protocol)
    promised_s = time.perf_counter() - ended
    logits = [head.logits(data.test.features) for head in fitted]
    each = [head.probabilities(found) for head, found in zip(fitted, logits, strict=True)]
    units, wanted = data.groups, data.test.wanted
    tests = [task.figures(wanted, answers, units) for answers in each]
    plain = fitted[0].probabilities(logits[0], temperature=1.0)
    held = _held_out(data.fitting, folds, best, task)
    identity = frozen_identity(file.attrs, row, protocol)
    path = path_of(folder, identity)
    run = kind_of_run(file.attrs)(
        **fields_of_features(file.attrs, fitted[0].classes),
        rows=SplitSizes(train=len(data.train), val=len(data.val), test=len(data.test)),
        head=identity.head,
        arguments=identity.arguments,
        chosen=chosen_setting(row, protocol, best),
        chosen_by=f"{len(folds)}-fold cross-validation" if len(folds) > 1 else "validation split",
        candidates=tuple(tried(row, protocol, candidate) for candidate in candidates),
        skipped=len(settings) - len(candidates),
        history=tuple(from_json(HeadEpoch, epoch) for epoch in best.history),
        calibration=_calibration(best, task.calibration_error(wanted, plain), tests[0]),
        test=tests[0],
        per_class=task.per_class(fitted[0].classes, wanted, each[0], units),
        thresholds=task.answering.thresholds if task.answering else (),
        interval=interval_on(task.answering, wanted, each[0], units),
        uncertainty=_held(promised, data, file.classes, each[0], units, promised_s),
        per_group=_per_group(data, each[0], held, protocol),
        repeats=_repeats([head.head for head in fitted], tests) if task.name != REGRESSION else None,
        fit_s=ended - started,
        search_s=searched - started,
        refit_s=ended - searched,
        energy_j=energy_j,
        features=str(file.path),
        layers=protocol.layers,
        versions=versions(),
        hardware=Hardware(**hardware()),
        created=now(),
        record=str(path),
    )
    replace(fitted[0], uncertainty=promised).save(run.head_path)
    write_run(run, data.test, each[0], held)
    return run


def check_groups(protocol: SearchProtocol, groups: Units | None, dataset: str) -> None:
    """Raise DataError where an answer for each group is asked for, and the images that are tested have none."""
    if protocol.per and groups is None:
        raise DataError(
            f"--per group was asked for, and the test images of '{dataset}' have no groups. Give them to "
            "extract (--group-column), or find near-duplicates: tlcache audit, then fit-heads --split group"
        )


def _chosen_on(task: Task, folds: Sequence[Fold], best: Candidate, protocol: SearchProtocol) -> Task:
    """Return the task with what is chosen on the rows that the setting was chosen by: thresholds, or a margin."""
    if task.answering is None or best.logits is None:
        return task
    wanted = np.concatenate([fold.y_val for fold in folds])
    return task.chosen_on(wanted, task.answers(best.logits, best.temperature), protocol.coverage)


def _calibration(best: Candidate, before: float, test: Figures) -> TemperatureScaling | None:
    """Return what the temperature does; None of numbers, which have none."""
    if isnan(before):
        return None
    return TemperatureScaling(
        temperature=best.temperature,
        val_ece_before=best.ece_before,
        val_ece_after=best.ece_after,
        test_ece_before=before,
        test_ece_after=test.ece,
    )


def _held_out(rows: Split, folds: Sequence[Fold], best: Candidate, task: Task) -> Predictions | None:
    """Return what the chosen setting said of the rows that it was chosen by, where that is not too much to keep."""
    numbers = [fold.held for fold in folds if fold.held is not None]
    if best.logits is None or len(numbers) < len(folds) or best.logits.size > _KEPT:
        return None
    images = rows.of(np.concatenate(numbers))
    return Predictions.of(images, task.answers(best.logits, best.temperature))


def _per_group(data: Data, probabilities: Array, held: Predictions | None, protocol: SearchProtocol) -> PerGroup | None:
    """Return what comes of one answer for each group, where that was asked for."""
    if protocol.per is None:
        return None
    found, known = data.groups, unit_numbers(held.group) if held else None
    assert found is not None
    held_out = Grouped.of(held.label, held.probabilities, known) if held and known is not None else None
    return per_group(Grouped.of(data.test.labels, probabilities, found), held_out, protocol.metric)


def _promised(row: HeadRow, data: Data, best: Candidate, protocol: SearchProtocol) -> Uncertainty | None:
    """Return what the head promises, where that was asked for."""
    if protocol.coverage is None or data.fitting.targets:
        return None
    return uncertainty_of(row, data.fitting, best, data.classes, protocol, data.distances)


def _held(
    promised: Uncertainty | None,
    data: Data,
    classes: Sequence[str],
    probabilities: Array,
    units: Units | None,
    seconds: float,
) -> UncertaintyFigures | None:
    """Return what comes of a promise on the test images, where there is one."""
    if promised is None:
        return None
    test, method = data.test, "out-of-fold probabilities"
    return uncertainty_figures(promised, method, classes, test.labels, probabilities, test.features, units, seconds)


def refit(
    row: HeadRow, file: FeatureSet, rows: Split, best: Candidate, protocol: SearchProtocol, task: Task = CLASSES
) -> list[FittedHead]:
    """Fit the chosen setting on all rows, with every seed of the protocol; the temperature is the candidate's."""
    scaler, attrs = Scaler.of(rows.view(), row.scaled), file.attrs
    seeds = range(protocol.seed, protocol.seed + protocol.repeats) if "seed" in best.params else ()
    settings = [{**best.params, "seed": seed} for seed in seeds] or [dict(best.params)]
    with fitting(row):
        heads = fit_each(row, settings, task, scaler.over(rows.features), rows.wanted)
    names, how = task.answering.names if task.answering else file.classes, task.answering
    made_by = attrs["backbone"], attrs["key"]
    return [FittedHead(row.name, head, scaler, best.temperature, names, *made_by, answering=how) for head in heads]


def _repeats(heads: Sequence[Any], tests: Sequence[Figures]) -> Repeats:
    """Return how much the seed matters: accuracies of every repetition, their mean and standard deviation."""
    accuracies = [test.accuracy for test in tests]
    return Repeats(
        seeds=tuple(getattr(head, "seed", None) for head in heads),
        accuracy=tuple(accuracies),
        accuracy_mean=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
    )


def tried(row: HeadRow, protocol: SearchProtocol, candidate: Candidate) -> HeadCandidate:
    """Return a candidate as records hold it."""
    scores = {f"val_{name}": value for name, value in candidate.scores.items()}
    errors = {f"val_{name}_se": value for name, value in candidate.errors.items()}
    setting = chosen_setting(row, protocol, candidate)
    return HeadCandidate(setting=setting, scores={**scores, **errors}, fit_s=candidate.fit_s)


def chosen_setting(row: HeadRow, protocol: SearchProtocol, candidate: Candidate) -> dict[str, Any]:
    """Return the searched parameters of a candidate, and those that are not the head's defaults."""
    start, space = row.defaults(), row.space(protocol.search)
    return {name: value for name, value in candidate.params.items() if name in space or value != start[name]}
