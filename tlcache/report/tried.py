"""What a fine-tuning tried, as a table for a terminal: what each training reached on validation, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import filesize
from rich.table import Table

from tlcache.report.plain import plain_table
from tlcache.runs.finetuned import FinetunedRun, TunedCandidate
from tlcache.text import figure_text

__all__ = ["tried_table"]

_SAID = ("mixup", "cutmix", "distill")


def tried_table(run: FinetunedRun) -> Table:
    """Return one row per training of a sweep or a race, in their order."""
    table = plain_table("Trained", "Validation", "Parameters", "Memory", "Seconds", numbers=slice(1, None))
    for each in run.candidates:
        told = {name.removeprefix("val_"): value for name, value in each.scores.items() if name != "val_loss"}
        reached = next((figure_text(value, name) for name, value in told.items()), "diverged")
        memory = filesize.decimal(each.peak_bytes) if each.peak_bytes else "-"
        trained = f"{each.trained_parameters:,}" if each.trained_parameters else "-"
        table.add_row(_named(each, run), reached, trained, memory, f"{each.train_s:,.1f}")
    return table


def _named(each: TunedCandidate, run: FinetunedRun) -> str:
    """Return what was trained: of a race the recipe and its epochs, of a sweep the values that it tried."""
    if run.race:
        return f"{each.setting['recipe']}, {each.setting['epochs']} epochs, {each.images:,} images"
    asked = each.setting or _trained(run.settings)
    return ", ".join(f"{name.replace('_', '-')} {value}" for name, value in asked.items())


def _trained(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was trained of the network, and what else tells it from a plain training."""
    known = {name: settings[name] for name in ("unfreeze", "method", *_SAID) if settings.get(name)}
    if known.get("method") == "last":
        known["unfreeze"] = "top:1"
    return known
