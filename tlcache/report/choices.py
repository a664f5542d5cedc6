"""What there is to choose from, as tables for a terminal: backbones, heads, and forms of data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.backbones.backbone import Backbone
from tlcache.backbones.sources import forms
from tlcache.datasets.source import Form
from tlcache.heads.table import HeadRow
from tlcache.report.fitting import FittedTable
from tlcache.report.plain import plain_table

__all__ = ["datasets_table", "heads_table", "models_table"]

_SPARE = ("Top-1", "Weights here", "Input")  # columns of backbones


def models_table(models: Sequence[Backbone]) -> RenderableType:
    """Return the backbones with what a user needs to choose one."""
    rated = [row for row in models if _top1(row) != "-"]  # timm says of none
    figures = ("Dim", "Parameters", "Input", *(("Top-1",) if rated else ()))
    table = FittedTable(("Backbone", "Weights here", "Licence"), figures, _SPARE if rated else _SPARE[1:])
    for row in models:
        here, licences = ", ".join(row.at_hand) or "-", {each.licence for each in row.checkpoints.values()}
        cells = [f"{row.dim}", f"{row.parameters / 1e6:.1f} M", f"{row.preprocess().crop}", _top1(row)][: len(figures)]
        table.add_row(row.name, here, ", ".join(sorted(licences)) or "-", *cells)
    top1 = "Top-1: on ImageNet where nothing else is said; two figures: --weights imagenet / imagenet_v2. "
    note = f"{top1 if rated else ''}--model also takes {forms()}."
    return Group(table, Text(note, style="dim"))


def _top1(row: Backbone) -> str:
    best = " / ".join(f"{each.top1:.1f}" for each in row.checkpoints.values() if each.top1 is not None)
    tasks = {each.task for each in row.checkpoints.values()} - {"ImageNet"}
    return f"{': '.join([*tasks, best])} %" if best else "-"


def heads_table(heads: Sequence[HeadRow]) -> RenderableType:
    """Return the heads and the settings each chooses from."""
    table = plain_table("Head", "What it is", "Chooses from")
    for row in heads:
        space = "; ".join(f"{name} {', '.join(map(_setting, values))}" for name, values in row.quick.items())
        table.add_row(row.name, row.about, space)
    return table


def _setting(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def datasets_table(forms: Sequence[Form]) -> RenderableType:
    """Return the forms of `--data` with an example each."""
    table = plain_table("Form", "Example", "Looks like")
    for form in forms:
        table.add_row(form.name, Text(form.example, no_wrap=True), form.looks_like)
    rules = (
        "A split that is not given is drawn from train: 20 % each for val and test (--val, --test), stratified, seeded "
        "(--split-seed). "
        "Images of one group, and byte-identical images, always go to one split."
    )
    return Group(table, Text(rules, style="dim"))
