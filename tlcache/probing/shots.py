"""How much data does a head need? Accuracy against labelled images per class, on cached features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlcache.cache.feature_file import Split
from tlcache.cache.find import find_features
from tlcache.cache.resplit import GIVEN, FeatureSet, split_fields
from tlcache.errors import OptionError
from tlcache.evaluation.metrics import evaluate
from tlcache.files import check_folder
from tlcache.heads.table import HeadRow, find_heads
from tlcache.keys import hash_json, slug
from tlcache.machine import provenance
from tlcache.options import made
from tlcache.probing.folds import draw_shots, split_folds
from tlcache.probing.protocol import SearchProtocol
from tlcache.probing.run import Data, opened, refit
from tlcache.probing.search import Candidate, Fold, choose, search
from tlcache.progress import step_bar, warn
from tlcache.records import Form, as_json
from tlcache.runs.folder import runs_folder

__all__ = ["Curve", "Point", "fit_curves", "read_curves"]

_FOLDS = 3


@dataclass(frozen=True)
class Point:
    """Accuracy with so many labelled images per class.

    Parameters
    ----------
    shots
        Images per class; None: all.
    images_per_class
        Mean over classes and repetitions; a class may have fewer than `shots`.
    accuracy
        On the whole test split, one for every repetition.
    """

    shots: int | None
    images_per_class: float
    accuracy: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(np.mean(self.accuracy))

    @property
    def std(self) -> float:
        """Standard deviation over the repetitions; 0 for a single one."""
        return float(np.std(self.accuracy, ddof=1)) if len(self.accuracy) > 1 else 0.0


@dataclass(frozen=True)
class Curve:
    """One head on one backbone, with more and more labelled images; `record` is its JSON file."""

    dataset: str
    digest: str
    backbone: str
    head: str
    points: tuple[Point, ...]
    record: Path

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        points = [{**as_json(each), "accuracy_mean": each.mean, "accuracy_std": each.std} for each in self.points]
        return {**as_json(self), "points": points}


def _nested(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "digest": fields["dataset_digest"]}  # which early ones do not have under both names


CURVES: Form[Curve] = Form("tlcache-shots", 1, "the record of a few-shot curve", Curve, _nested)


def fit_curves(
    paths: Iterable[str | Path] | None,
    shots: Sequence[int | None],
    heads: Sequence[str] | None = None,
    *,
    data: str | None = None,
    features: str | Path | None = None,
    runs: str | Path | None = None,
    repeats: int = 5,
    split: str = GIVEN,
    split_seed: int = 0,
    **protocol: Any,
) -> list[Curve]:
    """Fit heads on random samples of so many images per class, and test each on the whole test split.

    A sample knows no other labels than its own: settings are chosen by cross-validation within it. With a single image
    per class there is nothing to choose by, and heads keep their defaults.

    Parameters
    ----------
    paths, heads, data, features, runs, split, split_seed
        As for `tlcache.probing.run.fit_heads`.
    shots
        Images per class, drawn from train and val together; None: all of them.
    repeats
        Samples for each number of shots, with seeds from `seed` on; those of one seed are nested.
    **protocol
        As for `tlcache.probing.search.SearchProtocol`; `folds` are not used.

    Raises
    ------
    CacheError, DataError, HeadError, OptionError
        As `fit_heads`.

    Examples
    --------
    >>> (curve,) = fit_curves([feature_file], [1, 4, None], ["ridge"], runs=folder)
    >>> [point.shots for point in curve.points]
    [1, 4, None]
    """
    how = made(SearchProtocol, {"repeats": repeats, **protocol})
    wanted = sorted(set(shots), key=lambda count: (count is None, count))
    if not wanted or any(count is not None and count < 1 for count in wanted):
        raise OptionError("Shots are numbers of images per class, 1 or more, or all.")
    rows = find_heads(heads)
    found, folder, curves = find_features(paths, features, data), check_folder(runs_folder(runs), "--runs"), []
    with step_bar("fitting heads", len(found) * len(rows) * len(wanted)) as advance:
        for path in found:
            with opened(path, split, folder, split_seed) as file:
                splits = Data.of(file)
                for row in rows:
                    points = []
                    for count in wanted:
                        points.append(_point(file, splits, row, how, count))
                        advance(1)
                    curves.append(_record(file, row, tuple(points), folder, how))
    return curves


def _point(file: FeatureSet, data: Data, row: HeadRow, protocol: SearchProtocol, shots: int | None) -> Point:
    pool, accuracy, images = data.fitting, [], []
    for seed in range(protocol.seed, protocol.seed + (protocol.repeats if shots else 1)):
        sample = pool if shots is None else pool.of(draw_shots(pool, shots, seed))
        once = replace(protocol, seed=seed, repeats=1)
        (head,) = refit(row, file, sample, _chosen(row, sample, once, data.classes), once)
        accuracy.append(evaluate(data.test.labels, head.predict_proba(data.test.features)).accuracy)
        images.append(len(sample) / len(np.unique(sample.labels)))
    return Point(shots, float(np.mean(images)), tuple(accuracy))


def _chosen(row: HeadRow, sample: Split, protocol: SearchProtocol, classes: int) -> Candidate:
    """Choose a setting by cross-validation within the sample; the defaults where it is too small for that."""
    settings, folds = protocol.settings(row), _folds(sample, protocol.seed)
    if not folds:
        return Candidate.untried({**row.defaults(), **protocol.common(row)})
    return choose(search(row, settings, folds, classes, protocol.budget_s), protocol.metric, protocol.one_se)


def _folds(sample: Split, seed: int) -> list[Fold]:
    most = int(np.bincount(sample.labels).max())
    if most < 2:
        return []
    return [Fold.of(sample, *parts) for parts in split_folds(sample, min(_FOLDS, most), seed)]


def _record(file: FeatureSet, row: HeadRow, points: tuple[Point, ...], folder: Path, protocol: SearchProtocol) -> Curve:
    identity = {
        **{name: file.attrs[name] for name in ("dataset", "dataset_digest", "backbone", "key", "weights")},
        "head": row.name,
        "arguments": asdict(protocol),
    }
    name = f"{identity['backbone']}-{row.name}-{hash_json(identity)[:12]}.json"
    path = folder / slug(str(identity["dataset"])) / "shots" / slug(name)
    curve = Curve(file.attrs["dataset"], file.attrs["dataset_digest"], file.attrs["backbone"], row.name, points, path)
    CURVES.write(path, {**identity, **split_fields(file.attrs), **curve.as_json()}, **provenance())
    return curve


def read_curves(folder: Path, tell: Callable[[str], None] = warn) -> list[Curve]:
    """Return all recorded curves under a folder of run records; `tell` is told of those that cannot be read."""
    return CURVES.read_all(folder.glob("*/shots/*.json"), tell)
