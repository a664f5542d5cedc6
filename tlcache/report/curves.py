"""Learning curves of a fine-tuning as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlcache.report.plots import save_figure
from tlcache.runs import Run

__all__ = ["draw_curves"]

_COLOURS = {"train": "#0072b2", "val": "#d55e00"}  # told apart by colour-blind eyes (Okabe and Ito, 2008)


def draw_curves(run: Run, path: Path) -> None:
    """Draw loss, accuracy and learning rate of every epoch, the chosen epoch marked."""
    from matplotlib.figure import Figure

    fields, history = run.fields, run.fields["history"]
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    _lines(loss, history, "loss", best=_best(history))
    _lines(accuracy, history, "accuracy", best=_best(history))
    loss.set_ylim(bottom=0)
    accuracy.set_ylim(top=1.01)
    steps = [(number, epoch["lr"]) for number, epoch in enumerate(history) if "lr" in epoch]
    rate.plot(*zip(*steps, strict=True), color="0.3", marker=".")
    rate.set_title("learning rate", fontsize=10)
    for axes in (loss, accuracy, rate):
        _mark_phases(axes, history)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    loss.legend(frameon=False)
    figure.suptitle(
        f"{fields['dataset']}: {fields['backbone']}, {fields['arguments']['optimizer']}; "
        f"test accuracy {fields['test']['accuracy']:.3f}",
        fontsize=11,
    )
    save_figure(figure, path)


def _lines(axes: Any, history: Sequence[Mapping[str, Any]], what: str, best: int) -> None:
    for split, colour in _COLOURS.items():
        points = [
            (number, epoch[f"{split}_{what}"]) for number, epoch in enumerate(history) if f"{split}_{what}" in epoch
        ]
        axes.plot(*zip(*points, strict=True), color=colour, label=split, marker=".")
    axes.plot(best, history[best][f"val_{what}"], "o", mfc="none", mec=_COLOURS["val"], ms=10, label="chosen")
    axes.set_title(what, fontsize=10)


def _best(history: Sequence[Mapping[str, Any]]) -> int:
    """Return the first epoch with the best validation score, which is the one whose weights were kept."""
    scores = [(epoch["val_accuracy"], -epoch["val_loss"]) for epoch in history]
    return scores.index(max(scores))


def _mark_phases(axes: Any, history: Sequence[Mapping[str, Any]]) -> None:
    """Draw a line where the backbone begins to be trained, and name epochs by their number in their phase."""
    starts = [n for n, epoch in enumerate(history) if n and epoch["phase"] != history[n - 1]["phase"]]
    for start in starts:
        axes.axvline(start - 0.5, color="0.6", linestyle=":")
    step = max(1, len(history) // 8)
    ticks = [n for n in range(len(history)) if (n - (starts[-1] if starts else 0)) % step == 0]
    axes.set_xticks(ticks, [str(history[n]["epoch"]) for n in ticks])
