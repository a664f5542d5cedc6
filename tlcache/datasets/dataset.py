"""Sources of labelled images: a folder, a manifest, or a built-in name -> paths, labels, splits, groups."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.datasets.anywhere import ANYWHERE
from tlcache.datasets.archive import ARCHIVE
from tlcache.datasets.bucket import BUCKET
from tlcache.datasets.builtin import BUILT_IN, OXFORD
from tlcache.datasets.folder import FOLDER
from tlcache.datasets.labels import composed, notes_on
from tlcache.datasets.layout import Layout
from tlcache.datasets.manifest import MANIFEST
from tlcache.datasets.metadata import METADATA
from tlcache.datasets.parquet import PARQUET
from tlcache.datasets.rows import Rows
from tlcache.datasets.source import Form, ImageList, Images, Listing, Source
from tlcache.datasets.splits import FRACTION, SPLITS, check_splits, split_names
from tlcache.datasets.table import SUFFIXES
from tlcache.datasets.tasks import Targets, read_labels
from tlcache.datasets.texts import Texts
from tlcache.datasets.tree import OTHER_DATA
from tlcache.errors import DataError, ImageReadError, OptionError
from tlcache.files import folder_meant
from tlcache.keys import slug, some
from tlcache.kinds import listing
from tlcache.progress import image_bar
from tlcache.tasks import CLASSIFY
from tlcache.threads import in_threads

__all__ = [
    "NEEDS_LABELS",
    "SOURCES",
    "Dataset",
    "dataset_of",
    "list_datasets",
    "load_dataset",
    "names_of",
    "reopen",
    "source_of",
]

SOURCES: tuple[Source, ...] = (
    BUILT_IN,
    OXFORD,
    METADATA,
    ARCHIVE,
    PARQUET,
    BUCKET,
    FOLDER,
    MANIFEST,
    ANYWHERE,
)  # the first that takes `--data` is it

NEEDS_LABELS = (
    "Training needs labels. Give some of the images theirs (tlcache suggest says which first), and make a dataset of "
    "them: a folder for every class, or a table of paths and labels."
)


def list_datasets() -> list[Form]:
    """Return the forms in which a dataset can be given, with an example each.

    Examples
    --------
    >>> {form.name for form in list_datasets()} >= {"built-in", "manifest"}
    True
    """
    return [form for source in SOURCES for form in source.forms]


@dataclass(frozen=True)
class Dataset(ImageList):
    """Labelled images.

    Parameters
    ----------
    name
        Used for file names and tables.
    images
        Where the bytes of the images are read.
    paths
        (N,) what the images are called there, with `/`, sorted by split and path.
    data
        What finds it again from any folder.
    labels
        (N,) int64, indices into `classes`.
    classes
        Names of the classes, sorted; none where the images have no labels, all of which are -1 then.
    splits
        (N,) `train`, `val` or `test` as given; all `train` when nothing is given.
    groups
        (N,) names of things that must not be torn apart by a split (a patient, a video), or empty strings.
    shares
        The shares of train that become val and test where none is given.
    passed_over
        What is there and is no image of the dataset, by kind (".txt", "dangling link"), and how often.
    warnings
        What its user should look into, a sentence each.
    unlabelled
        Why the images have no labels, in a sentence; empty where they have.
    columns
        What else a table says of labelled images: name of the column -> (N,) cells, empty where it says nothing.
    targets
        What the texts in `classes` say, where these are several labels or a number each; None where they are classes.
    """

    data: str
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    groups: Sequence[str]
    shares: Mapping[str, float]
    passed_over: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    unlabelled: str = ""
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    targets: Targets | None = None

    @property
    def task(self) -> str:
        """What is to be learned, a name of `tlcache.tasks.TASKS`."""
        return self.targets.task if self.targets else CLASSIFY

    @property
    def strata(self) -> NDArray[Any]:
        """What splits are to have alike: classes (N,), or what `Targets.strata` returns."""
        return self.targets.strata(self.labels) if self.targets else self.labels

    def hashes(self) -> list[str]:
        """Return the sha256 of the bytes of all images (N,), empty where one cannot be read; a store may know some."""
        known = dict(self.images.told())
        left = [path for path in self.paths if path not in known]
        self.images.expect(left)
        with image_bar("hashing images", len(left)) as advance:
            for path, sha256 in zip(left, in_threads(self._hash, left), strict=True):
                known[path] = sha256
                advance(1)
        found = [known[path] for path in self.paths]
        self.images.remember(self.paths, found)
        return found

    def _hash(self, path: str) -> str:
        with suppress(ImageReadError):
            return hashlib.sha256(self.images.read(path)).hexdigest()
        return ""

    def check_splits(self) -> None:
        """Raise DataError where the images are too few for the splits that must be drawn; see `check_splits`."""
        if self.targets:
            check_splits(np.zeros_like(self.labels), self.splits, ("all images",), self.groups)
        elif self.classes:
            try:
                check_splits(self.labels, self.splits, self.classes, self.groups)
            except DataError as error:  # rare classes may be none: lists, or measurements
                raise DataError(" ".join([str(error), *(line for line in self.warnings if "--task" in line)])) from None

    def check_labelled(self) -> None:
        """Raise DataError where the images have no labels."""
        if self.unlabelled:
            raise DataError(f"{self.unlabelled} {NEEDS_LABELS}")


def source_of(data: str) -> Source | None:
    """Return the first source that takes `--data`."""
    return next((source for source in SOURCES if source.takes(data)), None)


def reopen(source: str) -> Images:
    """Return the images that a feature file names as its `source`; nothing is opened before one is read.

    Examples
    --------
    >>> with open_features(feature_file) as file:
    ...     images = reopen(file.attrs["source"])
    ...     data = images.read(file.paths()[0], sha256=file.hashes()[0].decode())
    >>> data[1:4]
    b'PNG'
    """
    found = (images for each in SOURCES if (images := each.reopen(source)))
    return next(found, None) or Images(source, partial(_refuse, source), lambda: False)


def _refuse(source: str, path: str) -> bytes:
    raise OSError(f"no kind of dataset known here reads '{path}' of '{source}'")


def load_dataset(data: str | Path = "digits", name: str | None = None, layout: Layout | None = None) -> Dataset:
    """Read what images a dataset has; no image is opened.

    Parameters
    ----------
    data
        A built-in name, a folder, or a manifest: see `list_datasets`. A folder that is called as one that is
        built in: `./digits`.
    name
        A name for files and tables; default: the folder's or manifest's own.
    layout
        How it is to be understood; default: as it says itself.

    Raises
    ------
    DataError, OptionError
        Nothing given or nothing there, no images, fewer than two classes, or a malformed manifest (with the line).
    """
    given, layout = str(data), layout or Layout()
    if not given:
        raise OptionError("--data is empty. Give a folder, a manifest or a built-in name; the current folder is '.'")
    source = source_of(given)
    if source is None:
        raise _unknown(given)
    try:
        return _read(source, given, name, layout)
    except DataError as error:
        raise _with_tables(error, source, given) from None


def _read(source: Source, given: str, name: str | None, layout: Layout) -> Dataset:
    if source is not ARCHIVE:  # which finds out
        layout.check_has_table(given, source not in (BUILT_IN, FOLDER, BUCKET))
    listed = _listing(source, given, layout)
    listed = listed._replace(rows=Rows.of(listed.rows))
    if source in (FOLDER, ARCHIVE, BUCKET):
        listed, layout = _tested_on_val(listed, layout)
    found = dataset_of(name, listed, layout)
    if found.unlabelled and not layout.unlabelled and source is not METADATA and _table_in(given):
        raise DataError(found.unlabelled)
    return found


def _with_tables(error: DataError, source: Source, given: str) -> DataError:
    """Return an error that names the tables which lie there, where one may be what was meant."""
    if source is ARCHIVE and (tables := ARCHIVE.tables(given)):
        how = f"--data {Path(tables[0]).name} --images {given}"
        return DataError(
            f"{error} It holds {some(tables)}: take a table that lists the images out of it, and give {how}"
        )
    if source is not METADATA and (table := _table_in(given)):
        return DataError(f"{error} There are tables in it; if one lists the images, give it: --data {table}")
    return error


def _unknown(given: str) -> DataError:
    """Return that nothing is called so which a dataset can be."""
    if Path(given).expanduser().exists():
        words = _file_words(given)
        return DataError(f"'{given}' is a file, but not a manifest ({', '.join(SUFFIXES)}). {words}")
    return DataError(
        f"No folder or manifest at '{given}', and no built-in dataset of that name ({', '.join(BUILT_IN.names)})."
        f"{folder_meant(Path(given).expanduser())} See: tlcache datasets"
    )


def _listing(source: Source, given: str, layout: Layout) -> Listing:
    place = str(layout.images or "")
    if source is not MANIFEST or not (images := _archived(place)):
        return source.find(given, layout)
    return MANIFEST.among(given, layout, images, ARCHIVE.members(place) if ARCHIVE.takes(place) else ())


def _archived(place: str) -> Images | None:
    """Return the images of an archive or a store, which a user names by its path and a feature file by its `source`."""
    found = (each.images(place) if each.takes(place) else each.reopen(place) for each in (ARCHIVE, PARQUET, BUCKET))
    return next(filter(None, found), None) if place else None


def _file_words(data: str) -> str:
    what, remedy = OTHER_DATA.get(Path(data).suffix.lower(), ("", ""))
    return f"Such files are {what}. {remedy}" if what else "See: tlcache datasets"


def _table_in(data: str) -> Path | None:
    """Return the first table that lies in a folder."""
    with suppress(OSError):
        found = (path for path in sorted(Path(data).expanduser().iterdir()) if path.suffix.lower() in SUFFIXES)
        return next(found, None)
    return None


def names_of(data: str) -> tuple[str, ...]:
    """Return what a dataset may be called in files and tables when no name was given, the likeliest first."""
    path = Path(data)
    own = [slug(source.name(data)) for source in (ARCHIVE, PARQUET) if source.takes(data)]
    return data, *own, slug(path.resolve().name), slug(path.stem)


def dataset_of(name: str | None, found: Listing, layout: Layout) -> Dataset:
    """Return what a source has found as a dataset; `found.warnings` begin with why where no row has a label.

    Raises
    ------
    DataError
        Fewer than two classes, or nothing to train on.
    """
    rows, passed_over = Rows.of(found.rows), Counter(found.passed_over)
    if layout.ignore:
        patterns = layout.patterns(rows, lambda row: (*row.path.split("/"), row.label))
        rows = rows.picked(np.flatnonzero([not pattern for pattern in patterns]))
        passed_over += Counter(f"{pattern} file" for pattern in patterns if pattern)
    idle = layout.unmatched(passed_over)
    nothing = (f"Nothing in '{found.data}' is called as --ignore says: {some(idle)}.",) if idle else ()
    if layout.unlabelled:
        rows = rows.renamed(labels=dict.fromkeys(rows.labels.names, ""), splits=dict.fromkeys(SPLITS, "train"))
    rows, doubled = composed(layout.applied(rows, found.images.source))
    rows, on_task = read_labels(rows, layout.task)
    rows = rows.ordered(SPLITS)
    classes = _classes(rows, found, layout.task)
    asked = f"The images of '{found.data}' were taken without labels."
    why = "" if classes else asked if layout.unlabelled else found.warnings[0]
    if why:
        layout.check_unlabelled(why)
    index = {label: number for number, label in enumerate(classes)}
    splits = tuple(rows.splits)
    task = layout.task or CLASSIFY
    targets = Targets.of(task, classes)
    notes = notes_on(targets.names if targets else classes, layout.task)
    return Dataset(
        slug(name or found.name),
        found.images,
        rows.paths,
        found.data,
        rows.labels.numbered(index, -1),
        classes,
        splits,
        Texts.of(rows.groups),
        layout.shares if classes else dict.fromkeys(SPLITS[1:], 0.0),
        passed_over,
        (*found.warnings, *nothing, *doubled, *on_task, *_on_val(splits, layout), *notes),
        why,
        rows.cells if classes else {},
        targets,
    )


def _on_val(splits: Sequence[str], layout: Layout) -> list[str]:
    """Return a note on a val without a test, which in most tutorials is what results are given on."""
    given = Counter(splits)
    if not given["val"] or given["test"] or layout.test is not None or layout.split_folders or layout.ignore:
        return []
    return [
        f"There is a val ({given['val']:,}) and no test, which is drawn from train. If results are to be given on that "
        "val, as in many tutorials, say --test val, and a val is drawn from train."
    ]


def _tested_on_val(found: Listing, layout: Layout) -> tuple[Listing, Layout]:
    """Return what makes a folder called val the test where there is none, as in most tutorials, and says so.

    Where the user says what is which, or that a test is to be ignored, it stays as it is.
    """
    given = Counter(Rows.of(found.rows).splits.counts())
    said = layout.val is not None or layout.test is not None or layout.split_folders
    if not given["val"] or given["test"] or said or "test" in split_names(listing(layout.ignore)).values():
        return found, layout
    note = (
        f"There is a val ({given['val']:,}) and no test: as in most tutorials it is the test, and a val is drawn from "
        f"train. To keep it as val, and draw a test: --test {FRACTION}."
    )
    return found._replace(warnings=(*found.warnings, note)), replace(layout, test="val")


def _classes(rows: Rows, found: Listing, task: str | None) -> tuple[str, ...]:
    """Return the names of the classes; none where no row has a label. Raises DataError for one alone."""
    classes = tuple(sorted(rows.labels.names))
    if classes == ("",):
        return ()
    if len(classes) == 1 and task not in (None, CLASSIFY):
        raise DataError(f"All images of '{found.data}' have the label '{classes[0]}'; there is nothing to learn.")
    if len(classes) < 2:
        has = f"one class, '{classes[0]}'" if classes else "no images"
        raise DataError(
            f"'{found.data}' has {has}; telling classes apart needs 2 classes or more. To embed images "
            "without labels: tlcache extract --unlabelled."
        )
    if rows.splits[0] != "train":
        raise DataError(
            f"'{found.data}' has no images to train on. Say which are: --split-folders {rows.splits[0]}=train."
        )
    return classes
