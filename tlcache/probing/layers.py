"""One network's feature files of several layers and poolings as a choice: made on validation, and tested once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlcache.backbones.backbone import LAST
from tlcache.backbones.pools import POOLS
from tlcache.backbones.sources import lookup
from tlcache.cache.attributes import extract_arguments, identity_of
from tlcache.cache.feature_file import FeatureFile
from tlcache.datasets.tasks import task_of
from tlcache.errors import CacheError, HeadError
from tlcache.evaluation.task import larger_is_better
from tlcache.heads.table import HeadRow
from tlcache.keys import hash_json, slug, some
from tlcache.probing.data import Data
from tlcache.probing.protocol import SearchProtocol
from tlcache.probing.run import able_rows, fit_file, frozen_identity, tried
from tlcache.probing.search import choose, search
from tlcache.probing.session import Session
from tlcache.runs.folder import read_runs
from tlcache.runs.frozen import FrozenRun, HeadCandidate, LayerScore

__all__ = ["ALL", "alternatives", "fit_layers"]

ALL = "all"


def alternatives(paths: Sequence[Path], layers: Sequence[str]) -> list[list[Path]]:
    """Return the feature files of each network on each dataset, the usual embedding last.

    Parameters
    ----------
    paths
        Feature files.
    layers
        Names of layers, with every pooling that there is of them; or `all`.

    Raises
    ------
    CacheError
        There is none of a layer, or no network with several.
    """
    groups: dict[str, list[tuple[bool, str, int, Path]]] = {}
    cached, asked = set[str](), set(layers)
    for path in paths:
        with FeatureFile(path) as file:
            attrs, made = file.attrs, extract_arguments(file.attrs)
        names = _names(made)
        cached |= names
        if ALL in asked or asked & names:
            groups.setdefault(_network(attrs), []).append((LAST in names, min(names), -_unusual(made), path))
    if missing := [layer for layer in layers if layer not in {ALL, *cached}]:
        raise CacheError(
            f"No features of layer {some(missing)}; cached are {some(sorted(cached))}. "
            f"Make some with: tlcache extract --layers {','.join(missing)}"
        )
    found = [[path for *_, path in sorted(group)] for group in groups.values() if len(group) > 1]
    if not found:
        raise CacheError(
            "No network has features of several layers or poolings to choose from. Make some with: "
            "tlcache extract --layers stage:3,last (tlcache layers lists what there is)"
        )
    return found


def _names(made: Mapping[str, Any]) -> set[str]:
    """Return what the layer of an extraction is called: the last stage is `last`, too."""
    row, layer = lookup(str(made["model"])), str(made.get("output") or LAST)
    ends = row.outputs if row and row.stages else {}
    return {layer, *(name for name, end in ends.items() if end == ends.get(layer))}


def _unusual(made: Mapping[str, Any]) -> int:
    """Return how far down the list of its network's poolings the one of an extraction is; 0: it was not asked for."""
    row, pool = lookup(str(made["model"])), made.get("pool")
    known = [*(row.pools if row else ()), *POOLS]
    return known.index(pool) if pool in known else 0


def _network(attrs: Mapping[str, Any]) -> str:
    """Return a hash of dataset, network and preprocessing, whatever the layer."""
    identity = identity_of(attrs)
    backbone = {name: value for name, value in identity["backbone"].items() if name != "layer"}
    rest = {name: value for name, value in identity.items() if name not in ("backbone", "output", "pool")}
    return hash_json([attrs["dataset"], attrs["dataset_digest"], backbone, rest])


def fit_layers(paths: Sequence[Path], rows: Sequence[HeadRow], session: Session, asked: bool) -> list[FrozenRun]:
    """Return for each head a run on the layer that was best on validation, and before it one on the usual embedding.

    Parameters
    ----------
    paths
        Feature files of one network, the usual embedding last.
    asked
        Whether these heads were named; if so, it is said which do not learn such labels.
    rows, session
        As for `tlcache.probing.run.fit_file`.
    """
    with session.opened(paths[-1:]) as file:
        task = task_of(file.attrs)
        protocol, rows = session.protocol.of_task(task), able_rows(rows, task, asked, session.on_warning)
        usual = fit_file(file, rows, session)
        known = {} if session.force else _recorded(session.folder, file.attrs, _keys(paths), rows, protocol)
    session.advance(len(known))
    missing = [row for row in rows if row.name not in known]
    scores: dict[str, list[LayerScore]] = {row.name: [] for row in missing}
    for path in paths if missing else ():
        with session.opened([path]) as file:
            data = Data.of(file)
            folds = data.folds(protocol)
            for row in missing:
                with suppress(HeadError):  # which is told where the head is fitted on the usual embedding
                    began = time.perf_counter()
                    settings, metric = protocol.settings(row), protocol.metric
                    found = search(row, settings, folds, data.classes, None, metric, data.task)
                    best = tried(row, protocol, choose(found, metric, protocol.one_se, data.task))
                    scores[row.name].append(_score(file.attrs, path, best, time.perf_counter() - began))
    for row in missing:
        if not scores[row.name]:
            continue
        best_of = _best(scores[row.name], protocol.metric)
        how = replace(session, protocol=replace(protocol, layers=tuple(scores[row.name])))
        with session.opened([Path(best_of.features)]) as file:
            known |= {run.head: run for run in fit_file(file, [row], how)}
    return [run for run in (*usual, *known.values()) if run.head in {row.name for row in rows}]


def _keys(paths: Sequence[Path]) -> list[str]:
    keys = []
    for path in paths:
        with FeatureFile(path) as file:
            keys.append(str(file.attrs["key"]))
    return sorted(keys)


def _recorded(
    folder: Path, attrs: Mapping[str, Any], keys: Sequence[str], rows: Sequence[HeadRow], protocol: SearchProtocol
) -> dict[str, FrozenRun]:
    """Return the recorded runs of heads whose layer was chosen among these, by the head."""
    asked = {row.name: frozen_identity(attrs, row, protocol).arguments for row in rows}
    return {
        run.head: run
        for run in read_runs(folder, lambda _: None, [slug(str(attrs["dataset"]))])
        if isinstance(run, FrozenRun) and run.dataset_digest == attrs["dataset_digest"]
        if sorted(each.key for each in run.layers) == keys and run.head_path.exists()
        if {name: value for name, value in run.arguments.items() if name != "layers"} == asked.get(run.head)
    }


def _score(attrs: Mapping[str, Any], path: Path, best: HeadCandidate, search_s: float) -> LayerScore:
    made = extract_arguments(attrs)
    return LayerScore(
        output=made.get("output"),
        pool=identity_of(attrs)["pool"],
        key=str(attrs["key"]),
        features=str(path),
        setting=best.setting,
        scores=best.scores,
        search_s=search_s,
    )


def _best(scores: Sequence[LayerScore], metric: str) -> LayerScore:
    """Return the best on validation; of equals the one nearest to the usual embedding."""
    sign = 1 if larger_is_better(metric) else -1

    def key(each: tuple[int, LayerScore]) -> tuple[float, float, int]:
        place, found = each[0], each[1].scores
        return sign * found[f"val_{metric}"], -found.get("val_log_loss", 0.0), place

    return max(enumerate(scores), key=key)[1]
