"""Where runs lie: `runs/<dataset>/<backbone>-<head>[-finetuned]-<digest>` with an ending for each file of a run."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray

from tlcache.arguments import OnlyDatasets, Runs
from tlcache.cache.feature_file import Split
from tlcache.datasets.dataset import names_of
from tlcache.datasets.names import chosen_names
from tlcache.errors import CacheError
from tlcache.files import folder_meant
from tlcache.keys import slug
from tlcache.kinds import listing
from tlcache.locks import Lock
from tlcache.options import described
from tlcache.progress import warn
from tlcache.runs.base import Identity
from tlcache.runs.predictions import Predictions, write_predictions
from tlcache.runs.record import RUNS, Run

__all__ = [
    "ENDINGS",
    "explained_path",
    "NAMED_BY",
    "list_runs",
    "lock_path",
    "path_of",
    "read_runs",
    "recorded",
    "remove_runs",
    "runs_folder",
    "write_run",
]

NAMED_BY = (".json", ".safetensors")  # what people may give in the place of a run's name
ENDINGS = (".json", ".npz", ".csv", ".safetensors")  # of a run; the record first: one that is there is whole


def runs_folder(runs: str | Path | None = None) -> Path:
    """Return the folder of run records: the argument, else `TLCACHE_RUNS`, else `runs`."""
    return Path(runs or os.environ.get("TLCACHE_RUNS") or "runs").expanduser()


def path_of(folder: Path, identity: Identity) -> Path:
    """Return where a run is recorded: the same run, done again, replaces its record.

    Names did not always say that a network is fine-tuned: what was begun under such a name stays there.
    """
    place = folder / slug(identity.dataset)
    tuned = "-finetuned" if identity.strategy == "finetune" else ""
    path, old = (
        place / slug(f"{identity.backbone}-{identity.head}", f"{kind}-{identity.digest}.json") for kind in (tuned, "")
    )
    return old if old.exists() or checkpoints_path(old).exists() else path


def checkpoints_path(path: Path) -> Path:
    """Return the folder where a fine-tuning that is not finished keeps its state."""
    return path.with_suffix(".checkpoints")


def explained_path(path: Path) -> Path:
    """Return where it is recorded what speaks for a run's mistakes."""
    return path.parent / "explained" / path.name


def lock_path(path: Path) -> Path:
    """Return the file that a fine-tuning locks, so that no other process does the same one."""
    return path.with_name(f".{path.stem}.lock")


def write_run(
    run: Run,
    test: Split,
    probabilities: NDArray[np.float32],
    held_out: Predictions | None = None,
    fold: NDArray[np.int64] | None = None,
) -> None:
    """Write the predictions, then the record: a record that is there is whole."""
    found = replace(Predictions.of(test, probabilities), fold=fold)
    folds = run.cross_validation.folds if run.cross_validation else 0
    write_predictions(run.predictions_path, run.classes, found, held_out, run.answering, folds)
    RUNS.write(run.path, run.as_json())


def recorded(folder: Path, identity: Identity) -> Run | None:
    """Return the run of this identity when it is recorded, and what it fitted and predicted is there.

    None when any of these is damaged, too: to do the run again replaces it.
    """
    path = path_of(folder, identity)
    with suppress(CacheError):
        run = RUNS.read(path)
        if (run.head_path.exists() or not run.kept) and zipfile.is_zipfile(run.predictions_path):
            return run
    return None


def read_runs(folder: Path, on_warning: Callable[[str], None] = warn, only: Collection[str] | None = None) -> list[Run]:
    """Return all records under a folder, by path; those that cannot be read are left out, after an `on_warning`.

    `only` names the folders of the datasets that are wanted, as `tlcache.keys.slug` has them; None: all.
    """
    paths = (path for path in folder.glob("*/*.json") if only is None or path.parent.name in only)
    return RUNS.read_all(paths, on_warning)


@described()
def list_runs(runs: Runs = None, data: OnlyDatasets = None, on_warning: Callable[[str], None] = warn) -> list[Run]:
    """Return the recorded runs, those of each dataset together.

    Parameters
    ----------
    on_warning
        Called with a sentence for each record that cannot be read and is left out; default: warns on standard error.

    Raises
    ------
    CacheError
        No runs that can be read, or none of that dataset.

    Examples
    --------
    >>> runs = fit_heads([feature_file], heads=["ridge"], runs=folder)
    >>> [(run.dataset, run.backbone, run.head, run.strategy) for run in list_runs(folder)]
    [('photos', 'tiny', 'ridge', 'frozen')]
    """
    folder = runs_folder(runs)
    only = None if data is None else [slug(name) for each in listing(data) for name in names_of(str(each))]
    # all of them where it is to be said what there is
    found = read_runs(folder, on_warning, only) or read_runs(folder, on_warning)
    by_name: dict[str, list[Run]] = {}
    for run in found:
        by_name.setdefault(run.dataset, []).append(run)
    if not by_name:
        hint = folder_meant(folder)
        raise CacheError(f"No runs are recorded in '{folder}'.{hint} Make some with: tlcache fit-heads")
    made_of = {name: str(own[0].extract_arguments["data"]) for name, own in by_name.items()}
    wanted = by_name if data is None else chosen_names(data, made_of, "runs")
    return [run for name in wanted for run in by_name[name]]


def remove_runs(runs: Iterable[Run]) -> list[Path]:
    """Remove runs: records, predictions, heads or networks, checkpoints and locks; nothing else.

    Returns
    -------
    list of Path
        What was removed.

    Raises
    ------
    CacheError
        A process works on one of them; that one and those after it are left as they are.

    Examples
    --------
    >>> runs = fit_heads([feature_file], heads=["ridge", "knn"], runs=folder)
    >>> [path.suffix for path in remove_runs(runs[:1])]
    ['.json', '.npz', '.csv', '.safetensors']
    >>> [run.head for run in list_runs(folder)]
    ['knn']
    """
    return [path for run in runs for path in _remove(run.path)]


def _remove(path: Path) -> list[Path]:
    lock = lock_path(path)
    held = Lock(lock) if lock.exists() else None
    try:
        if held:
            held.acquire(0)
    except Timeout:
        raise CacheError(f"A process works on '{path}'. Wait for it, or stop it, and remove the run then.") from None
    own = [path.with_suffix(ending) for ending in ENDINGS]
    files = [each for each in (*own, explained_path(path), lock) if each.exists()]
    folders = [each for each in (checkpoints_path(path),) if each.exists()]
    for file in files:
        file.unlink()
    for folder in folders:
        shutil.rmtree(folder)
    if held:
        held.release()
    return files + folders
