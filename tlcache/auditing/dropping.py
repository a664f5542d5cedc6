"""Which images a clean dataset does without, and why: of copies all but one, of a leak what is not test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tlcache.auditing.findings import Audit
from tlcache.datasets.splits import SPLITS

__all__ = ["DROPS", "Dropped", "ListedImage", "choose_dropped"]

DROPS = ("duplicates", "leaks", "conflicts", "label-issues", "odd")


class ListedImage(NamedTuple):
    """An image of the dataset: its path, label, split, group (empty where it is alone) and the hash of its bytes."""

    path: str
    label: str
    split: str
    group: str
    sha256: str


class Dropped(NamedTuple):
    """Why an image is left out: a name of `DROPS`, the image that is kept in its place or disagrees, and the reason."""

    finding: str
    other: str
    why: str


class _Link(NamedTuple):
    """What joins an image to others: a name that they share, or for a pair that of both; and how to say it."""

    name: str
    why: str
    only_leaks: bool = False


def choose_dropped(
    images: Sequence[ListedImage], found: Audit, kinds: Collection[str], *, groups_are_known: bool
) -> dict[str, Dropped]:
    """Return path -> why, for every image that is to be left out.

    What is wrong by itself goes first. Of what is left each image is looked at, those of test first, then those of
    val, by path, and goes if one that is kept is a copy of it. So a leak ends without a change of the test images, and
    every image that goes has a copy that stays.

    Parameters
    ----------
    images
        All of the dataset.
    found
        What the audit found.
    kinds
        Names of `DROPS`.
    groups_are_known
        Whether images of one group in two splits are a leak, as they are where groups are no guess.
    """
    dropped: dict[str, Dropped] = {}
    alone = {"conflicts": _conflicts(images, found), "label-issues": _label_issues(found), "odd": _odd(found)}
    for kind, reasons in alone.items():
        for path, other, why in reasons if kind in kinds else ():
            dropped.setdefault(path, Dropped(kind, other, why))
    left = sorted(
        (image for image in images if image.path not in dropped),
        key=lambda image: (-SPLITS.index(image.split), image.path),
    )
    return dropped | _copies(left, _links(left, found, groups_are_known), kinds)


_Reasons = Iterator[tuple[str, str, str]]


def _conflicts(images: Iterable[ListedImage], found: Audit) -> _Reasons:
    """Yield all images that are there under two labels: nobody can say which is right."""
    by_hash: dict[str, list[ListedImage]] = defaultdict(list)
    for image in images:
        by_hash[image.sha256].append(image)
    for same in by_hash.values():
        for image in same:
            yield from (
                (image.path, other.path, f"equal bytes, and labelled {other.label}")
                for other in same
                if other.label != image.label
            )
    for pair in found.near:
        for one, other in (pair.ends, pair.ends[::-1]) if pair.conflict else ():
            yield one.path, other.path, f"{pair.close}, and labelled {other.label}"


def _label_issues(found: Audit) -> _Reasons:
    """Yield label issues, but of test: without what a head gets wrong, its accuracy there would mean nothing."""
    for issue in found.label_issues:
        if issue.split != "test":
            yield issue.path, "", f"looks like {issue.predicted}"


def _odd(found: Audit) -> _Reasons:
    return ((image.path, "", "; ".join(image.findings)) for image in found.odd or ())


def _links(images: Iterable[ListedImage], found: Audit, groups_are_known: bool) -> Mapping[str, list[_Link]]:
    links: dict[str, list[_Link]] = defaultdict(list)
    for image in images:
        links[image.path].append(_Link(f"sha256:{image.sha256}", "equal bytes"))
        if groups_are_known and image.group:
            links[image.path].append(_Link(f"group:{image.group}", f"in group {image.group}", only_leaks=True))
    for number, pair in enumerate(found.near):
        for path in (pair.first, pair.second):
            links[path].append(_Link(f"pair:{number}", pair.close))
    return links


def _copies(
    images: Iterable[ListedImage], links: Mapping[str, list[_Link]], kinds: Collection[str]
) -> dict[str, Dropped]:
    """Return which go as an image before them is kept: one in another split is a leak, any other a duplicate."""
    dropped: dict[str, Dropped] = {}
    kept: dict[str, dict[str, ListedImage]] = defaultdict(dict)  # what they share -> split -> the first image
    for image in images:
        for link in links[image.path]:
            there = kept[link.name]
            other = next((there[split] for split in there if split != image.split), None) if "leaks" in kinds else None
            kind = "leaks"
            if other is None and "duplicates" in kinds and not link.only_leaks:
                other, kind = next(iter(there.values()), None), "duplicates"
            if other is not None:
                label = "" if other.label == image.label else f", labelled {other.label}"
                dropped[image.path] = Dropped(kind, other.path, f"{link.why} in {other.split}{label}")
                break
        else:
            for link in links[image.path]:
                kept[link.name].setdefault(image.split, image)
    return dropped
