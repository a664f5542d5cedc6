"""Images to be classified, as people name them: files, folders, tables, patterns, paths on standard input."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tlcache.datasets.anywhere import absolute
from tlcache.datasets.archive import ARCHIVE
from tlcache.datasets.bucket import BUCKET
from tlcache.datasets.dataset import source_of
from tlcache.datasets.labels import composed
from tlcache.datasets.layout import Layout
from tlcache.datasets.paths import read_paths
from tlcache.datasets.remote import is_url
from tlcache.datasets.rows import Rows
from tlcache.datasets.splits import Row
from tlcache.datasets.table import SUFFIXES, is_image_name
from tlcache.datasets.tree import Tree, describe_data, scan
from tlcache.deploying.stdin import standard_input
from tlcache.errors import DataError, OptionError
from tlcache.kinds import listing
from tlcache.progress import say

__all__ = ["Listed", "list_images", "parted"]


@dataclass(frozen=True)
class Listed:
    """Images in the order in which they were given.

    Parameters
    ----------
    paths
        (N,) of their files, from the current folder.
    labels
        (N,) what each is labelled as; empty where nobody says.
    """

    paths: Sequence[str]
    labels: Sequence[str]

    def __len__(self) -> int:
        return len(self.paths)


def list_images(given: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], classes: Sequence[str]) -> Listed:
    """Return the images that are given.

    A folder has all images below it, in the order of their names, and so has an archive (`.zip`, `.tar`), whose images
    go on the path of its file, and a bucket (`s3://`). They are labelled where it is a dataset, and where some of its
    labels are among the classes of the model; else its folders are no classes. A file that ends as tables do has a path
    for each image and perhaps a label. `-` is paths on standard input, one to a line, or with zero bytes between them.

    Parameters
    ----------
    given
        Files, folders, archives, tables, patterns such as `photos/**/*.jpg`, or `-`.
    classes
        Of the model.

    Raises
    ------
    OptionError, DataError
        Nothing is given; there is no such folder or table, or no image in it.
    """
    found = [each for one in listing(given) for each in _images(os.fspath(one), frozenset(classes))]
    if not found:
        raise OptionError("No images are given. Name files, folders, tables, patterns, or - for standard input.")
    return Listed(*zip(*found, strict=True))


def parted(given: Sequence[str], known: Collection[str], classes: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Return which of these are `known` images of a dataset and no files, and the paths of all others.

    The others are found as `list_images` finds them; its errors are those of this.
    """
    own = [each for each in given if each in known and not os.path.lexists(each)]  # noqa: PTH110
    others = [each for each in given if each not in own]
    return own, list(list_images(others, classes).paths) if others or not own else []


_Image = tuple[str, str]


def _images(given: str, classes: frozenset[str]) -> Iterable[_Image]:
    if given == "-":
        return [(path, "") for path in standard_input()]
    if is_url(given):
        return [(given, "")] if is_image_name(given) else _of_folder(given, classes)
    place = os.path.expanduser(given)  # noqa: PTH111  texts, as there may be many
    there, pattern = os.path.lexists(place), glob.has_magic(place)  # noqa: PTH110
    if there or (is_image_name(place) and not pattern):
        return _of_place(place, classes)
    matches = sorted(match.rstrip("/") for match in glob.glob(place, recursive=True)) if pattern else []  # noqa: PTH207
    if not matches:
        what = "matches" if pattern else "is at"
        raise DataError(f"Nothing {what} '{given}'. Give images, folders, archives, tables (.csv), patterns, or -.")
    inside = tuple(f"{match}/" for match in matches if os.path.isdir(match))  # noqa: PTH112
    outermost = [match for match in matches if not match.startswith(inside)]  # ** goes on in folders
    folders = {folder.removesuffix("/") for folder in inside}
    return [
        each
        for match in outermost
        for each in (_of_folder(match, classes) if match in folders or ARCHIVE.takes(match) else [(match, "")])
    ]


def _of_place(place: str, classes: frozenset[str]) -> list[_Image]:
    """Return the images of a folder, an archive or a table; what is none is an image, whether it can be read or not."""
    if os.path.isdir(place) or ARCHIVE.takes(place):  # noqa: PTH112
        return _of_folder(place, classes)
    if place.lower().endswith(SUFFIXES):
        return read_paths(Path(place))
    return [(place, "")]


def _of_folder(folder: str, classes: frozenset[str]) -> list[_Image]:
    tree = _tree(folder)
    if passed_over := tree.everything():
        kinds = ", ".join(f"{count} {kind}" for kind, count in passed_over.most_common())
        say(f"{folder}: passed over {kinds}")
    if not tree.has_images():
        raise DataError(f"No images in '{folder}'. {describe_data(passed_over)}".strip())
    labels, own = _labels(folder, classes), Path(absolute(folder)).name
    default = own if own in classes and not labels else ""  # it is a single class
    return [(os.path.join(folder, path), labels.get(path, default)) for path in tree.paths()]  # noqa: PTH118


def _tree(folder: str) -> Tree:
    """Return what lies in a folder, an archive, or a bucket."""
    if os.path.isdir(folder):  # noqa: PTH112
        return scan(Path(folder), Layout())
    return (ARCHIVE if ARCHIVE.takes(folder) else BUCKET).tree(folder, Layout())


def _labels(folder: str, classes: frozenset[str]) -> Mapping[str, str]:
    """Return path -> label of the images in a folder or archive that is a dataset with some of these classes."""
    rows: Sequence[Row] = ()
    with suppress(DataError, OptionError):
        if source := source_of(absolute(folder)):
            found = source.find(absolute(folder), Layout())
            rows = composed(Rows.of(found.rows))[0]
            inner = os.path.relpath(found.images.source, Path(folder).resolve())
            if inner != "." and source not in (ARCHIVE, BUCKET):
                rows = [row._replace(path=f"{inner}/{row.path}") for row in rows]
    return {row.path: row.label for row in rows} if any(row.label in classes for row in rows) else {}
