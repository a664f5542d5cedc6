"""Curves: what is learned with every epoch, and with every labelled image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from tlcache.report.plots import PALETTE
from tlcache.runs.finetuned import FinetunedRun, TunedCandidate, TunedEpoch
from tlcache.tasks import SMALLER
from tlcache.text import figure_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tlcache.probing.shots import Curve

__all__ = ["few_shot_curves", "learning_curves"]

_MARKERS = "osD^vPX*"
_COLOURS = dict(zip(("train", "val"), PALETTE, strict=False))


def learning_curves(run: FinetunedRun) -> Figure:
    """Draw loss, figure and learning rate of every epoch, the chosen epoch marked; of a race, its trainings too."""
    from matplotlib.figure import Figure

    history, raced = run.history, run.candidates[:-1] if run.race else ()
    figure = Figure(figsize=(10 + 3.3 * bool(raced), 3.2), layout="constrained")
    loss, reached, rate, *race = figure.subplots(1, 3 + bool(raced))
    name = history[0].figure
    if raced:
        _race(race[0], raced)
    _lines(loss, history, "loss", best=_best(history))
    _lines(reached, history, name, best=_best(history))
    loss.set_ylim(bottom=0)
    reached.set_ylim(**({"bottom": 0} if name in SMALLER else {"top": 1.01}))
    steps = [(number, epoch.lr) for number, epoch in enumerate(history) if epoch.lr is not None]
    rate.plot(*zip(*steps, strict=True), color="0.3", marker=".")
    rate.set_title("learning rate", fontsize=10)
    for axes in (loss, reached, rate):
        _mark_phases(axes, history)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    loss.legend(frameon=False)
    tested = f"test {_words(name)} {figure_text(run.test.as_json()[name], name)}"
    figure.suptitle(f"{run.dataset}: {run.backbone}, {run.settings['optimizer']}; {tested}", fontsize=11)
    return figure


def _lines(axes: Any, history: Sequence[TunedEpoch], what: str, best: int) -> None:
    for split, colour in _COLOURS.items():
        values = [(number, getattr(epoch, f"{split}_{what}", None)) for number, epoch in enumerate(history)]
        points = [(number, value) for number, value in values if value is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, label=split, marker=".")
    axes.plot(best, getattr(history[best], f"val_{what}"), "o", mfc="none", mec=_COLOURS["val"], ms=10, label="chosen")
    axes.set_title(_words(what), fontsize=10)


def _words(figure: str) -> str:
    return figure.replace("_", " ")


def _race(axes: Axes, raced: Sequence[TunedCandidate]) -> None:
    """Draw what each recipe reached on validation, epoch by epoch: a line for each training, a colour for each name."""
    from matplotlib.ticker import MaxNLocator

    names = dict.fromkeys(each.setting["recipe"] for each in raced)
    colours = dict(zip(names, cycle(PALETTE), strict=False))
    for each in raced:
        name, values = each.setting["recipe"], [epoch.value for epoch in each.history]
        axes.plot(values, color=colours[name], label=name if name in names else None, marker=".", markersize=3)
        names.pop(name, None)
    axes.set(xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"recipes, {_words(raced[0].history[0].figure)} on val", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _best(history: Sequence[TunedEpoch]) -> int:
    """Return the first epoch with the best validation score, which is the one whose weights were kept."""
    scores = [epoch.score for epoch in history]
    return scores.index(max(scores))


def _mark_phases(axes: Any, history: Sequence[TunedEpoch]) -> None:
    """Draw a line where the backbone begins to be trained, and name epochs by their number in their phase."""
    starts = [n for n, epoch in enumerate(history) if n and epoch.phase != history[n - 1].phase]
    for start in starts:
        axes.axvline(start - 0.5, color="0.6", linestyle=":")
    step = max(1, len(history) // 8)
    ticks = [n for n in range(len(history)) if (n - (starts[-1] if starts else 0)) % step == 0]
    axes.set_xticks(ticks, [str(history[n].epoch) for n in ticks])


def few_shot_curves(curves: Sequence[Curve]) -> Figure:
    """Draw accuracy against labelled images per class, a panel for each dataset and backbone."""
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        panels.setdefault((curve.dataset, curve.backbone), []).append(curve)
    figure = Figure(figsize=(5.2 * len(panels), 4.4), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, ((dataset, backbone), group) in zip(axes, panels.items(), strict=True):
        _few_shots(ax, group)
        ax.set_title(f"{dataset}, {backbone}")
    axes[0].set_ylabel("Accuracy on the test split")
    return figure


def _few_shots(ax: Axes, curves: Sequence[Curve]) -> None:
    ranked = sorted(curves, key=lambda curve: -curve.points[-1].mean)
    for curve, marker, colour in zip(ranked, cycle(_MARKERS), cycle(PALETTE), strict=False):
        images = [point.images_per_class for point in curve.points]
        means, spreads = [point.mean for point in curve.points], [point.std for point in curve.points]
        ax.errorbar(images, means, spreads, color=colour, marker=marker, markersize=5, capsize=2, label=curve.head)
    ticks = {round(point.images_per_class, 2): point for curve in curves for point in curve.points}
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(ticks), [f"{point.shots or 'all'}" for point in ticks.values()], minor=False)
    ax.set_xlabel("Labelled images per class (mean and standard deviation)")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
