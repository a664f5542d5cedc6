"""The rows of a feature file before their features: which images, in which split and order, from which source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.cache.columns import ATTRIBUTE, LONGEST, Values, as_attribute, place_of, values_of
from tlcache.cache.feature_file import QUARANTINE, FeatureFile
from tlcache.cache.index import Index
from tlcache.cache.shards import Rejected
from tlcache.datasets.dataset import Dataset
from tlcache.datasets.hashes import Hashes
from tlcache.datasets.overview import Overview
from tlcache.datasets.splits import SPLITS, draw_splits, find_leaks
from tlcache.datasets.tasks import rows_digest, told_of
from tlcache.datasets.texts import Texts, numbers, picked
from tlcache.errors import CacheError, DamagedError, DataError
from tlcache.extraction.job import EmbedResult
from tlcache.images import REVISION
from tlcache.images.notes import sentences
from tlcache.keys import canonical_json, few, quoted, some
from tlcache.machine import hardware, now, versions
from tlcache.tasks import REGRESSION

__all__ = ["Rows", "assemble", "unusable_lines"]


@dataclass(frozen=True)
class Rows:
    """What a feature file says of its rows.

    Parameters
    ----------
    columns
        As `tlcache.cache.publish.Plan` takes them.
    others
        The other columns of its table, in the order of the rows.
    digest
        Hash of classes and rows (path, content, label, split, group): runs with equal digests can be compared.
    quarantine
        (path, sha256, code, message) of the images that could not be used.
    overview
        Its splits and classes, and what was passed over.
    warnings
        Sentences about leaks and label conflicts between byte-identical images, and about unusable images.
    """

    columns: dict[str, NDArray[Any]]
    others: Mapping[str, Values]
    digest: str
    quarantine: list[tuple[str, str, str, str]]
    overview: Overview
    warnings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.columns["label"])

    def attributes(
        self, dataset: Dataset, key: str, identity: Mapping[str, Any], arguments: Mapping[str, Any], **made: Any
    ) -> dict[str, Any]:
        """Return what a feature file of these rows says of itself.

        Parameters
        ----------
        dataset
            What the rows are of.
        key, identity
            Of what made the embeddings.
        arguments
            What the extraction, or adoption, was asked for.
        **made
            `backbone`, `weights`, their `licence`, `provider` and the seconds of all stages.
        """
        return {
            "key": key,
            "key_json": canonical_json(identity),
            "dataset": dataset.name,
            "dataset_digest": self.digest,
            "source": dataset.source,
            "arguments": canonical_json(arguments),
            "preprocess": canonical_json(identity["preprocess"]),
            "decoder": REVISION,
            **told_of(self.overview.task),
            **self.overview.attributes,
            **as_attribute(self.others),
            "created": now(),
            "generated_by": canonical_json({**versions(), **hardware()}),
            **made,
        }

    def is_in(self, path: Path, source: str) -> bool:
        """Return whether the file at `path` holds exactly these rows and columns, from this source."""
        if not path.exists():
            return False
        with FeatureFile(path) as file, suppress(DamagedError):
            file.check_columns()
            wanted = {"dataset_digest": self.digest, "source": source, ATTRIBUTE: None, **as_attribute(self.others)}
            return all(file.attrs.get(name) == value for name, value in wanted.items()) and (
                file.quarantine == self.quarantine
            )
        return False


def assemble(dataset: Dataset, result: EmbedResult, index: Index, seed: int, windowed: bool = False) -> Rows:
    """Join what was found with where its embeddings are, complete the splits, and put the rows in order.

    `windowed` is whether a window of grey values was asked for.

    Raises
    ------
    DataError
        A class is left without a usable image.
    CacheError
        Parts vanished during the run.
    """
    places = _places(result, index)
    good = np.flatnonzero(places[:, 0] >= 0)
    whole = dataset.paths, dataset.groups, dataset.splits, result.sha256
    few = (picked(each, good) for each in whole)
    paths, groups, given, sha256 = whole if len(good) == len(dataset) else few
    labels = dataset.labels[good]
    _check_classes(dataset, labels)
    strata = dataset.targets.strata(labels) if dataset.targets else labels
    splits = draw_splits(strata, given, groups, sha256, seed, dataset.shares)
    split = np.fromiter(map(SPLITS.index, splits), np.uint8, len(splits))
    order = np.argsort(split, kind="stable")  # those of one split are in the order of their paths already
    quarantine = _quarantine(dataset, result, np.flatnonzero(places[:, 0] < 0))
    places = places[good[order]]
    columns = {
        "path": Texts.of(paths).stored[order],
        "group": Texts.of(groups).stored[order],
        "sha256": _hashes(picked(sha256, order)),
        "label": labels[order],
        "split": split[order],
        "source": places[:, 0],
        "index": places[:, 1],
        **dict(zip(("width", "height", "frames"), index.stored(places).T, strict=True)),
        "classes": Texts.of(dataset.classes).stored,
        **{f"quarantine_{name}": Texts.of([row[i] for row in quarantine]).stored for i, name in enumerate(QUARANTINE)},
    }
    others, on_others = _others(dataset.columns, good[order])
    columns |= {place_of(name): values for name, values in others.items()}
    digest = rows_digest(dataset.classes, _listed(columns, sha256, order), dataset.task)
    warnings = _warnings(dataset, paths, labels, splits, groups, sha256, quarantine)
    if several := _whose(paths, sha256, index.several):
        warnings.append(f"Images with several frames or pages, of which the first is used: {some(several)}.")
    noted = {word: _whose(paths, sha256, hashes) for word, hashes in index.noted.items()}
    warnings += sentences(noted, windowed and result.embedded > 0)
    overview = Overview.found(dataset, given, Counter(splits), labels)
    return Rows(columns, others, digest, quarantine, overview, (*warnings, *on_others))


def _places(result: EmbedResult, index: Index) -> NDArray[np.int32]:
    """Return where the row of every image is (N, 2), -1 where it has none; what an earlier decoder made may be bad."""
    places = index.rows.of(result.sha256)
    if result.bad:
        places[[row for row, sha256 in enumerate(result.sha256) if sha256 in result.bad]] = -1
    return places


def _listed(columns: Mapping[str, NDArray[Any]], sha256: Sequence[str], order: NDArray[np.int64]) -> Iterator[Any]:
    """Return path, hash, label, split and group of every row."""
    hashes = (sha256[row] for row in numbers(order))
    splits = (SPLITS[number] for number in numbers(columns["split"]))
    return zip(Texts(columns["path"]), hashes, numbers(columns["label"]), splits, Texts(columns["group"]), strict=True)


def _hashes(sha256: Sequence[str]) -> NDArray[Any]:
    return sha256.digests if isinstance(sha256, Hashes) else Texts.of(sha256).stored


def _whose(paths: Sequence[str], sha256: Sequence[str], some_hashes: Collection[str]) -> list[str]:
    """Return the paths of images by their hashes."""
    if not some_hashes:
        return []
    return [path for path, content in zip(paths, sha256, strict=True) if content in some_hashes]


def _others(columns: Mapping[str, Sequence[str]], order: NDArray[np.int64]) -> tuple[dict[str, Values], list[str]]:
    """Return what a table says beside paths and labels, of images in this order, and a note on what is left out."""
    read = {name: values_of(picked(cells, order)) for name, cells in columns.items()}
    long = [name for name, values in read.items() if values is None]
    note = f"Columns with texts of more than {LONGEST} bytes are not kept beside the embeddings: {some(long)}."
    return {name: values for name, values in read.items() if values is not None}, [note] if long else []


def _check_classes(dataset: Dataset, labels: NDArray[np.int64]) -> None:
    if dataset.targets:
        return  # a set of labels, or a number, that no image has is of no matter
    left = set(np.unique(labels).tolist())
    lost = [name for number, name in enumerate(dataset.classes) if number not in left]
    if lost:
        raise DataError(f"No usable image is left in class {some(lost, 10)}. Remove the class or mend its images.")


def _quarantine(dataset: Dataset, result: EmbedResult, without: NDArray[np.int64]) -> list[tuple[str, str, str, str]]:
    rows = []
    for number in without.tolist():
        path, sha256 = dataset.paths[number], result.sha256[number]
        if sha256 and sha256 not in result.bad:
            raise CacheError(
                f"The embedding of '{path}' vanished from the cache while this run went on; has something removed "
                "its files? Run the same command again: what is left is used."
            )
        bad: Rejected = result.bad[sha256] if sha256 else result.unreadable[number]
        rows.append((path, sha256, bad.code, bad.message))
    return rows


def _warnings(
    dataset: Dataset,
    paths: Sequence[str],
    labels: NDArray[np.int64],
    splits: Sequence[str],
    groups: Sequence[str],
    sha256: Sequence[str],
    quarantine: Sequence[tuple[str, str, str, str]],
) -> list[str]:
    lines = unusable_lines([(path, code) for path, _, code, _ in quarantine], len(dataset))
    return [
        *dataset.warnings,
        *lines,
        *_on_classes(dataset, labels, splits),
        *_on_leaks(paths, labels, splits, groups, sha256),
    ]


def unusable_lines(unusable: Sequence[tuple[str, str]], total: int) -> list[str]:
    """Return a sentence on the images of `total` that cannot be used, if there are any: path and code of each."""
    if not unusable:
        return []
    counts = Counter(code for _, code in unusable).most_common()
    what = ", ".join(f"{count} {code}" for code, count in counts)
    return [f"{len(unusable)} of {total} images cannot be used ({what}): {some([path for path, _ in unusable])}."]


def _on_classes(dataset: Dataset, labels: NDArray[np.int64], splits: Sequence[str]) -> list[str]:
    """Return sentences on classes, or labels, that are not in all splits."""
    if not dataset.classes or dataset.task == REGRESSION:
        return []
    targets, lines = dataset.targets, list[str]()
    what_of, names = ("Labels", np.array(targets.names)) if targets else ("Classes", np.array(dataset.classes))
    found: dict[str, set[int]] = {split: set() for split in SPLITS}
    for label, split in set(zip(numbers(labels), splits, strict=True)):
        found[split].update(targets.values[label].nonzero()[0].tolist() if targets else (label,))
    train, val, test = (found[split] for split in SPLITS)
    for lost, what in (
        (test - train - val, "in test without an image in train can never be recognised"),
        (
            (test & val) - train,
            "in val and test without an image in train can be recognised only after the refit on train + val",
        ),
        (train - test, "in train without an image in test are never tested"),
    ):
        if lost:
            lines.append(f"{what_of} {what}: {some(list(names[sorted(lost)]))}.")
    return lines


def _on_leaks(
    paths: Sequence[str],
    labels: NDArray[np.int64],
    splits: Sequence[str],
    groups: Sequence[str],
    sha256: Sequence[str],
) -> list[str]:
    """Return sentences on groups and equal images in several splits or under several labels."""
    lines = []
    places = Counter(group for group, _ in set(zip(groups, splits, strict=True)) if group)
    if torn := sorted(group for group, count in places.items() if count > 1):
        lines.append(f"Groups that lie in several of the given splits leak; {len(torn)} of them: {some(torn)}.")
    across, conflicts = find_leaks(paths, labels, splits, sha256)
    for pairs, what in (
        (across, "lie in different splits, which makes the test too easy"),
        (conflicts, "carry different labels"),
    ):
        if pairs:
            shown = few([f"{quoted(first)} = {quoted(second)}" for first, second in pairs])
            lines.append(
                f"{len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} of byte-identical images {what}: {shown}."
            )
    return lines
