"""Figures as files; the ending of the name is the format."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from tlcache.errors import OptionError
from tlcache.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "PALETTE", "check_format", "save_figure"]

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d")  # Okabe and Ito (2008), and one
FORMATS = (".png", ".svg", ".pdf")
_UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # the same figures, the same bytes


def check_format(path: Path) -> None:
    """Raise OptionError when a figure cannot be written under this name; before long work, not after it."""
    if path.suffix.lower() not in FORMATS:
        raise OptionError(f"A figure is written as {', '.join(FORMATS)}; asked: '{path}'.")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the same one gives the same bytes."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "tlcache"}):
        kind = path.suffix[1:].lower()
        figure.savefig(buffer, format=kind, dpi=150, metadata=_UNDATED.get(kind))
    write_whole(path, buffer.getbuffer())
