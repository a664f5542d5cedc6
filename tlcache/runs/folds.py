"""Every image tested in turn: what a record says of the folds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

__all__ = ["CrossValidation"]


class CrossValidation(Struct, frozen=True, kw_only=True):
    """Every image tested by heads, or networks, that did not see it, in so many folds, so many times.

    Parameters
    ----------
    folds, repeats
        How many.
    share
        Images of a fold, to those that were fitted on.
    accuracy, chosen
        Of every fold of every repetition, and the setting that was chosen inside it.
    """

    folds: int
    repeats: int
    share: float
    accuracy: tuple[float, ...]
    chosen: tuple[Mapping[str, Any], ...]

    def __str__(self) -> str:
        """Return what it is called."""
        return f"{self.folds}x{self.repeats} cross-validation"
