"""Feature files of one dataset by several backbones, side by side: each image's embeddings, joined to one row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.backbones.joined import joined_identity, joined_name
from tlcache.cache.attributes import extract_arguments, identity_of
from tlcache.cache.feature_file import STAGES, FeatureFile, Split
from tlcache.datasets.overview import Overview
from tlcache.datasets.splits import SPLITS
from tlcache.datasets.tasks import rows_digest, task_of
from tlcache.errors import DataError
from tlcache.keys import canonical_json, hash_json, some
from tlcache.text import counted

__all__ = ["Joined", "open_joined"]

_SAME = ("dataset", "source", "task", "drawn", "passed_over", "format", "format_version", "state")
_Image = tuple[str, bytes]  # path and sha256


class Joined:
    """Several feature files as one; offers what fitting takes of a `FeatureFile`.

    An image is the same in all of them by its path and content, and has to be in the same split. Those that one of the
    files lacks, as it could not be used when that one was made, are left out.

    Parameters
    ----------
    files
        Two or more of one dataset, in the order in which their embeddings stand in a row; their rows are read when they
        are first asked for.

    Attributes
    ----------
    path, classes
        Those of the first file.
    attrs
        What the files say in common; `key`, `backbone` and `weights` of all of them, the sums of their seconds, and in
        `parts` the attributes of each with its `features`, the path of the file.
    left_out
        What to say of images that are left out; empty where there are none.

    Raises
    ------
    DataError
        Other datasets, classes or splits, or no image that all of them have; other labels, when rows are read.
    """

    def __init__(self, files: Sequence[FeatureFile]) -> None:
        self.path, self.classes, self._files = files[0].path, files[0].classes, files
        listed = [_listed(file) for file in files]
        _check(files, listed)
        common = [image for image in listed[0] if all(image in other for other in listed[1:])]
        if not common:
            raise DataError(f"{_names(files)} have no image in common. Extract one of them again.")
        self._numbers = [np.array([images[image][1] for image in common], np.int64) for images in listed]
        self._hashes: NDArray[np.bytes_] = files[0].hashes()[self._numbers[0]]
        self._splits = [listed[0][image][0] for image in common]
        self.left_out = _left_out(files, listed, len(common))
        self.attrs = self._attributes()

    @cached_property
    def _rows(self) -> Split:
        parts = [file.split(*SPLITS).of(rows) for file, rows in zip(self._files, self._numbers, strict=True)]
        first = parts[0]
        for file, part in zip(self._files[1:], parts[1:], strict=True):
            if apart := np.flatnonzero(part.labels != first.labels).tolist():
                wrong = some([first.paths[row] for row in apart])
                both = _names([self._files[0], file])
                raise DataError(f"{both} have images under other labels: {wrong}. {_again(file)}")
        features = np.concatenate([part.features for part in parts], axis=1)
        return replace(first, features=features, widths=tuple(file.dim for file in self._files))

    def _attributes(self) -> dict[str, Any]:
        attrs = [file.attrs for file in self._files]
        made = [extract_arguments(each) for each in attrs]
        shared = {name: value for name, value in made[0].items() if all(each.get(name) == value for each in made)}
        identity = joined_identity([identity_of(each) for each in attrs])
        weights = dict.fromkeys(each["weights"] for each in attrs)
        return {
            **{name: attrs[0][name] for name in _SAME if name in attrs[0]},
            "dataset_digest": self._digest([each["dataset_digest"] for each in attrs]),
            **{f"{name}_rows": self._splits.count(name) for name in SPLITS},
            "backbone": joined_name([each["backbone"] for each in attrs]),
            "weights": "+".join(weights),
            "key": hash_json(identity),
            "key_json": canonical_json(identity),
            "dim": sum(file.dim for file in self._files),
            "arguments": canonical_json(shared),
            **{stage: sum(each[stage] for each in attrs) for stage in STAGES},
            "parts": [{**each, "features": str(file.path)} for each, file in zip(attrs, self._files, strict=True)],
        }

    def _digest(self, known: Sequence[str]) -> str:
        """Return the digest of these rows, which is that of the files where they have the same ones."""
        if len(set(known)) == 1 and not self.left_out:
            return known[0]
        rows, hashes = self._rows, [each.decode() for each in self._hashes]
        listed = list(zip(rows.paths, hashes, rows.labels.tolist(), self._splits, rows.groups, strict=True))
        return rows_digest(self.classes, listed, task_of(self._files[0].attrs))

    def split(self, *names: str) -> Split:
        """Return the rows of some splits, joined in that order; `widths` says where each embedding ends."""
        numbers = [[row for row, split in enumerate(self._splits) if split == name] for name in names]
        return self._rows.of(np.concatenate([np.array(each, np.int64) for each in numbers]))

    def overview(self) -> Overview:
        """Return what the dataset was understood to be, as far as its images are here."""
        return Overview.of(self.attrs, self._rows.labels, self.classes)

    def hashes(self) -> NDArray[np.bytes_]:
        """Return the sha256 of every row's image, (N,) of `S64`."""
        return self._hashes


@contextmanager
def open_joined(paths: Sequence[Path]) -> Iterator[FeatureFile | Joined]:
    """Open a feature file, or several as one; errors are those of `FeatureFile` and `Joined`."""
    with ExitStack() as opened:
        files = [opened.enter_context(FeatureFile(path)) for path in paths]
        yield files[0] if len(files) == 1 else Joined(files)


def _listed(file: FeatureFile) -> dict[_Image, tuple[str, int]]:
    """Return image -> split and number of its row, in the order of the rows."""
    splits = [name for name in SPLITS for _ in range(int(file.attrs[f"{name}_rows"]))]
    images = zip(file.paths(), file.hashes().tolist(), strict=True)
    return {image: (split, row) for row, (image, split) in enumerate(zip(images, splits, strict=True))}


def _check(files: Sequence[FeatureFile], listed: Sequence[dict[_Image, tuple[str, int]]]) -> None:
    first = files[0]
    for file, images in zip(files[1:], listed[1:], strict=True):
        if file.attrs["dataset"] != first.attrs["dataset"]:
            raise DataError(f"{_names([first, file])} are of two datasets; embeddings of one can be joined.")
        if file.classes != first.classes or task_of(file.attrs) != task_of(first.attrs):
            raise DataError(f"{_names([first, file])} have other classes. {_again(file)}")
        moved = [image[0] for image, (split, _) in images.items() if listed[0].get(image, (split,))[0] != split]
        if moved:
            raise DataError(f"{_names([first, file])} have images in other splits: {some(moved)}. {_again(file)}")


def _left_out(files: Sequence[FeatureFile], listed: Sequence[dict[_Image, tuple[str, int]]], common: int) -> str:
    """Return how many images are left out, and in which files they are missing."""
    everything = dict.fromkeys(image for images in listed for image in images)
    if len(everything) == common:
        return ""
    missing = {file.attrs["backbone"]: len(everything) - len(own) for file, own in zip(files, listed, strict=True)}
    lacking = ", ".join(f"{name} lacks {count:,}" for name, count in missing.items() if count)
    count = counted(len(everything) - common, "image")
    return f"{count} of {len(everything):,} left out, which not all of {_names(files)} have ({lacking})."


def _names(files: Sequence[FeatureFile]) -> str:
    return " and ".join(f"'{file.path}'" for file in files)


def _again(file: FeatureFile) -> str:
    return f"Extract again: tlcache extract --data {file.attrs['dataset']} --model {file.attrs['backbone']}"
