"""How far test images are known from train and val."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Leak"]


@dataclass(frozen=True)
class Leak:
    """How far test images are known from train and val.

    Parameters
    ----------
    test
        Number of test images.
    duplicated
        Those with a duplicate or near-duplicate in train or val.
    grouped
        Those whose group has images there.
    right
        Those of both kinds that a linear head, fitted on train and val, classifies rightly; None where none was fitted.
    either
        Those of both kinds; 0 in older records.
    known
        Share of the test images whose group is known: the dataset's own, or by a pattern. Groups of near-duplicates are
        not.
    """

    test: int
    duplicated: int
    grouped: int
    right: int | None = None
    either: int = 0
    known: float = 0.0

    @property
    def found(self) -> bool:
        """Whether a test image has a duplicate or near-duplicate in train or val, or is in a known group with some."""
        return self.duplicated > 0 or (self.known > 0 and self.grouped > 0)

    @property
    def leaking(self) -> int:
        """Test images of both kinds."""
        return max(self.either, self.duplicated, self.grouped)
