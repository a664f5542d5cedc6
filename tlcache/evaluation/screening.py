"""Which backbones do best on a sample of the images, how sure that is, and the record of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlcache.errors import CacheError
from tlcache.evaluation.significance import Units, clustered_interval
from tlcache.keys import slug
from tlcache.machine import provenance
from tlcache.progress import warn
from tlcache.records import Form

__all__ = ["Judged", "Screened", "Screening", "latest", "rank", "read_screening", "read_screenings", "write_screening"]

_RESAMPLES = 1_000

Right = NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """A backbone on the sample: `right` has 1 for each image told rightly, `asked` is whether it was screened last."""

    model: str
    weights: str
    key: str
    right: str
    asked: bool = True

    @property
    def flags(self) -> Right:
        """Whether a head was right about each image (n,) that it was fitted without."""
        flags: Right = np.frombuffer(self.right.encode(), np.uint8) == ord("1")
        return flags


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
    dataset, digest
        Its name, and a hash of the sample: paths, content, labels and groups.
    head
        What was fitted, out of fold.
    units
        (n,) numbers of the groups of images, which are drawn together; None: each image by itself.
    judged
        All backbones that ever saw this sample.
    keep
        How many were to be kept, of those that were screened last.
    created
        When that was.
    """

    dataset: str
    digest: str
    head: str
    units: tuple[int, ...] | None
    judged: tuple[Judged, ...]
    keep: int
    created: str = ""

    @property
    def images(self) -> int:
        """How many images the sample has."""
        return len(self.judged[0].right)

    @cached_property
    def found(self) -> tuple[Screened, ...]:
        """The backbones that were screened last, the most accurate first."""
        right = {each.model: each.flags for each in self.judged if each.asked}
        return rank(right, None if self.units is None else np.array(self.units), self.keep)

    @property
    def sure(self) -> float:
        """The share of resamples of the images in which the most accurate backbone is among those that are kept."""
        return sum(each.first for each in self.found if each.kept)

    @property
    def kept(self) -> tuple[str, ...]:
        """The backbones to go on with."""
        return tuple(each.model for each in self.found if each.kept)

    def __str__(self) -> str:
        head = f"{self.dataset}: the {self.head} head on {self.images:,} images, out of fold; * is kept"
        rows = [
            f"{'*' if each.kept else ' '} {each.model} {each.accuracy:.3f} ({each.low:.3f}-{each.high:.3f})"
            for each in self.found
        ]
        last = f"In {self.sure:.0%} of resamples of the images the best of all is kept."
        return "\n".join([head, *rows, last])


_FORM: Form[Screening] = Form("tlcache-screening", 1, "the record of a screening", Screening)


def rank(right: Mapping[str, Right], units: Units | None, keep: int) -> tuple[Screened, ...]:
    """Rank backbones by how many images they are right about, and tell by resampling these how sure that is.

    Parameters
    ----------
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
    return tuple(
        Screened(name, float(right[name].mean()), *clustered_interval(right[name], units), float(share), place < keep)
        for place, (name, share) in enumerate(zip(names, shares, strict=True))
    )


def _path(runs: Path, dataset: str, digest: str) -> Path:
    return runs / slug(dataset) / "screening" / f"{digest[:12]}.json"


def write_screening(runs: Path, found: Screening) -> None:
    """Record a screening, in place of an earlier one on the same sample."""
    _FORM.write(_path(runs, found.dataset, found.digest), found, **provenance())


def read_screening(runs: Path, dataset: str, digest: str) -> Screening | None:
    """Return what is recorded of this sample; None where nothing is, or it is damaged, and then replaced."""
    try:
        return _FORM.read(_path(runs, dataset, digest))
    except CacheError:
        return None


def read_screenings(runs: Path, on_warning: Callable[[str], None] = warn) -> list[Screening]:
    """Return all recorded screenings under a folder of runs; `on_warning` is called for each that cannot be read."""
    return _FORM.read_all(runs.glob("*/screening/*.json"), on_warning)


def latest(found: Sequence[Screening], dataset: str) -> Screening | None:
    """Return the screening of a dataset that was made last."""
    return max((each for each in found if each.dataset == dataset), key=lambda each: each.created, default=None)
