"""Maps of a run's mistakes on disk, for its report: one JSON record beside the run's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.errors import CacheError
from tlcache.machine import provenance
from tlcache.progress import warn
from tlcache.records import Form
from tlcache.runs.folder import explained_path

__all__ = ["MistakeMaps", "read_maps", "write_maps"]


@dataclass(frozen=True)
class MistakeMaps:
    """What speaks for the wrong answers of a run.

    Parameters
    ----------
    method, shows
        As in `tlcache.pictures.explain.Explained`.
    preprocess
        What images were made to before the network saw them, as `tlcache.images.Preprocess.as_json` has it.
    heats
        Path of a test image -> its map for the class that it was taken for, rows from the top.
    record
        Where this is recorded.
    least
        As in `Explained`.
    """

    method: str
    shows: str
    preprocess: Mapping[str, Any]
    heats: Mapping[str, Sequence[Sequence[float]]]
    record: Path
    least: float = 0.0

    def heat(self, path: str) -> NDArray[np.float32] | None:
        """Return the map of an image, float32 (h, w); None where there is none."""
        found = self.heats.get(path)
        return None if found is None else np.array(found, np.float32)


_MAPS: Form[MistakeMaps] = Form("tlcache-explained", 1, "a record of explained mistakes", MistakeMaps)


def write_maps(maps: MistakeMaps) -> None:
    """Write the record."""
    _MAPS.write(maps.record, maps, **provenance())


def read_maps(run: Path) -> MistakeMaps | None:
    """Return what is recorded beside a run's record; None where nothing is, or it cannot be read, which is told."""
    path = explained_path(run)
    try:
        return _MAPS.read(path) if path.exists() else None
    except CacheError as error:
        warn(f"{error} Until then it is left out.")
        return None
