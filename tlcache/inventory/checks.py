"""Whether feature files are what was written, and what mends those that are not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlcache.arguments import Features, Paths, Repair
from tlcache.cache.attributes import extract_arguments
from tlcache.cache.feature_file import FeatureFile, open_remains
from tlcache.cache.find import find_features
from tlcache.cache.pieces import ATTRIBUTE as FILES
from tlcache.datasets.dataset import source_of
from tlcache.errors import DamagedError, DataError, OutdatedError, TlcacheError
from tlcache.extraction.extract import extract
from tlcache.options import described
from tlcache.progress import step_bar
from tlcache.records import as_json

__all__ = ["Check", "verify"]


@dataclass(frozen=True)
class Check:
    """What a feature file looks like on a close look.

    Parameters
    ----------
    path
        The file.
    rows
        How many it has; 0 when it cannot be read.
    damaged
        Paths of the rows that are not what was written; `row 17` where even the path is lost.
    problem
        Why the file as a whole cannot be used; empty when it can.
    repaired
        It was damaged and has been made whole.
    warnings
        What the extraction that repaired it had to say.
    """

    path: Path
    rows: int
    damaged: tuple[str, ...] = ()
    problem: str = ""
    repaired: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether all is what was written, or has been made so."""
        return self.repaired or not (self.damaged or self.problem)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**as_json(self), "sound": self.sound}


@described()
def verify(paths: Paths = None, features: Features = None, *, repair: Repair = False) -> list[Check]:
    """Read feature files whole and compare every row and the header with their checksums.

    Raises
    ------
    CacheError
        No such file, or nothing is cached.

    Examples
    --------
    >>> [(check.rows, check.sound) for check in verify([feature_file])]
    [(24, True)]
    """
    found = find_features(paths, features)
    checks = []
    with step_bar("verifying", len(found)) as advance:
        for path in found:
            check = _check(path)
            checks.append(_repaired(check) if repair and not check.sound else check)
            advance(1)
    return checks


def _check(path: Path) -> Check:
    try:
        with FeatureFile(path) as file:
            file.check_columns()
            problem = ""
    except DamagedError as error:
        problem = str(error)
    except OutdatedError as error:
        return Check(path, 0, problem=str(error))
    try:
        with open_remains(path) as file:
            good = np.concatenate([rows for _, rows in file.intact()])
            bad = np.flatnonzero(~good)
            if FILES in file.attrs and not good.any():
                return Check(path, len(file), problem=problem)
            names = file.paths() if len(bad) else ()
            known = {name for name, intact in zip(names, good, strict=bool(names)) if intact}
            damaged = tuple(names[row] if _plausible(names[row], known) else f"row {row}" for row in bad)
            if file.salvaged and not damaged:
                problem = "all rows are as written, but a checksum of HDF5's own is not"
            told = not damaged or FILES in file.attrs  # which of them it is
            return Check(path, len(file), damaged, problem if told else "")
    except DamagedError as error:
        return Check(path, 0, problem=str(error))


def _plausible(name: str, known: set[str]) -> bool:
    """Return whether the path of a damaged row can be the one that was written."""
    return bool(name) and name.isprintable() and name not in known


def _repaired(check: Check) -> Check:
    try:
        with open_remains(check.path) as file:
            arguments = extract_arguments(file.attrs)
        if "embeddings" in arguments:
            raise DataError(f"its embeddings were adopted. Do that again: tlcache adopt '{arguments['embeddings']}'")
        if arguments["mean"]:
            arguments |= {name: tuple(arguments[name]) for name in ("mean", "std")}
        done = extract(split_seed=arguments.pop("seed"), **arguments, features=check.path.parent.parent)
    except (DamagedError, OutdatedError):
        problem = (
            f"'{check.path}' cannot be repaired: its header is lost, and with it what it was made of. "
            "Run its tlcache extract again, or remove it with tlcache prune."
        )
        return Check(check.path, check.rows, check.damaged, problem)
    except TlcacheError as error:
        problem = f"{check.problem} It cannot be repaired: {error}".strip()
        if isinstance(error, DataError) and not source_of(arguments["data"]):
            again = f"--model {arguments['model']} --data THERE --name {arguments['name']}"
            problem = f"{problem.rstrip('.')}. If the data have moved: tlcache extract {again}"
        return Check(check.path, check.rows, check.damaged, problem)
    if not done.path.exists() or done.path.resolve() != check.path.resolve():
        return Check(
            check.path,
            check.rows,
            check.damaged,
            f"Extracting again made '{done.path}': the weights or the model are not those it was made with.",
        )
    return Check(check.path, check.rows, check.damaged, check.problem, _check(check.path).sound, done.warnings)
