"""Several recipes on the same data: each trained, the best on validation kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlcache.finetuning.checkpoints import Checkpoints
from tlcache.finetuning.data import TuningData
from tlcache.finetuning.ranks import shared
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.training import Late, State, Tell, TrainingError
from tlcache.finetuning.trial import Trial, seconds_of
from tlcache.keys import hash_json
from tlcache.progress import say
from tlcache.runs.finetuned import PhaseEpochs, TunedCandidate, TunedEpoch
from tlcache.text import duration

__all__ = ["TrainedVariant", "Variant", "best_epochs", "checkpoints_of", "run_sweep", "train_variant"]

Variant = tuple[dict[str, Any], Recipe]


@dataclass(frozen=True)
class TrainedVariant:
    """A setting that was trained.

    Parameters
    ----------
    setting, recipe
        What differs from the others, and all of it.
    trial, state
        Its network and how the training went. The network is kept of the best alone; there is no state where the loss
        went out of bounds.
    seconds
        Of training and validation.
    images
        That it was trained on, in a race; 0 otherwise.
    trained_parameters, peak_bytes
        As those of its trial.
    """

    setting: dict[str, Any]
    recipe: Recipe
    trial: Trial | None
    state: State | None
    seconds: float
    images: int = 0
    trained_parameters: int = 0
    peak_bytes: int = 0

    @property
    def epochs_s(self) -> float:
        """Those of `seconds` that are of epochs; the others are there once, whatever their number."""
        return seconds_of(self.state.history) if self.state else 0.0

    def score(self) -> tuple[float, float]:
        """Return what candidates are compared by: that of their best epoch on validation."""
        return self.state.best_epoch.score if self.state else (-math.inf, 0.0)

    def described(self) -> TunedCandidate:
        """Return the setting and how it did, for the record."""
        if self.state is None:
            return TunedCandidate(setting=self.setting, diverged=True, images=self.images)
        best = self.state.best_epoch
        return TunedCandidate(
            setting=self.setting,
            scores={f"val_{best.figure}": best.value, "val_loss": best.val_loss},
            epochs=best_epochs(self.state),
            train_s=self.seconds,
            images=self.images,
            trained_parameters=self.trained_parameters,
            peak_bytes=self.peak_bytes,
            history=tuple(TunedEpoch(**epoch) for epoch in self.state.history) if self.images else (),
        )


def run_sweep(
    data: TuningData, wanted: Sequence[Variant], budget_s: float | None, folder: Path
) -> list[TrainedVariant]:
    """Train the variants one after the other, as many as the budget has room for; all compute in the same way."""
    done: list[TrainedVariant] = []
    if budget_s is not None and len(wanted) == 1:
        say(f"The budget of {duration(budget_s)} is of races and sweeps; one training goes on to its end.")
    for setting, asked in wanted:
        spent, longest = sum(each.seconds for each in done), max((each.seconds for each in done), default=0.0)
        if done and budget_s is not None and spent + longest > budget_s:
            say(f"The budget of {duration(budget_s)} has no room for {setting} and what would follow.")
            break
        way = next((each.state.way for each in done if each.state), None)
        recipe = replace(asked, precision=way.precision, layout=way.layout) if way else asked
        named = ", ".join(f"{name} {value}" for name, value in setting.items())
        if named:
            say(named)
        done.append(train_variant(data.told_as(named), setting, recipe, folder, alone=len(wanted) == 1))
        best = max(done, key=TrainedVariant.score)
        done = [each if each is best else replace(each, trial=None) for each in done]  # one network at a time
    if best.state is None:
        raise TrainingError("The loss went out of bounds with every setting of the sweep. Try smaller learning rates.")
    return done


def train_variant(
    data: TuningData,
    setting: dict[str, Any],
    recipe: Recipe,
    folder: Path,
    alone: bool,
    tell: Tell = say,
    late: Late | None = None,
) -> TrainedVariant:
    """Train a setting; a loss that goes out of bounds is an error where it is `alone`."""
    trial = Trial(data, recipe)
    try:
        state = trial.train(checkpoints_of(folder, recipe), tell=tell, late=late)
    except TrainingError as error:
        if alone:
            raise
        say(str(error))
        return TrainedVariant(setting, recipe, None, None, 0.0)
    seconds = shared(lambda: trial.setup_s + seconds_of(state.history))  # what budgets and clocks decide by
    costs = {"trained_parameters": trial.trained_parameters, "peak_bytes": trial.peak_bytes}
    return TrainedVariant(setting, recipe, trial, state, seconds, **costs)


def checkpoints_of(folder: Path, recipe: Recipe) -> Checkpoints:
    """Return those of a recipe's training, in the folder of its run's."""
    return Checkpoints(folder / hash_json(recipe.as_json())[:12])


def best_epochs(state: State) -> PhaseEpochs:
    """Return how many epochs of each phase led to the best weights."""
    best = state.history[: state.best["epochs"]]
    found = dict.fromkeys(("head", "backbone"), 0)
    for phase in found:
        own = [epoch for epoch in best if epoch["phase"] == phase]
        if own:
            found[phase] = max((TunedEpoch(**epoch) for epoch in own), key=lambda epoch: epoch.score).epoch
    return PhaseEpochs(**found)
