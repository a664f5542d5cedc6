"""What a run reaches on the test images of each class."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["ClassFigures", "Share"]


class Share(Struct, frozen=True, kw_only=True):
    """A figure between 0 and 1 with its 95 % interval, by group where the images have groups."""

    value: float
    low: float
    high: float


class ClassFigures(Struct, frozen=True, kw_only=True):
    """What a run reaches on the test images of one class; None where these have no say in it.

    Parameters
    ----------
    name, n
        The class, and how many test images are of it.
    precision, recall, f1
        Of the answers: those of this class that are right, the images of this class that are answered so, and both.
    auroc, average_precision
        Of its probability, against all other classes.
    """

    name: str
    n: int
    precision: Share | None
    recall: Share | None
    f1: Share | None
    auroc: Share | None
    average_precision: Share | None
