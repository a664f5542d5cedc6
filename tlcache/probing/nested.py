"""Test figures by cross-validation: every image is answered by heads that were neither fitted nor chosen by it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tlcache.arguments import spelled
from tlcache.cache.feature_file import Split
from tlcache.cache.resplit import FeatureSet
from tlcache.evaluation.pergroup import Grouped, per_group
from tlcache.evaluation.significance import unit_numbers
from tlcache.heads.logits import softmax
from tlcache.heads.rows import Array
from tlcache.heads.table import HeadRow
from tlcache.keys import native
from tlcache.machine import hardware, now, versions
from tlcache.probing.folds import inner_folds
from tlcache.probing.heldout import held_answers
from tlcache.probing.outer import OuterFold, Tested, images_in_turn, in_folds, outer_folds
from tlcache.probing.protocol import SearchProtocol
from tlcache.probing.run import check_groups, chosen_setting, refit
from tlcache.probing.search import Candidate, Fold, agreed, choose, search
from tlcache.probing.session import Session
from tlcache.runs.base import Hardware, Identity, SplitSizes, fields_of_features
from tlcache.runs.folder import path_of, recorded, write_run
from tlcache.runs.frozen import FrozenRun, Repeats, TemperatureScaling
from tlcache.runs.joined import kind_of_run, strategy_of
from tlcache.runs.pergroup import PerGroup

__all__ = ["fit_file", "nested_identity"]


@dataclass(frozen=True)
class _Part:
    """A fold, and what settings are chosen by among the images to fit on."""

    outer: OuterFold
    inner: Sequence[Fold]


def fit_file(file: FeatureSet, rows: Sequence[HeadRow], session: Session, cv: str) -> list[FrozenRun]:
    """Return a cross-validated run for each of these heads that can be fitted.

    Parameters
    ----------
    cv
        Folds and repetitions, as "5x2", or "5" of one.
    """
    protocol, folder = session.protocol, session.folder
    attrs = in_folds(file.attrs, cv, protocol.seed)
    asked = {} if session.force else {row.name: nested_identity(attrs, row, protocol, cv) for row in rows}
    known = {name: recorded(folder, identity) for name, identity in asked.items()}
    found = {name: run for name, run in known.items() if isinstance(run, FrozenRun)}
    session.advance(len(found))
    missing = [row for row in rows if row.name not in found]
    if missing:
        pool = images_in_turn(file)
        check_groups(protocol, unit_numbers(pool.groups), str(attrs["dataset"]))
        parts = _parts(pool, cv, protocol)
        for row in missing:
            with session.leaving_out(attrs["dataset"], attrs["backbone"]):
                found[row.name] = _fit_one(file, attrs, pool, parts, row, folder, protocol, cv)
            session.advance(1)
    return [found[row.name] for row in rows if row.name in found]


def nested_identity(attrs: Mapping[str, Any], row: HeadRow, protocol: SearchProtocol, cv: str) -> Identity:
    """Return what tells a cross-validated head from all others, by what `tlcache.probing.outer.in_folds` returns."""
    space = {name: list(values) for name, values in row.space(protocol.search).items()}
    return Identity.of(attrs, strategy_of(attrs), row.name, {**protocol.arguments(), "space": space, "cv": spelled(cv)})


def _parts(images: Split, cv: str, protocol: SearchProtocol) -> list[_Part]:
    """Return every fold of every repetition, with the folds inside it."""
    folds = outer_folds(images, cv, protocol.seed)
    return [_Part(each, inner_folds(images, each.fit, protocol.folds, protocol.seed)) for each in folds]


def _fit_one(
    file: FeatureSet,
    attrs: Mapping[str, Any],
    pool: Split,
    parts: Sequence[_Part],
    row: HeadRow,
    folder: Path,
    protocol: SearchProtocol,
    cv: str,
) -> FrozenRun:
    started, settings, classes = time.perf_counter(), protocol.settings(row), len(file.classes)
    chosen, said = list[Candidate](), list[Array]()
    for part in parts:
        candidates = search(row, settings, part.inner, classes, None, protocol.metric, one_se=protocol.one_se)
        chosen.append(choose(candidates, protocol.metric, protocol.one_se))
        said.append(held_answers(row, pool, chosen[-1], classes, part.outer.fit, part.outer.held))
    searched, usual = time.perf_counter(), _usual(chosen, row.space(protocol.search))
    (fitted,) = refit(row, file, pool, usual, replace(protocol, repeats=1))
    ended = time.perf_counter()
    tested = Tested.of(pool, [part.outer for part in parts], said)
    identity = nested_identity(attrs, row, protocol, cv)
    path = path_of(folder, identity)
    run = kind_of_run(attrs)(
        **fields_of_features(attrs, file.classes),
        rows=SplitSizes.of(attrs),
        head=row.name,
        arguments=identity.arguments,
        chosen=chosen_setting(row, protocol, usual),
        chosen_by=f"{spelled(cv)} nested cross-validation",
        candidates=(),
        skipped=0,
        history=(),
        calibration=TemperatureScaling(
            temperature=usual.temperature,
            val_ece_before=float(np.mean([each.ece_before for each in chosen])),
            val_ece_after=float(np.mean([each.ece_after for each in chosen])),
            test_ece_before=tested.figures.ece,
            test_ece_after=tested.figures.ece,
        ),
        test=tested.figures,
        per_group=_per_group(pool, parts, chosen, tested, protocol),
        per_class=tested.classes(file.classes),
        cross_validation=tested.described([chosen_setting(row, protocol, each) for each in chosen]),
        repeats=_repeats(tested),
        fit_s=ended - started,
        search_s=searched - started,
        refit_s=ended - searched,
        features=str(file.path),
        versions=versions(),
        hardware=Hardware(**hardware()),
        created=now(),
        record=str(path),
    )
    fitted.save(run.head_path)
    write_run(run, tested.images, tested.probabilities, fold=tested.fold)
    return run


def _per_group(
    pool: Split, parts: Sequence[_Part], chosen: Sequence[Candidate], tested: Tested, protocol: SearchProtocol
) -> PerGroup | None:
    """Return what one answer for each group reaches, by the rule that is best on what settings were chosen by.

    A group is one in every repetition, of which intervals and counts know.
    """
    numbers = unit_numbers(pool.groups)
    if protocol.per is None or numbers is None:
        return None
    count, repeats = numbers.max() + 1, tested.repeats
    rows = [np.concatenate([fold.held for fold in part.inner if fold.held is not None]) for part in parts]
    logits = [softmax(each.logits / each.temperature) for each in chosen if each.logits is not None]
    of_parts = np.concatenate([number * count + numbers[own] for number, own in enumerate(rows)])
    held_out = Grouped.of(pool.labels[np.concatenate(rows)], np.concatenate(logits), of_parts)
    held = np.concatenate([part.outer.held for part in parts])
    of_repeats = tested.repeat[tested.fold] * count + numbers[held]
    test = Grouped.of(tested.images.labels, tested.probabilities, of_repeats)
    found = per_group(test, held_out, protocol.metric, test.groups % count)
    if found is None:
        return None
    figures = msgspec.structs.replace(found.test, n=len(test.labels) // repeats)
    return msgspec.structs.replace(found, test=figures, mixed=test.mixed // repeats)


def _usual(chosen: Sequence[Candidate], space: Iterable[str]) -> Candidate:
    """Return the setting that was chosen most often, of the parameters in `space`, for the head that is kept.

    Its temperature, and what early stopping found, are the medians of those that it was chosen with.
    """
    words = [json.dumps(native({name: each.params[name] for name in space}), sort_keys=True) for each in chosen]
    most = Counter(words).most_common(1)[0][0]
    own = [each for each, word in zip(chosen, words, strict=True) if word == most]
    params, temperature = agreed([each.params for each in own]), float(np.median([each.temperature for each in own]))
    return replace(own[0], params=params, temperature=temperature)


def _repeats(tested: Tested) -> Repeats:
    """Return the accuracy of every repetition."""
    each = tested.by_repeat
    return Repeats(
        seeds=tuple(range(len(each))),
        accuracy=tuple(each.tolist()),
        accuracy_mean=float(each.mean()),
        accuracy_std=float(each.std(ddof=1)) if len(each) > 1 else None,
    )
