"""The steps of a study as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.report.plain import plain_table
from tlcache.studying.steps import DONE, FAILED, LEFT_OUT, RECORDED, TO_DO, Step
from tlcache.text import duration

__all__ = ["steps_table"]

_STYLES = {TO_DO: "", RECORDED: "dim", DONE: "green", LEFT_OUT: "magenta", FAILED: "bold red"}


def steps_table(steps: Sequence[Step]) -> RenderableType:
    """Return the steps in their order and what each took or would take; below it what there is to say of some."""
    several = len({step.data for step in steps if step.data}) > 1
    names = ("Dataset", "Backbone") if several else ("Backbone",)
    table = plain_table("Step", *names, "State", "Time", numbers=slice(len(names) + 2, len(names) + 3))
    notes: dict[str, list[str]] = {}
    for step in steps:
        what = (step.dataset, step.model) if several else (step.model,)
        table.add_row(
            f"{step.kind} (seed {step.seed})" if step.seed else step.kind,
            *what,
            step.state,
            _time([step]),
            style=_STYLES[step.state],
        )
        if step.note:
            notes.setdefault(step.note, []).append(" ".join([step.kind, *what]).rstrip())
    lines = [Text(f"{', '.join(own)}: {note}", style="dim") for note, own in notes.items()]
    return Group(table, Text(_summary(steps), style="bold"), *lines)


def _summary(steps: Sequence[Step]) -> str:
    by_state = {state: [step for step in steps if step.state == state] for state in _STYLES}
    counts = [(f"{len(own)} {state}", _time(own)) for state, own in by_state.items() if own]
    return ", ".join(f"{count} ({time})" if time else count for count, time in counts)


def _time(steps: Sequence[Step]) -> str:
    """Return how long steps of one state took, or would take."""
    seconds, state = sum(step.seconds for step in steps), steps[0].state
    if not seconds or state == RECORDED:
        return ""
    return f"about {duration(seconds)}" if state in (TO_DO, LEFT_OUT) else duration(seconds)
