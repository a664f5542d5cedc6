"""What a comparison looks like: accuracy against cost, calibration, recall of the classes, confusion."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.calibration import reliability
from tlcache.evaluation.comparison import Entry, pareto
from tlcache.evaluation.mistakes import confusions
from tlcache.report.plots import PALETTE
from tlcache.text import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tlcache.robustness.records import RobustRun

__all__ = [
    "calibration_figure",
    "confusion_figure",
    "cost_figure",
    "map_figure",
    "recall_figure",
    "severity_figure",
]

FROZEN, TUNED, JOINED = PALETTE[:3]
_COLOURS = {"frozen": FROZEN, "joined": JOINED, "finetune": TUNED}
_WORDS = {"frozen": "frozen, head fitted", "joined": "joined, head fitted", "finetune": "fine-tuned"}
_MARKERS = "os^DvPX*"
_HINTS = 300  # confusions that are told when pointed at
_PANELS = 5  # in a row, of kinds of corruption
_NAMED = 20  # classes that are named at an axis of a large confusion matrix


def cost_figure(entries: Sequence[Entry]) -> tuple[Figure, dict[str, str]]:
    """Draw accuracy with its interval against seconds from nothing, and the front of the best; with hints by gid."""
    figure, axes = _new(7.2, 4.2)
    markers = dict(zip(sorted({entry.backbone for entry in entries}), _MARKERS * len(entries), strict=False))
    hints = {}
    for number, entry in enumerate(entries):
        colour = _COLOURS[entry.run.strategy]
        spread = [[entry.accuracy - entry.low], [entry.high - entry.accuracy]]
        axes.errorbar(entry.first_s, entry.accuracy, spread, color=colour, elinewidth=0.8, alpha=0.45, fmt="none")
        (point,) = axes.plot(entry.first_s, entry.accuracy, markers[entry.backbone], color=colour, markersize=7)
        point.set_gid(f"run{number}")
        hints[f"run{number}"] = f"{entry.name}: {entry.accuracy:.3f}, {duration(entry.first_s)}"
    front = pareto(entries)
    axes.step([e.first_s for e in front], [e.accuracy for e in front], where="post", color="0.6", lw=1, zorder=0)
    axes.set_xscale("log")
    _name_points(axes, front)
    _plain_seconds(axes)
    axes.set_xlabel("Seconds from nothing to this result (embedding, and fitting or fine-tuning)")
    axes.set_ylabel("Test accuracy (95 % interval)")
    _legend(axes, markers, {entry.run.strategy for entry in entries})
    return figure, hints


def _name_points(axes: Axes, front: Sequence[Entry]) -> None:
    """Name the runs of the front, the most accurate first, unless a name is there already."""
    named: list[NDArray[np.float64]] = []
    for entry in reversed(front):
        place = axes.transAxes.inverted().transform(axes.transData.transform((entry.first_s, entry.accuracy)))
        if any(abs(place[0] - other[0]) < 0.16 and abs(place[1] - other[1]) < 0.09 for other in named):
            continue
        left = place[0] > 0.6  # so that no name leaves the picture
        axes.annotate(
            entry.head if len(entry.head) < 30 else entry.head[:28] + " ...",
            (entry.first_s, entry.accuracy),
            xytext=(-8 if left else 8, 6 if left else -12),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize=9,
        )
        named.append(place)


def _plain_seconds(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    fine = (1, 2, 3, 5) if high / low < 30 else (1, 2, 5) if high / low < 300 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=fine, numticks=20))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _legend(axes: Axes, markers: Mapping[str, str], strategies: Collection[str]) -> None:
    for backbone, marker in markers.items():
        axes.plot([], [], marker, color="0.3", label=backbone)
    for strategy, words in _WORDS.items():
        if strategy in strategies:
            axes.plot([], [], "s", color=_COLOURS[strategy], markersize=9, label=words)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4)


def calibration_figure(runs: Sequence[tuple[str, Entry]]) -> Figure:
    """Draw how often predictions of each confidence are right, for runs with what each is called."""
    figure, axes = _new(4.2, 3.8)
    axes.plot([0, 1], [0, 1], color="0.6", lw=1)
    for (name, entry), marker in zip(runs, _MARKERS, strict=False):
        colour = _COLOURS[entry.run.strategy]
        confidence, right, images = reliability(entry.top.confidence, entry.top.right)
        axes.plot(confidence, right, color=colour, lw=1, alpha=0.7)
        axes.scatter(confidence, right, 12 + 120 * images / images.max(), color=colour, marker=marker, label=name)
    axes.set_xlabel("Confidence (larger points: more images)")
    axes.set_ylabel("Share that is right")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, markerscale=0.6)
    return figure


def recall_figure(names: Sequence[str], recalls: Sequence[tuple[str, str, NDArray[np.float64]]]) -> Figure:
    """Draw the share of each class's images that is recognised; classes from top to bottom.

    `recalls` are what a run is called, its strategy, and the shares (C,).
    """
    figure, axes = _new(5.6, 1.0 + 0.24 * len(names))
    places = np.arange(len(names))
    for (label, strategy, values), marker in zip(recalls, _MARKERS, strict=False):
        axes.plot(values, places, marker, color=_COLOURS[strategy], label=label, markersize=6)
    if len(recalls) > 1:
        all_values = np.array([values for _, _, values in recalls])
        axes.hlines(places, all_values.min(axis=0), all_values.max(axis=0), color="0.6", lw=1, zorder=0)
    axes.set_yticks(places, names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Share of the class's test images that is recognised")
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def map_figure(points: NDArray[np.float32], wrong: NDArray[np.bool_]) -> Figure:
    """Draw images as points (n, 2), those that are classified wrongly (n,) over the others."""
    figure, axes = _new(5.2, 4.2)
    size = 60_000 / max(2000, len(points)) ** 1.1
    for some, colour, larger, name in ((~wrong, "0.6", 1, "others"), (wrong, TUNED, 2, "classified wrongly")):
        (x, y), label = points[some].T, f"{some.sum():,} {name}"
        drawn = axes.scatter(x, y, larger * size, color=colour, alpha=0.7, linewidths=0, label=label)
        drawn.set_rasterized(True)
    axes.set_aspect("equal", "datalim")
    axes.set(xticks=[], yticks=[])
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, markerscale=2)
    return figure


def severity_figure(runs: Sequence[RobustRun]) -> Figure:
    """Draw accuracy against severity, a panel for each kind of corruption; severity 0 are images as they are."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    kinds = list(dict.fromkeys(each.kind for each in runs[0].reached))
    lines = -(-len(kinds) // _PANELS)
    figure = Figure(figsize=(7.2, 0.6 + 2.0 * lines), layout="constrained")
    panels = figure.subplots(lines, min(len(kinds), _PANELS), sharey=True, sharex=True, squeeze=False).flat
    for axes, kind in zip(panels, kinds, strict=False):
        for run, marker in zip(runs, _MARKERS, strict=False):
            points = [
                (0, run.clean.accuracy),
                *((each.severity, each.accuracy) for each in run.reached if each.kind == kind),
            ]
            axes.plot(
                *zip(*points, strict=True), marker=marker, color=_COLOURS[run.strategy], markersize=5, label=run.name
            )
        axes.set_title(kind, fontsize=10)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in list(panels)[len(kinds) :]:
        axes.set_visible(False)
    figure.supxlabel("Severity (0: as they are)", fontsize=10)
    figure.supylabel("Test accuracy", fontsize=10)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, fontsize=8, loc="outside upper center", ncols=2)
    return figure


def confusion_figure(counts: NDArray[np.int64], names: Sequence[str]) -> tuple[Figure, dict[str, str]]:
    """Draw a confusion matrix (C, C) of many classes: rows are true classes, as shares of the row.

    Only some of the classes can be named at the axes: hints by gid tell the most frequent confusions.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    figure, axes = _new(5.2, 5.2)
    right = np.eye(len(counts), dtype=bool)
    shares = np.sqrt(counts / np.maximum(1, counts.sum(axis=1, keepdims=True)))  # so that one confusion can be seen
    pixels = np.concatenate([np.where(right[..., None], to_rgb(FROZEN), to_rgb(TUNED)), shares[..., None]], axis=2)
    hints = {}
    for true, taken, times, _ in confusions(counts, _HINTS):
        gid, corner = f"cell{true * len(counts) + taken}", (taken - 0.5, true - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, color=TUNED, alpha=shares[true, taken], linewidth=0, gid=gid))
        hints[gid] = f"{names[true]} taken for {names[taken]}: {times} of {counts[true].sum()}"
        pixels[true, taken, 3] = 0
    axes.imshow(pixels, interpolation="none")
    some = np.unique(np.linspace(0, len(names) - 1, _NAMED).round().astype(int))
    axes.set_xticks(some, [names[number] for number in some], rotation=90, fontsize=7)
    axes.set_yticks(some, [names[number] for number in some], fontsize=7)
    axes.grid(visible=False)
    axes.set_xlabel("Predicted class")
    axes.set_ylabel("True class")
    return figure, hints


def _new(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
