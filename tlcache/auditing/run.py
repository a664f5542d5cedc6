"""Feature file -> audit, groups, and their records."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.arguments import ComparedBy, Features, GroupBy, GroupRegex, OnlyDatasets, Paths, Runs
from tlcache.auditing.calibration import Calibration
from tlcache.auditing.choice import Choice, Projected, calibrated, choose_files, project
from tlcache.auditing.findings import Audit
from tlcache.auditing.groups import choose_groups
from tlcache.auditing.labels import (
    LabelIssues,
    NeighbourGap,
    find_outliers,
    label_issues,
    neighbour_gap,
    out_of_fold,
)
from tlcache.auditing.leak import Leak
from tlcache.auditing.leakage import LeakageGap, leakage_gaps
from tlcache.auditing.listing import Listing
from tlcache.auditing.neighbours import Pairs, find_pairs
from tlcache.auditing.odd import find_odd, looks_of
from tlcache.auditing.pixels import pixels_of_pairs
from tlcache.auditing.records import record_path, write_audit
from tlcache.auditing.verdict import verdict
from tlcache.cache.feature_file import FeatureFile, Split
from tlcache.cache.find import find_features
from tlcache.cache.groups import groups_path, write_groups
from tlcache.datasets.overview import drawn_splits
from tlcache.datasets.splits import SPLITS
from tlcache.datasets.tasks import task_of
from tlcache.errors import CacheError, DataError, HeadError, UnknownNameError
from tlcache.evaluation.compare import compare
from tlcache.files import check_folder, relative
from tlcache.options import described
from tlcache.runs.folder import runs_folder
from tlcache.tasks import MULTILABEL
from tlcache.text import counted

__all__ = ["audit"]

_TEST = SPLITS.index("test")
_SAME = 0.9999  # cosine of an embedding with itself, but for rounding
_FEW = 10  # test images of a class: the interval of an accuracy on so few is 30 points to either side


@described()
def audit(
    paths: Paths = None,
    *,
    data: OnlyDatasets = None,
    model: ComparedBy = None,
    group_by: GroupBy = None,
    group_regex: GroupRegex = None,
    features: Features = None,
    runs: Runs = None,
) -> list[Audit]:
    """Look for leaks, duplicates and label issues in cached embeddings, and record which images belong together.

    Of each dataset one feature file is looked at, so that all backbones are split by the same groups.

    Returns
    -------
    list of Audit
        One per dataset, by name.

    Raises
    ------
    CacheError, DataError, UnknownNameError
        No features of that dataset or backbone, or groups that cannot be made.

    Examples
    --------
    >>> (found,) = audit([feature_file], runs=folder)
    >>> found.images, len(found.exact), found.group_by
    (24, 0, 'near-duplicates')
    """
    folder = check_folder(runs_folder(runs), "--runs")
    chosen = choose_files(find_features(paths, features, data), model, folder)
    return [_audit(each, folder, group_by, group_regex) for each in chosen]


def _audit(chosen: Choice, folder: Path, group_by: str | None, group_regex: str | None) -> Audit:
    with FeatureFile(chosen.path) as file:
        hashes, attrs = file.hashes(), file.attrs
        splits = file.split_numbers()
        projected = project(file)
        calibration = calibrated(file, lambda: projected, folder)
        near, alike, note = _compared(file, projected, calibration, splits)
        looks, overview = looks_of(file), file.overview()
    rows = projected.rows
    by, names = choose_groups(group_by, group_regex, rows.paths, rows.groups, alike)
    grouped = replace(rows, groups=tuple(names))
    sizes = Counter(names)
    listed = Listing(rows, splits, file.classes)
    copies = sum(count * (count - 1) // 2 for count in Counter(hashes.tolist()).values())
    issues, accuracy, gap, right = _judge(grouped, splits)
    leak = _leak(splits, near, names, right)
    if by != "near-duplicates":
        leak = replace(leak, known=_known(names, rows.paths, splits))
    pairs = listed.near(near, hashes)
    found = Audit(
        **{name: attrs[name] for name in ("dataset", "dataset_digest", "source", "backbone", "weights", "key")},
        why=chosen.why,
        images=len(rows),
        classes=overview.classes,
        splits={name: attrs[f"{name}_rows"] for name in SPLITS},
        small=_small(rows.wanted[splits == _TEST], file),
        exact=listed.exact(hashes),
        near=pairs,
        near_count=near.count - copies,
        near_across=sum(pair.across for pair in pairs),
        alike=listed.without(alike, near),
        leak=leak,
        label_issues=listed.label_issues(issues.rows) if issues else (),
        labels_accuracy=accuracy,
        labels_found=issues and issues.found,
        outliers=tuple(rows.paths[row] for row in find_outliers(near.nearest)),
        neighbour_gap=gap,
        calibration=replace(calibration, note=" ".join(filter(None, (calibration.note, note)))),
        group_by=by,
        groups=len(sizes),
        largest=max(sizes.values()),
        verdict=verdict(
            leak,
            gap,
            _by_groups(chosen.path, folder),
            calibration.judges,
            _measured(folder, attrs, leak),
            guessed=not calibration.images,
            accuracies=rows.targets is None,
        ),
        task=task_of(attrs),
        record=record_path(folder, attrs),
        drawn=drawn_splits(attrs),
        odd=listed.odd(find_odd(looks)) if any(looks) else None,
        torn=_torn(names, splits),
    )
    source = group_regex or f"{found.backbone}, cosine {calibration.threshold:.3f}"
    groups = {digest.decode(): name for digest, name in zip(hashes, names, strict=True)}
    write_groups(groups_path(folder, found.dataset), found.dataset, by, source, groups)
    write_audit(found)
    return found


def _by_groups(path: Path, runs: Path) -> str:
    """Return the command that fits heads on a dataset's feature files under the group split."""
    here = Path.cwd()
    elsewhere = [] if runs == runs_folder() else ["--runs", relative(runs, here)]
    return shlex.join(["tlcache", "fit-heads", relative(path.parent, here), "--split", "group", *elsewhere])


def _compared(
    file: FeatureFile, projected: Projected, calibration: Calibration, splits: NDArray[np.uint8]
) -> tuple[Pairs, Pairs, str]:
    """Return near-duplicates; these and the pairs that are alike; and what a user should know of them."""
    if not calibration.judges:
        same = find_pairs(projected.embeddings, _SAME, splits)
        return same, same, ""
    pairs = find_pairs(projected.embeddings, calibration.threshold, splits)
    if not calibration.images:
        return pairs, pairs, ""
    if not pairs.whole:  # too many to look at the pixels of each
        pairs = find_pairs(projected.embeddings, calibration.alike, splits)
        return pairs, pairs, "There are millions of close pairs: they were compared by cosine alone."
    pixels = pixels_of_pairs(file, pairs.first, pairs.second)
    near = calibration.near(pairs.cosine, pixels)
    gone = int(np.isnan(pixels).sum())
    note = f"Of {counted(gone, 'pair')} the images are gone or others now: compared by cosine alone." if gone else ""
    return pairs.only(near, splits), pairs.only(near | (pairs.cosine > calibration.alike), splits), note


def _measured(runs: Path, attrs: Mapping[str, Any], leak: Leak) -> list[LeakageGap]:
    """Return what is recorded of heads under this split and under the group split; nothing where nothing leaks."""
    if not leak.found:
        return []
    with suppress(CacheError, UnknownNameError):
        gaps = leakage_gaps(compare(runs, attrs["dataset"], lambda _: None))
        return [each for each in gaps if each.digest == attrs["dataset_digest"]]
    return []


def _leak(splits: NDArray[np.uint8], pairs: Pairs, names: Sequence[str], right: NDArray[np.bool_] | None) -> Leak:
    test = splits == _TEST
    known = {name for name, split in zip(names, splits, strict=True) if split != _TEST}
    grouped = np.array([name in known for name in names]) & test
    duplicated = np.delete(pairs.close, _TEST, axis=1).any(axis=1) & test
    either = duplicated | grouped
    known_right = None if right is None else int(right[either[test]].sum())
    return Leak(int(test.sum()), int(duplicated.sum()), int(grouped.sum()), known_right, int(either.sum()))


def _known(names: Sequence[str], paths: Sequence[str], splits: NDArray[np.uint8]) -> float:
    """Return the share of test images whose group is known; those of others are called as their paths."""
    test = np.flatnonzero(splits == _TEST).tolist()
    return float(np.mean([names[row] != paths[row] for row in test])) if test else 0.0


def _torn(names: Sequence[str], splits: NDArray[np.uint8]) -> tuple[str, ...]:
    """Return the groups that lie in several splits."""
    places = Counter(name for name, _ in set(zip(names, splits.tolist(), strict=True)))
    return tuple(sorted(name for name, count in places.items() if count > 1))


def _judge(
    rows: Split, splits: NDArray[np.uint8]
) -> tuple[LabelIssues | None, float | None, NeighbourGap | None, NDArray[np.bool_] | None]:
    """Fit linear heads on folds that tear no group apart; nothing where groups are too few or no labels there.

    Returns
    -------
    tuple
        Label issues, the heads' accuracy, the nearest neighbour against a linear head, and the test rows which that
        head, fitted on train and val, has right: bool (n,). The last two are of classes alone.
    """
    classes = len(rows.targets.names) if rows.targets else int(rows.labels.max()) + 1
    if not classes:
        return None, None, None, None
    try:
        answers, best = out_of_fold(rows, classes)
    except (DataError, HeadError):
        return None, None, None, None
    issues, accuracy = label_issues(rows, answers)
    fitting, test = np.flatnonzero(splits != _TEST), np.flatnonzero(splits == _TEST)
    if rows.targets or not len(test) or not len(fitting):
        return issues, accuracy, None, None
    return issues, accuracy, *neighbour_gap(rows.of(fitting), rows.of(test), best)


def _small(test: NDArray[Any], file: FeatureFile) -> tuple[str, ...]:
    """Return the classes, or labels, that few test images have."""
    classes, several = file.classes, file.targets
    if several:
        classes = several.names if several.task == MULTILABEL else ()
    counts = test.sum(axis=0, dtype=np.int64)[: len(classes)] if several else np.bincount(test, minlength=len(classes))
    return tuple(name for name, count in zip(classes, counts, strict=True) if count < _FEW)
