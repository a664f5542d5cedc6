"""Masks among the images of a class: in a folder of their own, or one beside each image."""

from __future__ import annotations

import re

from tlcache.datasets.tree import Tree

__all__ = ["masks_among"]

_WORDS = frozenset(
    ("annotation", "annotations", "contours", "gt", "groundtruth", "label", "labels", "mask", "masks")
    + ("overlay", "overlays", "seg", "segmentation", "segmentations", "truth")
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


def _is_of_masks(path: str) -> bool:
    return not _WORDS.isdisjoint(re.findall(r"[a-z]+", path.rpartition("/")[2].lower()))


def _masks(path: str, stems: list[str]) -> list[str]:
    if _is_of_masks(path):
        return stems
    return [stem for stem in stems if _ENDING.search(stem)] if _ENDING.search("\n".join(stems)) else []
