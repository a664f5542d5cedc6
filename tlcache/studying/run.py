"""Taking the steps of a study in the order of their worth, or only saying what they are."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tlcache.backbones.engines import find_device
from tlcache.cache.find import features_folder
from tlcache.errors import TlcacheError
from tlcache.evaluation.compare import compare_runs
from tlcache.evaluation.comparison import Comparison
from tlcache.extraction.extract import extract
from tlcache.files import check_folder
from tlcache.finetuning.recipe import Recipe
from tlcache.heads.table import find_heads
from tlcache.options import made
from tlcache.probing.run import fit_heads
from tlcache.progress import say, warn
from tlcache.runs.folder import read_runs, runs_folder
from tlcache.studying.steps import (
    DONE,
    EXTRACT,
    FAILED,
    FINETUNE,
    FIT,
    LEFT_OUT,
    RECORDED,
    REPORT,
    TO_DO,
    Step,
    StudyPlan,
    find_cells,
)
from tlcache.text import duration

__all__ = ["MODELS", "compare_study", "study"]

MODELS = ("mobilenetv3_small", "mobilenetv3_large", "resnet50", "inception_v3", "resnet101", "resnet152")
_MEASURING_S = 4.0  # for the packages, and for each network


def study(
    data: Sequence[str | Path] = ("digits",),
    models: Sequence[str] = MODELS,
    weights: str | Mapping[str, str] | None = None,
    *,
    heads: Sequence[str] | None = None,
    finetune: bool = True,
    plan: bool = False,
    budget_s: float | None = None,
    out: str | Path = "report.html",
    features: str | Path | None = None,
    runs: str | Path | None = None,
    device: str = "auto",
    **recipe: Any,
) -> list[Step]:
    """Extract, fit heads, fine-tune and report, for every dataset and backbone; what is recorded is not done again.

    The order is that of worth: the networks from the smallest up, each with its heads at once, on all datasets; then
    the fine-tunings, on each dataset first of the backbone whose heads are best on validation. A study that is stopped
    has then answered most of the question, and a budget is kept by going down the list. A step that fails is told, and
    the others go on.

    Parameters
    ----------
    data, models
        Datasets and backbones, as for `tlcache.extract`; no ONNX files.
    weights
        Of all backbones, or backbone -> weights; as for `tlcache.extract`.
    heads
        Names of `tlcache.heads.table.HEADS`; default: all.
    finetune
        Whether to fine-tune.
    plan
        Do nothing but measure for some seconds, and return the steps with about the seconds that each takes.
    budget_s
        Seconds for the steps, without the measuring before them and the report after them. A step is left out that
        would not fit any more; none is stopped.
    out
        The page with the report, of everything that is recorded under `runs`.
    features, runs
        Folders of feature files and of run records.
    device
        `auto`, `cpu` or `cuda`.
    **recipe
        Fields of `tlcache.finetuning.recipe.Recipe`; `refit` is on, so that networks are fitted to what heads are.

    Returns
    -------
    list of Step
        In the order in which they were, or would be, taken.

    Raises
    ------
    TlcacheError
        One of its kinds, for what is known before the first step: a name, a dataset, a setting.

    Examples
    --------
    >>> steps = study([photos], ["squeezenet1_1"], "random", heads=["ridge"], finetune=False, features=folder,
    ...     runs=folder, out=folder / "report.html")
    >>> [(step.kind, step.state) for step in steps]
    [('extract', 'done'), ('fit-heads', 'done'), ('report', 'done')]
    """
    from tlcache.report.page import check_page

    find_device(device)  # a slip in its name is told now
    asked = StudyPlan(
        cases=find_cells(data, models, weights),
        heads=tuple(find_heads(heads)),
        recipe=made(Recipe, {"refit": True, **recipe}) if finetune else None,
        features=check_folder(features_folder(features), "--features"),
        runs=check_folder(runs_folder(runs), "--runs"),
        out=check_page(out),
        device=device,
    )
    steps = asked.steps()
    networks = {step.model for step in steps if step.model and step.state == TO_DO}
    if networks and (plan or budget_s is not None):
        about = duration(_MEASURING_S * (1 + len(networks)))
        say(f"Measuring how fast this machine is, about {about}; longer where a network is exported first ...")
        from tlcache.studying.estimates import estimated

        steps = estimated(asked, steps)
    left_s = math.inf if budget_s is None else budget_s
    walked = _walk(_in_order(asked, steps), (lambda step: step) if plan else partial(_take, asked), left_s)
    return [replace(step, records=tuple(str(run.path) for run in asked.runs_of(step))) for step in walked]


def compare_study(
    steps: Sequence[Step], runs: str | Path | None = None, tell: Callable[[str], None] = warn
) -> tuple[list[Comparison], int]:
    """Compare the runs of a study alone, which its report compares with all others.

    Parameters
    ----------
    steps
        What `study` returned.
    runs, tell
        As for `tlcache.compare`.

    Returns
    -------
    list of Comparison, int
        By dataset; and how many other runs are recorded.

    Examples
    --------
    >>> steps = study([photos], ["squeezenet1_1"], "random", heads=["ridge"], finetune=False, features=folder,
    ...     runs=folder, out=folder / "report.html")
    >>> (found,), others = compare_study(steps, folder)
    >>> len(found.entries), others
    (1, 0)
    """
    own = {record for step in steps for record in step.records}
    recorded = read_runs(runs_folder(runs), tell)
    return compare_runs((run for run in recorded if str(run.path) in own), tell), len(recorded) - len(own)


def _in_order(asked: StudyPlan, steps: Sequence[Step]) -> Iterator[Step]:
    """Yield the steps in the order of worth; that of fine-tunings is settled when it is their turn."""
    yield from (step for step in steps if step.kind in (EXTRACT, FIT))
    tunings = [step for step in steps if step.kind == FINETUNE]
    best_first = sorted(tunings, key=lambda step: -asked.best_validation(step))
    by_data = [[step for step in best_first if step.data == data] for data in {step.data: 0 for step in tunings}]
    yield from (step for rank in zip_longest(*by_data) for step in rank if step)
    yield from (step for step in steps if step.kind == REPORT)


def _walk(steps: Iterable[Step], act: Callable[[Step], Step], left_s: float) -> list[Step]:
    """Take those steps that fit in. The plan is the same walk, with an `act` that returns a step as it is."""
    done, lacking = list[Step](), dict[tuple[str, str], str]()
    for step in steps:
        reason = lacking.get((step.data, step.model), "")
        if step.state == TO_DO and step.seconds > left_s:
            reason = reason or f"did not fit in the {duration(max(0.0, left_s))} that were left of the budget"
        taken = replace(step, state=LEFT_OUT, note=reason) if reason else act(step)
        if not reason:
            left_s -= taken.seconds
        if taken.kind == EXTRACT and taken.state in (LEFT_OUT, FAILED):
            lacking[step.data, step.model] = f"without its features: extract {taken.state}"
        done.append(taken)
    return done


def _take(asked: StudyPlan, step: Step) -> Step:
    """Do what is to be done for a step; an error is its result."""
    if step.kind in (FIT, FINETUNE) and asked.is_recorded(step):
        return replace(step, state=RECORDED, seconds=0.0, note="")
    if step.state == TO_DO:
        say(f"{step.kind} {step.dataset} {step.model}".rstrip() + _about(step))
    began = time.perf_counter()
    try:
        state, note = _ACTIONS[step.kind](asked, step), ""
    except (TlcacheError, OSError, MemoryError, RuntimeError) as error:  # the last is torch's when memory is full
        state, note = FAILED, str(error)
        say(f"failed: {error}")
    return replace(step, state=state, seconds=time.perf_counter() - began, note=note)


def _about(step: Step) -> str:
    return f", about {duration(step.seconds)}" if step.seconds else ""


def _extract(asked: StudyPlan, step: Step) -> str:
    case = asked.case(step)
    if case.download:
        say(case.download)
    found = extract(case.data, step.model, case.weights, features=asked.features, device=asked.device)
    for line in () if found.up_to_date else found.warnings:
        if (step.data, line) not in asked.warned:  # by another network's extraction
            warn(line)
    asked.warned.update((step.data, line) for line in found.warnings)
    return RECORDED if found.up_to_date else DONE


def _fit(asked: StudyPlan, step: Step) -> str:
    fit_heads([asked.place(step)], [row.name for row in asked.heads], runs=asked.runs)
    return DONE


def _finetune(asked: StudyPlan, step: Step) -> str:
    from tlcache.finetuning.run import finetune

    assert asked.recipe is not None
    finetune(
        step.data,
        step.model,
        asked.case(step).weights,
        features=asked.features,
        runs=asked.runs,
        device=asked.device,
        **asdict(asked.recipe),
    )
    return DONE


def _report(asked: StudyPlan, step: Step) -> str:
    del step
    from tlcache.report.page import write_report

    write_report(asked.out, asked.runs)
    return DONE


_ACTIONS: Mapping[str, Callable[[StudyPlan, Step], str]] = {
    EXTRACT: _extract,
    FIT: _fit,
    FINETUNE: _finetune,
    REPORT: _report,
}
