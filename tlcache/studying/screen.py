"""Which backbones are worth the whole work: all of them on a sample of the images, judged by a cheap head."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.cache.feature_file import Split
from tlcache.datasets.dataset import Dataset
from tlcache.datasets.splits import draw_splits
from tlcache.errors import DataError, ImageReadError, TlcacheError
from tlcache.evaluation.significance import Units, clustered_interval, unit_numbers
from tlcache.extraction.embed import Block, embed
from tlcache.heads.table import find_head
from tlcache.probing.folds import fold_count
from tlcache.probing.heldout import out_of_fold
from tlcache.probing.search import Candidate
from tlcache.progress import say, warn
from tlcache.studying.steps import Cell

__all__ = ["Screened", "Screening", "rank", "sample", "screen", "screened"]

_IMAGES = 800  # of the sample, or six of each class where that is more
_PER_CLASS = 6
_HEAD = "ridge"
_RESAMPLES = 1_000

Right = NDArray[np.bool_]


@dataclass(frozen=True)
class Screened:
    """A backbone on the sample: its accuracy on rows held out, the 95 % interval, and whether it is kept.

    `first` is the share of resamples of the images in which it is the most accurate.
    """

    model: str
    accuracy: float
    low: float
    high: float
    first: float
    kept: bool


@dataclass(frozen=True)
class Screening:
    """What a sample of a dataset says of backbones.

    Parameters
    ----------
    dataset, images
        Its name, and how many images the sample has.
    found
        The backbones, the most accurate first.
    sure
        The share of resamples of the images in which the most accurate backbone is among those that are kept.
    """

    dataset: str
    images: int
    found: tuple[Screened, ...]
    sure: float

    @property
    def kept(self) -> tuple[str, ...]:
        """The backbones to go on with."""
        return tuple(each.model for each in self.found if each.kept)

    def __str__(self) -> str:
        head = f"{self.dataset}: the {_HEAD} head on {self.images:,} images, out of fold; * is kept"
        rows = [
            f"{'*' if each.kept else ' '} {each.model} {each.accuracy:.3f} ({each.low:.3f}-{each.high:.3f})"
            for each in self.found
        ]
        last = f"In {self.sure:.0%} of resamples of the images the best of all is kept."
        return "\n".join([head, *rows, last])


def screened(cells: Mapping[tuple[str, str], Cell], keep: int, **how: Any) -> dict[tuple[str, str], Cell]:
    """Return the cells that a screening keeps, and say what it found; arguments and errors as of `screen`."""
    found = screen(cells, keep, **how)
    for each in found:
        say(str(each))
    kept = {(each.dataset, model) for each in found for model in each.kept}
    return {place: cell for place, cell in cells.items() if (cell.dataset.name, cell.backbone.name) in kept}


def screen(cells: Mapping[tuple[str, str], Cell], keep: int, **how: Any) -> list[Screening]:
    """Embed a sample of every dataset with each backbone, and rank these by the accuracy of a head out of fold.

    Parameters
    ----------
    cells
        Every dataset with every backbone.
    keep
        How many backbones to go on with; one that cannot embed the sample is not among them, and told.
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
        with tempfile.TemporaryDirectory(prefix="tlcache-") as folder:
            rows = sample(dataset)
            paths = list(_written(dataset, rows, Path(folder)))
            say(f"{dataset.name}: {len(own)} backbones on a sample of {len(rows):,} images ...")
            right = dict(_judged(own, rows, paths, how))
        if not right:
            raise DataError(f"No backbone could embed the sample of {dataset.name}. Leave --screen out to go on.")
        units = unit_numbers([dataset.groups[row] for row in rows.tolist()])
        found.append(rank(dataset.name, right, units, keep))
    return found


def sample(dataset: Dataset) -> NDArray[np.int64]:
    """Return the numbers of some images that are not for testing, each class with its share, or six of it."""
    hashes, readable = list[str](), list[int]()
    for row in range(len(dataset)):
        with suppress(ImageReadError):
            hashes.append(hashlib.sha256(dataset.read(row)).hexdigest())
            readable.append(row)
    labels = dataset.labels[readable]
    given, groups = ([values[row] for row in readable] for values in (dataset.splits, dataset.groups))
    splits = draw_splits(labels, given, groups, hashes, 0, dataset.shares)
    order = sorted(range(len(readable)), key=hashes.__getitem__)  # as random as any, and the same every time
    usable = [number for number in order if splits[number] != "test"]
    share, by_class = _IMAGES / max(1, len(usable)), dict[int, list[int]]()
    for number in usable:
        by_class.setdefault(int(labels[number]), []).append(readable[number])
    return np.sort([row for own in by_class.values() for row in own[: max(_PER_CLASS, round(share * len(own)))]])


def _written(dataset: Dataset, rows: NDArray[np.int64], folder: Path) -> Iterator[str]:
    """Write images to files, wherever they come from, and yield the paths."""
    for row in rows.tolist():
        path = folder / f"{row}{Path(dataset.paths[row]).suffix}"
        path.write_bytes(dataset.read(row))
        yield str(path)


def _judged(
    cells: Sequence[Cell], rows: NDArray[np.int64], paths: Sequence[str], how: Mapping[str, Any]
) -> Iterator[tuple[str, Right]]:
    """Yield each backbone, and about which images (n,) a head is right that was fitted without them."""
    head = find_head(_HEAD)
    best = Candidate.untried(head.defaults())
    for cell in cells:
        try:
            split, good = _embedded(cell, rows, paths, how)
        except TlcacheError as error:
            warn(f"{cell.backbone.name} is left out of {cell.dataset.name}: {error}")
            continue
        probabilities = out_of_fold(head, split, best, len(cell.dataset.classes), fold_count(split), 0)
        right = np.zeros(len(rows), bool)
        right[good] = probabilities.argmax(axis=1) == split.labels
        yield cell.backbone.name, right


def _embedded(
    cell: Cell, rows: NDArray[np.int64], paths: Sequence[str], how: Mapping[str, Any]
) -> tuple[Split, list[int]]:
    """Return the rows of the images that can be used, and their numbers in the sample."""
    parts, dataset = list[Block](), cell.dataset
    request = {"model": cell.backbone.name, "weights": cell.weights, "engine": "onnxruntime", "precision": "fp32"}
    embed(paths, request, None, parts.append, **how)
    good = [number for part in parts for number in part.good]
    own = rows[good].tolist()
    names, groups = (tuple(each[row] for row in own) for each in (dataset.paths, dataset.groups))
    return Split(np.concatenate([part.rows for part in parts]), dataset.labels[own], names, groups), good


def rank(dataset: str, right: Mapping[str, Right], units: Units | None, keep: int) -> Screening:
    """Rank backbones by how many images they are right about, and tell by resampling these how sure that is.

    Parameters
    ----------
    dataset
        Its name.
    right
        Backbone -> whether a head was right about each image (n,), the same images for all.
    units
        (n,) numbers of the groups that are drawn together; None: each image by itself.
    keep
        How many backbones to keep.
    """
    names = sorted(right, key=lambda name: -right[name].mean())
    table = np.stack([right[name] for name in names])
    groups = np.arange(table.shape[1]) if units is None else units
    sums = np.stack([np.bincount(groups, own) for own in table])
    drawn = sums.shape[1]
    draws = np.random.default_rng(0).multinomial(drawn, np.full(drawn, 1 / drawn), _RESAMPLES)
    shares = np.bincount((draws @ sums.T).argmax(axis=1), minlength=len(names)) / _RESAMPLES
    found = tuple(
        Screened(name, float(right[name].mean()), *clustered_interval(right[name], units), float(share), place < keep)
        for place, (name, share) in enumerate(zip(names, shares, strict=True))
    )
    return Screening(dataset, table.shape[1], found, float(shares[:keep].sum()))
