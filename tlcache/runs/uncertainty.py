"""What a run promised of new images, and what came of it on the test images."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Abstention", "ClassCoverage", "UncertaintyFigures"]


class ClassCoverage(Struct, frozen=True, kw_only=True):
    """How often the sets hold one class; `own` says whether it had images enough for a threshold of its own."""

    name: str
    images: int
    own: bool
    n: int
    test_coverage: float | None


class Abstention(Struct, frozen=True, kw_only=True):
    """What comes of answering only from a confidence on, so that a share of the answers is right.

    There is no `threshold` where no confidence is enough, and no `test_right` where nothing is answered.
    """

    right: float
    threshold: float | None
    test_answered: float
    test_right: float | None


class UncertaintyFigures(Struct, frozen=True, kw_only=True):
    """What `--coverage` asked for, and what the test images show: shares of them, the interval the 95 % one."""

    method: str
    images: int
    coverage: float
    per_class: bool
    test_coverage: float
    test_coverage_low: float
    test_coverage_high: float
    test_set_size: float
    test_single: float
    test_empty: float
    classes: tuple[ClassCoverage, ...]
    abstention: tuple[Abstention, ...]
    test_unusual: float | None
    uncertainty_s: float
