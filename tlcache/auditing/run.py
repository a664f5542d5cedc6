"""Feature file -> audit, groups, and their records."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlcache.auditing.calibration import calibrate
from tlcache.auditing.findings import Audit, Doubt, Leak, Pair, verdict
from tlcache.auditing.groups import choose_groups, groups_path, write_groups
from tlcache.auditing.labels import Telltale, find_outliers, find_suspects, out_of_fold, telltale
from tlcache.auditing.neighbours import Pairs, find_pairs, fit_space, nearest_strangers
from tlcache.auditing.records import record_path, write_audit
from tlcache.datasets import names_of
from tlcache.errors import CacheError, DataError, HeadError
from tlcache.extraction import find_features
from tlcache.runs import runs_folder
from tlcache.splits import SPLITS
from tlcache.store import FeatureFile, Split

__all__ = ["audit"]

_FEW = 10  # test images of a class: the interval of an accuracy on so few is 30 points to either side

Rows = NDArray[np.int64]


def audit(
    paths: Iterable[str | Path] | None = None,
    *,
    data: str | None = None,
    model: str | None = None,
    group_by: str | None = None,
    group_regex: str | None = None,
    features: str | Path | None = None,
    runs: str | Path | None = None,
) -> list[Audit]:
    """Look for leaks, duplicates and doubtful labels in cached embeddings, and record which images belong together.

    Of each dataset one feature file is looked at, so that all backbones are split by the same groups.

    Parameters
    ----------
    paths
        Feature files, or folders of them; default: everything under `features`.
    data
        Name of a dataset, or its folder or manifest; default: all.
    model
        Backbone whose embeddings are compared; default: of each dataset, the first by name.
    group_by
        `near-duplicates`, `regex` or `column`; default: the dataset's own groups where it has any, else the first.
    group_regex
        A pattern whose first bracket finds the group's name in a path.
    features, runs
        Folders of feature files and of run records.

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
    folder = runs_folder(runs)
    chosen = _chosen(find_features(paths, features), data, model)
    return [_audit(path, folder, group_by, group_regex) for path in chosen]


def _chosen(found: Sequence[Path], data: str | None, model: str | None) -> list[Path]:
    by_dataset: dict[str, list[tuple[str, str, Path]]] = defaultdict(list)
    for path in found:
        with FeatureFile(path) as file:
            by_dataset[file.attrs["dataset"]].append((file.attrs["backbone"], str(path), path))
    names = sorted(by_dataset)
    if data is not None:
        names = [name for name in names_of(data) if name in by_dataset][:1]
        if not names:
            raise CacheError(f"No features of '{data}'; there are some of: {', '.join(sorted(by_dataset))}.")
    chosen = []
    for name in names:
        fitting = sorted(each for each in by_dataset[name] if model in (None, each[0]))
        if not fitting:
            there = ", ".join(sorted({each[0] for each in by_dataset[name]}))
            raise CacheError(f"No features of '{name}' by '{model}'; there are some by: {there}.")
        chosen.append(fitting[0][2])
    return chosen


def _audit(path: Path, folder: Path, group_by: str | None, group_regex: str | None) -> Audit:
    with FeatureFile(path) as file:
        rows, hashes, attrs = file.split(*SPLITS), file.hashes(), file.attrs
        splits = np.repeat(np.arange(3, dtype=np.uint8), [attrs[f"{name}_rows"] for name in SPLITS])
        if not np.isfinite(rows.features).all():
            raise HeadError(f"'{path}' holds features that are not finite. Extract again.")
        space = fit_space(rows.features)
        embeddings = space(rows.features)
        calibration = calibrate(file, space, embeddings, nearest_strangers(embeddings, rows.labels))
    pairs = find_pairs(embeddings, calibration.threshold, splits)
    by, names = choose_groups(group_by, group_regex, rows.paths, rows.groups, pairs)
    grouped = Split(rows.features, rows.labels, rows.paths, tuple(names))
    sizes = Counter(names)
    listed = _Listing(rows, splits, file.classes)
    exact, near = listed.exact(hashes), listed.near(pairs, hashes)
    copies = sum(count * (count - 1) // 2 for count in Counter(hashes.tolist()).values())
    leak = _leak(splits, pairs, names)
    doubts, accuracy, tale = _judge(grouped, splits, listed)
    found = Audit(
        **{name: attrs[name] for name in ("dataset", "dataset_digest", "source", "backbone", "weights", "key")},
        images=len(rows),
        classes=dict(zip(file.classes, np.bincount(rows.labels, minlength=len(file.classes)).tolist(), strict=True)),
        small=_small(rows.labels[splits == 2], file.classes),
        exact=exact,
        near=near,
        near_count=pairs.count - copies,
        near_across=sum(pair.across for pair in near),
        leak=leak,
        doubts=doubts,
        labels_accuracy=accuracy,
        outliers=tuple(rows.paths[row] for row in find_outliers(pairs.nearest)),
        telltale=tale,
        calibration=calibration,
        group_by=by,
        groups=len(sizes),
        largest=max(sizes.values()),
        verdict=verdict(leak, tale),
        record=record_path(folder, attrs),
    )
    source = group_regex or f"{found.backbone}, cosine {calibration.threshold:.3f}"
    groups = {digest.decode(): name for digest, name in zip(hashes, names, strict=True)}
    write_groups(groups_path(folder, found.dataset), found.dataset, by, source, groups)
    write_audit(found)
    return found


class _Listing:
    """Rows by their numbers -> pairs and doubts by their names."""

    def __init__(self, rows: Split, splits: NDArray[np.uint8], classes: Sequence[str]) -> None:
        self._rows, self._splits, self._classes = rows, splits, classes

    def pair(self, first: int, second: int, cosine: float, exact: bool) -> Pair:
        return Pair(
            first=self._rows.paths[first],
            second=self._rows.paths[second],
            cosine=cosine,
            exact=exact,
            first_split=self.split(first),
            second_split=self.split(second),
            first_label=self.label(first),
            second_label=self.label(second),
        )

    def exact(self, hashes: NDArray[np.bytes_]) -> tuple[Pair, ...]:
        """Return every further copy of an image with the first one."""
        first: dict[bytes, int] = {}
        found = ((first.setdefault(digest, row), row) for row, digest in enumerate(hashes.tolist()))
        return tuple(self.pair(one, other, 1.0, True) for one, other in found if one != other)

    def near(self, pairs: Pairs, hashes: NDArray[np.bytes_]) -> tuple[Pair, ...]:
        """Return the pairs that are not exact."""
        some = np.flatnonzero(hashes[pairs.first] != hashes[pairs.second])
        columns = (pairs.first[some].tolist(), pairs.second[some].tolist(), pairs.cosine[some].tolist())
        return tuple(self.pair(one, other, cosine, False) for one, other, cosine in zip(*columns, strict=True))

    def split(self, row: int) -> str:
        """Return the name of a row's split."""
        return SPLITS[self._splits[row]]

    def label(self, row: int) -> str:
        return self._classes[int(self._rows.labels[row])]

    def doubts(self, probabilities: NDArray[np.float32]) -> tuple[Doubt, ...]:
        return tuple(
            Doubt(
                self._rows.paths[each.row],
                self.split(each.row),
                self.label(each.row),
                self._classes[each.predicted],
                each.confidence,
            )
            for each in find_suspects(self._rows.labels, probabilities)
        )


def _leak(splits: NDArray[np.uint8], pairs: Pairs, names: Sequence[str]) -> Leak:
    test = splits == 2
    known = {name for name, split in zip(names, splits, strict=True) if split != 2}
    grouped = np.array([name in known for name in names]) & test
    duplicated = pairs.close[:, :2].any(axis=1) & test
    return Leak(int(test.sum()), int(duplicated.sum()), int(grouped.sum()))


def _judge(
    rows: Split, splits: NDArray[np.uint8], listed: _Listing
) -> tuple[tuple[Doubt, ...], float | None, Telltale | None]:
    """Fit linear heads on folds that tear no group apart; nothing where there are too few groups for that."""
    classes = int(rows.labels.max()) + 1
    try:
        probabilities, best = out_of_fold(rows, classes)
    except (DataError, HeadError):
        return (), None, None
    accuracy = float((probabilities.argmax(axis=1) == rows.labels).mean())
    fitting, test = np.flatnonzero(splits != 2), np.flatnonzero(splits == 2)
    tale = telltale(rows.of(fitting), rows.of(test), best) if len(test) and len(fitting) else None
    return listed.doubts(probabilities), accuracy, tale


def _small(test: Rows, classes: Sequence[str]) -> tuple[str, ...]:
    counts = np.bincount(test, minlength=len(classes))
    return tuple(name for name, count in zip(classes, counts, strict=True) if count < _FEW)
