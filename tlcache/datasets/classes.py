"""Which folders are splits and which are classes; where that cannot be told, an error that says how to tell it."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tlcache.datasets.layout import Layout
from tlcache.datasets.masks import masks_among
from tlcache.datasets.splits import SPLITS
from tlcache.datasets.tree import Tree
from tlcache.errors import DataError
from tlcache.keys import some
from tlcache.text import counted

__all__ = ["ClassFolder", "Place", "class_folders"]

_TABLE = "a table of paths and labels (see: tlcache datasets)"


class Place(NamedTuple):
    """A folder of the dataset: the dataset's own, its path below that, and what lies in it."""

    root: str
    path: str
    tree: Tree

    def __str__(self) -> str:
        return f"{self.root}/{self.path}".rstrip("/")

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    def folders(self) -> list[Place]:
        """Return the folders in it."""
        return [Place(self.root, f"{self.path}/{name}".lstrip("/"), tree) for name, tree in self.tree.folders.items()]

    def inside(self) -> list[Place]:
        """Return the folders in it that hold images."""
        return [folder for folder in self.folders() if folder.tree.has_images()]


class ClassFolder(NamedTuple):
    """A folder with the images of one class in one split."""

    place: Place
    label: str
    split: str


def class_folders(top: Place, layout: Layout) -> tuple[list[ClassFolder], set[str]]:
    """Return the folders of the classes below a folder, and the paths of those of splits.

    A folder that alone holds everything is gone through. Folders that are called as splits are, all of them, are splits
    if there are folders of classes in them; splits may lie in the classes, too.

    Raises
    ------
    DataError
        What is there has no meaning here, or several.
    """
    top = _unwrapped(top, layout)
    named = _named(top.folders(), layout)
    inner = [] if layout.class_level else _splits_in_classes(top, layout)
    if not inner and layout.split_folders and not layout.split_folders.keys() & {each.name for each in top.folders()}:
        raise DataError(
            f"--split-folders: '{top}' has no folder {some(list(layout.split_folders))}. It has "
            f"{some(sorted(top.tree.folders))}."
        )
    parts = [] if inner else _splits(top, named, layout)
    found = inner or [
        ClassFolder(each, each.name, split)
        for split, part in parts or [("train", top)]
        for each in _classes(part, layout)
    ]
    for split, part in parts:
        _check_labelled(part, split, found)
    return found, {place.path for place in top.folders() if place.name in named} if parts else set()


def _unwrapped(place: Place, layout: Layout | None = None) -> Place:
    """Return the first folder that holds images, several folders, or, where there is a layout, a split."""
    while not place.tree.images and len(inside := place.inside()) == 1:
        (only,) = inside
        if only.tree.images or (layout and _named([only], layout)):
            break
        place = only
    return place


def _named(places: Sequence[Place], layout: Layout) -> dict[str, str]:
    return layout.named_splits(place.name for place in places)


def _splits_in_classes(top: Place, layout: Layout) -> list[ClassFolder]:
    """Return the parts of the classes, where splits lie in them: cat/train, cat/test, dog/train; else nothing."""
    classes = top.inside()
    parts = {part.name: part for each in classes for part in each.inside()}
    named = _named(list(parts.values()), layout)
    flat = any(each.tree.images for each in classes) or any(part.inside() for part in parts.values())
    if flat or len(parts) < 2 or "train" not in named.values() or named.keys() != parts.keys():
        return []
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
            f"--ignore {odd[0]}, or say what they are: --split-folders {odd[0]}=test. If all of them are classes, put "
            "them into one folder that is called train."
        )
    for split, place in splits:
        if not place.inside():
            raise DataError(_unlabelled_words(place, split) if deep else _flat_words(splits[-1][1]))
    if "train" not in given:
        raise DataError(
            f"'{top}' has {' and '.join(place.name for _, place in splits)}, and no train to learn from. Bring its "
            f"train folder, or say what is to train: --split-folders {splits[-1][1].name}=train."
        )
    if not layout.split_folders:
        _check_one_each(top, splits)
    return splits


def _check_one_each(top: Place, splits: Sequence[tuple[str, Place]]) -> None:
    for split in SPLITS:
        names = [place.name for own, place in splits if own == split]
        if len(names) > 1:
            raise DataError(
                f"'{top}' has {' and '.join(names)}, which are all {split} by their names. Say which is which, as in "
                f"--split-folders {','.join(f'{name}={split}' for name in names)}, or leave one out with --ignore."
            )


def _classes(place: Place, layout: Layout) -> list[Place]:
    """Return the folders of classes in a split, or in the dataset."""
    place = _unwrapped(place)
    found = place.inside()
    for _ in range((layout.class_level or 1) - 1):
        found = [below for each in found for below in each.inside()]
    if not found and place.tree.images:
        raise DataError(_flat_words(place))
    if not layout.class_level:
        _check_masks(found)
        _check_level(place, found)
    return found


def _check_level(place: Place, found: Sequence[Place]) -> None:
    """Raise where what seem to be classes may be something above them."""
    if len(found) < 2 or any(each.tree.images for each in found):
        return
    shared = set.intersection(*({below.name for below in each.inside()} for each in found))
    if len(shared) < 2:
        return
    first, second = found[0].name, found[1].name
    raise DataError(
        f"{some([each.name for each in found])} in '{place}' hold the same folders, {some(sorted(shared))}: these may "
        f"be the classes. If they are, say --class-level 2, or which split each folder above them is: --split-folders "
        f"{first}=train,{second}=test. If {first} and {second} are classes, say --class-level 1."
    )


def _check_masks(found: Sequence[Place]) -> None:
    for each in found:
        if what := masks_among(each.tree):
            raise DataError(
                f"Among the images in '{each}' are masks of them, by their names: {what}. Leave these out with "
                f"--ignore {shlex.quote(what)}. If they are images of the class, say --class-level 1."
            )


def _check_labelled(part: Place, split: str, found: Sequence[ClassFolder]) -> None:
    """Raise where a split has none of the classes that can be learnt."""
    own, learnt = ({_plain(each.label) for each in found if each.split == name} for name in (split, "train"))
    if not own & learnt:
        raise DataError(
            f"The folders in '{part}' ({some(sorted(own))}) are none of the classes in train ({some(sorted(learnt))}). "
            f"{_way_out(part, split)}"
        )


def _plain(label: str) -> str:
    return unicodedata.normalize("NFC", label)


def _unlabelled_words(place: Place, split: str) -> str:
    images = counted(len(place.tree.images), "image")
    return f"'{place}' is a split by its name, and its {images} lie in no folders of classes. {_way_out(place, split)}"


def _way_out(place: Place, split: str) -> str:
    return (
        f"Give {_TABLE}, with the labels of {split}; or leave it out with --ignore {place.name}, and {split} is drawn "
        "from train."
    )


def _flat_words(place: Place) -> str:
    """Return the words for images without folders of classes; their names may say the classes."""
    begins = (re.match(r"[^\W\d_]+", name) for name in place.tree.images)
    counts = Counter(found[0].lower() for found in begins if found)
    labels = sorted(name for name, count in counts.items() if count > 1)
    hint = f"Their names may say the classes ({some(labels)}). " if 1 < len(labels) <= sum(counts.values()) / 4 else ""
    images = counted(len(place.tree.images), "image")
    return f"'{place}' holds {images} and no folders of classes. {hint}Give {_TABLE}, or a folder for every class."
