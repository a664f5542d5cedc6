"""What lies in a folder: images, folders, and what is neither and is passed over, each kind counted."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tlcache.datasets.layout import Layout
from tlcache.errors import DataError

__all__ = ["OTHER_DATA", "Place", "Tree", "describe_data", "scan", "tree_of"]

OTHER_DATA = {  # what people give for images: ending -> what it is, and what to do with it
    **dict.fromkeys((".npy", ".npz", ".mat"), ("arrays", "Write each image as a PNG, 16 bits deep if need be.")),
    **dict.fromkeys((".nii", ".mha", ".mhd", ".nrrd"), ("volumes", "Write each slice as a PNG or TIFF.")),
    **dict.fromkeys((".zip", ".tar"), ("archives", "Give one by itself, as in --data photos.zip, or unpack them.")),
    **dict.fromkeys(
        (".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"),
        ("archives", "Unpack them and give the folder; .zip, and .tar without compression, are read as they are."),
    ),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm"), ("videos", "Write their frames as images.")),
    **dict.fromkeys(
        (".h5", ".hdf5", ".tfrecord", ".lmdb", ".pkl", ".pickle"),
        ("containers", "Write each image in it as a file."),
    ),
    ".parquet": (
        "tables with images",
        "Give the folder of those of one data set, or a pattern: --data 'photos/*.parquet'.",
    ),
    ".arrow": (
        "data sets as Hugging Face caches them",
        "Write them as Parquet, which is read as it is: datasets.load_from_disk(FOLDER)['train'].to_parquet(FILE).",
    ),
}
_TEXTS = ".csv .doc .docx .htm .html .ini .ipynb .js .json .jsonl .lnk .log .md .pdf .py .rtf .tsv .txt .url .xls .xlsx"
_BINARIES = ".ckpt .crdownload .db .lock .onnx .part .pt .pth .safetensors .sqlite .tmp .xml .yaml .yml"
_NO_IMAGES = frozenset((*OTHER_DATA, *_TEXTS.split(), *_BINARIES.split()))
_NO_DATA = frozenset(  # folders that systems, NAS boxes and viewers make
    (
        *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
        *("__macosx", "network trash folder", "temporary items", "__pycache__"),
        *("$recycle.bin", "recycler", "system volume information", "found.000", "lost+found"),
        *("thumbnails", "thumbs", "_thumbs"),
    )
)
_THUMBNAILS = re.compile(r"_?(thumb(nail)?s?|tn|small)", re.IGNORECASE)  # which may be classes, too


@dataclass(eq=False)
class Tree:
    """A folder.

    Parameters
    ----------
    images
        Names of the files in it that may be images.
    folders
        The folders in it that may hold any, by name.
    passed_over
        What else is in it, by kind.
    dangling
        Names of the links in it to folders that are not there.
    """

    images: list[str] = field(default_factory=list)
    folders: dict[str, Tree] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)
    dangling: list[str] = field(default_factory=list)

    def walk(self, path: str = "") -> Iterator[tuple[str, Tree]]:
        """Yield this folder, called `path`, and all below it with their paths; none comes twice, by whatever links."""
        seen, left = set[int](), [(path, self)]
        while left:
            here, tree = left.pop()
            if id(tree) not in seen:
                seen.add(id(tree))
                yield here, tree
                left += [(f"{here}/{name}".lstrip("/"), each) for name, each in reversed(tree.folders.items())]

    def has_images(self) -> bool:
        """Return whether any lies in it or below."""
        return any(tree.images for _, tree in self.walk())

    def paths(self) -> Iterator[str]:
        """Yield the paths of the images in it and below."""
        for path, tree in self.walk():
            yield from (f"{path}/{name}" if path else name for name in tree.images)

    def everything(self) -> Counter[str]:
        """Return what is passed over in it and below."""
        return sum((tree.passed_over for _, tree in self.walk()), Counter[str]())

    def is_output(self) -> bool:
        """Return whether it holds what tlcache writes (feature files, or records of runs) and nothing else."""
        found = self.everything()
        ours = {".h5", ".json", ".npz", ".safetensors", ".csv", ".lock", "hidden file", "hidden folder"}
        return bool(found.keys() & {".h5", ".safetensors"}) and found.keys() <= ours and not self.has_images()


def _without_thumbnails(top: Tree) -> Tree:
    """Leave out folders of smaller copies, by their names and those of the images in them, which lie above as well."""
    for _, tree in top.walk():
        large = {_stem(name) for name in tree.images}
        for name, inner in list(tree.folders.items()):
            copies = {_stem(each) for each in inner.images}
            if _THUMBNAILS.fullmatch(name) and copies and copies <= large and not inner.folders:
                del tree.folders[name]
                tree.passed_over[f"{name} folder"] += 1
    return top


def _stem(name: str) -> str:
    """Return the name of an image without its ending and without what says that it is a small one."""
    return re.sub(r"^(thumb|tn)[-_]|[-_.](thumb|tn|small)$", "", os.path.splitext(name.lower())[0])  # noqa: PTH122  fast


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


def scan(root: Path, layout: Layout) -> Tree:
    """Return what lies in a folder, links followed; no file is opened.

    Raises
    ------
    DataError
        A folder cannot be read.
    """
    place = _place(root.stat())
    top = Tree()
    known = {place: top}  # links may lead to one folder several times
    left: list[tuple[str, Tree, _Chain]] = [(str(root), top, (place, None))]
    while left:
        path, tree, chain = left.pop()
        for entry in _entries(path):
            if not _is(entry.is_dir):
                _add_file(tree, entry, layout)
            elif kind := _why_not(entry.name, layout):
                tree.passed_over[kind] += 1
            elif (place := _place(entry.stat())) in known and entry.is_symlink() and _is_above(place, chain):
                tree.passed_over["circular link"] += 1
            else:
                if place not in known:
                    known[place] = Tree()
                    left.append((entry.path, known[place], (place, chain)))
                tree.folders[entry.name] = known[place]
    return _without_thumbnails(top)


def tree_of(paths: Collection[str], layout: Layout) -> Tree:
    """Return what lies in a container whose members have these paths, folders ending with `/`, as `scan` does."""
    trees: dict[str, Tree | None] = {"": Tree()}  # folder -> what lies in it, None where it is passed over

    def folder(path: str) -> Tree | None:
        if path not in trees:
            above, _, name = path.rpartition("/")
            trees[path] = parent = folder(above)
            if parent is not None and (kind := _why_not(name, layout)):
                parent.passed_over[kind] += 1
                trees[path] = None
            elif parent is not None:
                parent.folders[name] = trees[path] = Tree()
        return trees[path]

    for path in sorted(paths):
        above, _, name = path.rpartition("/")
        tree = folder(above)
        if tree is None or not name:
            continue
        if kind := _no_image(name, layout, lambda other: f"{above}/{other}".lstrip("/") in paths):  # noqa: B023
            tree.passed_over[kind] += 1
        else:
            tree.images.append(name)
    return _without_thumbnails(folder("") or Tree())


_Place = tuple[int, int]
_Chain = tuple[_Place, "_Chain | None"]


def _place(status: os.stat_result) -> _Place:
    return status.st_dev, status.st_ino


def _is_above(place: _Place, chain: _Chain | None) -> bool:
    while chain:
        if chain[0] == place:
            return True
        chain = chain[1]
    return False


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"Cannot read the folder '{path}': {error.strerror}. Mend that or move it away.") from None


def _why_not(name: str, layout: Layout) -> str:
    """Return what a folder is called among what is passed over; nothing where images may lie in it."""
    if name.startswith("."):
        return "hidden folder"
    name = layout.ignored_by(name) or (name if name.lower() in _NO_DATA else "")
    return f"{name} folder" if name else ""


def _no_image(name: str, layout: Layout, exists: Callable[[str], bool]) -> str:
    """Return what a file is called among what is passed over, by its name; nothing where it may be an image.

    `exists` says whether a file of a name lies beside it.
    """
    ending = os.path.splitext(name.lower())[1]  # noqa: PTH122  fast
    if name.startswith("."):
        return "hidden file"
    if ":" in name and (name.lower().endswith(":zone.identifier") or exists(name.rpartition(":")[0])):
        return "attribute stream"  # of the file of the name before the colon, as copies from NTFS have them
    if layout.ignore and (pattern := layout.ignored_by(name)):
        return f"{pattern} file"
    return ending if ending in _NO_IMAGES else ""


def _is(kind: Callable[[], bool]) -> bool:
    """Return whether an entry is of a kind; a link that leads to itself is of none."""
    try:
        return kind()
    except OSError:
        return False


def _add_file(tree: Tree, entry: os.DirEntry[str], layout: Layout) -> None:
    folder = entry.path[: -len(entry.name)]
    if kind := _no_image(entry.name, layout, lambda name: os.path.exists(folder + name)):  # noqa: PTH110
        tree.passed_over[kind] += 1
    elif _is(entry.is_file) or (entry.is_symlink() and (Path(entry.name).suffix or Path(entry.path).readlink().suffix)):
        tree.images.append(entry.name)  # a link to an image that is gone is told when it is read
    elif entry.is_symlink():
        tree.passed_over["dangling link"] += 1
        tree.dangling.append(entry.name)
    else:
        tree.passed_over["pipe"] += 1


def describe_data(endings: Counter[str]) -> str:
    """Return what files of these endings are and what to do with them; nothing where none is known.

    >>> describe_data(Counter({".npy": 12, ".txt": 3}))
    'It holds 12 .npy files, which are arrays. Write each image as a PNG, 16 bits deep if need be.'
    """
    ending = next((ending for ending, _ in endings.most_common() if ending in OTHER_DATA), "")
    if not ending:
        return ""
    what, remedy = OTHER_DATA[ending]
    return f"It holds {endings[ending]:,} {ending} files, which are {what}. {remedy}"
