"""A feature file under another split: all its rows dealt out anew, groups whole."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.cache.feature_file import FeatureFile, Split
from tlcache.cache.groups import groups_path, read_groups
from tlcache.cache.joined import Joined
from tlcache.datasets.dataset import NEEDS_LABELS
from tlcache.datasets.overview import Overview
from tlcache.datasets.splits import SPLITS, draw_splits
from tlcache.datasets.tasks import rows_digest, task_of
from tlcache.errors import CacheError, DataError, UnknownNameError, closest
from tlcache.keys import some
from tlcache.tasks import CLASSIFY
from tlcache.text import counted

__all__ = ["GIVEN", "KINDS", "FeatureSet", "Resplit", "apply_split", "split_fields"]

GIVEN = "given"
KINDS = (GIVEN, "group")


class Resplit:
    """The rows of a feature file in new splits; offers what fitting and fine-tuning take of a `FeatureFile`.

    Train, val and test get about the shares that they have in the file, class by class, whole groups only.

    Parameters
    ----------
    file
        The feature file, or several joined; it is read whole.
    groups
        sha256 of an image -> name of its group.
    seed
        Another seed, another split.

    Attributes
    ----------
    path, classes
        Those of the file.
    attrs
        Those of the file, with the new split's `dataset_digest`; `given_digest` is the file's own, `split` is "group".

    Raises
    ------
    CacheError
        The file has images that the groups do not know.
    DataError
        A class has too few groups for train and test.
    """

    def __init__(self, file: FeatureFile | Joined, groups: Mapping[str, str], seed: int = 0) -> None:
        rows, sha256 = file.split(*SPLITS), [digest.decode() for digest in file.hashes()]
        if unknown := sum(digest not in groups for digest in sha256):
            raise CacheError(
                f"No group is recorded for {unknown:,} of {counted(len(sha256), 'image')} of '{file.path}'. "
                f"Group them with: tlcache audit --data {file.attrs['dataset']}"
            )
        names = [groups[digest] for digest in sha256]
        shares = {name: file.attrs[f"{name}_rows"] / len(rows) for name in SPLITS[1:]}
        splits = draw_splits(rows.strata, ["train"] * len(rows), names, sha256, seed, shares)
        order = np.array(sorted(range(len(rows)), key=lambda row: (SPLITS.index(splits[row]), rows.paths[row])))
        self.path, self.classes = file.path, file.classes
        self._rows = replace(rows, groups=tuple(names)).of(order)
        self._hashes: NDArray[np.bytes_] = file.hashes()[order]
        counts = [splits.count(name) for name in SPLITS]
        edges = list(itertools.accumulate(counts, initial=0))
        self._bounds = {name: np.arange(edges[i], edges[i + 1]) for i, name in enumerate(SPLITS)}
        listed = [(rows.paths[row], sha256[row], int(rows.labels[row]), splits[row], names[row]) for row in order]
        self.attrs: dict[str, Any] = {
            **file.attrs,
            **{f"{name}_rows": count for name, count in zip(SPLITS, counts, strict=True)},
            "split": "group",
            "drawn": ",".join(SPLITS[1:]),
            "given_digest": file.attrs["dataset_digest"],
            "dataset_digest": rows_digest(self.classes, listed, task_of(file.attrs)),
        }
        self._check()

    def split(self, *names: str) -> Split:
        """Return the rows of some splits, joined in that order."""
        return self._rows.of(np.concatenate([self._bounds[name] for name in names]))

    def overview(self) -> Overview:
        """Return what the dataset was understood to be, in these splits."""
        return Overview.of(self.attrs, self._rows.labels, self.classes)

    def hashes(self) -> NDArray[np.bytes_]:
        """Return the sha256 of every row's image, (N,) of `S64`."""
        return self._hashes

    def _check(self) -> None:
        train, test = (set(self.split(name).labels.tolist()) for name in ("train", "test"))
        classes = () if self._rows.targets else range(len(self.classes))
        if lost := sorted(set(classes) - train):
            names = some([self.classes[number] for number in lost])
            raise DataError(f"The group split leaves no train image of class {names}.")
        if not test:
            raise DataError("The groups are so large that none is left for test; no class has two of them.")


FeatureSet = FeatureFile | Joined | Resplit


def apply_split(
    file: FeatureFile | Joined, split: str, runs: Path, seed: int = 0, tasks: Sequence[str] = (CLASSIFY,)
) -> FeatureSet:
    """Return the file as it is (`given`), or its rows split by the dataset's recorded groups (`group`).

    `tasks` are those of `tlcache.tasks.TASKS` that whoever asks can do.

    Raises
    ------
    UnknownNameError, CacheError, DataError
        No labels, or labels of another task; no such split; no groups recorded, or not of these images; groups too
        large to split.
    """
    if not file.classes:
        raise DataError(f"'{file.path}' has no labels. {NEEDS_LABELS}")
    if (task := task_of(file.attrs)) not in tasks:
        raise DataError(
            f"'{file.path}' is of --task {task}, and what was asked for is of --task {' or '.join(tasks)} alone. "
            "Extract again with that: no image is embedded anew."
        )
    if split not in KINDS:
        raise UnknownNameError(closest("split", split, KINDS))
    if split == GIVEN:
        return file
    dataset = str(file.attrs["dataset"])
    found = read_groups(groups_path(runs, dataset), dataset)
    resplit = Resplit(file, found.groups, seed)
    resplit.attrs |= {"grouping": {"by": found.by, "source": found.source}, "split_seed": seed}
    return resplit


def split_fields(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run's record says of its split: which kind, its groups and seed, and the digest of the given one.

    The seed is None where the split is the given one, whose seed is among the arguments of its extraction.
    """
    given = attrs.get("given_digest", attrs["dataset_digest"])
    drawn = {name: attrs.get(name) for name in ("grouping", "split_seed")}
    return {"split": attrs.get("split", GIVEN), **drawn, "given_digest": given}
