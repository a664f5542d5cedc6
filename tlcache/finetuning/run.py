"""Dataset + backbone -> fine-tuned network -> run record, on the rows and splits of the cached features."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout
from msgspec import structs

from tlcache.errors import CacheError
from tlcache.evaluation.regression import interval_on
from tlcache.evaluation.significance import unit_numbers
from tlcache.evaluation.task import Task
from tlcache.evaluation.uncertainty import uncertainty_figures
from tlcache.finetuning.checkpoints import Checkpoints
from tlcache.finetuning.clock import Clock
from tlcache.finetuning.data import TuningData
from tlcache.finetuning.race import run_race
from tlcache.finetuning.ranks import first_alone, joined, rank
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.recipes import RACE
from tlcache.finetuning.saved import save_weights
from tlcache.finetuning.speed import ComputeFormat
from tlcache.finetuning.sweep import Variant, best_epochs, checkpoints_of, run_sweep
from tlcache.finetuning.training import State
from tlcache.finetuning.trial import Trial, seconds_of
from tlcache.heads.rows import Array, Labels
from tlcache.heads.uncertainty import Uncertainty
from tlcache.locks import Lock
from tlcache.machine import Energy, hardware, keeping_memory, now, versions
from tlcache.progress import say
from tlcache.runs.base import Hardware, Identity, SplitSizes, fields_of_features
from tlcache.runs.finetuned import FinetunedRun, Layers, RefitEpoch, TunedChoice, TunedEpoch
from tlcache.runs.folder import checkpoints_path, lock_path, write_run
from tlcache.runs.predictions import Predictions

__all__ = ["Left", "claimed", "left_of", "train_and_test"]


@dataclass(frozen=True)
class Left:
    """Epochs of a fine-tuning without a sweep that are not trained yet, at most; `note` says which are, if any."""

    epochs: int
    refit: int
    note: str = ""


def left_of(recipe: Recipe, path: Path | None = None) -> Left:
    """Return what is left of the run of `path`, by its checkpoints; epochs of the head alone are not counted."""
    folder = checkpoints_path(path) if path else None
    saved = checkpoints_of(folder, recipe).latest() if folder else None
    if folder is None or saved is None:
        return Left(recipe.epochs, recipe.epochs * recipe.refit)
    state = State(**saved)
    if state.phase < (2 if recipe.init_head == "scratch" else 1):
        trained = _trained(state)
        note = f"{trained} of {recipe.epochs} epochs are trained" if trained else ""
        return Left(recipe.epochs - trained, recipe.epochs * recipe.refit, note)
    again = Checkpoints(folder / "refit").latest() if recipe.refit else None
    refit = best_epochs(state).backbone * recipe.refit - (_trained(State(**again)) if again else 0)
    return Left(0, refit, f"all epochs but {refit} of the refit are trained" if refit else "all epochs are trained")


def _trained(state: State) -> int:
    return sum(epoch["phase"] == "backbone" and epoch["epoch"] > 0 for epoch in state.history)


@contextmanager
def claimed(device: str, path: Path) -> Iterator[None]:
    """Join the other processes of a training, and keep all others from the run that is recorded at a path."""
    with joined(device), _alone(path), keeping_memory():
        yield


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep others from the same run. The lock's file stays: another process may be waiting at it."""
    if rank() > 0:
        yield
        return
    lock = Lock(lock_path(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(0.5)
    except Timeout:
        raise CacheError(
            f"Another process does the same fine-tuning. Wait for it, or change a setting.{lock.advice}"
        ) from None
    try:
        yield
    finally:
        lock.release()


def train_and_test(
    data: TuningData,
    wanted: Sequence[Variant],
    budget_s: float | None,
    identity: Identity,
    path: Path,
    kept: bool = True,
) -> FinetunedRun:
    """Train these variants, test the best on validation, and record it as a run of this identity at this path.

    The path has to be `claimed`. The network is saved beside the record if it is to be `kept`.
    """
    folder = checkpoints_path(path)
    race, clock, first, energy = None, None, wanted[0][1], Energy()
    if first.recipe == RACE:
        data = replace(data, activations=folder / "activations")  # of samples of the images: nobody needs them again
    decode_s = first_alone(lambda: data.pixels).images.seconds
    if first.recipe == RACE:
        candidates, race, clock = run_race(data, first, budget_s, folder)
    else:
        candidates = run_sweep(data, wanted, budget_s, folder)
    (best,) = (each for each in candidates if each.trial)
    trial, state = best.trial, best.state
    assert trial is not None
    assert state is not None
    way = ComputeFormat("fp32", state.layout)  # what is reported is computed as it will be used
    validation = trial.logits("val", way)
    temperature = data.target.temperature(validation, data.labels("val"))
    held_out = data.target.answers(validation, temperature)
    target = data.target.chosen_on(data.labels("val"), held_out, best.recipe.coverage)
    promised = None if target.answering else _promised(best.recipe, held_out, data.labels("val"))
    search_s = sum(each.seconds for each in candidates) + (race.timing_s if race else 0.0)
    again, refit, refit_s = _refitted(data, best.recipe, state, folder, clock) if best.recipe.refit else (None, [], 0.0)
    trial = again or trial
    if race and clock:
        clock.spent_s = search_s + refit_s
        say(clock.told())
        race = structs.replace(race, spent_s=clock.spent_s, cut=tuple(clock.cut))
    energy_j = energy.joules()
    answers = target.answers(trial.logits("test", way), temperature)
    epoch_s, images_per_s = _speeds(state)
    run = FinetunedRun(
        **fields_of_features(data.attrs, data.classes),
        rows=SplitSizes(**{name: len(split) for name, split in data.splits.items()}),
        head=best.recipe.head,
        arguments=identity.arguments,
        chosen=TunedChoice(setting=best.setting, epochs=best_epochs(state)),
        candidates=tuple(each.described() for each in candidates),
        history=tuple(TunedEpoch(**epoch) for epoch in state.history),
        refit_history=tuple(RefitEpoch(**epoch) for epoch in refit),
        temperature=temperature,
        layers=Layers(trained=tuple(layer.name for layer in trial.layers), cut=trial.network.cut),
        train_precision=state.precision,
        layout=state.layout,
        measured_images_per_s=state.measured,
        train_s=decode_s + search_s + refit_s,
        decode_s=decode_s,
        search_s=search_s,
        refit_s=refit_s,
        energy_j=energy_j,
        epoch_s=epoch_s,
        images_per_s=images_per_s,
        race=race,
        trained_parameters=best.trained_parameters,
        peak_bytes=max(best.peak_bytes, trial.peak_bytes),
        **_tested(data, target, answers, promised, bool(refit)),
        versions=versions(),
        hardware=Hardware(**hardware(), device=data.device, threads=torch.get_num_threads()),
        created=now(),
        record=str(path),
    )
    if rank() == 0:
        if kept:
            save_weights(trial.model, trial.head, run, promised, target.answering)
        write_run(run, data.splits["test"], answers, Predictions.of(data.splits["val"], held_out))
        shutil.rmtree(folder, ignore_errors=True)
    return run


def _refitted(
    data: TuningData, recipe: Recipe, state: State, folder: Path, clock: Clock | None
) -> tuple[Trial | None, list[dict[str, Any]], float]:
    """Train on train + val for as many epochs as were best, in the time that a race has left.

    Returns
    -------
    Trial or None, list, float
        The network, None where time ended its training; its epochs, and what all of them took in seconds.
    """
    epochs = structs.asdict(best_epochs(state))
    count, trial = sum(epochs.values()), Trial(data.told_as("refit"), recipe, refit=epochs)
    late = clock.refit_ends(count) if clock else None
    history = trial.train(Checkpoints(folder / "refit"), state.way, late=late).history
    seconds = trial.setup_s + seconds_of(history)
    if len(history) == count:
        return trial, history, seconds
    if clock:
        clock.note("the training on train + val would take too long: the network is kept that was trained on train")
    return None, [], seconds


def _promised(recipe: Recipe, probabilities: Array, labels: Labels) -> Uncertainty | None:
    """Return what the network promises by what it says of the validation images, where that was asked for."""
    if recipe.coverage is None:
        return None
    return Uncertainty.of(probabilities, labels, recipe.coverage, recipe.per_class)


def _tested(
    data: TuningData, target: Task, answers: Array, promised: Uncertainty | None, refitted: bool
) -> dict[str, Any]:
    """Return the fields of a run that say what its answers (n, C) on the test images reach."""
    test, answering = data.splits["test"], target.answering
    wanted, units = test.wanted, unit_numbers(test.groups)
    held = None
    if promised is not None:
        method = "validation images" + (", before the refit" if refitted else "")
        held = uncertainty_figures(promised, method, data.classes, test.labels, answers, None, units, 0.0)
    return {
        "test": target.figures(wanted, answers, units),
        "per_class": target.per_class(data.classes, wanted, answers, units),
        "uncertainty": held,
        "thresholds": answering.thresholds if answering else (),
        "interval": interval_on(answering, wanted, answers, units),
    }


def _speeds(state: State) -> tuple[float, float]:
    """Return medians of the phase that trains the backbone: seconds an epoch, images per second while training."""
    backbone = [epoch for epoch in state.history if epoch["phase"] == "backbone" and "train_s" in epoch]
    epoch_s = statistics.median(epoch["train_s"] + epoch["val_s"] for epoch in backbone)
    return epoch_s, statistics.median(epoch["images_per_s"] for epoch in backbone)
