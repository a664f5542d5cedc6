"""A fine-tuning in a tracker while it goes on; what is recorded in the end takes the place of that."""

from __future__ import annotations

from tlcache.finetuning.live import LiveEpoch
from tlcache.runs.record import Run
from tlcache.tracking.entry import entry_of
from tlcache.tracking.track import open_tracker, put

__all__ = ["LiveRun"]


class LiveRun:
    """Tells a tracker of epochs as they end.

    Parameters
    ----------
    to, place
        As of `tlcache.track`; a package that is not installed is told now, not after the first epoch.
    """

    def __init__(self, to: str, place: str | None = None) -> None:
        self._tracker = open_tracker(to, place)

    def on_epoch(self, epoch: LiveEpoch) -> None:
        """Tell of an epoch."""
        self._tracker.tell(epoch)

    def done(self, run: Run) -> None:
        """Put the recorded run in the place of its epochs, unless it is there already."""
        put(self._tracker, entry_of(run))
