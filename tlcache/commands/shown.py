"""Runs, as several commands show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlcache.flags import Output
from tlcache.progress import warn

if TYPE_CHECKING:
    from tlcache.auditing.leakage import LeakageGap
    from tlcache.runs.record import Run

__all__ = ["say_where", "show_leakage", "show_runs"]


def show_runs(output: Output, done: Sequence[Run], runs: str | Path | None) -> None:
    """Print what these runs reached, where they are, and the leakage gap where they are of the group split."""
    from tlcache.auditing.leakage import leakage_gaps_of
    from tlcache.evaluation.compare import compare_runs
    from tlcache.evaluation.verdict import layer_choices, no_gain
    from tlcache.report.tables import runs_tables
    from tlcache.report.tried import folds_table, tried_table
    from tlcache.report.uncertainty import uncertainty_table
    from tlcache.runs.finetuned import FinetunedRun

    compared = compare_runs(done)
    output.show(runs_tables(compared))
    for line in filter(None, map(layer_choices, compared)):
        output.say(f"\n{line}")
    for run in (run for run in done if isinstance(run, FinetunedRun)):
        output.show()
        output.show(folds_table(run, run.cross_validation) if run.cross_validation else tried_table(run))
    if any(run.uncertainty for run in done):
        output.show()
        output.show(uncertainty_table(done))
    for line in filter(None, map(no_gain, done)):
        warn(line)
    say_where(output, done)
    show_leakage(output, leakage_gaps_of(done, runs))


def show_leakage(output: Output, found: Sequence[LeakageGap]) -> None:
    """Print the leakage gap of the heads that were tested under both splits."""
    from tlcache.report.audits import leakage_table

    if found:
        output.show()
        output.show(leakage_table(found))


def say_where(output: Output, done: Iterable[Run]) -> None:
    """Say where runs are recorded, and what lies beside the records."""
    by_folder: dict[Path, list[Run]] = {}
    for run in done:
        by_folder.setdefault(run.path.parent, []).append(run)
    for folder, own in by_folder.items():
        if len(own) > 1:
            output.say(f"Recorded in {folder}: {len(own)} runs, with their heads (.safetensors) and predictions.")
            continue
        if not own[0].kept:
            output.say(f"Recorded as {own[0].path}; of the folds no network is kept: finetune without --cv trains one.")
            continue
        what = "network, for --weights and tlcache export" if own[0].strategy == "finetune" else "head"
        output.say(f"Recorded as {own[0].path}; beside it the {what}: {own[0].head_path.name}")
