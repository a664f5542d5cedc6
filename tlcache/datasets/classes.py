"""Which folders are splits and which are classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tlcache.datasets.checks import (
    check_folders,
    check_given,
    check_images,
    check_labelled,
    check_level,
    flat_words,
    level_words,
    unlabelled_words,
)
from tlcache.datasets.layout import Layout, ignoring, splitting, splitting_of
from tlcache.datasets.splits import SPLITS
from tlcache.datasets.tree import Place
from tlcache.errors import DataError
from tlcache.keys import quoted, some

__all__ = ["ClassFolder", "class_folders"]


class ClassFolder(NamedTuple):
    """A folder with the images of one class in one split."""

    place: Place
    label: str
    split: str


def class_folders(top: Place, layout: Layout) -> tuple[list[ClassFolder], set[str]]:
    """Return the folders of the classes below a folder, and the paths of those of splits.

    A folder that alone holds everything is gone through. Folders that are called as splits are, all of them, are splits
    if there are folders of classes in them; splits may lie in the classes, too. Without labels, or where no folder of
    classes is there, all images are of one that is called nothing.

    Raises
    ------
    DataError
        What is there has no meaning here, or several.
    """
    if layout.unlabelled:
        return [ClassFolder(top, "", "train")], set()
    top = _unwrapped(top, layout)
    if top.tree.images and not top.inside() and not (layout.class_level or layout.split_folders):
        return [ClassFolder(top, "", "train")], set()
    if not layout.class_level:
        check_folders(top, [each for each in top.inside() if each.name not in (layout.split_folders or {})], 1)
    if inner := _splits_in_classes(top, layout):
        return inner, set()
    check_given(top, layout)
    named = {} if layout.class_level == 1 else _named(top.folders(), layout)
    parts = _splits(top, named, layout)
    found = [
        ClassFolder(each, each.name, split)
        for split, part in parts or [("train", top)]
        for each in _classes(part, layout, 2 if parts else 1)
    ]
    labels = {split: {each.label for each in found if each.split == split} for split, _ in parts}
    for split, part in parts:
        check_labelled(part, split, labels[split], labels["train"])
    return found, {place.path for place in top.folders() if place.name in named} if parts else set()


def _unwrapped(place: Place, layout: Layout | None = None) -> Place:
    """Return the first folder that holds several, or images of a class, or, where there is a layout, a split.

    Images beside a single folder, if fewer than those below it, are of no class: a cover, a list of all as a picture.
    """
    while len(inside := place.inside()) == 1 and _is_above(place):
        (only,) = inside
        if not only.inside() or (_named([only], layout) if layout else only.tree.images):
            break
        place = only
    return place


def _is_above(place: Place) -> bool:
    own = len(place.tree.images)
    return not own or 2 * own < sum(1 for _ in place.tree.paths())


def _named(places: Sequence[Place], layout: Layout) -> dict[str, str]:
    return layout.named_splits(place.name for place in places)


def _splits_in_classes(top: Place, layout: Layout) -> list[ClassFolder]:
    """Return the parts of the classes, where splits lie in them: cat/train, cat/test, dog/train; else nothing."""
    classes = top.inside()
    parts = {part.name: part for each in classes for part in each.inside()}
    named = _named(list(parts.values()), layout)
    flat = any(each.tree.images for each in classes) or any(part.inside() for part in parts.values())
    if flat or not {"train"} < {*named.values()} or named.keys() != parts.keys() or (layout.class_level or 1) > 1:
        return []
    if not layout.class_level:
        check_images([part for each in classes for part in each.inside()], 1)
    return [ClassFolder(part, each.name, named[part.name]) for each in classes for part in each.inside()]


def _splits(top: Place, named: Mapping[str, str], layout: Layout) -> list[tuple[str, Place]]:
    """Return the folders of splits; nothing where the folders are classes."""
    there = top.inside()
    splits = sorted((named[place.name], place) for place in there if place.name in named)
    odd = [place.name for place in there if place.name not in named]
    deep = [place for _, place in splits if place.inside()]
    given = {split for split, _ in splits}
    if not splits or not (deep or layout.split_folders or not odd) or (odd and "train" not in given):
        return []
    if odd and all(place.tree.images for place in there):
        return []  # a class that is called as a split is, among others
    if odd:
        raise DataError(
            f"'{top}' has a train folder and others beside it that are no split: {some(odd)}. Leave them out with "
            f"{ignoring(odd)}, or say what they are: {splitting_of(odd)}. If all of them are classes, say "
            "--class-level 1."
        )
    for split, place in splits:
        if not place.inside():
            raise DataError(
                unlabelled_words(place, split)
                if deep
                else f"{flat_words(splits[-1][1])} If {some(sorted(named))} are classes, say --class-level 1. "
                "To embed them without labels: tlcache extract --unlabelled."
            )
    if "train" not in given:
        raise DataError(
            f"'{top}' has {' and '.join(quoted(place.name) for _, place in splits)}, and no train to learn from. Bring "
            f"its train folder, or say what is to train: {splitting({splits[-1][1].name: 'train'})}."
        )
    if not layout.split_folders:
        _check_one_each(top, splits)
    return splits


def _check_one_each(top: Place, splits: Sequence[tuple[str, Place]]) -> None:
    for split in SPLITS:
        names = [place.name for own, place in splits if own == split]
        if len(names) > 1:
            raise DataError(
                f"'{top}' has {' and '.join(map(quoted, names))}, which are all {split} by their names. Say which is "
                f"which, as in {splitting(dict.fromkeys(names, split))}, or leave one out with {ignoring(names[:1])}."
            )


def _classes(place: Place, layout: Layout, first: int) -> list[Place]:
    """Return the folders of classes in a split, or in the dataset; folders in it are at the level `first`."""
    place = _unwrapped(place)
    found = place.inside()
    for _ in range(first, layout.class_level or first):
        found = [below for each in found for below in each.inside()]
    if not found and place.tree.has_images():
        raise DataError(level_words(place, layout.class_level, first) if layout.class_level else flat_words(place))
    if not layout.class_level:
        check_folders(place, found, first)
        check_images(found, first)
        check_level(place, found, first)
    return found
