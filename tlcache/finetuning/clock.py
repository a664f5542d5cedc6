"""What a race has spent of its time, and when a training has to end because the machine has become busier."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tlcache.finetuning.pace import Pace
from tlcache.finetuning.training import Late
from tlcache.finetuning.trial import seconds_of
from tlcache.progress import say
from tlcache.runs.finetuned import TunedEpoch
from tlcache.text import duration

__all__ = ["Clock", "slowed"]

_ROUND = 0.25  # of the budget, that is planned for a round
_LATE = 0.25  # of the budget: what follows is cut to be late by no more
_EARNEST = 0.5  # of the budget, that is planned for the training in earnest and the refit
_MOST = 0.5  # of the budget: a refit that would be later is given up
_SETTING_UP_S = 30.0  # for each round and the rest: fitting a head, or exporting, may take longer than training


class Clock:
    """The time of a race, by the seconds that its trainings note down: one that is resumed goes on by the same clock.

    Parameters
    ----------
    budget_s
        As promised.

    Attributes
    ----------
    spent_s, once_s
        What is finished took, and which of that was no epoch: timing, heads, exporting, activations.
    cut
        What was left out or shortened, in words.
    """

    def __init__(self, budget_s: float) -> None:
        self.budget_s, self.spent_s, self.once_s, self.cut = budget_s, 0.0, 0.0, list[str]()

    @property
    def left_s(self) -> float:
        """How long what follows may take; less than 0 if its time has passed."""
        return self._left(_LATE)

    def spend(self, seconds: float, epochs_s: float = 0.0) -> None:
        """Count what is finished, and which of its seconds were of epochs."""
        self.spent_s += seconds
        self.once_s += seconds - epochs_s

    def note(self, line: str) -> None:
        """Say and remember that something was cut."""
        say(line)
        self.cut.append(line)

    def round_ends(self) -> Late:
        """Return what ends a training of the round that begins now."""
        end = self.spent_s + _ROUND * self.budget_s + max(_ROUND * self.budget_s / 2, _SETTING_UP_S)
        return lambda history: self.spent_s + seconds_of(history) > end

    def final_ends(self, again: float) -> Late:
        """Return what ends the training in earnest: that after it, with `again` times the images, has to have time."""

        def is_late(history: Sequence[Mapping[str, Any]]) -> bool:
            trained = [TunedEpoch(**epoch) for epoch in history if epoch["epoch"]]
            best = max(trained, key=lambda epoch: epoch.score).epoch
            follows = again * sum(epoch.train_s or 0.0 for epoch in trained[:best])
            return seconds_of(history) + follows > self.left_s

        return is_late

    def refit_ends(self, epochs: int) -> Late:
        """Return what gives up the training on train + val: it would take far longer than was promised."""

        def is_late(history: Sequence[Mapping[str, Any]]) -> bool:
            return seconds_of(history) * epochs / max(1, len(history)) > self._left(_MOST)

        return is_late

    def _left(self, late: float) -> float:
        """Return what is left of the budget if it may be exceeded by this share of it.

        What is done once may leave less than was planned for the training in earnest, but takes none of its epochs.
        """
        end = self.budget_s + max(late * self.budget_s, 2 * _SETTING_UP_S)
        return max(end - self.spent_s, min(_EARNEST * self.budget_s, end - (self.spent_s - self.once_s)))

    def told_once(self) -> str:
        """Return how much of the time no epoch took."""
        return (
            f"{duration(self.spent_s)} of {duration(self.budget_s)} are spent, {duration(self.once_s)} on what is done "
            "once (timing, heads, exporting, activations)"
        )

    def told(self) -> str:
        """Return how long it took, beside what was promised."""
        return f"the race and what followed took {duration(self.spent_s)} of {duration(self.budget_s)}"


def slowed(pace: Pace, history: Sequence[Mapping[str, Any]]) -> float:
    """Return how many times as long as was timed an image takes, by the median of some epochs; at least 1."""
    rates = [epoch["images_per_s"] for epoch in history if epoch.get("images_per_s")]
    return max(1.0, 1 / (pace.train_s * statistics.median(rates))) if rates else 1.0
