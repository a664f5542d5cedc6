"""Which backbones are worth the whole work: all of them on a sample of the images, judged by a cheap head."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tlcache.backbones.load import load_model
from tlcache.cache.feature_file import Split
from tlcache.datasets.dataset import Dataset
from tlcache.datasets.splits import draw_splits, missing_splits
from tlcache.errors import DataError, ImageReadError, TlcacheError
from tlcache.evaluation.screening import Judged, Screening, read_screening, write_screening
from tlcache.evaluation.significance import unit_numbers
from tlcache.extraction.embed import Block, embed
from tlcache.heads.table import find_head
from tlcache.keys import hash_json
from tlcache.probing.folds import fold_count
from tlcache.probing.heldout import out_of_fold
from tlcache.probing.search import Candidate
from tlcache.progress import say, warn
from tlcache.studying.steps import Cell

__all__ = ["sample", "screen", "screened"]

_IMAGES = 800  # of the sample, or six of each class where that is more
_PER_CLASS = 6
_HEAD = "ridge"

_Place: TypeAlias = tuple[str, str]  # name and model key
_How: TypeAlias = Mapping[str, Any]


def screened(cells: Mapping[tuple[str, str], Cell], keep: int, runs: Path, **how: Any) -> dict[tuple[str, str], Cell]:
    """Return the cells that a screening keeps, and say what it found; arguments and errors as of `screen`."""
    found = screen(cells, keep, runs, **how)
    for each in found:
        say(str(each))
    kept = {(each.dataset, model) for each in found for model in each.kept}
    return {place: cell for place, cell in cells.items() if (cell.dataset.name, cell.backbone.name) in kept}


def screen(cells: Mapping[tuple[str, str], Cell], keep: int, runs: Path, **how: Any) -> list[Screening]:
    """Embed a sample of every dataset with each backbone, and rank these by the accuracy of a head out of fold.

    What is recorded of a backbone on the same sample is not done again.

    Parameters
    ----------
    cells
        Every dataset with every backbone.
    keep
        How many backbones to go on with; one that cannot embed the sample is not among them, and told.
    runs
        Folder of run records, in which it is recorded.
    **how
        `features` and `device`, as for `tlcache.extraction.embed.embed`.

    Raises
    ------
    DataError
        No backbone could embed the sample.
    """
    found = []
    for dataset in {cell.dataset.name: cell.dataset for cell in cells.values()}.values():
        own = [cell for cell in cells.values() if cell.dataset.name == dataset.name]
        found.append(_screened(dataset, own, keep, runs, how))
        write_screening(runs, found[-1])
    return found


def _screened(dataset: Dataset, cells: Sequence[Cell], keep: int, runs: Path, how: _How) -> Screening:
    rows = sample(dataset)
    groups = [dataset.groups[row] for row in rows.tolist()]
    with tempfile.TemporaryDirectory(prefix="tlcache-") as folder:
        paths, digest = _written(dataset, rows, Path(folder))
        earlier = read_screening(runs, dataset.name, digest)
        known = {(each.model, each.key): each for each in (earlier.judged if earlier else ())}
        judged = dict(_judged(cells, known, rows, paths, how))
    if not judged:
        raise DataError(f"No backbone could embed the sample of {dataset.name}. Leave --screen out to go on.")
    before = {place: replace(each, asked=False) for place, each in known.items()}
    units = unit_numbers(groups)
    numbers = None if units is None else tuple(units.tolist())
    return Screening(dataset.name, digest, _HEAD, numbers, tuple((before | judged).values()), keep)


def sample(dataset: Dataset) -> NDArray[np.int64]:
    """Return the numbers of some images that are not for testing, each class with its share, or six of it.

    Where the test images are not given, which they are follows from the content of all images, so that all are read.
    """
    drawn = "test" in missing_splits(dataset.splits) and dataset.shares["test"]
    hashes = dataset.hashes() if drawn else [_hashed(os.fsencode(path)) for path in dataset.paths]
    readable = [row for row, known in enumerate(hashes) if known]
    order = sorted(readable, key=hashes.__getitem__)  # as random as any, and the same every time
    splits = _drawn(dataset, readable, hashes) if drawn else dataset.splits
    usable = [row for row in order if splits[row] != "test"]
    share, by_class = _IMAGES / max(1, len(usable)), dict[int, list[int]]()
    for row in usable:
        by_class.setdefault(int(dataset.labels[row]), []).append(row)
    return np.sort([row for own in by_class.values() for row in own[: max(_PER_CLASS, round(share * len(own)))]])


def _drawn(dataset: Dataset, rows: Sequence[int], hashes: Sequence[str]) -> dict[int, str]:
    """Return the split that each of these images will be in."""
    given, groups, content = ([values[row] for row in rows] for values in (dataset.splits, dataset.groups, hashes))
    return dict(zip(rows, draw_splits(dataset.labels[rows], given, groups, content, 0, dataset.shares), strict=True))


def _hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _written(dataset: Dataset, rows: NDArray[np.int64], folder: Path) -> tuple[list[str], str]:
    """Write images to files, wherever they come from, and return the paths, and a hash of all that is in the sample."""
    paths, content = list[str](), list[Any]()
    for row in rows.tolist():
        path = folder / f"{row}{Path(dataset.paths[row]).suffix}"
        paths.append(str(path))
        with suppress(ImageReadError):  # embedding tells that there is no such file
            data = dataset.read(row)
            path.write_bytes(data)
            label = dataset.classes[dataset.labels[row]]
            content.append([dataset.paths[row], _hashed(data), label, dataset.groups[row]])
    return paths, hash_json({"head": _HEAD, "images": content})


def _judged(
    cells: Sequence[Cell], known: Mapping[_Place, Judged], rows: NDArray[np.int64], paths: Sequence[str], how: _How
) -> Iterator[tuple[_Place, Judged]]:
    """Yield each backbone, by its name and key, as it is known or as it now does; one that fails is told."""
    for cell in cells:
        name = cell.backbone.name
        try:
            model = load_model(name, cell.weights)
            earlier = known.get((name, model.key))
            right = earlier.right if earlier else _right(cell, model.key, rows, paths, how)
        except TlcacheError as error:
            warn(f"{name} is left out of {cell.dataset.name}: {error}")
            continue
        yield (name, model.key), Judged(name, model.weights, model.key, right)


def _right(cell: Cell, key: str, rows: NDArray[np.int64], paths: Sequence[str], how: _How) -> str:
    """Return 1 for each image that a head is right about which was fitted without it, else 0."""
    say(f"{cell.dataset.name}: {cell.backbone.name} on a sample of {len(rows):,} images ...")
    head = find_head(_HEAD)
    split, good = _embedded(cell, key, rows, paths, how)
    best, classes = Candidate.untried(head.defaults()), len(cell.dataset.classes)
    right = np.zeros(len(rows), np.uint8)
    right[good] = out_of_fold(head, split, best, classes, fold_count(split), 0).argmax(axis=1) == split.labels
    return "".join(map(str, right.tolist()))


def _embedded(
    cell: Cell, key: str, rows: NDArray[np.int64], paths: Sequence[str], how: _How
) -> tuple[Split, list[int]]:
    """Return the rows of the images that can be used, and their numbers in the sample."""
    parts, dataset = list[Block](), cell.dataset
    request = {"model": cell.backbone.name, "weights": cell.weights, "engine": "onnxruntime", "precision": "fp32"}
    embed(paths, request, key, parts.append, **how)
    good = [number for part in parts for number in part.good]
    own = rows[good].tolist()
    names, groups = (tuple(each[row] for row in own) for each in (dataset.paths, dataset.groups))
    return Split(np.concatenate([part.rows for part in parts]), dataset.labels[own], names, groups), good
