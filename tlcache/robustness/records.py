"""What runs reach on images that are made worse, and its record: one for each dataset and split, the latest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlcache.keys import slug
from tlcache.machine import provenance
from tlcache.progress import warn
from tlcache.records import Form, as_json

__all__ = ["Gain", "Gains", "Reached", "Robustness", "RobustRun", "read_robustness", "record_path", "write_robustness"]


@dataclass(frozen=True)
class Reached:
    """An accuracy on the test images with its 95 % interval, made worse by a kind and severity, like `blur:3`."""

    corruption: str
    accuracy: float
    low: float
    high: float

    @property
    def kind(self) -> str:
        """Of the corruption."""
        return self.corruption.partition(":")[0]

    @property
    def severity(self) -> int:
        """Of the corruption, from 1 to 5."""
        return int(self.corruption.partition(":")[2])


@dataclass(frozen=True)
class RobustRun:
    """A run on test images that are made worse.

    Parameters
    ----------
    run, backbone, head, strategy
        Its name, and what comparisons call it.
    clean
        On the images as they are, as it was recorded.
    mean
        The mean over all corruptions.
    reached
        On each of them.
    """

    run: str
    backbone: str
    head: str
    strategy: str
    clean: Reached
    mean: Reached
    reached: tuple[Reached, ...]

    @property
    def name(self) -> str:
        """Head and backbone."""
        return f"{self.head} on {self.backbone}"

    @property
    def worst(self) -> Reached:
        """Where it reaches least."""
        return min(self.reached, key=lambda each: each.accuracy)


@dataclass(frozen=True)
class Gain:
    """How much more accurate a fine-tuning is than a head on the same backbone, frozen, on the same images made worse.

    `difference`, `low` and `high` are as in `tlcache.evaluation.significance.Difference`; p is corrected for the number
    of corruptions (Holm, 1979).
    """

    corruption: str
    difference: float
    low: float
    high: float
    p_corrected: float


@dataclass(frozen=True)
class Gains:
    """What fine-tuning a backbone gains on images that are made worse.

    Parameters
    ----------
    tuned, frozen
        Names of the runs, each the one that was picked of its kind.
    mean
        Over all corruptions.
    each
        For each of them.
    """

    tuned: str
    frozen: str
    mean: Gain
    each: tuple[Gain, ...]


@dataclass(frozen=True)
class Robustness:
    """What the runs on a dataset and split reach on test images that are made worse.

    Parameters
    ----------
    dataset, digest
        As in run records.
    images, unusable
        Test images that were judged, and those that cannot be used any more.
    corruptions
        Kinds and severities, like `blur:3`.
    embedded
        How many images went through a network for this; all others were there.
    runs
        Those that were picked first are first.
    tunings
        Of every backbone that was fine-tuned.
    record
        Where this is recorded.
    """

    dataset: str
    digest: str
    images: int
    unusable: int
    corruptions: tuple[str, ...]
    embedded: int
    runs: tuple[RobustRun, ...]
    tunings: tuple[Gains, ...]
    record: Path

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        return dict(as_json(self))


ROBUSTNESS: Form[Robustness] = Form("tlcache-robustness", 1, "a record of robustness", Robustness)


def record_path(runs: Path, dataset: str, digest: str) -> Path:
    """Return where robustness on a dataset and split is recorded; what comes later replaces it."""
    return runs / slug(dataset) / "robust" / f"{digest[:12]}.json"


def write_robustness(found: Robustness) -> None:
    """Write the record."""
    ROBUSTNESS.write(found.record, found, **provenance())


def read_robustness(runs: Path, on_warning: Callable[[str], None] = warn) -> list[Robustness]:
    """Return all records under a folder of runs; `on_warning` is called for each that cannot be read."""
    return ROBUSTNESS.read_all(runs.glob("*/robust/*.json"), on_warning)
