"""Recorded runs, sent to a tracker."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from tlcache.arguments import OUTPUT, OnlyDatasets, Runs
from tlcache.kinds import choice, text
from tlcache.options import Option, described
from tlcache.progress import step_bar, warn

if TYPE_CHECKING:
    from tlcache.tracking.entry import Entry, Tracker

__all__ = ["TRACKERS", "Tracked", "open_tracker", "put", "track"]


class _Row(NamedTuple):
    """A tracker: its class in the module of its name, the variable that may say where runs go, and where else."""

    opens: str
    variable: str
    default: str


TRACKERS = {
    "mlflow": _Row("MLflow", "MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"),
    "tensorboard": _Row("TensorBoard", "", "tensorboard"),
    "wandb": _Row("WeightsAndBiases", "WANDB_PROJECT", "tlcache"),
}


@dataclass(frozen=True)
class Tracked:
    """What became of a run: `"added"`, `"replaced"` one that had been done otherwise, or `"same"` is there."""

    run: str
    dataset: str
    state: str

    def as_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return asdict(self)


def put(tracker: Tracker, entry: Entry) -> str:
    """Add a run unless it is there as it is; return `added`, `replaced`, or `same` where nothing was done."""
    known = tracker.known(entry)
    if known == entry.digest:
        return "same"
    tracker.add(entry)
    return "added" if known is None else "replaced"


def open_tracker(to: str, place: str | None = None) -> Tracker:
    """Return a tracker, at its usual place unless another is given; its package is imported here.

    Raises
    ------
    OptionError, TlcacheError
        The package is not installed; the tracker does not take runs there.
    """
    row = TRACKERS[to]
    opens = getattr(import_module(f"tlcache.tracking.{to}"), row.opens)
    tracker: Tracker = opens(str(place or os.environ.get(row.variable) or row.default))
    return tracker


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

    found, tracker = list_runs(runs, data, on_warning), open_tracker(to, place)
    done = []
    with step_bar(f"to {to}", len(found)) as advance:
        for entry in map(entry_of, found):
            done.append(Tracked(entry.name, entry.dataset, put(tracker, entry)))
            advance(1)
    return done
