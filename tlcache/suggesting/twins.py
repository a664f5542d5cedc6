"""Is an image nearly one that is labelled or was suggested already? By its embedding, and by pixels where in doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tlcache.auditing.calibration import Calibration
from tlcache.auditing.neighbours import Array
from tlcache.auditing.pixels import Thumbnails, agreement, thumbnail
from tlcache.datasets.source import Images
from tlcache.errors import ImageReadError
from tlcache.images import BadImageError

__all__ = ["Known", "Twins"]

_CLOSEST = 8  # whose pixels are looked at where embeddings do not tell
_SAME = 0.9999  # cosine of an embedding with itself, but for rounding


@dataclass(frozen=True)
class Known:
    """Images, where their bytes are, and their embeddings, float32 (n, k) of length 1."""

    images: Images
    paths: Sequence[str]
    hashes: tuple[str, ...]
    rows: Array

    def thumbnail(self, row: int) -> Thumbnails | None:
        """Return a small picture of an image; None where it is gone, or another one now."""
        try:
            return thumbnail(self.images.read(self.paths[row], self.hashes[row]))
        except (ImageReadError, BadImageError):
            return None


@dataclass
class Twins:
    """Near-duplicates as `tlcache.auditing` calls them, looked at only when it matters.

    Parameters
    ----------
    pool
        What is chosen from.
    labelled
        What has labels already.
    calibration
        Where the line is drawn.
    """

    pool: Known
    labelled: Known
    calibration: Calibration
    _seen: dict[tuple[bool, int], Thumbnails | None] = field(default_factory=dict)

    def is_known(self, row: int, taken: list[int]) -> bool:
        """Return whether a row of the pool is nearly one of those that were taken, or one that is labelled."""
        own = self.pool.rows[row]
        return self._near(row, self.pool, taken, self.pool.rows[taken] @ own) or self._near(
            row, self.labelled, range(len(self.labelled.rows)), self.labelled.rows @ own
        )

    def _near(self, row: int, others: Known, numbers: range | list[int], cosines: Array) -> bool:
        if not self.calibration.judges:
            return bool((cosines > _SAME).any()) or self._by_pixels(row, others, numbers, cosines)
        close = np.flatnonzero(cosines > self.calibration.threshold)
        pixels = np.array([self._agreement(row, others, numbers[at]) for at in close.tolist()], np.float32)
        return bool(self.calibration.near(cosines[close], pixels).any())

    def _by_pixels(self, row: int, others: Known, numbers: range | list[int], cosines: Array) -> bool:
        """Return whether the pixels of one of the closest agree as those of no other image do."""
        if self.calibration.pixels is None or self.calibration.pixel_impostors is None:
            return False
        bound = max(self.calibration.pixels, self.calibration.pixel_impostors)
        closest = np.argsort(-cosines)[:_CLOSEST].tolist()
        return any(self._agreement(row, others, numbers[at]) > bound for at in closest)

    def _agreement(self, row: int, others: Known, other: int) -> float:
        one, two = self._thumbnail(self.pool, row), self._thumbnail(others, other)
        if one is None or two is None:
            return np.nan
        return float(agreement(np.stack([one, two]), np.zeros(1, np.int64), np.ones(1, np.int64))[0])

    def _thumbnail(self, known: Known, row: int) -> Thumbnails | None:
        key = (known is self.pool, row)
        if key not in self._seen:
            self._seen[key] = known.thumbnail(row)
        return self._seen[key]
