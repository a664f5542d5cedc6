"""Recorded runs, sent to a tracker."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

from tlcache.arguments import OUTPUT, OnlyDatasets, Runs
from tlcache.kinds import choice, text
from tlcache.options import Option, described
from tlcache.progress import step_bar, warn

if TYPE_CHECKING:
    from tlcache.tracking.entry import Tracker

__all__ = ["TRACKERS", "Tracked", "track"]

TRACKERS = {"mlflow": "MLflow", "tensorboard": "TensorBoard", "wandb": "WeightsAndBiases"}  # modules, and classes
_PLACES = {"mlflow": ("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"), "wandb": ("WANDB_PROJECT", "tlcache")}
_SAME = "same"


@dataclass(frozen=True)
class Tracked:
    """What became of a run: `"added"`, `"replaced"` one that had been done otherwise, or `"same"` is there."""

    run: str
    dataset: str
    state: str

    def as_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return asdict(self)


@described()
def track(
    to: Annotated[str, Option("The tracker", choice(list(TRACKERS)), OUTPUT, "--to")],
    place: Annotated[
        str | None,
        Option(
            "The address or folder of MLflow, the folder of event files, or the project",
            text("PLACE"),
            OUTPUT,
            default="MLFLOW_TRACKING_URI, else sqlite:///mlflow.db; tensorboard; WANDB_PROJECT, else tlcache",
        ),
    ] = None,
    data: OnlyDatasets = None,
    runs: Runs = None,
    on_warning: Callable[[str], None] = warn,
) -> Sequence[Tracked]:
    """Add recorded runs to a tracker: settings, figures, the curve of every run that has epochs.

    Runs that are there already are left alone, and one that was done again since replaces its former self, so that the
    same call may be repeated. The tracker's package is imported only here.

    Parameters
    ----------
    on_warning
        Called with a sentence for each record that cannot be read and is left out; default: warns on standard error.

    Returns
    -------
    Sequence of Tracked
        One for each run.

    Raises
    ------
    CacheError, OptionError, TlcacheError
        No runs; the tracker's package is not installed; it does not take them.

    Examples
    --------
    >>> [each.state for each in track("tensorboard", folder / "events", runs=runs)]  # doctest: +SKIP
    ['added', 'added']
    """
    from tlcache.runs.folder import list_runs
    from tlcache.tracking.entry import entry_of

    found = list_runs(runs, data, on_warning)
    variable, default = _PLACES.get(to, ("", "tensorboard"))
    opened = getattr(import_module(f"tlcache.tracking.{to}"), TRACKERS[to])
    tracker: Tracker = opened(str(place or os.environ.get(variable) or default))
    done = []
    with step_bar(f"to {to}", len(found)) as advance:
        for entry in map(entry_of, found):
            state = tracker.state(entry)
            if state != _SAME:
                tracker.add(entry)
            words = {"new": "added", "changed": "replaced"}.get(state, state)
            done.append(Tracked(entry.name, entry.dataset, words))
            advance(1)
    return done
