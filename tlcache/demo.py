"""The whole job on the embedded dataset, for a first look."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import RenderableType
from rich.panel import Panel

from tlcache.backbones import find
from tlcache.errors import WeightsError, first_line
from tlcache.extraction import extract
from tlcache.fit import fit_heads
from tlcache.report.tables import extractions_table, runs_tables
from tlcache.weights import resolve

__all__ = ["MODELS", "run_demo"]

MODELS = ("mobilenetv3_small", "mobilenetv3_large")


def run_demo(features: Path | None, runs: Path | None, show: Callable[[RenderableType], None]) -> None:
    """Extract the digits with two backbones, fit all heads, show the table, and say which weights it was."""
    weights, problem = _weights()
    banner = _banner(weights, problem)
    show(banner)
    done = [extract("digits", model, weights, features=features) for model in MODELS]
    show(extractions_table(done))
    results = fit_heads([each.path for each in done], runs=runs)
    show("")
    show(runs_tables(results))
    show(banner)


def _weights() -> tuple[str, str]:
    """Return `imagenet` when these weights can be had for all models, else `random` and why."""
    try:
        for model in MODELS:
            resolve(find(model), "imagenet")
    except WeightsError as error:
        return "random", first_line(error)
    return "imagenet", ""


def _banner(weights: str, problem: str) -> RenderableType:
    if weights == "imagenet":
        return Panel("ImageNet weights. For your own images: tlcache extract --data FOLDER --model NAME", style="green")
    return Panel(
        "RANDOM WEIGHTS: these backbones have learned nothing, so the figures say how the tool works and nothing "
        f"about transfer learning.\nImageNet weights could not be had: {problem}\n"
        "For real results put the weights where `tlcache extract --model mobilenetv3_small` "
        "says, or pass --weights FILE.",
        style="bold yellow",
        title="random weights",
    )
