"""What a fine-tuning tried, as a table for a terminal: what each training reached on validation, and what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any

from rich import filesize
from rich.table import Table

from tlcache.report.plain import plain_table
from tlcache.runs.finetuned import FinetunedRun, TunedCandidate
from tlcache.runs.folds import CrossValidation
from tlcache.text import counted, figure_text

__all__ = ["FOLDS", "folds_rows", "folds_table", "tried_table"]

FOLDS = ("Fold", "Chosen", "Epochs kept", "Accuracy")

_SAID = ("mixup", "cutmix", "distill")


def tried_table(run: FinetunedRun) -> Table:
    """Return one row per training of a sweep or a race, in their order."""
    table = plain_table("Trained", "Validation", "Parameters", "Memory", "Seconds", numbers=slice(1, None))
    for each in run.candidates:
        memory = filesize.decimal(each.peak_bytes) if each.peak_bytes else "-"
        trained = f"{each.trained_parameters:,}" if each.trained_parameters else "-"
        table.add_row(_named(each, run), _reached(each), trained, memory, f"{each.train_s:,.1f}")
    return table


def _reached(each: TunedCandidate) -> str:
    """Return the figure on validation: of a race that by which it is decided, of the best epoch that was trained."""
    if trained := [epoch for epoch in each.history if epoch.epoch]:
        best = max(trained, key=attrgetter("score"))
        return figure_text(best.value, best.figure)
    told = {name.removeprefix("val_"): value for name, value in each.scores.items() if name != "val_loss"}
    return next((figure_text(value, name) for name, value in told.items()), "diverged")


def folds_table(run: FinetunedRun, found: CrossValidation) -> Table:
    """Return one row per fold of a cross-validation: what was chosen inside it, and what it reached on its images."""
    table = plain_table(*FOLDS, numbers=slice(2, None))
    for row in folds_rows(run, found):
        table.add_row(*row)
    return table


def folds_rows(run: FinetunedRun, found: CrossValidation) -> Iterator[tuple[str, str, str, str]]:
    """Yield the cells of `FOLDS` for each fold."""
    for number, (chosen, accuracy) in enumerate(zip(found.chosen, found.accuracy, strict=True)):
        repeat, fold = divmod(number, found.folds)
        settings = {name: value for name, value in chosen.items() if name != "epochs"}
        what = chosen["recipe"] if run.race else _settings(settings or _trained(run.settings))
        name = f"{fold + 1}" if found.repeats == 1 else f"{repeat + 1}.{fold + 1}"
        yield name, what, str(chosen["epochs"]["backbone"]), f"{accuracy:.3f}"


def _named(each: TunedCandidate, run: FinetunedRun) -> str:
    """Return what was trained: of a race the recipe and its epochs, of a sweep the values that it tried."""
    if run.race:
        return ", ".join(
            [each.setting["recipe"], counted(each.setting["epochs"], "epoch"), counted(each.images, "image")]
        )
    return _settings(each.setting or _trained(run.settings))


def _settings(asked: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', '-')} {value}" for name, value in asked.items())


def _trained(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was trained of the network, and what else tells it from a plain training."""
    known = {name: settings[name] for name in ("unfreeze", "method", *_SAID) if settings.get(name)}
    if known.get("method") == "last":
        known["unfreeze"] = "top:1"
    return known
