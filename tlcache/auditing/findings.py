"""What an audit found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tlcache.auditing.calibration import Calibration
from tlcache.auditing.labels import FOUND, NeighbourGap
from tlcache.auditing.leak import Leak
from tlcache.datasets.tasks import told_of
from tlcache.records import as_json
from tlcache.tasks import CLASSIFY

__all__ = ["Audit", "DuplicatePair", "End", "LabelIssue", "OddImage", "audit_of"]


class End(NamedTuple):
    """An image of a pair. Its split may be another than the folder in its path: one that is not given is drawn."""

    split: str
    label: str
    path: str


@dataclass(frozen=True)
class DuplicatePair:
    """Two images that are the same or nearly; `exact` when their bytes are equal. Splits and labels are names.

    `apart` says of numbers whether they differ by more than half of their standard deviation; None of other labels.
    """

    first: str
    second: str
    cosine: float
    exact: bool
    first_split: str
    second_split: str
    first_label: str
    second_label: str
    apart: bool | None = None

    @property
    def ends(self) -> tuple[End, End]:
        """The two images, as they are shown everywhere."""
        one = End(self.first_split, self.first_label, self.first)
        return one, End(self.second_split, self.second_label, self.second)

    @property
    def close(self) -> str:
        """How close they are."""
        return "equal bytes" if self.exact else f"cosine {self.cosine:.3f}"

    @property
    def across(self) -> bool:
        """Whether they lie in different splits."""
        return self.first_split != self.second_split

    @property
    def conflict(self) -> bool:
        """Whether they carry different labels, or numbers that are far apart."""
        return self.first_label != self.second_label if self.apart is None else self.apart


@dataclass(frozen=True)
class LabelIssue:
    """An image whose label a head that never saw it disagrees with; see `tlcache.auditing.labels.FlaggedRow`."""

    path: str
    split: str
    label: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class OddImage:
    """An image that looks odd among the others, and in what."""

    path: str
    split: str
    label: str
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """What was found in one feature file.

    Parameters
    ----------
    dataset, dataset_digest, source, backbone, weights, key
        Which images and splits, the folder they are in, and what embedded them.
    why
        Why this backbone; empty where there was no choice.
    images, classes, splits
        Number of images, and how many each class and each split has.
    small
        Classes with fewer than 10 test images.
    exact, near
        Pairs of images; of exact duplicates one for each further copy, and near ones without exact ones.
    near_count, near_across
        How many pairs there are, and how many across splits; `near` may hold fewer in a set that is full of them.
    alike
        Pairs that are as close in the embedding, and show other pixels: one thing seen twice, or two that look alike.
        They share a group.
    leak
        Test images that are known from train or val.
    label_issues
        Probable label errors; none where these cannot be told.
    labels_accuracy, labels_found
        How often the heads behind them were right, on groups they did not see (of a number the share of the variance
        that they explain), and the share of labels changed at random that would be among them; None where they could
        not be fitted.
    outliers
        Paths of images unlike all others.
    neighbour_gap
        The nearest neighbour against a linear head; None without test images.
    calibration
        The threshold of near-duplicates.
    group_by, groups, largest
        How images were grouped, into how many groups, and the size of the largest.
    torn
        The groups that lie in several splits; None in older records.
    verdict
        One or two plain sentences.
    record
        The JSON file of all this; beside it `.csv`.
    drawn
        The splits that were drawn from train; None where that is not known.
    odd
        Images that look odd among the others, those in most ways first; None where the images are gone.
    task
        What labels say: a name of `tlcache.tasks.TASKS`.
    """

    dataset: str
    dataset_digest: str
    source: str
    backbone: str
    weights: str
    key: str
    why: str
    images: int
    classes: Mapping[str, int]
    splits: Mapping[str, int]
    small: tuple[str, ...]
    exact: tuple[DuplicatePair, ...]
    near: tuple[DuplicatePair, ...]
    near_count: int
    near_across: int
    alike: tuple[DuplicatePair, ...]
    leak: Leak
    label_issues: tuple[LabelIssue, ...]
    labels_accuracy: float | None
    labels_found: float | None
    outliers: tuple[str, ...]
    neighbour_gap: NeighbourGap | None
    calibration: Calibration
    group_by: str
    groups: int
    largest: int
    verdict: str
    record: Path
    drawn: tuple[str, ...] | None = None
    odd: tuple[OddImage, ...] | None = None
    torn: tuple[str, ...] | None = None
    task: str = CLASSIFY

    @property
    def leaks(self) -> bool:
        """Whether a test image is known from train or val."""
        return self.leak.found

    @property
    def judged(self) -> bool:
        """Whether it can be told that none is: by copies to compare with, or as the groups of all are known."""
        copies = self.calibration.judges and self.calibration.images > 0
        return self.leak.test > 0 and (copies or self.leak.known == 1)

    @property
    def labels_judged(self) -> bool:
        """Whether enough wrong labels would be found for `label_issues` to say something."""
        return self.labels_found is not None and self.labels_found >= FOUND

    def conflicts(self) -> list[DuplicatePair]:
        """Return the pairs that carry different labels, exact ones first."""
        return [pair for pair in (*self.exact, *self.near) if pair.conflict]

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        names = ("dataset", "dataset_digest", "backbone", "why", "images", "group_by", "groups", "largest", "verdict")
        return {
            **{name: getattr(self, name) for name in names},
            **told_of(self.task),
            "splits": dict(self.splits),
            "drawn": as_json(self.drawn),
            "exact": {
                "pairs": [[pair.first, pair.second] for pair in self.exact],
                "across_splits": sum(pair.across for pair in self.exact),
            },
            "near": {
                "pairs": [[pair.first, pair.second] for pair in self.near],
                "count": self.near_count,
                "across_splits": self.near_across,
                "threshold": self.calibration.threshold,
            },
            "alike": {
                "pairs": [[pair.first, pair.second] for pair in self.alike],
                "across_splits": sum(pair.across for pair in self.alike),
                "threshold": self.calibration.alike,
            },
            "torn_groups": as_json(self.torn),
            "leak": as_json(self.leak),
            "leaks": self.leaks,
            "judged": self.judged,
            "label_conflicts": [[pair.first, pair.second] for pair in self.conflicts()],
            "label_suspects": as_json(self.label_issues),  # by this name scripts know them
            "labels_accuracy": self.labels_accuracy,
            "labels_found": self.labels_found,
            "outliers": list(self.outliers),
            "odd_images": as_json(self.odd),
            "small_classes": list(self.small),
            "neighbour_gap": self.neighbour_gap and self.neighbour_gap.as_json(),
            "calibration": as_json(self.calibration),
            "record": str(self.record),
        }


def audit_of(audits: Sequence[Audit], digest: str) -> Audit | None:
    """Return the audit of these images and splits; of several, the one that found the most test images known."""
    fitting = [each for each in audits if each.dataset_digest == digest]
    return max(fitting, key=lambda each: each.leak.duplicated, default=None)
