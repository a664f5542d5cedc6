"""An audit -> a manifest without what it found, and a table of what is left out and why."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlcache.arguments import Drop, Features, Overwrite, Paths, Regroup, Runs
from tlcache.auditing.dropping import ListedImage, choose_dropped
from tlcache.auditing.findings import Audit
from tlcache.cache.attributes import extract_arguments
from tlcache.cache.feature_file import FeatureFile
from tlcache.cache.find import find_features
from tlcache.cache.groups import groups_path, read_groups
from tlcache.cache.resplit import FeatureSet, apply_split
from tlcache.datasets.layout import Layout
from tlcache.datasets.manifest import rows_of
from tlcache.datasets.splits import SPLITS, Row
from tlcache.datasets.table import read_table
from tlcache.errors import CacheError, DataError, OptionError
from tlcache.files import whole, write_whole
from tlcache.keys import printable, some
from tlcache.options import described, parameters
from tlcache.progress import warn
from tlcache.runs.folder import runs_folder
from tlcache.text import as_csv

__all__ = ["Cleaned", "check_clean", "dropped_path", "write_clean"]

_DROPPED = ("path", "label", "split", "finding", "other", "why")


@dataclass(frozen=True)
class Cleaned:
    """What was written.

    Parameters
    ----------
    path, dropped_path
        The manifest, and the table of what it leaves out.
    splits
        Images in each split.
    dropped
        Finding -> how many images are left out for it, those that could not be used among them.
    stay
        Label issues in test, which are not left out.
    arguments
        Those of an extraction of the manifest that embeds nothing again.
    """

    path: Path
    dropped_path: Path
    splits: Mapping[str, int]
    dropped: Mapping[str, int]
    stay: int
    arguments: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        paths = {"path": str(self.path), "dropped_path": str(self.dropped_path)}
        return {**paths, "splits": dict(self.splits), "dropped": dict(self.dropped), "label_issues_in_test": self.stay}


def check_clean(out: Path | None, drop: Collection[str], *, regroup: bool, overwrite: bool) -> None:
    """Raise OptionError where nothing is to be written, or what is there would be lost."""
    if out is None:
        asked = [name for name, given in (("drop", drop), ("regroup", regroup), ("overwrite", overwrite)) if given]
        if asked:
            raise OptionError(f"--{asked[0]} is of the manifest of --write; give both.")
        return
    if not (drop or regroup):
        raise OptionError("--write needs to know what to change: leave images out with --drop leaks, or --regroup.")
    if regroup and "leaks" in drop:
        raise OptionError("--regroup draws splits in which nothing leaks. Leave out --drop leaks, or --regroup.")
    if out.suffix.lower() != ".csv":
        raise OptionError(f"--write {out}: a manifest is a .csv file. Give it that ending.")
    there = [path for path in (out, dropped_path(out)) if os.path.lexists(path)]
    if there and not overwrite:
        raise OptionError(f"--write: '{there[0]}' is there already. Give another name, or --overwrite.")


def dropped_path(out: Path) -> Path:
    """Return where the table of what a manifest leaves out lies: `clean.dropped.csv`."""
    return out.with_suffix(".dropped.csv")


@described()
def write_clean(
    found: Audit,
    out: str | Path,
    *,
    drop: Drop = (),
    regroup: Regroup = False,
    overwrite: Overwrite = False,
    paths: Paths = None,
    features: Features = None,
    runs: Runs = None,
) -> Cleaned:
    """Write a dataset as a manifest without what an audit found, for `tlcache.extract`, which embeds nothing again.

    Parameters
    ----------
    found
        What `tlcache.audit` returned last for this dataset.
    out
        The manifest, a `.csv` file; beside it `.dropped.csv` lists what it leaves out.

    Returns
    -------
    Cleaned
        What was written.

    Raises
    ------
    OptionError, CacheError, DataError
        A file is there; the features that were looked at are not; a class would have no image to train on, or a name
        cannot stand in a table.

    Examples
    --------
    >>> (found,) = audit([feature_file], runs=folder)
    >>> write_clean(found, folder / "clean.csv", drop=["leaks"], paths=[feature_file], runs=folder).splits["train"] > 0
    True
    """
    out = Path(out).expanduser()
    check_clean(out, drop, regroup=regroup, overwrite=overwrite)
    folder, known = runs_folder(runs), found.group_by != "near-duplicates"
    with _file_of(found, paths, features) as file:
        groups = read_groups(groups_path(folder, found.dataset), found.dataset).groups if known else {}
        images = _images(apply_split(file, "group", folder) if regroup else file, groups)
        unusable, arguments = file.quarantine, extract_arguments(file.attrs)
    dropped = choose_dropped(images, found, drop, groups_are_known=known)
    kept = [image for image in images if image.path not in dropped]
    _check_classes(images, kept)
    if "duplicates" in drop and found.near_count > len(found.near):
        warn(f"There are {found.near_count:,} pairs of near-duplicates, too many to list each: some of them stay.")
    rows = [Row(path, *image[1:4]) for image, path in zip(kept, _written(kept, found.source, out), strict=True)]
    lines = [(image.path, image.label, image.split, *dropped[image.path]) for image in images if image.path in dropped]
    lines += [(path, "", "", "unusable", "", why) for path, _, _, why in unusable]
    _write_rows(out, rows, lines)
    return Cleaned(
        out,
        dropped_path(out),
        {name: sum(row.split == name for row in rows) for name in SPLITS},
        Counter(line[3] for line in lines),
        sum(issue.split == "test" for issue in found.label_issues) if "label-issues" in drop else 0,
        _arguments(arguments, out, found.source),
    )


def _file_of(found: Audit, paths: Paths, features: Features) -> FeatureFile:
    """Open the feature file that was looked at."""
    for path in find_features(paths, features):
        file = FeatureFile(path)
        if (file.attrs["key"], file.attrs["dataset_digest"]) == (found.key, found.dataset_digest):
            return file
        file.close()
    raise CacheError(f"The features of '{found.dataset}' that were looked at are gone or others now. Audit them again.")


def _images(file: FeatureSet, known: Mapping[str, str]) -> list[ListedImage]:
    """Return all images, by split and path; `known` is hash -> group. Images are called as their group if alone."""
    rows = file.split(*SPLITS)
    splits = np.repeat(SPLITS, [file.attrs[f"{name}_rows"] for name in SPLITS]).tolist()
    labels = [file.classes[number] if number >= 0 else "" for number in rows.labels.tolist()]
    hashes = [digest.decode() for digest in file.hashes().tolist()]
    named = [known.get(digest, group) for digest, group in zip(hashes, rows.groups, strict=True)]
    sizes = Counter(named)
    groups = ["" if name == path and sizes[name] == 1 else name for name, path in zip(named, rows.paths, strict=True)]
    return list(map(ListedImage, rows.paths, labels, splits, groups, hashes))


def _check_classes(before: Iterable[ListedImage], kept: Iterable[ListedImage]) -> None:
    """Raise DataError where a class has no image left to train on."""
    trained, left = ({image.label for image in images if image.split == "train"} for images in (before, kept))
    if lost := sorted(trained - left):
        raise DataError(
            f"--drop leaves no train image of class {some(lost)}. Drop less, or draw the splits anew with --regroup, "
            "where whole groups stay together."
        )


def _written(images: Iterable[ListedImage], source: str, out: Path) -> Iterator[str]:
    """Yield each path as the manifest has it: from its own folder if the images are below that, else the whole path.

    Those of images in an archive, which the reader of the manifest is given, stay as they are.
    """
    folder, top = out.absolute().parent.resolve(), Path(source)
    start = source if top.is_absolute() else ""
    if top.is_absolute() and top.is_relative_to(folder):
        start = top.relative_to(folder).as_posix()
    yield from (os.path.normpath(f"{start}/{image.path}") if start else image.path for image in images)


def _write_rows(out: Path, rows: Sequence[Row], lines: Sequence[Sequence[str]]) -> None:
    """Write both files, whole; the manifest only if it says to its reader what it shall say."""
    labelled, grouped = any(row.label for row in rows), any(row.group for row in rows)
    names = ["path", *(("label", "split") if labelled else ()), *(("group",) if grouped else ())]
    with whole(out) as unfinished:
        unfinished.write_bytes(os.fsencode(as_csv([names, *([getattr(row, name) for name in names] for row in rows)])))
        listed = rows_of(read_table(unfinished)._replace(path=out), Layout(unlabelled=not labelled))
        read = listed.rows if labelled else [row._replace(label="") for row in listed.rows]
        if odd := next((row for row, own in zip(rows, read, strict=True) if row != own), None):
            raise DataError(
                f"'{printable(odd.path)}' ({printable(odd.label)}) would be read as another name from a table, for a "
                "blank or a sign in it. Rename it, and extract again."
            )
        write_whole(dropped_path(out), os.fsencode(as_csv([_DROPPED, *lines])))


def _arguments(made: dict[str, Any], out: Path, source: str) -> dict[str, Any]:
    """Return what to extract: with the network of before, and images in an archive where they are."""
    images = {} if Path(source).is_absolute() else {"images": made["data"]}
    not_again = {*parameters(Layout), "name", "seed"} - {"unlabelled"}
    return {name: value for name, value in made.items() if name not in not_again} | {"data": str(out), **images}
