"""Taking the steps of a study in the order of their worth, or only saying what they are."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import Any

from tlcache.arguments import Runs
from tlcache.backbones.engines import find_device
from tlcache.errors import HeadError, TlcacheError
from tlcache.evaluation.compare import compare_runs
from tlcache.evaluation.comparison import Comparison
from tlcache.extraction.extract import extract, extract_layers
from tlcache.options import asked, described
from tlcache.probing.fit import fit_heads
from tlcache.progress import say, warn
from tlcache.runs.folder import read_runs, runs_folder
from tlcache.studying.steps import (
    DONE,
    EXTRACT,
    FAILED,
    FINETUNE,
    FIT,
    JOIN,
    LEFT_OUT,
    RECORDED,
    REPORT,
    TO_DO,
    OnePass,
    Step,
    StudyPlan,
)
from tlcache.text import duration

__all__ = ["compare_study", "run_study", "take"]

_MEASURING_S = 4.0  # for the packages, and for each network


def run_study(plan: StudyPlan, only_plan: bool, budget_s: float | None) -> list[Step]:
    """Take the steps that fit in the budget, or with `only_plan` say what they are and how long they take."""
    find_device(plan.device)  # that it is there is told now
    plan = replace(plan, one_pass=budget_s is None)  # each network has to fit in by itself
    steps = plan.steps()
    networks = {model for step in steps for model in step.models if step.state == TO_DO}
    if networks and (only_plan or budget_s is not None):
        about = duration(_MEASURING_S * (1 + len(networks)))
        say(f"Measuring how fast this machine is, about {about}; longer where a network is exported first ...")
        from tlcache.studying.estimates import estimated

        steps = estimated(plan, steps)
    left_s = math.inf if budget_s is None else budget_s
    walked = _walk(_in_order(plan, steps), (lambda step: step) if only_plan else partial(take, plan), left_s)
    return [replace(step, records=tuple(str(run.path) for run in plan.runs_of(step))) for step in walked]


@described()
def compare_study(
    steps: Sequence[Step], runs: Runs = None, on_warning: Callable[[str], None] = warn
) -> tuple[list[Comparison], int]:
    """Compare the runs of a study alone, which its report compares with all others.

    Parameters
    ----------
    steps
        What `study` returned.
    on_warning
        As for `tlcache.compare`.

    Returns
    -------
    list of Comparison, int
        By dataset, of the first seed; and how many other runs are recorded.

    Examples
    --------
    >>> steps = study([photos], ["squeezenet1_1"], "random", heads=["ridge"], finetune=False, features=folder,
    ...     runs=folder, out=folder / "report.html")
    >>> (found,), others = compare_study(steps, folder)
    >>> len(found.entries), others
    (1, 0)
    """
    own = {record for step in steps if not step.seed for record in step.records}
    recorded = read_runs(runs_folder(runs), on_warning)
    return compare_runs((run for run in recorded if str(run.path) in own), on_warning), len(recorded) - len(own)


def _in_order(plan: StudyPlan, steps: Sequence[Step]) -> Iterator[Step]:
    """Yield the steps in the order of worth; that of fine-tunings is settled when it is their turn."""
    yield from (step for step in steps if step.kind in (EXTRACT, FIT, JOIN))
    tunings = [step for step in steps if step.kind == FINETUNE]
    best_first = sorted(tunings, key=lambda step: -plan.best_validation(step))
    by_data = [[step for step in best_first if step.data == data] for data in {step.data: 0 for step in tunings}]
    yield from (step for rank in zip_longest(*by_data) for step in rank if step)
    yield from (step for step in steps if step.kind == REPORT)


def _walk(steps: Iterable[Step], act: Callable[[Step], Step], left_s: float) -> list[Step]:
    """Take those steps that fit in. The plan is the same walk, with an `act` that returns a step as it is."""
    done, lacking = list[Step](), dict[tuple[str, str], str]()
    for step in steps:
        reason = next(
            (_lack(step, model, state) for model in step.models if (state := lacking.get((step.data, model)))), ""
        )
        if step.state == TO_DO and step.seconds > left_s:
            reason = reason or f"did not fit in the {duration(max(0.0, left_s))} that were left of the budget"
        taken = replace(step, state=LEFT_OUT, note=reason) if reason else act(step)
        if not reason:
            left_s -= taken.seconds
        if taken.kind == EXTRACT and taken.state in (LEFT_OUT, FAILED):
            lacking[step.data, step.model] = taken.state
        done.append(taken)
    return done


def _lack(step: Step, model: str, state: str) -> str:
    """Return why a step is left out whose backbone, or one of them, has no features."""
    return f"without its features: extract {'' if model == step.model else f'{model} '}{state}"


def take(plan: StudyPlan, step: Step) -> Step:
    """Do what is to be done for a step; an error is its result."""
    if step.kind in (FIT, JOIN, FINETUNE) and plan.is_recorded(step):
        return replace(step, state=RECORDED, seconds=0.0, note="")
    if step.state == TO_DO:
        say(f"{step.kind} {step.dataset} {step.model}".rstrip() + _about(step))
    began = time.perf_counter()
    try:
        state, note = _ACTIONS[step.kind](plan, step), ""
    except (TlcacheError, OSError, MemoryError, RuntimeError) as error:  # the last is torch's when memory is full
        state, note = FAILED, str(error)
        say(f"failed: {error}")
    return replace(step, state=state, seconds=time.perf_counter() - began, note=note or _shared(plan, step))


def _about(step: Step) -> str:
    return f", about {duration(step.seconds)}" if step.seconds else ""


def _shared(plan: StudyPlan, step: Step) -> str:
    """Return with which other backbone the images were seen."""
    found = plan.passes.get(step.data)
    if found is None or step.kind != EXTRACT or step.model not in found.done or step.model == found.first:
        return ""
    return f"in one pass with {found.first}"


def _extract(plan: StudyPlan, step: Step) -> str:
    cell = plan.cell(step)
    if plan.one_pass and step.data not in plan.passes:
        plan.passes[step.data] = OnePass(step.model)
        _embed_together(plan, step)
    found = plan.passes[step.data].done.get(step.model) if plan.one_pass else None
    if found is None:
        if cell.download:
            say(cell.download)
        found = extract(step.data, step.model, cell.weights, **_how(plan))
    for line in () if found.up_to_date else found.warnings:
        if (step.data, line) not in plan.warned:  # by another network's extraction
            warn(line)
    plan.warned.update((step.data, line) for line in found.warnings)
    return RECORDED if found.up_to_date else DONE


def _how(plan: StudyPlan) -> dict[str, Any]:
    same = {"split_seed": plan.split_seed, "features": plan.features, "device": plan.device}
    return {**same, **plan.layout.arguments}


def _embed_together(plan: StudyPlan, step: Step) -> None:
    """Embed a dataset by all backbones that have no features of it; where one fails, each is left to its own step."""
    own = [replace(step, model=cell.backbone.name) for cell in plan.cells.values() if cell.data == step.data]
    cells = [plan.cell(each) for each in own if not plan.is_recorded(each)]
    if len(cells) < 2:
        return
    names = [cell.backbone.name for cell in cells]
    for cell in cells:
        if cell.download:
            say(f"{cell.backbone.name}: {cell.download}")
    say(f"{step.dataset}: one pass for {', '.join(names)}")
    weights = {cell.backbone.name: cell.weights for cell in cells if cell.weights}
    try:
        done = extract_layers(step.data, names, weights=weights, **_how(plan))
    except TlcacheError as error:
        say(f"{error} Each backbone is tried by itself.")
    else:
        plan.passes[step.data].done.update(zip(names, done, strict=True))


def _fit(plan: StudyPlan, step: Step) -> str:
    failed, files = list[str](), plan.places(step)
    join = "+".join(file.stem for file in files) if len(files) > 1 else None
    heads, promise = [row.name for row in plan.heads], plan.protocol
    fit_heads(
        files,
        heads,
        join=join,
        cv=plan.cv,
        coverage=promise.coverage,
        per_class=promise.per_class,
        seed=promise.seed,
        runs=plan.runs,
        on_warning=failed.append,
    )
    if failed:
        raise HeadError(" ".join(failed))
    return DONE


def _finetune(plan: StudyPlan, step: Step) -> str:
    from tlcache.finetuning.finetune import finetune

    assert plan.recipe is not None
    settings = asked(plan.recipe)
    if plan.recipe.method == "last":
        del settings["unfreeze"]  # which that says
    finetune(
        step.data,
        step.model,
        plan.cell(step).weights,
        split_seed=plan.split_seed,
        features=plan.features,
        runs=plan.runs,
        device=plan.device,
        cv=plan.cv,
        **settings,
        **plan.layout.arguments,
    )
    return DONE


def _report(plan: StudyPlan, step: Step) -> str:
    del step
    from tlcache.report.page import write_report

    write_report(plan.out, plan.runs)
    return DONE


_ACTIONS: Mapping[str, Callable[[StudyPlan, Step], str]] = {
    EXTRACT: _extract,
    FIT: _fit,
    JOIN: _fit,
    FINETUNE: _finetune,
    REPORT: _report,
}
