"""How well a head tells what it does not know: classes left out of its training, and images of other datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.arguments import Against, Features, OneRun, Runs, Seed
from tlcache.cache.feature_file import FeatureFile, Split
from tlcache.cache.find import features_folder, find_features
from tlcache.cache.joined import open_joined
from tlcache.datasets.splits import SPLITS
from tlcache.deploying.saved import find_saved
from tlcache.errors import CacheError, DataError, OptionError
from tlcache.evaluation.uncertainty import FALSE_ALARMS
from tlcache.heads.fitted import FittedHead, load_head
from tlcache.heads.rows import Array
from tlcache.heads.table import find_head
from tlcache.kinds import listing
from tlcache.options import described
from tlcache.probing.data import Data
from tlcache.probing.heldout import distances_of
from tlcache.probing.search import fitting
from tlcache.probing.session import opened
from tlcache.progress import say, step_bar
from tlcache.records import as_json
from tlcache.runs.folder import runs_folder
from tlcache.runs.frozen import FrozenRun

__all__ = ["Detection", "UnknownCheck", "UnknownImages", "unknown"]

_CLASSES = 10  # that are left out in turn, at most


@dataclass(frozen=True)
class Detection:
    """How well a score tells unknown images from test images: AUROC, and the share found at 5 % false alarms."""

    auroc: float
    found: float

    @classmethod
    def of(cls, usual: NDArray[np.floating], strange: NDArray[np.floating]) -> Detection:
        """Compare scores (n,) of test images and (m,) of unknown ones, which should be larger."""
        from sklearn.metrics import roc_auc_score

        auroc = roc_auc_score(np.repeat([0, 1], [len(usual), len(strange)]), np.concatenate([usual, strange]))
        threshold = np.quantile(usual, 1 - FALSE_ALARMS, method="higher")
        return cls(float(auroc), float((strange > threshold).mean()))


@dataclass(frozen=True)
class UnknownImages:
    """How well images of one kind that the head does not know are told from test images of what it knows.

    Parameters
    ----------
    name, kind
        Of the class or dataset: "class" or "dataset".
    n, n_test
        Numbers of unknown images, and of test images beside them.
    confidence, distance
        By one minus the largest probability, and by the distance of the embedding to those of training.
    unusual, false_alarms
        Shares of unknown images and of test images with a p-value below 0.05, as `predict --reject 0.05` has it.
    """

    name: str
    kind: str
    n: int
    n_test: int
    confidence: Detection
    distance: Detection
    unusual: float
    false_alarms: float


@dataclass(frozen=True)
class UnknownCheck:
    """What was found for a run."""

    run: str
    dataset: str
    backbone: str
    head: str
    images: tuple[UnknownImages, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return dict(as_json(self))


@described()
def unknown(
    run: OneRun,
    *,
    against: Against = None,
    features: Features = None,
    runs: Runs = None,
    seed: Seed = 0,
) -> UnknownCheck:
    """Measure how well a head tells what it does not know from what it knows, beside the usual way, its confidence.

    Each class is left out in turn, at most ten of them, drawn by the seed: the head's setting is fitted without it, and
    the test images of the class are unknown to it. With `against`, images of other datasets are, too. Test images of
    what it knows are what all of these are told from.

    Returns
    -------
    UnknownCheck
        A row for each class that was left out, and for each dataset.

    Raises
    ------
    OptionError, CacheError, DataError, HeadError
        No such run, or one of a fine-tuned network; its features are gone or others by now; no embeddings of the
        other dataset by the same network; fewer than three classes and no other dataset.

    Examples
    --------
    >>> (run,) = fit_heads([feature_file], heads=["ridge"], runs=folder)
    >>> [(images.name, images.n) for images in unknown(run.path).images]
    [('blue', 2), ('green', 2), ('red', 2)]
    """
    found = _frozen(run, runs)
    head, others = load_head(found.head_path), _others(found, against, features)
    paths = [Path(each) for each in found.feature_files]
    if features is not None:
        paths = [features_folder(features) / found.dataset / path.name for path in paths]
    with opened(paths, found.split, runs_folder(runs), found.drawn_by) as file:
        if (file.attrs["key"], file.attrs["dataset_digest"]) != (found.key, found.dataset_digest):
            raise CacheError(f"'{paths[0]}' holds others than the features of {found.path.stem}. Fit again.")
        data = Data.of(file)
    labels = _left_out(data, seed)
    if not labels and not others:
        raise DataError(f"{found.dataset} has {data.classes} classes; to leave one out takes three. Give --against.")
    rows = []
    say("leaving out classes ...")
    with step_bar("leaving out classes", len(labels)) as advance:
        for label in labels:
            rows.append(_without(head, data, label))
            advance(1)
    rows += [_judged(head, data.fitting, data.test, name, "dataset", other) for name, other in others]
    return UnknownCheck(found.path.stem, found.dataset, found.backbone, found.head, tuple(rows))


def _frozen(run: str | Path, runs: str | Path | None) -> FrozenRun:
    """Return the record of a head that was fitted on frozen features."""
    found = find_saved(run, runs).run
    if found is None:
        raise OptionError(f"'{run}' has no record beside it, which says what it was fitted on. Put it there.")
    if not isinstance(found, FrozenRun):
        raise OptionError(
            f"'{run}' is a fine-tuned network, which would be trained again for each class. Give a run of fit-heads."
        )
    return found


def _others(run: FrozenRun, against: Against, features: str | Path | None) -> list[tuple[str, Array]]:
    """Return the names and all embeddings of other datasets, by the network of the run."""
    given = listing(against or ())
    paths = [each for each in given if Path(each).suffix == ".h5"]
    names = [each for each in given if each not in paths]
    found = find_features(paths) if paths else []
    found += find_features(None, features, names) if names else []
    by_dataset: dict[str, dict[str, Path]] = {}
    for path in found:
        with FeatureFile(path) as file:
            by_dataset.setdefault(str(file.attrs["dataset"]), {})[file.attrs["key"]] = path
    if run.dataset in by_dataset:
        raise OptionError(f"--against {run.dataset}: {run.path.stem} was fitted on that dataset; give others.")
    others = []
    for name, known in by_dataset.items():
        if all(key in known for key in run.keys):
            with open_joined([known[key] for key in run.keys]) as joined:
                others.append((name, joined.split(*SPLITS).features))
    if given and not others:
        raise CacheError(
            f"None of {', '.join(map(str, given))} has embeddings by the network of {run.path.stem}, key "
            f"{run.key[:12]}. Make them: tlcache extract --data DATA --model {','.join(run.backbones)}"
        )
    return others


def _left_out(data: Data, seed: int) -> Sequence[int]:
    """Return the classes to leave out: those with images to train on and to test, where two others are left."""
    trained = np.unique(data.fitting.labels)
    known = np.intersect1d(trained, data.test.labels)
    if len(trained) < 3:
        return []
    return sorted(np.random.default_rng(seed).permutation(known)[:_CLASSES].tolist())


def _without(head: FittedHead, data: Data, label: int) -> UnknownImages:
    """Return how well images of a class are told by a head that was fitted without it."""
    rows = data.fitting.of(np.flatnonzero(data.fitting.labels != label))
    with fitting(find_head(head.name)):
        without = head.refitted(rows.features, rows.labels)
    test = data.test
    strange = test.features[test.labels == label]
    return _judged(without, rows, test.of(np.flatnonzero(test.labels != label)), head.classes[label], "class", strange)


def _judged(head: FittedHead, rows: Split, test: Split, name: str, kind: str, strange: Array) -> UnknownImages:
    """Return how well embeddings (m, dim) are told from those of test by a head that was fitted on these rows."""
    far, both = distances_of(rows), (test.features, strange)
    doubts = [1 - head.predict_proba(each).max(axis=1) for each in both]
    distances = [far(each) for each in both]
    alarms, unusual = (float((far.ranks.p_values(each) < FALSE_ALARMS).mean()) for each in distances)
    return UnknownImages(
        name=name,
        kind=kind,
        n=len(strange),
        n_test=len(test),
        confidence=Detection.of(*doubts),
        distance=Detection.of(*distances),
        unusual=unusual,
        false_alarms=alarms,
    )
