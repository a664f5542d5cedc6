"""How much data does a head need? Accuracy against labelled images per class, on cached features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlcache.cache.feature_file import Split
from tlcache.cache.resplit import FeatureSet, split_fields
from tlcache.errors import CacheError
from tlcache.heads.table import HeadRow
from tlcache.keys import hash_json, slug
from tlcache.machine import provenance
from tlcache.probing.data import Data
from tlcache.probing.folds import draw_shots, split_folds
from tlcache.probing.protocol import SearchProtocol
from tlcache.probing.run import refit
from tlcache.probing.search import Candidate, Fold, choose, search
from tlcache.probing.session import Session
from tlcache.progress import warn
from tlcache.records import Form, as_json

__all__ = ["Curve", "Point", "fit_file", "read_curves"]

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


def fit_file(file: FeatureSet, rows: Sequence[HeadRow], session: Session, wanted: Sequence[int | None]) -> list[Curve]:
    """Return a curve for each of these heads, with those of the points that can be fitted."""
    data: Data | None = None
    curves = []
    for row in rows:
        path, identity = _place(file, row, session.folder, session.protocol)
        known = {} if session.force else _recorded(path)
        missing = [count for count in wanted if count not in known]
        session.advance(len(wanted) - len(missing))
        for count in missing:
            data = data or Data.of(file)
            with session.leaving_out(file.attrs["dataset"], f"{count or 'all'} images per class"):
                known[count] = _point(file, data, row, session.protocol, count)
            session.advance(1)
        if missing and known:
            whole = _curve(identity, known.values(), path)
            CURVES.write(path, {**identity, **split_fields(file.attrs), **whole.as_json()}, **provenance())
        if points := [known[count] for count in wanted if count in known]:
            curves.append(_curve(identity, points, path))
    return curves


def _point(file: FeatureSet, data: Data, row: HeadRow, protocol: SearchProtocol, shots: int | None) -> Point:
    pool, accuracy, images = data.fitting, [], []
    for seed in range(protocol.seed, protocol.seed + (protocol.repeats if shots else 1)):
        sample = pool if shots is None else pool.of(draw_shots(pool, shots, seed))
        once = replace(protocol, seed=seed, repeats=1)
        (head,) = refit(row, file, sample, _chosen(row, sample, once, data.classes), once)
        predicted = head.predict_proba(data.test.features).argmax(axis=1)
        accuracy.append(float((predicted == data.test.labels).mean()))
        images.append(len(sample) / len(np.unique(sample.labels)))
    return Point(shots, float(np.mean(images)), tuple(accuracy))


def _chosen(row: HeadRow, sample: Split, protocol: SearchProtocol, classes: int) -> Candidate:
    """Choose a setting by cross-validation within the sample; the defaults where it is too small for that."""
    settings, folds = protocol.settings(row), _folds(sample, protocol.seed)
    if not folds:
        return Candidate.untried({**row.defaults(), **protocol.common(row)})
    tried = search(row, settings, folds, classes, protocol.budget_s, protocol.metric)
    return choose(tried, protocol.metric, protocol.one_se)


def _folds(sample: Split, seed: int) -> list[Fold]:
    most = int(np.bincount(sample.labels).max())
    if most < 2:
        return []
    return [Fold.of(sample, *parts) for parts in split_folds(sample, min(_FOLDS, most), seed)]


def _place(file: FeatureSet, row: HeadRow, folder: Path, protocol: SearchProtocol) -> tuple[Path, dict[str, Any]]:
    """Return where the record of a curve is, and what tells it from all others."""
    identity = {
        **{name: file.attrs[name] for name in ("dataset", "dataset_digest", "backbone", "key", "weights")},
        "head": row.name,
        "arguments": protocol.arguments(),
    }
    name = slug(f"{identity['backbone']}-{row.name}", f"-{hash_json(identity)[:12]}.json")
    return folder / slug(str(identity["dataset"])) / "shots" / name, identity


def _recorded(path: Path) -> dict[int | None, Point]:
    """Return the points that are recorded; none where the record is missing or damaged, which is then replaced."""
    with suppress(CacheError):
        return {point.shots: point for point in CURVES.read(path).points}
    return {}


def read_curves(folder: Path, on_warning: Callable[[str], None] = warn) -> list[Curve]:
    """Return all recorded curves under a folder of runs; `on_warning` is called for each that cannot be read."""
    return CURVES.read_all(folder.glob("*/shots/*.json"), on_warning)


def _curve(identity: Mapping[str, Any], points: Iterable[Point], path: Path) -> Curve:
    """Return a curve, its points from few images to all."""
    ordered = sorted(points, key=lambda point: (point.shots is None, point.shots))
    dataset, digest, backbone, head = (
        str(identity[name]) for name in ("dataset", "dataset_digest", "backbone", "head")
    )
    return Curve(dataset, digest, backbone, head, tuple(ordered), path)
