"""Epochs of a fine-tuning, told to whoever wants to know while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tlcache.machine import is_first

__all__ = ["Live", "LiveEpoch", "OnEpoch"]


@dataclass(frozen=True)
class LiveEpoch:
    """An epoch that has just ended.

    Parameters
    ----------
    run, dataset
        As the record will be called, and what it will be about.
    training
        Which of several trainings it is of: a recipe of a race, a setting of a sweep, `refit`; empty: the only one.
    number
        Of the epoch, counted from 0 in its training.
    figures
        `train_loss`, `val_accuracy` and so on, as in the `history` of the record.
    """

    run: str
    dataset: str
    training: str
    number: int
    figures: Mapping[str, Any]


OnEpoch = Callable[[LiveEpoch], None]


@dataclass(frozen=True)
class Live:
    """Who is told of the epochs of a training, if anybody, and what it is called."""

    on_epoch: OnEpoch | None = None
    run: str = ""
    dataset: str = ""
    training: str = ""

    def of(self, training: str) -> Live:
        """Return the same for one of several trainings, or for one within one of them."""
        return replace(self, training=", ".join(filter(None, (self.training, training))))

    def tell(self, number: int, figures: Mapping[str, Any]) -> None:
        """Tell of an epoch; of several processes the first does."""
        if self.on_epoch is not None and is_first():
            self.on_epoch(LiveEpoch(self.run, self.dataset, self.training, number, figures))
