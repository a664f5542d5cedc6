"""A race of recipes on validation: all for a few epochs, the better half for more, the best in earnest."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tlcache.finetuning.pace import Pace, measured
from tlcache.finetuning.plan import Plan, Rows, budget_of, planned, worth_keeping
from tlcache.finetuning.ranks import shared
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.recipes import RACED, RECIPES
from tlcache.finetuning.speed import choose_format
from tlcache.finetuning.sweep import TrainedVariant, train_variant
from tlcache.finetuning.training import TrainingError
from tlcache.finetuning.trial import Task, Trial
from tlcache.progress import detail, say
from tlcache.records import Form
from tlcache.runs.finetuned import Race, TunedEpoch
from tlcache.text import counted, duration

__all__ = ["run_race"]


@dataclass(frozen=True)
class _Timed:
    """The recipes that suit a network and what an image costs each; kept, so that a race goes on as it began."""

    precision: str
    layout: str
    paces: Mapping[str, Pace]
    whole: Pace
    seconds: float


_TIMED: Form[_Timed] = Form("tlcache-race", 1, "what a race was planned by", _Timed)
_PASSES = 2  # the machine may have had something else to do in one of them


def run_race(task: Task, base: Recipe, budget_s: float | None, folder: Path) -> tuple[list[TrainedVariant], Race]:
    """Train the recipes of `RACED`: all for a few epochs, the better half for more, the best of these in earnest.

    That is successive halving (Jamieson and Talwalkar, 2016), each training with its whole schedule. `base` has what
    the recipes share.

    Returns
    -------
    list of TrainedVariant, Race
        All that was trained, the last with its network, and what there was to begin with.

    Raises
    ------
    TrainingError
        The loss went out of bounds with every recipe.
    """
    timed = shared(lambda: _timed(task, base, folder))
    rows = Rows(len(task.splits["train"]), len(task.splits["val"]), base.refit)
    budget = budget_of(rows, timed.whole) if budget_s is None else budget_s
    plan = planned(rows, timed.paces, budget, base.batch_size)
    say(_announced(plan))
    done, names = list[TrainedVariant](), list(plan.epochs)
    for number, each in enumerate(plan.rounds, 1):
        some = task.sampled(base.seed, train=each.train, val=each.val)
        found = dict[str, TrainedVariant]()
        for name in names[: each.recipes]:
            found[name] = _run(some, base, timed, name, each.epochs, folder / str(number))
            say(f"round {number}: {name}: {_result(found[name])}")
        done += found.values()
        names = sorted(found, key=lambda name: _score(found[name]), reverse=True)
    if done and all(each.state is None for each in done):
        raise TrainingError("The loss went out of bounds with every recipe of the race. Give a smaller --lr.")
    say(f"the recipe is {names[0]}, for {plan.epochs[names[0]]} epochs")
    final = _run(task, base, timed, names[0], plan.epochs[names[0]], folder, alone=True)
    rates = {name: 1 / pace.train_s for name, pace in timed.paces.items()}
    race = Race(budget_s=budget, timing_s=timed.seconds, images_per_s=rates, left_out=plan.left_out)
    return [*done, final], race


def _run(
    task: Task, base: Recipe, timed: _Timed, name: str, epochs: int, folder: Path, alone: bool = False
) -> TrainedVariant:
    """Train a recipe for so many epochs; none ends early, as the learning rate comes down last."""
    settings = {**RECIPES[name], "epochs": epochs, "patience": epochs}
    if settings.get("cached_prefix"):
        keeps = timed.paces[name].kept_bytes > 0
        settings |= {"cached_prefix": keeps, "views": min(settings.get("views", 1), epochs) if keeps else 1}
    recipe = replace(base, recipe=None, precision=timed.precision, layout=timed.layout, **settings)
    found = train_variant(task, {"recipe": name, **settings}, recipe, folder, alone, say if alone else detail)
    return replace(found, images=len(task.rows("train")), trial=found.trial if alone else None)


def _score(found: TrainedVariant) -> tuple[float, float]:
    """Return what recipes are compared by: that of the best epoch that was trained."""
    return max((each.score for each in _trained(found)), default=(-math.inf, 0.0))


def _trained(found: TrainedVariant) -> list[TunedEpoch]:
    return [TunedEpoch(**epoch) for epoch in (found.state.history if found.state else ()) if epoch["epoch"]]


def _result(found: TrainedVariant) -> str:
    if found.state is None:
        return "the loss went out of bounds"
    epochs = len(found.state.history) - 1
    where = f"{counted(epochs, 'epoch')} on {counted(found.images, 'image')}"
    began, best = TunedEpoch(**found.state.history[0]), max(_trained(found), key=lambda each: each.score)
    reached = f"{best.figure.replace('_', ' ')} on validation {best.value:.3f} (before: {began.value:.3f})"
    return f"{where}, {reached}; {duration(found.seconds)}"


def _announced(plan: Plan) -> str:
    """Return in words what is going to be tried, and in what time."""
    tried = f"{', '.join(plan.epochs)} within {duration(plan.budget_s)}"
    line = f"a race of {len(plan.epochs)} recipes: {tried}" if plan.rounds else f"one recipe: {tried}"
    if plan.left_out:
        line += f"; too slow for that: {', '.join(plan.left_out)} (--budget gives more)"
    return line


def _timed(task: Task, base: Recipe, folder: Path) -> _Timed:
    path = folder / "race.json"
    if path.exists():
        return _TIMED.read(path)
    began = time.perf_counter()
    trial, crop = Trial(task, replace(base, recipe=None)), task.preprocess.crop
    way, _ = choose_format(base.precision, base.layout, trial.network, crop, task.device)
    suited = {name: unfreeze for name in RACED if trial.suits(unfreeze := RECIPES[name].get("unfreeze", "all"))}
    parts = {unfreeze: trial.classifier(unfreeze) for unfreeze in ("all", *suited.values())}
    by_part = dict[str, Pace]()
    for unfreeze, network in list(parts.items()) * _PASSES:
        again = measured(network, way, crop, task.device)
        by_part[unfreeze] = again.least(by_part.get(unfreeze, again))
    images = len(task.splits["train"]) + len(task.splits["val"])
    paces = {name: _kept(by_part[unfreeze], RECIPES[name].get("views", 1), images) for name, unfreeze in suited.items()}
    found = _Timed(way.precision, way.layout, paces, by_part["all"], time.perf_counter() - began)
    _TIMED.write(path, found)
    return found


def _kept(once: Pace, views: int, images: int) -> Pace:
    """Return the pace with so many views of what is frozen, which is kept if it is small enough."""
    found = replace(once, views=views)
    return found if worth_keeping(images, found) else found.anew()
