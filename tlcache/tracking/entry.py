"""A recorded run as trackers take one: names and values, curves, and what tells whether it is there already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from tlcache.finetuning.live import LiveEpoch
from tlcache.keys import hash_json, slug
from tlcache.records import as_json
from tlcache.runs.record import Run

__all__ = ["Entry", "Tracker", "entry_of", "figures_of"]


@dataclass(frozen=True)
class Entry:
    """A run in the words of trackers.

    Parameters
    ----------
    name, dataset
        Of the run, as its files are called, and what it is about.
    digest
        Twelve hexadecimal digits of the whole record: a run that was done again has another one.
    record
        The record's file.
    began_s
        When it was recorded, in seconds since 1970.
    settings
        What it was made by, without nesting: `"chosen.C"`.
    figures
        Of the test images (`"test_accuracy"`), of validation (`"val_accuracy"`), and seconds.
    curves
        Of every epoch, in order: its number as `"epoch"`, and figures (`"epoch_val_accuracy"`).
    """

    name: str
    dataset: str
    digest: str
    record: str
    began_s: float
    settings: Mapping[str, str]
    figures: Mapping[str, float]
    curves: tuple[Mapping[str, float], ...]


class Tracker(Protocol):
    """Where runs go."""

    def known(self, entry: Entry) -> str | None:
        """Return the digest with which a run of this name is there, `""` where it is not whole; None: there is none."""

    def add(self, entry: Entry) -> None:
        """Add a run, in place of one of that name."""

    def tell(self, epoch: LiveEpoch) -> None:
        """Show an epoch of a run that is not recorded yet; `add` will replace it."""


_FIGURES = ("train_s", "epoch_s", "images_per_s", "fit_s", "search_s", "refit_s", "temperature")


def entry_of(run: Run) -> Entry:
    """Return what trackers are told of a run."""
    fields = run.as_json()
    own = ("strategy", "backbone", "head", "key", "weights", "pool", "precision", "dataset_digest")
    settings = {
        **{name: fields[name] for name in own},
        "test_split": run.test_split,
        **dict(_flat(fields["arguments"])),
        **dict(_flat(fields["chosen"], "chosen.")),
        "cpu": run.hardware.cpu,
        "tlcache": run.versions.get("tlcache"),
    }
    figures = {
        **{f"test_{name}": value for name, value in run.test.as_json().items()},
        **{f"val_{name}": value for name, value in run.validated.items()},
        **{name: fields[name] for name in _FIGURES if name in fields},
        "extract_wall_s": run.extract.wall_s,
    }
    return Entry(
        run.path.stem,
        run.dataset,
        hash_json({name: value for name, value in fields.items() if name != "record"})[:12],
        str(run.path),
        datetime.fromisoformat(run.created).timestamp(),
        {name: str(value) for name, value in settings.items() if value is not None},
        dict(_numbers(figures)),
        tuple({"epoch": number, **_curve(as_json(each))} for number, each in enumerate(run.history)),
    )


def figures_of(epoch: LiveEpoch) -> dict[str, float]:
    """Return the figures of an epoch by the names of curves; of several trainings each has curves of its own."""
    training = f"{slug(epoch.training)}/" if epoch.training else ""
    return {f"{training}{name}": value for name, value in _curve(epoch.figures).items()}


def _flat(fields: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _curve(epoch: Mapping[str, Any]) -> dict[str, float]:
    return {f"epoch_{name}": value for name, value in _numbers(epoch) if name != "epoch"}


def _numbers(fields: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    return ((name, float(value)) for name, value in fields.items() if isinstance(value, int | float))
