"""What has no one meaning in a folder, or is no class: errors that say what is there and how to tell what it is."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from tlcache.datasets.labels import may_be_missing
from tlcache.datasets.layout import Layout, ignoring, splitting, splitting_of
from tlcache.datasets.masks import called_masks, mask_folders, masks_among
from tlcache.datasets.splits import split_names
from tlcache.datasets.tree import Place, Tree
from tlcache.errors import DataError
from tlcache.keys import quoted, some
from tlcache.text import counted

__all__ = [
    "check_folders",
    "check_given",
    "check_images",
    "check_labelled",
    "check_level",
    "flat_words",
    "level_words",
    "notes_on_folders",
    "unlabelled_words",
]

_TABLE = "a table of paths and labels (see: tlcache datasets)"


def level_words(place: Place, level: int, first: int) -> str:
    """Return the words for a level that nothing is at, where the folders in `place` are at the level `first`."""
    levels = {path: path.count("/") + first for path, tree in place.tree.walk() if path and tree.images}
    if not levels:
        return flat_words(place)
    deepest = max(levels, key=lambda path: levels[path])
    return (
        f"--class-level {level}: '{place}' has no folders of images so far down. The lowest, like '{deepest}', are at "
        f"level {levels[deepest]}; give that, or one above it."
    )


def check_level(place: Place, found: Sequence[Place], level: int) -> None:
    """Raise where what seem to be classes may be something above them."""
    if len(found) < 2 or any(each.tree.images for each in found):
        return
    shared = set.intersection(*({below.name for below in each.inside()} for each in found))
    if len(shared) < 2:
        return
    first, second, *_ = names = [each.name for each in found]
    if len(called := split_names(shared)) > 1:
        raise DataError(
            f"{some(names)} in '{place}' each hold folders that are called as splits are: {some(sorted(called))}. "
            f"Splits are known at the top alone. Give {_TABLE}, with the split of each image, or say "
            "--class-level N to have the folders N levels down as classes and the splits drawn anew."
        )
    splits = "" if level > 1 else f", or which split each folder above them is: {splitting_of(names)}"
    raise DataError(
        f"{some(names)} in '{place}' hold the same folders, {some(sorted(shared))}: these may be the classes. If they "
        f"are, say --class-level {level + 1}{splits}. If {quoted(first)} and {quoted(second)} are classes, say "
        f"--class-level {level}."
    )


def check_folders(place: Place, inside: Sequence[Place], level: int) -> None:
    """Raise where folders hold masks of the images in those beside them."""
    if masks := mask_folders({each.name: each.tree for each in inside}):
        raise DataError(
            f"In '{place}' are folders of masks of the images beside them, by their names and by what is in them: "
            f"{some(masks)}. Leave them out with {ignoring(masks)}. If all folders in it are classes, say "
            f"--class-level {level}."
        )


def check_images(found: Sequence[Place], level: int) -> None:
    """Raise where there are masks among the images of a class."""
    for each in found:
        if what := masks_among(each.tree):
            raise DataError(
                f"Among the images in '{each}' are masks of them, by their names: {what}. Leave these out with "
                f"--ignore {shlex.quote(what)}. If they are images of the class, say --class-level {level}."
            )


def notes_on_folders(classes: Mapping[str, Tree]) -> list[str]:
    """Return a sentence on each: classes that are called as masks are, and one that a slash has made two folders."""
    notes = []
    if masks := called_masks(classes):
        notes.append(
            f"Classes that are called as masks of other images are: {some(masks)}. If they are masks, leave them out "
            f"with {ignoring(masks)}."
        )
    inside = {label: name for label, tree in classes.items() if not tree.images for name in tree.folders}
    if torn := [name for name, inner in inside.items() if may_be_missing(f"{name}/{inner}")]:
        notes.append(
            f"Class {some(torn)} is all in '{torn[0]}/{inside[torn[0]]}', which may mean that the label is not known. "
            f"If so, leave it out with {ignoring(torn)}."
        )
    return notes


def check_given(top: Place, layout: Layout) -> None:
    """Raise where `--split-folders` names no folder, or folders that `--class-level` says are classes."""
    given = layout.split_folders or {}
    if given and not given.keys() & top.tree.folders.keys():
        raise DataError(
            f"--split-folders: '{top}' has no folder {some(list(given))}. It has {some(sorted(top.tree.folders))}."
        )
    if given and layout.class_level == 1:
        raise DataError(
            f"--class-level 1 says that the folders in '{top}' are classes, and {splitting(given)} that they are "
            "splits. Classes in folders of splits are at --class-level 2."
        )


def check_labelled(part: Place, split: str, own: Collection[str], learnt: Collection[str]) -> None:
    """Raise where a split has none of the classes that can be learnt."""
    if not {*map(_plain, own)} & {*map(_plain, learnt)}:
        raise DataError(
            f"The folders in '{part}' ({some(sorted(own))}) are none of the classes in train ({some(sorted(learnt))}). "
            f"{_way_out(part, split)}"
        )


def _plain(label: str) -> str:
    return unicodedata.normalize("NFC", label)


def unlabelled_words(place: Place, split: str) -> str:
    """Return the words for images of a split without folders of classes."""
    images = counted(len(place.tree.images), "image")
    return f"'{place}' is a split by its name, and its {images} lie in no folders of classes. {_way_out(place, split)}"


def _way_out(place: Place, split: str) -> str:
    return (
        f"Give {_TABLE}, with the labels of {split}; or leave it out with {ignoring([place.name])}, and {split} is "
        "drawn from train."
    )


def flat_words(place: Place) -> str:
    """Return the words for images without folders of classes; their names may say the classes."""
    begins = (re.match(r"[^\W\d_]+", name) for name in place.tree.images)
    counts = Counter(found[0].lower() for found in begins if found)
    labels = sorted(name for name, count in counts.items() if count > 1)
    hint = f"Their names may say the classes ({some(labels)}). " if 1 < len(labels) <= sum(counts.values()) / 4 else ""
    images = counted(len(place.tree.images), "image")
    return f"'{place}' holds {images} and no folders of classes. {hint}Give {_TABLE}, or a folder for every class."
