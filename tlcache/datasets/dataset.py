"""Sources of labelled images: a folder, a manifest, or a built-in name -> paths, labels, splits, groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlcache.datasets.builtin import BUILT_IN
from tlcache.datasets.folder import walk_folder
from tlcache.datasets.manifest import read_manifest
from tlcache.datasets.splits import SPLITS, Row
from tlcache.errors import DataError
from tlcache.keys import slug

__all__ = ["FORMS", "Dataset", "Form", "list_datasets", "load_dataset", "names_of"]


@dataclass(frozen=True)
class Form:
    """One way to give a dataset: its name, an example of `--data`, and what it looks like."""

    name: str
    example: str
    looks_like: str


FORMS = (
    Form("built-in", "--data digits", "scikit-learn's 1,797 handwritten digits, 10 classes; needs no download"),
    Form(
        "built-in",
        "--data flowers102",
        "Oxford 102 Flowers with its official splits, downloaded once by torchvision (345 MB)",
    ),
    Form("folder of classes", "--data photos/", "photos/cat/1.jpg, photos/dog/7.png: a folder for every class"),
    Form(
        "folder of splits",
        "--data photos/",
        "photos/train/cat/1.jpg, photos/test/dog/7.png: train, val and test above the classes (val may be missing)",
    ),
    Form(
        "manifest",
        "--data photos.csv",
        "path,label[,split][,group] with a header, comma or tab; paths relative to the manifest's own folder",
    ),
)


def list_datasets() -> list[Form]:
    """Return the forms in which a dataset can be given, with an example each.

    Examples
    --------
    >>> {form.name for form in list_datasets()} >= {"built-in", "manifest"}
    True
    """
    return list(FORMS)


@dataclass(frozen=True)
class Dataset:
    """Labelled images on disk.

    Parameters
    ----------
    name
        Used for file names and tables.
    root
        Folder that `paths` are relative to.
    paths
        (N,) relative paths with `/`, sorted by split and path.
    labels
        (N,) int64, indices into `classes`.
    classes
        Names of the classes, sorted.
    splits
        (N,) `train`, `val` or `test` as given; all `train` when nothing is given.
    groups
        (N,) names of things that must not be torn apart by a split (a patient, a video), or empty strings.
    ignored
        Files that are no images by their name: hidden ones, thumbnails' caches, text beside the images.
    empty
        Class folders without a single image.
    """

    name: str
    root: Path
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    groups: tuple[str, ...]
    ignored: int = 0
    empty: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)


def load_dataset(data: str | Path = "digits", name: str | None = None) -> Dataset:
    """Read what images a dataset has; no image is opened.

    Parameters
    ----------
    data
        A built-in name, a folder, or a CSV or TSV manifest: see `FORMS`. A folder called as a built-in: `./digits`.
    name
        A name for files and tables; default: the folder's or manifest's own.

    Raises
    ------
    DataError
        Nothing there, no images, fewer than two classes, or a malformed manifest (with the line number).
    """
    if str(data) in BUILT_IN:
        return _dataset(name or str(data), *BUILT_IN[str(data)]())
    if not str(data):
        raise DataError("--data is empty. Give a folder, a manifest or a built-in name; the current folder is '.'")
    path = Path(data).expanduser()
    if path.is_dir():
        return _dataset(name or path.resolve().name, path, *walk_folder(path))
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
        rows = list(read_manifest(path))
        if not rows:
            raise DataError(f"'{path}' has a header and no rows.")
        return _dataset(name or path.stem, path.parent, rows)
    if path.exists():
        raise DataError(f"'{data}' is a file, but not a .csv or .tsv manifest. See: tlcache datasets")
    raise DataError(
        f"No folder or manifest at '{data}', and no built-in dataset of that name ({', '.join(BUILT_IN)}). "
        "See: tlcache datasets"
    )


def names_of(data: str) -> tuple[str, ...]:
    """Return what a dataset may be called in files and tables when no name was given, the likeliest first."""
    return data, slug(Path(data).name), slug(Path(data).stem)


def _dataset(name: str, root: Path, rows: list[Row], ignored: int = 0, empty: tuple[str, ...] = ()) -> Dataset:
    root = root.resolve()
    if not rows:
        raise DataError(
            f"No class folders with images in '{root}'. Expected one for every class, as in {root.name}/cat/1.jpg."
        )
    rows = sorted(rows, key=lambda row: (SPLITS.index(row[2]), row[0]))
    classes = tuple(sorted({row[1] for row in rows}))
    if len(classes) < 2:
        raise DataError(f"'{root}' has one class, '{classes[0]}'; telling classes apart needs 2 classes or more.")
    index = {label: number for number, label in enumerate(classes)}
    paths, labels, splits, groups = zip(*rows, strict=True)
    numbers = np.array([index[label] for label in labels], np.int64)
    return Dataset(slug(name), root, paths, numbers, classes, splits, groups, ignored, empty)
