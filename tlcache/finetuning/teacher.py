"""What a frozen head says of the images that a network is trained on, which it learns beside their labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlcache.cache.feature_file import Split
from tlcache.cache.joined import open_joined
from tlcache.datasets.splits import SPLITS
from tlcache.errors import DataError, OptionError, UnknownNameError, closest
from tlcache.heads.table import find_head
from tlcache.keys import some
from tlcache.probing.folds import fold_count
from tlcache.probing.heldout import out_of_fold
from tlcache.probing.search import Candidate
from tlcache.runs.folder import read_runs
from tlcache.runs.frozen import FrozenRun
from tlcache.runs.naming import named_runs
from tlcache.runs.record import RUNS, Run
from tlcache.tasks import CLASSIFY

__all__ = ["Teacher", "find_teacher"]


@dataclass(frozen=True)
class Teacher:
    """A head with the settings of a run, on cached embeddings: no image is looked at again.

    Parameters
    ----------
    run
        Whose head, settings and temperature it has; of one backbone, or of several that are joined.
    """

    run: FrozenRun

    def answers(self, rows: Split, sha256: tuple[str, ...], classes: int, seed: int) -> NDArray[np.float32]:
        """Return calibrated probabilities (n, classes) of the images of some rows, found by their content.

        They are out of fold: of heads that are fitted here, on the labels of the other rows, and saw neither the image
        nor its group nor a copy of it. So no other image has a say than those that the network is trained on.

        Raises
        ------
        DataError
            Embeddings of an image are missing.
        """
        with open_joined([Path(file) for file in self.run.feature_files]) as file:
            known, whole = file.hashes(), file.split(*SPLITS)
        number = {sha.decode(): row for row, sha in enumerate(known)}
        if missing := [path for path, sha in zip(rows.paths, sha256, strict=True) if sha not in number]:
            name, of = self.run.path.stem, f"of {len(rows):,} images that are trained on"
            if len(missing) == len(rows):
                raise DataError(
                    f"The run '{name}' is of other images: '{self.run.dataset}', {some(self.run.classes)}. It has "
                    f"embeddings of none {of}. See: tlcache runs"
                )
            raise DataError(
                f"The run '{name}' has no embeddings of {len(missing):,} {of}: {some(missing)}. Extract them with its "
                "backbones, or leave --distill out."
            )
        own = np.array([number[sha] for sha in sha256])
        taught = replace(rows, features=whole.features[own], widths=whole.widths)
        row = find_head(self.run.head)
        params = {name: self.run.chosen.get(name, usual) for name, usual in row.defaults().items()}
        calibration = self.run.calibration
        best = replace(Candidate.untried(params), temperature=calibration.temperature if calibration else 1.0)
        return out_of_fold(row, taught, best, classes, fold_count(taught), seed)


def find_teacher(run: str, runs: Path, datasets: Collection[str] = ()) -> Teacher:
    """Return the teacher of a run: its record, what is beside that, or the name of one in `runs`.

    Where no run is called so, those are told that can teach: heads on classes, of these datasets where there are any.

    Raises
    ------
    UnknownNameError, OptionError
        No run is called so, or it is none of a head on classes.
    """
    path = Path(run)
    found = [RUNS.read(path.with_suffix(".json"))] if path.is_file() else _named(run, read_runs(runs), datasets)
    if len(found) > 1 or not isinstance(first := found[0], FrozenRun) or first.task != CLASSIFY:
        raise OptionError(f"--distill takes one run of fit-heads, of classes; '{run}' is none. See: tlcache runs")
    return Teacher(first)


def _named(name: str, runs: Sequence[Run], datasets: Collection[str]) -> list[Run]:
    try:
        return named_runs(runs, [name])
    except UnknownNameError:
        able = [each for each in runs if isinstance(each, FrozenRun) and each.task == CLASSIFY]
        own = [each for each in able if each.dataset in datasets]
        raise UnknownNameError(closest("run", name, [each.path.stem for each in own or able])) from None
