"""Masks among images: in a folder of their own, or one beside each image."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tlcache.datasets.tree import Tree

__all__ = ["called_masks", "mask_folders", "masks_among"]

_WORDS = frozenset(
    ("annotation", "annotations", "contours", "gt", "groundtruth", "label", "labels", "mask", "masks")
    + ("overlay", "overlays", "seg", "segmentation", "segmentations", "truth")
)
_BESIDE = frozenset(  # words that may stand beside these in the name of a folder of masks
    ("binary", "class", "color", "data", "dataset", "folder", "ground", "image", "images", "img", "imgs", "instance")
    + ("left", "lung", "manual", "object", "of", "png", "pngs", "right", "semantic", "test", "train", "val", "x")
)
_ENDING = re.compile(r"[ ._-](masks?|seg|segmentation|gt|annotation)$", re.IGNORECASE | re.MULTILINE)


def masks_among(tree: Tree) -> str:
    """Return the name of a folder, or a shell pattern of files, that most are masks of other images; else nothing.

    Masks are called as they are, and most of them have the name of an image.
    """
    stems = {path: [name.rpartition(".")[0] for name in each.images] for path, each in tree.walk()}
    masks = {path: found for path, own in stems.items() if (found := _masks(path, own))}
    if not masks:
        return ""
    images = {stem for path, own in stems.items() for stem in set(own).difference(masks.get(path, ()))}
    for path, own in masks.items():
        paired = [stem for stem in own if _ENDING.sub("", stem) in images]
        if 2 * len(paired) > len(own):
            ending = _ENDING.search(paired[0])
            return f"*{ending[0]}.*" if ending and not _is_of_masks(path) else path.rpartition("/")[2]
    return ""


def called_masks(names: Iterable[str]) -> list[str]:
    """Return which of some neighbours are called as masks are; none where masks are what is told apart.

    >>> called_masks(["ant", "ant_mask", "SegmentationClass"]), called_masks(["mask", "no_mask"])
    (['ant_mask', 'SegmentationClass'], [])
    """
    words = {name: _words(name) for name in names}
    of_masks = [name for name, own in words.items() if own & _WORDS]
    others = frozenset[str]().union(*(own for own in words.values() if not own & _WORDS))
    told_apart = any(words[name] - _WORDS - _BESIDE - others for name in of_masks)
    return [] if told_apart or len(of_masks) == len(words) else of_masks


def mask_folders(folders: Mapping[str, Tree]) -> list[str]:
    """Return which of some neighbours hold masks of the images in the others.

    They are called so, and half of what is in one has the names of images, or its folders have the names of theirs.
    """
    called = called_masks(folders)
    others = [tree for name, tree in folders.items() if name not in called]
    stems = {stem for tree in others if called for stem in _stems(tree)}
    inside = {name for tree in others if called for _, each in tree.walk() for name in each.folders}.union(folders)
    return [name for name in called if _pairs(folders[name], stems) or _repeats(folders[name], inside)]


def _pairs(masks: Tree, images: set[str]) -> bool:
    own = _stems(masks)
    return 2 * sum(_ENDING.sub("", stem) in images for stem in own) >= len(own)


def _repeats(masks: Tree, folders: set[str]) -> bool:
    return not masks.images and folders.issuperset(name for name, tree in masks.folders.items() if tree.has_images())


def _stems(tree: Tree) -> list[str]:
    return [path.rpartition("/")[2].rpartition(".")[0] for path in tree.paths()]


def _words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))


def _is_of_masks(path: str) -> bool:
    return not _WORDS.isdisjoint(_words(path.rpartition("/")[2]))


def _masks(path: str, stems: list[str]) -> list[str]:
    if _is_of_masks(path):
        return stems
    return [stem for stem in stems if _ENDING.search(stem)] if _ENDING.search("\n".join(stems)) else []
