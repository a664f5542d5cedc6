"""Sources of labelled images: a folder, a manifest, or a built-in name -> paths, labels, splits, groups."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlcache.builtin import BUILT_IN, Row
from tlcache.errors import DataError
from tlcache.keys import slug
from tlcache.splits import SPLITS

__all__ = ["FORMS", "Dataset", "Form", "load_dataset", "names_of"]

_SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_CLUTTER = {"thumbs.db", "desktop.ini"}
_SIDECARS = {".csv", ".json", ".mat", ".md", ".npy", ".tsv", ".txt", ".xml", ".yaml", ".yml"}


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
        return _dataset(name or path.resolve().name, path, *_walk(path))
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
        rows = list(_read_manifest(path))
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


def _walk(root: Path) -> tuple[list[Row], int, tuple[str, ...]]:
    """Read a folder of classes, or one of splits above classes."""
    folders = _folders(root)
    parts = {folder: _SPLIT_FOLDERS[folder.name.lower()] for folder in folders if folder.name.lower() in _SPLIT_FOLDERS}
    if "train" not in parts.values():
        parts = {root: "train"}
    elif len(parts) < len(folders):
        odd = [folder.name for folder in folders if folder not in parts]
        raise DataError(f"'{root}' has a train folder and others beside it that are no split: {', '.join(odd[:5])}.")
    rows: list[Row] = []
    ignored, empty = 0, []
    for top in {root, *parts}:
        ignored += sum(not entry.is_dir() for entry in _entries(top))
    for top, split in parts.items():
        for folder in _folders(top):
            images, other = _images(root, folder)
            ignored += other
            rows += [(image, folder.name, split, "") for image in images]
            if not images:
                empty.append(folder.relative_to(root).as_posix())
    return rows, ignored, tuple(empty)


def _folders(folder: Path) -> list[Path]:
    return [folder / entry.name for entry in _entries(folder) if entry.is_dir() and not entry.name.startswith(".")]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, by name; raises DataError when it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"Cannot read the folder '{folder}': {error.strerror}. Mend that or move it away.") from None


def _images(root: Path, folder: Path) -> tuple[list[str], int]:
    """Return the files below a class folder, relative to `root`, and how many were passed over; none comes twice."""
    images, ignored, seen, left = list[str](), 0, set[Path](), [folder]
    while left:
        here = left.pop()
        if (real := here.resolve()) in seen:
            continue
        seen.add(real)
        prefix = here.relative_to(root).as_posix()
        for entry in reversed(_entries(here)):
            if entry.is_dir():
                if not entry.name.startswith("."):
                    left.append(here / entry.name)
            elif _is_image(entry):
                images.append(f"{prefix}/{entry.name}")
            else:
                ignored += 1
    return images, ignored


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Return whether a file may be an image; no pipe or socket is, and a dangling link is, to be reported."""
    name = entry.name.lower()
    clutter = name.startswith(".") or name in _CLUTTER or os.path.splitext(name)[1] in _SIDECARS  # noqa: PTH122  fast
    return not clutter and (entry.is_file() or entry.is_symlink())


def _read_manifest(path: Path) -> Iterator[Row]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{line}: not UTF-8 (byte {error.object[error.start]:#04x}). Save it as UTF-8."
        ) from None
    header = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in header else ",")
    columns = [column.strip().lower() for column in next(reader, [])]
    missing = [column for column in ("path", "label") if column not in columns]
    if missing:
        raise DataError(f"{path}:1: no column {' and '.join(missing)}; found {', '.join(columns) or 'nothing'}.")
    first: dict[str, int] = {}
    for cells in reader:
        line = reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            raise DataError(f"{path}:{line}: {len(cells)} cells where the header has {len(columns)} columns.")
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
        yield _manifest_row(row, f"{path}:{line}")
        if row["path"] in first:
            raise DataError(f"{path}:{line}: '{row['path']}' is listed already, on line {first[row['path']]}.")
        first[row["path"]] = line


def _manifest_row(row: dict[str, str], where: str) -> Row:
    given = row.get("split", "").lower() or "train"
    if given not in _SPLIT_FOLDERS:
        raise DataError(f"{where}: unknown split '{row['split']}'. Known: {', '.join(SPLITS)}.")
    if not row["label"]:
        raise DataError(f"{where}: '{row['path']}' has no label.")
    path = os.path.normpath(row["path"]).replace(os.sep, "/")
    if not row["path"] or path.startswith(("../", "/")) or path in (".", ".."):
        raise DataError(f"{where}: '{row['path']}' leads out of the manifest's folder.")
    return path, row["label"], _SPLIT_FOLDERS[given], row.get("group", "")
