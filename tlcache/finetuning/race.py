"""A race of recipes on validation: all for a few epochs, the better half for more, the best in earnest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tlcache.finetuning.clock import Clock, slowed
from tlcache.finetuning.data import TuningData
from tlcache.finetuning.pace import Pace, measured
from tlcache.finetuning.plan import FLOOR_S, Plan, Round, Rows, budget_of, fitted, planned, worth_keeping
from tlcache.finetuning.ranks import shared
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.recipes import INSTEAD, RACED, RECIPES
from tlcache.finetuning.speed import choose_format
from tlcache.finetuning.sweep import TrainedVariant, train_variant
from tlcache.finetuning.training import Late, TrainingError
from tlcache.finetuning.trial import Trial
from tlcache.progress import detail, say
from tlcache.records import Form
from tlcache.runs.finetuned import Race, TunedEpoch
from tlcache.text import counted, duration, figure_text

__all__ = ["race_seconds", "run_race"]

T = TypeVar("T")


@dataclass(frozen=True)
class _Timed:
    """The recipes that suit a network and what an image costs each; kept, so that a race goes on as it began."""

    precision: str
    layout: str
    paces: Mapping[str, Pace]
    whole: Pace
    seconds: float


_TIMED: Form[_Timed] = Form("tlcache-race", 1, "what a race was planned by", _Timed)
_PLAN: Form[Plan] = Form("tlcache-race-plan", 1, "what is left of a race", Plan)
_PASSES = 2  # the machine may have had something else to do in one of them
_TIMING = 0.1  # of the budget: timing takes no longer, but for a step of each kind
_SLOW = 1.1  # times as long as was timed: less may be noise


def run_race(
    data: TuningData, base: Recipe, budget_s: float | None, folder: Path
) -> tuple[list[TrainedVariant], Race, Clock]:
    """Train the recipes of `RACED`: all for a few epochs, the better half for more, the best of these in earnest.

    That is successive halving (Jamieson and Talwalkar, 2016), each training with its whole schedule. `base` has what
    the recipes share. Where the machine becomes busier than it was when it was timed, what follows is cut.

    Returns
    -------
    list of TrainedVariant, Race, Clock
        All that was trained, the last with its network, what there was to begin with, and the time that is spent.

    Raises
    ------
    TrainingError
        The loss went out of bounds with every recipe.
    """
    timed, rows = _timed_once(data, base, folder, budget_s), Rows.of(data.splits, base.refit)
    budget = budget_of(rows, timed.whole) if budget_s is None else budget_s
    plan = planned(rows, timed.paces, budget, base.batch_size)
    say(_announced(plan))
    clock, done, number, left_out = Clock(budget), list[TrainedVariant](), 0, plan.left_out
    clock.spend(timed.seconds)
    names = list(plan.epochs)
    racing = _Racing(data, base, timed, rows, clock)
    while plan.rounds:
        number += 1
        found = racing.round(plan.rounds[0], names, folder / str(number))
        done += found.values()
        names = sorted(found, key=lambda name: _score(found[name]), reverse=True)
        plan = racing.rest(plan, names, found, folder / f"plan-{number}.json")
    if done and all(each.state is None for each in done):
        raise TrainingError("The loss went out of bounds with every recipe of the race. Give a smaller --lr.")
    say(f"the recipe is {names[0]}, for {counted(plan.epochs[names[0]], 'epoch')}")
    ends = clock.final_ends((rows.train + rows.val) / rows.train if rows.refit else 0.0)
    final = racing.train(data, names[0], plan.epochs[names[0]], folder, ends, alone=True)
    clock.spend(final.seconds, final.epochs_s)
    if (trained := len(final.state.history) - 1 if final.state else 0) < plan.epochs[names[0]]:
        clock.note(f"time ended the training after {counted(trained, 'epoch')}")
    rates = {name: 1 / pace.train_s for name, pace in timed.paces.items()}
    race = Race(budget_s=budget, timing_s=timed.seconds, images_per_s=rates, left_out=left_out)
    return [*done, final], race, clock


def race_seconds(data: TuningData, base: Recipe, folder: Path) -> float:
    """Return what a race and what follows may take where nothing is said; it goes on by what is timed for that."""
    return budget_of(Rows.of(data.splits, base.refit), _timed_once(data, base, folder).whole)


@dataclass(frozen=True)
class _Racing:
    """What the trainings of a race share; `base` has what its recipes do."""

    data: TuningData
    base: Recipe
    timed: _Timed
    rows: Rows
    clock: Clock

    def round(self, each: Round, names: Sequence[str], folder: Path) -> dict[str, TrainedVariant]:
        """Train the first of these recipes; those that would begin when the round has to end are left out."""
        some, clock = self.data.sampled(self.base.seed, train=each.train, val=each.val), self.clock
        found, ends, wanted = dict[str, TrainedVariant](), clock.round_ends(), names[: each.recipes]
        for name in wanted:
            if found and ends([]):
                clock.note(f"no time is left in this round for {', '.join(wanted[len(found) :])}")
                break
            where = f"round {folder.name}: {name}"
            found[name] = self.train(some.told_as(where), name, each.epochs, folder, ends)
            clock.spend(found[name].seconds, found[name].epochs_s)
            say(f"{where}: {_result(found[name])}")
        return found

    def rest(self, plan: Plan, names: Sequence[str], found: Mapping[str, TrainedVariant], path: Path) -> Plan:
        """Return what follows a round, by the pace that it had."""
        going_on = names[: plan.rounds[1].recipes if len(plan.rounds) > 1 else 1]
        rest = replace(plan, rounds=plan.rounds[1:], epochs={name: plan.epochs[name] for name in going_on})
        histories, timed = {name: each.state.history for name, each in found.items() if each.state}, self.timed.paces
        times = max((slowed(timed[name], history) for name, history in histories.items()), default=1.0)
        paces = {name: timed[name].slowed(times) for name in going_on}
        kept = shared(lambda: _once(_PLAN, path, lambda: fitted(rest, self.rows, paces, self.clock.left_s)))
        if kept != rest:
            slow = f"the machine takes {times:.1f} times as long as it was timed to"
            self.clock.note(_cut(rest, kept, slow if times >= _SLOW else self.clock.told_once()))
        return kept

    def train(
        self, data: TuningData, name: str, epochs: int, folder: Path, ends: Late, alone: bool = False
    ) -> TrainedVariant:
        """Train a recipe for so many epochs; none ends early but for time, as the learning rate comes down last."""
        settings, timed = {**RECIPES[name], "epochs": epochs, "patience": epochs}, self.timed
        if settings.get("cached_prefix"):
            keeps = timed.paces[name].kept_bytes > 0
            settings |= {"cached_prefix": keeps, "views": min(settings.get("views", 1), epochs) if keeps else 1}
        recipe = replace(self.base, recipe=None, precision=timed.precision, layout=timed.layout, **settings)
        found = train_variant(data, {"recipe": name, **settings}, recipe, folder, alone, say if alone else detail, ends)
        return replace(found, images=len(data.rows("train")), trial=found.trial if alone else None)


def _cut(before: Plan, now: Plan, why: str) -> str:
    """Return in words how what follows is shortened."""
    rounds = [
        f"{counted(each.train, 'image')} and {counted(each.epochs, 'epoch')} in the next round" for each in now.rounds
    ]
    was, are = (counted(max(plan.epochs.values()), "epoch") for plan in (before, now))
    end = [] if are == was else [f"at most {are} in the end, not {was}"]
    told = [*(rounds or ["no other round"] * len(before.rounds)), *end] or ["fewer images"]
    return f"{why}; to end in time: {', '.join(told)}"


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
    value, before = (figure_text(each.value, best.figure) for each in (best, began))
    reached = f"{best.figure.replace('_', ' ')} on validation {value} (before: {before})"
    return f"{where}, {reached}; {duration(found.seconds)}"


def _announced(plan: Plan) -> str:
    """Return in words what is going to be tried, and in what time."""
    tried = f"{', '.join(plan.epochs)} within {duration(plan.budget_s)}"
    line = f"a race of {len(plan.epochs)} recipes: {tried}" if plan.rounds else f"one recipe: {tried}"
    if plan.left_out:
        line += f"; too slow for that: {', '.join(plan.left_out)} (--budget gives more)"
    raced = {*plan.epochs, *plan.left_out}
    if same := [name for name in RACED if raced.isdisjoint({name, INSTEAD.get(name, name)})]:
        line += f"; left out, as this network has no more stages than they train: {', '.join(same)}"
    return line


def _once(form: Form[T], path: Path, make: Callable[[], T]) -> T:
    """Return what is made once, and kept so that a race goes on as it would have."""
    if not path.exists():
        form.write(path, make())
    return form.read(path)


def _timed_once(data: TuningData, base: Recipe, folder: Path, budget_s: float | None = None) -> _Timed:
    return shared(lambda: _once(_TIMED, folder / "race.json", lambda: _timed(data, base, budget_s)))


def _timed(data: TuningData, base: Recipe, budget_s: float | None) -> _Timed:
    """Time as much as there is time for; parts of the network that are not timed count as all of it, which is more."""
    began = time.perf_counter()
    trial, crop = Trial(data, replace(base, recipe=None)), data.preprocess.crop
    most = _TIMING * (FLOOR_S if budget_s is None else budget_s)
    say(f"timing some training steps, within about {duration(most)} ...")
    end = time.perf_counter() + most

    def ends() -> bool:
        return time.perf_counter() > end

    way, _ = choose_format(base.precision, base.layout, trial.network, crop, data.device, ends)
    parts_of = {name: row.get("unfreeze", "all") for name, row in RECIPES.items()}
    names = [name if trial.suits(parts_of[name]) else INSTEAD.get(name) for name in RACED]
    suited = {name: parts_of[name] for name in names if name}
    parts = {unfreeze: trial.classifier(unfreeze) for unfreeze in ("all", *suited.values())}
    by_part = dict[str, Pace]()
    for unfreeze, network in list(parts.items()) * _PASSES:
        if by_part and ends():
            break
        again = measured(network, way, crop, data.device, ends)
        by_part[unfreeze] = again.least(by_part.get(unfreeze, again))
    images = len(data.splits["train"]) + len(data.splits["val"])
    own = {name: by_part.get(unfreeze, by_part["all"]) for name, unfreeze in suited.items()}
    paces = {name: _kept(pace, RECIPES[name].get("views", 1), images) for name, pace in own.items()}
    return _Timed(way.precision, way.layout, paces, by_part["all"], time.perf_counter() - began)


def _kept(once: Pace, views: int, images: int) -> Pace:
    """Return the pace with so many views of what is frozen, which is kept if it is small enough."""
    found = replace(once, views=views)
    return found if worth_keeping(images, found) else found.anew()
