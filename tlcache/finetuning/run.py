"""Dataset + backbone -> fine-tuned network -> run record, on the rows and splits of the cached features."""

from __future__ import annotations

import datetime
import json
import shutil
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from tlcache.backbones import find
from tlcache.errors import CacheError, ModelError
from tlcache.extraction import extract
from tlcache.finetuning.checkpoints import Checkpoints
from tlcache.finetuning.recipe import Recipe, make_recipe
from tlcache.finetuning.saved import save_weights
from tlcache.finetuning.speed import Way, find_torch_device
from tlcache.finetuning.training import State, logits_of
from tlcache.finetuning.trial import Task, Trial
from tlcache.fit import fit_temperature
from tlcache.heads.base import softmax
from tlcache.machine import hardware, versions
from tlcache.metrics import evaluate
from tlcache.runs import Run, path_of, runs_folder, write_run
from tlcache.store import FeatureFile

__all__ = ["finetune"]


def finetune(
    data: str | Path = "digits",
    model: str = "mobilenetv3_large",
    weights: str = "imagenet",
    *,
    crop_borders: bool = False,
    resize: int | None = None,
    crop: int | None = None,
    name: str | None = None,
    split_seed: int = 0,
    device: str = "auto",
    features: str | Path | None = None,
    runs: str | Path | None = None,
    again: bool = False,
    **recipe: Any,
) -> Run:
    """Train a backbone and its head on a dataset's images, choose the epoch on validation, and test once.

    Rows, splits and labels are those of the feature file that `tlcache.extract` makes of the same arguments, so that
    any head on frozen features can be compared image by image; it is made first when it is missing. A run that was
    stopped or killed goes on after its last finished epoch; one that is recorded already is not done again.

    Parameters
    ----------
    data, model, weights, crop_borders, resize, crop, name, features
        As for `tlcache.extract`; `model` is a name of the table.
    split_seed
        Of the splits that have to be drawn: the `seed` of `tlcache.extract`.
    device
        `auto`, `cpu` or `cuda`.
    runs
        Folder of run records.
    again
        Train even if this very run is recorded.
    **recipe
        Fields of `tlcache.finetuning.recipe.Recipe`.

    Returns
    -------
    Run
        Its record; beside it the test predictions, and the weights for `--weights` (`run.head_path`).

    Raises
    ------
    TlcacheError
        One of its kinds, for everything that the caller can mend.

    Examples
    --------
    >>> run = finetune(photos, "squeezenet1_1", "random", resize=32, crop=32, epochs=1, features=folder, runs=folder)
    >>> run.fields["strategy"], [epoch["epoch"] for epoch in run.fields["history"]]
    ('finetune', [0, 1])
    """
    wanted = make_recipe(recipe)
    if model.lower().endswith(".onnx"):
        raise ModelError(f"'{model}' is an ONNX file, which cannot be trained here. Give a name of: tlcache models")
    found = extract(
        *(data, find(model).name, weights),
        crop_borders=crop_borders,
        resize=resize,
        crop=crop,
        device=device,
        features=features,
        name=name,
        seed=split_seed,
    )
    with FeatureFile(found.path) as file:
        task = Task.of(file, weights, find_torch_device(device))
    about = {name: task.attrs[name] for name in ("dataset", "dataset_digest", "backbone", "key")}
    identity = {**about, "strategy": "finetune", "head": wanted.head, "arguments": wanted.as_json()}
    path = path_of(runs_folder(runs), identity)
    if path.exists() and path.with_suffix(".safetensors").exists() and not again:
        return Run(path, json.loads(path.read_bytes()))
    with _alone(path):
        return _train_and_test(task, wanted, identity, path)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    lock = FileLock(path.with_suffix(".lock"))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        raise CacheError("Another process does the same fine-tuning. Wait for it, or change a setting.") from None
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _train_and_test(task: Task, recipe: Recipe, identity: Mapping[str, Any], path: Path) -> Run:
    checkpoints = Checkpoints(path.with_suffix(".checkpoints") / "train")
    trial = Trial(task, recipe)
    state = trial.train(checkpoints)
    way = Way("fp32", state.layout)  # what is reported is computed as it will be used
    temperature = fit_temperature(
        logits_of(trial.network, trial.test_source("val"), task.device, way), task.labels("val")
    )
    again: State | None = None
    if recipe.refit:
        trial = Trial(task, recipe, refit=_best_epochs(state))
        again = trial.train(Checkpoints(path.with_suffix(".checkpoints") / "refit"))
    probabilities = softmax(logits_of(trial.network, trial.test_source("test"), task.device, way) / temperature)
    test, epochs = task.splits["test"], state.history + (again.history if again else [])
    fields = {
        **identity,
        "weights": task.attrs["weights"],
        **{name: json.loads(task.attrs["key_json"])[name] for name in ("pool", "preprocess")},
        "precision": state.precision,
        "layout": state.layout,
        "classes": list(task.classes),
        "chosen": {"epochs": _best_epochs(state), "val_accuracy": state.best["val_accuracy"]},
        "temperature": temperature,
        "history": state.history,
        "refit_history": again.history if again else [],
        **_speeds(state, epochs),
        "measured_images_per_s": state.measured,
        "layers": {"trained": [layer.name for layer in trial.layers], "cut": trial.network.cut},
        "rows": {name: len(split) for name, split in task.splits.items()},
        "test": evaluate(test.labels, probabilities),
        "versions": versions(),
        "hardware": {**hardware(), "device": task.device, "threads": torch.get_num_threads()},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    save_weights(path.with_suffix(".safetensors"), trial.model, trial.head, fields)
    run = write_run(path, fields, test.paths, test.labels, probabilities)
    shutil.rmtree(path.with_suffix(".checkpoints"), ignore_errors=True)
    return run


def _best_epochs(state: State) -> dict[str, int]:
    """Return how many epochs of each phase led to the best weights."""
    best = state.history[: state.best["epochs"]]
    found = dict.fromkeys(("head", "backbone"), 0)
    for phase in found:
        own = [epoch for epoch in best if epoch["phase"] == phase]
        if own:
            found[phase] = max(own, key=lambda epoch: (epoch["val_accuracy"], -epoch["val_loss"]))["epoch"]
    return found


def _speeds(state: State, epochs: list[dict[str, Any]]) -> dict[str, float]:
    """Return seconds in all, and of the phase that trains the backbone: seconds an epoch, and images per second."""
    trained = [epoch for epoch in epochs if "train_s" in epoch]
    backbone = [epoch for epoch in state.history if epoch["phase"] == "backbone" and "train_s" in epoch]
    return {
        "train_s": sum(epoch["train_s"] + epoch["val_s"] for epoch in trained),
        "epoch_s": statistics.median(epoch["train_s"] + epoch["val_s"] for epoch in backbone),
        "images_per_s": statistics.median(epoch["images_per_s"] for epoch in backbone),
    }
