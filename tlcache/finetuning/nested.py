"""Test figures by cross-validation: every image is tested by a network that was neither trained nor chosen by it."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from math import ceil
from pathlib import Path
from statistics import fmean, median
from typing import Any

from msgspec import structs

from tlcache.cache.feature_file import Split
from tlcache.errors import CacheError
from tlcache.finetuning.data import TuningData
from tlcache.finetuning.pace import measured
from tlcache.finetuning.plan import Rows, training_s
from tlcache.finetuning.race import race_seconds
from tlcache.finetuning.ranks import rank, shared
from tlcache.finetuning.recipes import RACE
from tlcache.finetuning.run import train_and_test
from tlcache.finetuning.speed import choose_format
from tlcache.finetuning.sweep import Variant
from tlcache.finetuning.trial import Trial
from tlcache.keys import hash_json
from tlcache.machine import now
from tlcache.probing.folds import inner_parts
from tlcache.probing.outer import OuterFold, Tested, outer_folds
from tlcache.progress import say
from tlcache.runs.base import Identity, SplitSizes
from tlcache.runs.finetuned import FinetunedRun, PhaseEpochs, Race, TunedChoice
from tlcache.runs.folder import checkpoints_path, write_run
from tlcache.runs.record import RUNS
from tlcache.text import counted, duration

__all__ = ["cross_validate", "finished_folds"]

_FOLD = "fold-{}.json"


def cross_validate(
    data: TuningData,
    images: Split,
    wanted: Sequence[Variant],
    budget_s: float | None,
    identity: Identity,
    path: Path,
    cv: str,
    seed: int,
) -> FinetunedRun:
    """Train and test in each of the folds that heads are tested in, and record what is said of all images as one run.

    Each fold is a run of its own on other rows, whose record lies beside the checkpoints until the last is done: what
    was stopped goes on with the fold where it was.

    Parameters
    ----------
    data, images
        What there is to train, and those of its rows that are tested in turn.
    budget_s
        For all folds.
    cv, seed
        Folds and repetitions, and what they are drawn by.
    """
    folds, place, done = outer_folds(images, cv, seed), checkpoints_path(path), list[FinetunedRun]()
    each_s, told = budget_s and budget_s / len(folds), False
    for number, fold in enumerate(folds, 1):
        own, name = place / _FOLD.format(number), f"fold {number} of {len(folds)}"
        run = shared(lambda own=own: _finished(own))  # type: ignore[misc]
        if run is None:
            part = _part(data, images, fold, seed, checkpoints_path(own)).told_as(name)
            if not told:
                each_s, told = _announced(part, wanted, each_s, len(folds), done, checkpoints_path(own)), True
            say(f"{name}: {len(fold.fit):,} images to train and choose on, {len(fold.held):,} to test")
            run = train_and_test(part, wanted, each_s, identity, own, kept=False)
            left_s = fmean(each.search_s + each.refit_s for each in (*done, run)) * (len(folds) - number)
            rest = f"; about {duration(left_s)} left" if number < len(folds) else ""
            say(f"{name}: accuracy {run.test.accuracy:.3f}, {duration(run.search_s + run.refit_s)}{rest}")
        done.append(run)
    found = shared(lambda: _recorded(data, images, folds, done, path))
    if rank() == 0:
        shutil.rmtree(place, ignore_errors=True)
    return found


def finished_folds(path: Path) -> int:
    """Return how many folds of a run that is not finished are."""
    place = checkpoints_path(path)
    return len(list(place.glob(_FOLD.format("*"))))


def _finished(path: Path) -> FinetunedRun | None:
    """Return what is recorded of a fold, where that is whole."""
    with suppress(CacheError):
        run = RUNS.read(path)
        run.predictions()
        return run if isinstance(run, FinetunedRun) else None
    return None


def _part(data: TuningData, images: Split, fold: OuterFold, seed: int, folder: Path) -> TuningData:
    """Return what there is to train in a fold; its activations are of its rows, and go when it is done."""
    train, val = inner_parts(images, fold.fit, None, seed)[0]
    return replace(data.dealt(images, train=train, val=val, test=fold.held), activations=folder / "activations")


def _announced(
    part: TuningData,
    wanted: Sequence[Variant],
    each_s: float | None,
    folds: int,
    done: Sequence[FinetunedRun],
    folder: Path,
) -> float | None:
    """Say how long the folds that are left take; return the seconds that each may take, where that is bounded."""
    recipe = wanted[0][1]
    if each_s is None and recipe.recipe == RACE:
        known = next((run.race.budget_s for run in done if run.race), None)
        each_s = race_seconds(part, recipe, folder) if known is None else known
    about = _trainings_s(part, wanted) if each_s is None else each_s
    left = folds - len(done)
    what = f"{left} of {folds} folds are left" if done else counted(left, "fold")
    say(f"{what}, each {'about' if each_s is None else 'within'} {duration(about)}: {duration(left * about)} in all")
    return each_s


def _trainings_s(part: TuningData, wanted: Sequence[Variant]) -> float:
    """Return about what the trainings of a fold take when no epoch ends one early, by the pace of the first.

    What comes before the first epoch, a head to begin with and how to compute, is done for it, and timed.
    """
    recipe, crop, began = wanted[0][1], part.preprocess.crop, time.perf_counter()
    network = Trial(part, recipe).network
    way, _ = choose_format(recipe.precision, recipe.layout, network, crop, part.device)
    pace = replace(measured(network, way, crop, part.device), views=recipe.views)
    pace, rows = pace if recipe.cached_prefix else pace.anew(), Rows.of(part.splits, recipe.refit)
    before_s = time.perf_counter() - began
    searched = [training_s(replace(rows, refit=False), pace, each.epochs) for _, each in wanted]
    return before_s + sum(searched) + training_s(rows, pace, recipe.epochs) - searched[0]


def _recorded(
    data: TuningData, images: Split, folds: Sequence[OuterFold], done: Sequence[FinetunedRun], path: Path
) -> FinetunedRun:
    """Record what all folds say, with the setting that was chosen most often."""
    tested = Tested.of(images, folds, [run.predictions().probabilities for run in done])
    usual, epochs = _usual(done)
    searched, refitted = (sum(getattr(run, name) for run in done) for name in ("search_s", "refit_s"))
    energy = [run.energy_j for run in done if run.energy_j is not None]
    run = structs.replace(
        usual,
        rows=SplitSizes.of(data.attrs),
        chosen=TunedChoice(setting=usual.chosen.setting, epochs=epochs),
        candidates=(),
        history=(),
        refit_history=(),
        temperature=median(run.temperature for run in done),
        train_s=done[0].decode_s + searched + refitted,
        decode_s=done[0].decode_s,
        search_s=searched,
        refit_s=refitted,
        energy_j=sum(energy) if len(energy) == len(done) else None,
        race=_race(done),
        peak_bytes=max(run.peak_bytes for run in done),
        test=tested.figures,
        per_class=tested.classes(data.classes),
        cross_validation=tested.described([run.as_json()["chosen"] for run in done]),
        created=now(),
        record=str(path),
    )
    write_run(run, tested.images, tested.probabilities, fold=tested.fold)
    return run


def _usual(done: Sequence[FinetunedRun]) -> tuple[FinetunedRun, PhaseEpochs]:
    """Return the first fold that chose what most of them chose, and the epochs that these kept on average."""
    names = [_name(run) for run in done]
    most = Counter(names).most_common(1)[0][0]
    own = [run for run, name in zip(done, names, strict=True) if name == most]
    each = [run.chosen.epochs for run in own]
    head, backbone = (ceil(fmean(getattr(epochs, name) for epochs in each)) for name in ("head", "backbone"))
    return own[0], PhaseEpochs(head=head, backbone=backbone)


def _name(run: FinetunedRun) -> str:
    """Return what was chosen in a fold: a recipe, however many epochs there was time for, or a setting of a sweep."""
    setting: Any = run.chosen.setting
    return str(setting["recipe"]) if run.race else hash_json(setting)


def _race(done: Sequence[FinetunedRun]) -> Race | None:
    """Return the races of all folds as one."""
    races = [run.race for run in done if run.race]
    if not races:
        return None
    sums = {name: sum(getattr(race, name) for race in races) for name in ("budget_s", "timing_s", "spent_s")}
    left_out = tuple(dict.fromkeys(name for race in races for name in race.left_out))
    cut = tuple(f"fold {number}: {line}" for number, race in enumerate(races, 1) for line in race.cut)
    return structs.replace(races[0], **sums, left_out=left_out, cut=cut)
