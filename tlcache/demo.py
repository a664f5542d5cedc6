"""The whole job on the built-in digits, both strategies, for a first look."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rich
from rich.console import RenderableType
from rich.panel import Panel

from tlcache.backbones.sources import find
from tlcache.datasets.dataset import reopen
from tlcache.deploying.best import best_of
from tlcache.evaluation.compare import compare_runs
from tlcache.evaluation.comparison import Comparison
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune
from tlcache.probing.fit import fit_heads
from tlcache.report.compared import comparison_tables
from tlcache.report.reproduce import predicting
from tlcache.report.tables import extractions_table
from tlcache.runs.record import Run

__all__ = ["EMBEDDED", "MODELS", "RECIPE", "next_step", "run_demo"]

MODELS = ("mobilenetv3_small", "mobilenetv3_large")
EMBEDDED = "resnet20_cifar"
# A mirrored digit is another. The head that it begins with was fitted with the statistics that BatchNorms keep.
RECIPE = {
    "recipe": "before",
    "augment": "none",
    "batch_norm": "eval",
    "lr": 1e-3,
    "epochs": 5,
    "refit": True,
    "precision": "fp32",
}


def run_demo(
    features: str | Path | None = None,
    runs: str | Path | None = None,
    show: Callable[[RenderableType], None] = rich.print,
) -> list[Comparison]:
    """Extract the digits, fit all heads, fine-tune, show the table, and say around it which weights it was.

    Nothing is downloaded: backbones whose ImageNet weights are here are used, else the one that is part of the package.

    Parameters
    ----------
    features, runs
        Folders of feature files and of run records.
    show
        Called with each table and banner; default: prints on standard output.

    Returns
    -------
    list of Comparison
        One, of what was fitted and trained.
    """
    here = [model for model in MODELS if "imagenet" in find(model).at_hand]
    banner = _imagenet() if here else _embedded()
    show(banner)
    done = [extract("digits", model, features=features) for model in here or [EMBEDDED]]
    show(extractions_table(done))
    results: list[Run] = [*fit_heads([each.path for each in done], runs=runs)]
    show("")
    results.append(_fine_tuned(done[0].backbone, features, runs))
    show("")
    found = compare_runs(results)
    show(comparison_tables(found))
    show(banner)
    return found


def _fine_tuned(model: str, features: str | Path | None, runs: str | Path | None) -> Run:
    """Train the small network whole, of a larger one the last stage."""
    recipe: dict[str, Any] = dict(RECIPE)
    if model != EMBEDDED:
        recipe |= {"unfreeze": f"stage:{len(find(model).stages) + 1}", "cached_prefix": True}
    return finetune("digits", model, features=features, runs=runs, **recipe)


def next_step(found: Comparison) -> str:
    """Return a command that works as it stands: the best run is asked for its first test image."""
    run, image = (best := best_of(found)).run, best.top.paths[0]
    line = predicting(run, reopen(run.source).name(image))
    if not shutil.which("tlcache"):  # as in an environment that is not activated
        line = line.replace("tlcache", f"{shlex.quote(os.path.relpath(sys.executable))} -m tlcache", 1)
    return f"Next, ask the best run what an image shows:\n{line}"


def _imagenet() -> RenderableType:
    return Panel("ImageNet weights. For your own images: tlcache extract --data FOLDER --model NAME")


def _embedded() -> RenderableType:
    backbone = find(EMBEDDED)
    (checkpoint,) = backbone.checkpoints.values()
    return Panel(
        f"{EMBEDDED}: a network of {backbone.parameters / 1e6:.2f} M parameters, trained on {checkpoint.task}, that is "
        "part of tlcache: real transfer learning on any machine, for trying and testing.\n"
        f"For results take ImageNet weights: tlcache extract --data FOLDER --model {MODELS[0]} downloads them, or "
        "says where to put the file by hand. The demo uses them when they are there.",
        title="embedded weights",
    )
