"""Figures as files; the ending of the name is the format."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from tlcache.errors import UnknownNameError
from tlcache.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tlcache.shots import Curve

__all__ = ["FORMATS", "check_format", "plot_curves", "save_figure"]

FORMATS = (".png", ".svg", ".pdf")
_UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # the same figures, the same bytes
_MARKERS = "osD^vPX*"


def check_format(path: Path) -> None:
    """Raise UnknownNameError when a figure cannot be written under this name; before long work, not after it."""
    if path.suffix.lower() not in FORMATS:
        raise UnknownNameError(f"A figure is written as {', '.join(FORMATS)}; asked: '{path}'.")


def plot_curves(curves: Sequence[Curve], path: Path) -> None:
    """Draw accuracy against labelled images per class, a panel for each dataset and backbone."""
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        panels.setdefault((curve.dataset, curve.backbone), []).append(curve)
    figure = Figure(figsize=(5.2 * len(panels), 4.4), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, ((dataset, backbone), group) in zip(axes, panels.items(), strict=True):
        _draw(ax, group)
        ax.set_title(f"{dataset}, {backbone}")
    axes[0].set_ylabel("Accuracy on the test split")
    save_figure(figure, path)


def _draw(ax: Axes, curves: Sequence[Curve]) -> None:
    ranked = sorted(curves, key=lambda curve: -curve.points[-1].mean)
    for curve, marker in zip(ranked, cycle(_MARKERS), strict=False):
        images = [point.images_per_class for point in curve.points]
        means, spreads = [point.mean for point in curve.points], [point.std for point in curve.points]
        ax.errorbar(images, means, spreads, label=curve.head, marker=marker, markersize=5, linewidth=1.4, capsize=2)
    ticks = {round(point.images_per_class, 2): point for point in curves[0].points}
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(ticks), [f"{point.shots or 'all'}" for point in ticks.values()], minor=False)
    ax.set_xlabel("Labelled images per class (mean and standard deviation)")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the same one gives the same bytes."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "tlcache"}):
        kind = path.suffix[1:].lower()
        figure.savefig(buffer, format=kind, dpi=150, metadata=_UNDATED.get(kind))
    write_whole(path, buffer.getbuffer())
