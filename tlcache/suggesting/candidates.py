"""The images to choose from, what is labelled already, and what a run says of them: all from cached embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlcache.auditing.choice import calibrated, project
from tlcache.cache.feature_file import FeatureFile
from tlcache.cache.find import find_features, find_file
from tlcache.datasets.dataset import reopen
from tlcache.datasets.splits import SPLITS
from tlcache.deploying.answers import find_answers
from tlcache.deploying.saved import find_saved
from tlcache.errors import CacheError, OptionError
from tlcache.heads.rows import Array, blocks
from tlcache.progress import warn
from tlcache.runs.frozen import FrozenRun
from tlcache.suggesting.strategies import Pool
from tlcache.suggesting.twins import Known, Twins

__all__ = ["Candidates", "find_candidates"]


@dataclass(frozen=True)
class Candidates:
    """Images to choose from.

    Parameters
    ----------
    dataset, backbone
        What they are called, and what embedded them.
    images
        They themselves.
    pool
        The same as strategies take it.
    predicted
        (n,) the likeliest class of each by the run; empty texts without one.
    """

    dataset: str
    backbone: str
    images: Known
    pool: Pool
    predicted: NDArray[np.str_]


def find_candidates(
    data: str | Path, run: str | Path | None, model: str | None, features: str | Path | None, runs: Path
) -> Candidates:
    """Read the embeddings of a dataset, and of what a run was fitted on.

    Raises
    ------
    CacheError, DataError, OptionError
        The dataset is not embedded by the network of the run; the run is none of `fit-heads`.
    """
    fitted = None if run is None else _frozen(run, runs)
    if fitted:
        path = _by_its_network(find_features(None, features, data), str(data), fitted, model)
    else:
        path = find_file(data, model, features)
    with ExitStack() as opened:
        file = opened.enter_context(FeatureFile(path))
        projected = project(file)
        calibration = calibrated(file, lambda: projected, runs)
        images = _known(file, projected.rows.paths, projected.embeddings)
        labelled = _known(file, (), projected.embeddings[:0])
        if fitted and (trained := _trained(fitted)):
            other = opened.enter_context(FeatureFile(trained))
            rows = other.split(*SPLITS)
            labelled = _known(other, rows.paths, projected.space(rows.features))
        doubt, predicted = _asked(fitted, projected.rows.features, runs)
        twins = Twins(images, labelled, calibration)
        pool = Pool(images.rows, labelled.rows, twins.is_known, doubt)
        return Candidates(str(file.attrs["dataset"]), str(file.attrs["backbone"]), images, pool, predicted)


def _known(file: FeatureFile, paths: Sequence[str], rows: Array) -> Known:
    return Known(reopen(file.attrs["source"]), paths, tuple(file.hashes().astype(str)[: len(paths)].tolist()), rows)


def _frozen(run: str | Path, runs: Path) -> FrozenRun:
    found = find_saved(run, runs).run
    if not isinstance(found, FrozenRun):
        what = "has no record beside it" if found is None else "is a fine-tuned network"
        raise OptionError(
            f"'{run}' {what}; what to label is suggested by a head on frozen features: a run of fit-heads."
        )
    return found


def _by_its_network(found: list[Path], data: str, run: FrozenRun, model: str | None) -> Path:
    """Return the feature file by the network of a run, which `model` may name."""
    names = set()
    for path in found:
        with FeatureFile(path) as file:
            names.add(name := str(file.attrs["backbone"]))
            if file.attrs["key"] == run.key and model in (None, name):
                return path
    network = run.extract_arguments.get("model", run.backbone)
    raise CacheError(
        f"'{data}' is embedded by {', '.join(sorted(names))}, not by the network of {run.path.stem} ({run.backbone}, "
        f"key {run.key[:12]}). Embed it as well, with the options that the run has: "
        f"tlcache extract --data {data} --model {network}"
    )


def _trained(run: FrozenRun) -> Path | None:
    """Return the feature file that a run was fitted on, if it is still there."""
    path = Path(run.features)
    if path.is_file():
        with FeatureFile(path) as file:
            if file.attrs["key"] == run.key:
                return path
    warn(f"'{path}', what {run.path.stem} was fitted on, is gone: what is labelled already may be suggested again.")
    return None


def _asked(run: FrozenRun | None, rows: Array, runs: Path) -> tuple[Array | None, NDArray[np.str_]]:
    """Return the doubt of a run about rows and its likeliest classes: float32 (n,) or None, str (n,)."""
    if run is None:
        return None, np.full(len(rows), "", np.str_)
    answers = find_answers(run.path, runs)
    doubt, best = np.empty(len(rows), np.float32), np.empty(len(rows), np.int64)
    for some in blocks(len(rows)):
        probabilities, _ = answers.answer(rows[some])
        highest = np.partition(probabilities, -2, axis=1)[:, -2:]
        doubt[some], best[some] = 1 - (highest[:, 1] - highest[:, 0]), probabilities.argmax(axis=1)
    return doubt, np.array(answers.classes)[best]
