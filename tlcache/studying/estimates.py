"""How long the steps of a study take here: what can be run is timed for a moment, the rest is guessed from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from tlcache.arguments import folds_of
from tlcache.backbones.engines import default_batch, find_device, open_network
from tlcache.backbones.load import load_model
from tlcache.backbones.model import Model
from tlcache.backbones.sources import lookup
from tlcache.backbones.torch_network import operations, untrained
from tlcache.backbones.weights import is_here
from tlcache.datasets.dataset import Dataset
from tlcache.datasets.overview import Overview
from tlcache.errors import ImageReadError
from tlcache.finetuning.classifier import Classifier
from tlcache.finetuning.heads import fresh_head
from tlcache.finetuning.methods import layers_to_train
from tlcache.finetuning.nested import finished_folds
from tlcache.finetuning.pace import Pace
from tlcache.finetuning.plan import Rows, budget_of
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.recipes import RACE
from tlcache.finetuning.run import Left, left_of
from tlcache.finetuning.speed import CHOICE_IMAGES, COMPUTE_FORMATS, ComputeFormat, find_torch_device, images_per_s
from tlcache.heads.table import find_head
from tlcache.images import BadImageError, Resizing, prepare
from tlcache.probing.protocol import SearchProtocol
from tlcache.probing.search import Fold, search
from tlcache.progress import Advance, step_bar
from tlcache.runs.folder import path_of, read_runs
from tlcache.runs.frozen import FrozenRun
from tlcache.runs.record import Run
from tlcache.studying.steps import EXTRACT, FINETUNE, FIT, JOIN, TO_DO, Cell, Step, StudyPlan
from tlcache.threads import available_cpus, in_threads

__all__ = ["estimated", "finetune_seconds", "heads_seconds", "rows_of"]

_STARTING_S = 3.0  # a process, its imports, the network
_MOMENT_S = 0.5  # that a network is timed for, or a call on every core
_IMAGES = 16  # that are decoded
_FORWARD = 1 / 3  # of the operations of training on an image
_STEP = 2e10  # operations of a training step that is timed
_ROWS = 2_000  # on which the ridge head is timed


def estimated(plan: StudyPlan, steps: Sequence[Step]) -> list[Step]:
    """Return the steps with about the seconds that those take which are to do. Nothing is downloaded for it."""
    to_do = [step for step in steps if step.state == TO_DO]
    embedded, tuned = ({s.model: plan.cell(s) for s in to_do if s.kind == kind} for kind in (EXTRACT, FINETUNE))
    with step_bar("measuring", len(embedded) + len(tuned)) as advance:
        embed_s, guessed = _embedding_paces(embedded, plan.device)
        advance(len(embedded))
        train_s = _training_paces(tuned, plan.recipe, plan.device, advance) if plan.recipe else {}
    recorded = read_runs(plan.runs, lambda _: None)  # the report tells of records that are damaged
    frozen = [run for run in recorded if isinstance(run, FrozenRun)]
    parts = math.prod(folds_of(plan.cv)) if plan.cv else 1

    def estimate(step: Step) -> Step:
        if step.state != TO_DO or step.kind not in (EXTRACT, FIT, JOIN, FINETUNE):
            return step
        cell, *others = [plan.cell(part) for part in plan.parts(step)]
        if step.kind == EXTRACT:
            image_s = _decoding_pace(cell) + embed_s[step.model]
            seconds = _STARTING_S + len(cell.dataset) * image_s
            guess = ", guessed from the size of the network" if step.model in guessed else ""
            return replace(step, seconds=seconds, note=step.note and f"{step.note}; the time is without that{guess}")
        if step.kind in (FIT, JOIN):
            alike = [run for run in frozen if run.dataset == step.dataset]
            dim = sum(each.backbone.dim for each in (cell, *others))
            ridge_s = partial(_ridge_seconds, cell.dataset, dim)
            return replace(step, seconds=parts * heads_seconds(plan.missing_heads(step), dim, alike, ridge_s))
        assert plan.recipe is not None
        paths = [path_of(plan.runs, each) for each in plan.identities(step)]
        if plan.cv:
            left, rows = left_of(plan.recipe), _fold_rows(cell.dataset, plan.cv)
            seconds = finetune_seconds(rows, plan.recipe, train_s[step.model], left)
            return replace(step, seconds=(parts - sum(map(finished_folds, paths))) * seconds)
        left = left_of(plan.recipe, *paths)
        seconds = finetune_seconds(rows_of(cell.dataset), plan.recipe, train_s[step.model], left)
        return replace(step, seconds=seconds, note=left.note)

    return [estimate(step) for step in steps]


def heads_seconds(heads: Sequence[str], dim: int, alike: Iterable[Run], ridge_s: Callable[[], float]) -> float:
    """Return what heads take on embeddings of `dim` numbers.

    That is what those in `alike`, runs of the same dataset, took for each number, and each fold; of a head that none of
    them has, a multiple of what `ridge_s` says that the ridge head takes.
    """
    known: dict[str, list[float]] = {}
    for run in alike:
        dims = [row.dim if (row := lookup(name)) else 0 for name in run.backbones]
        trainings = len(run.cross_validation.accuracy) if run.cross_validation else 1
        known.setdefault(run.head, []).append(run.train_s / trainings * (dim / sum(dims) if all(dims) else 1.0))
    unknown = [head for head in heads if head not in known]
    guessed = ridge_s() * sum(find_head(head).relative_cost for head in unknown) if unknown else 0.0
    return guessed + sum(median(known[head]) for head in heads if head in known)


def finetune_seconds(rows: Mapping[str, int], recipe: Recipe, train_s: float, left: Left) -> float:
    """Return what is left of a fine-tuning takes when no epoch ends it early; of a race, all that it may take.

    `rows` are the images of each split, `train_s` the seconds to train on one of them once, forward and backward.
    """
    if recipe.recipe == RACE:
        pace = Pace(train_s, _FORWARD * train_s)
        return _STARTING_S + budget_of(Rows(rows["train"], rows["val"], recipe.refit), pace)
    trained = left.epochs * rows["train"] + left.refit * (rows["train"] + rows["val"])
    if left.epochs == recipe.epochs and "auto" in (recipe.precision, recipe.layout):
        trained += CHOICE_IMAGES
    looked_at = (left.epochs + 2) * rows["val"] + rows["test"]
    return _STARTING_S + train_s * (trained + _FORWARD * looked_at)


def rows_of(dataset: Dataset) -> dict[str, int]:
    """Return how many images each split has, or will have once it is drawn."""
    return dict(Overview.expected(dataset).splits)


def _fold_rows(dataset: Dataset, cv: str) -> dict[str, int]:
    """Return how many images each split of a fold has: a fifth of what is not tested is chosen by."""
    found, (folds, _) = Overview.expected(dataset), folds_of(cv)
    given = {name: number for name, number in found.splits.items() if name != "test" or "test" in (found.drawn or ())}
    test = sum(given.values()) // folds
    val = (sum(given.values()) - test) // 5
    return {"train": sum(given.values()) - test - val, "val": val, "test": test}


def _embedding_paces(cells: Mapping[str, Cell], device: str) -> tuple[dict[str, float], set[str]]:
    """Return seconds per image of each network, decoding excluded, and which of them were not run.

    Those whose weights are not here are scaled from the others by their operations. Where none is here, the first is
    run with random weights.
    """
    here = {name: cell.weights for name, cell in cells.items() if is_here(cell.backbone, cell.weights)}
    here = here or dict.fromkeys(list(cells)[:1], "random")
    timed = {name: _time_network(load_model(name, weights), device) for name, weights in here.items()}
    if timed.keys() == cells.keys():
        return timed, set()
    needed = {name: operations(cell.backbone, cell.preprocess) for name, cell in cells.items()}
    each = median(seconds / needed[name] for name, seconds in timed.items())
    return {name: timed.get(name, each * needed[name]) for name in cells}, cells.keys() - timed.keys()


def _time_network(model: Model, device: str) -> float:
    """Return seconds per image of the extraction's loop without decoding: a call of the network on every core."""
    found, crop = find_device(device), model.preprocess.crop
    batch = np.zeros((default_batch("onnxruntime", found, crop), 3, *model.preprocess.size), np.uint8)
    network, calls, spent = open_network(model.onnx(), found, batch=len(batch)), 0, 0.0
    network.embed(batch[:1])
    while spent < _MOMENT_S:
        spent += _time_together(network.embed, [batch] * available_cpus())
        calls += available_cpus()
    return spent / (calls * len(batch))


def _decoding_pace(cell: Cell) -> float:
    """Return seconds per image to read, decode and resize, all cores at it; a few of the images are tried."""
    images = len(cell.dataset)

    def decode(row: int) -> None:
        with suppress(ImageReadError, BadImageError):
            prepare(cell.dataset.read(row), cell.preprocess, kernel=kernel)

    some = range(images)[:: max(1, images // _IMAGES)][:_IMAGES]
    with Resizing(images) as kernel:  # as in extraction
        return _time_together(decode, some) / len(some)


def _time_together(act: Callable[[Any], object], items: Sequence[object]) -> float:
    """Return the seconds of `act` on all items, all cores at it."""
    began = time.perf_counter()
    list(in_threads(act, items))
    return time.perf_counter() - began


def _training_paces(cells: Mapping[str, Cell], recipe: Recipe, device: str, advance: Advance) -> dict[str, float]:
    """Return seconds per image of training each network; the first one shows how to compute."""
    layout = "channels_last" if recipe.layout == "auto" else recipe.layout
    ways = [way for way in COMPUTE_FORMATS if way.layout == layout and recipe.precision in ("auto", way.precision)]
    place, paces = find_torch_device(device), dict[str, float]()
    for name, cell in cells.items():
        paces[name], way = _training_pace(cell, recipe, place, ways)
        ways = [way]
        advance(1)
    return paces


def _training_pace(
    cell: Cell, recipe: Recipe, device: str, ways: Sequence[ComputeFormat]
) -> tuple[float, ComputeFormat]:
    """Return seconds per image of training, forward and backward, and the fastest of the ways to compute.

    A few small steps are timed, with random weights.
    """
    backbone, preprocess, whole = cell.backbone, cell.preprocess, untrained(cell.backbone, seed=0)
    head = fresh_head(recipe.head, backbone.dim, len(cell.dataset.classes))
    layers = layers_to_train(recipe, backbone, whole)
    network = Classifier(backbone, whole, head, preprocess, layers, recipe.batch_norm == "eval").to(device)
    images = int(min(16, max(2, _STEP / operations(backbone, preprocess))))
    rates = {way: images_per_s(way, network, preprocess.crop, device, images, steps=2) for way in ways}
    fastest = max(rates, key=lambda way: rates[way])
    return 1 / rates[fastest], fastest


def _ridge_seconds(dataset: Dataset, dim: int) -> float:
    """Return what the ridge head takes, choosing included: timed on random numbers, of so many rows at most."""
    rows, classes = rows_of(dataset), len(dataset.classes)
    total = rows["train"] + rows["val"]
    some, row = max(2 * classes, min(total, _ROWS)), find_head("ridge")
    X, y = np.random.default_rng(0).standard_normal((some, dim), np.float32), np.arange(some) % classes
    fold = Fold(X[: some // 2], y[: some // 2], X[some // 2 :], y[some // 2 :])
    began = time.perf_counter()
    search(row, SearchProtocol().settings(row), [fold], classes, None)
    return 2 * (time.perf_counter() - began) * total / some
