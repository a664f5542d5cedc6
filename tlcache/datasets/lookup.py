"""Where the images of a list are: below one folder, by the paths that people write."""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tlcache.datasets.labels import is_missing
from tlcache.datasets.layout import Layout
from tlcache.datasets.table import is_image_name
from tlcache.datasets.tree import scan
from tlcache.errors import DataError

__all__ = ["find_members", "folder_of", "locate"]

_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_NOT_PLAIN = re.compile(r"(^|/)\.{0,2}(/|$)")  # absolute, or with . or .. or nothing between two slashes


def locate(
    given: Sequence[str], where: Callable[[int], str], root: Path, listed_in: Path, layout: Layout
) -> tuple[list[str], tuple[str, ...]]:
    r"""Return the paths of listed images below a folder, and notes for the user.

    A path may be absolute, have `\` for `/`, lack its ending, or differ in case or in how accents are written, where
    one image only is there of that name. Where no image is where the list says, leading folders that all paths have
    are left out, or a folder is sought that has them. What is not found is returned as it was given: whoever reads it
    finds out.

    Parameters
    ----------
    given
        (N,) as the list has them, N > 0.
    where
        Number of a path -> its place in the list, for messages: "list.csv:7".
    root
        The folder that all images are below, and that the paths start from;
    listed_in
        or else from this one, the list's own.
    layout
        Says what is passed over.

    Raises
    ------
    DataError
        One is an address or leads out of the folder, or not a single image is there.
    """
    folder = _Folder(root, listed_in)
    found, bare, outside = list[str | None](), list[str](), list[int]()
    for number, path in enumerate(given):
        readings = _readings(path, where(number), folder)
        found.append(next(filter(None, map(folder.find, readings)), None))
        bare.append(readings[0] if readings else path.lstrip("/"))
        if not readings:
            outside.append(number)
    paths = [there or path.replace("\\", "/") for there, path in zip(found, bare, strict=True)]
    if not any(found):
        paths = _shortened(paths, folder) or _sought(paths, where(0), folder, layout)
    elif outside:
        raise _leads_out(given[outside[0]], where(outside[0]), folder)
    other = [number for number, path in enumerate(paths) if path != bare[number]]
    if not other:
        return paths, ()
    return paths, (
        f"Of the list's paths, {len(other):,} are read like this: '{given[other[0]]}' is '{paths[other[0]]}'.",
    )


def find_members(given: Sequence[str], names: Collection[str]) -> tuple[Sequence[str], tuple[str, ...]]:
    """Return the members of an archive that paths mean, and a note where they are not called so.

    Where no path is a member, each is the one image of its name, with or without an ending, if that is so for all.
    """
    if not names or not {*names}.isdisjoint(given):
        return given, ()
    by_name = defaultdict[str, set[str]](set)
    for name in filter(is_image_name, names):
        for own in (_name(name), _name(name).rpartition(".")[0]):
            by_name[own].add(name)
    found = [by_name.get(_name(path), set()) for path in given]
    if any(len(each) != 1 for each in found):
        return given, ()
    paths = [next(iter(each)) for each in found]
    return paths, (f"The list's paths are read like this: '{given[0]}' is '{paths[0]}'.",)


def folder_of(given: Sequence[str], listed_in: Path) -> Path:
    """Return the folder that listed images are below: the list's own, or for absolute paths that which they share.

    Absolute paths are taken as such if all are, all are of images by their names, and the first one is there.
    """
    absolute = given and all(path.startswith("/") and is_image_name(path) for path in given)
    if not absolute or not Path(given[0]).is_file():
        return listed_in
    shared = Path(os.path.commonpath(map(os.path.dirname, given)))
    return listed_in if shared.is_relative_to(listed_in.resolve()) else shared


class _Folder:
    """The files below a folder; every folder is listed once, when it is first asked for."""

    def __init__(self, root: Path, listed_in: Path) -> None:
        self.root = str(root.resolve())
        self._starts = tuple(dict.fromkeys((self.root, str(listed_in.resolve()))))
        self._tops = tuple(dict.fromkeys(f"{top}/" for top in (self.root, str(root.absolute()))))
        self._names: dict[str, set[str]] = {}
        self._stems: dict[str, Mapping[str, list[str]]] = {}

    def inside(self, path: str) -> list[str]:
        """Return what a path may be relative to this folder; nothing where it leads out of it."""
        if len(self._starts) == len(self._tops) == 1 and not _NOT_PLAIN.search(path):  # as most are, and many
            return [path]
        places = [os.path.normpath(os.path.join(start, path)) for start in self._starts]  # noqa: PTH118  a Path is slow
        return [place[len(top) :] for place in places for top in self._tops if place.startswith(top)]

    def find(self, path: str) -> str | None:
        """Return the path if it is a file, or that of the one image whose name is the same but for ending and case."""
        folder, slash, name = path.rpartition("/")
        if name in self._listed(folder):
            return path
        if not self._names[folder]:
            return None
        if folder not in self._stems:
            self._stems[folder] = _by_stem(self._names[folder])
        alike = (each for each in self._stems[folder].get(_stem(name), ()) if is_image_name(each))
        several = [each for each in alike if not is_image_name(name) or _plain(each) == _plain(name)]
        return f"{folder}{slash}{several[0]}" if len(several) == 1 else None

    def _listed(self, folder: str) -> set[str]:
        if folder not in self._names:
            try:
                with os.scandir(f"{self.root}/{folder}") as entries:
                    self._names[folder] = {entry.name for entry in entries if not entry.is_dir()}
            except OSError:
                self._names[folder] = set()
        return self._names[folder]


def _files_below(root: str, layout: Layout) -> list[str]:
    """Return the paths of what may be images below a folder; nothing where some of it cannot be read."""
    with suppress(DataError):
        return list(scan(Path(root), layout).paths())
    return []


def _readings(path: str, where: str, folder: _Folder) -> list[str]:
    """Return what a path may mean, as it is written first; nothing where it is absolute and of another machine.

    Raises DataError where it cannot mean an image in the folder.
    """
    if is_missing(path):
        raise DataError(f"{where}: the row has no path. Remove it, or say which image it is of.")
    if _ADDRESS.match(path):
        raise DataError(
            f"{where}: '{path}' is an address; images are not downloaded. Fetch them, and list where they are on disk."
        )
    inside = folder.inside(path)
    if "\\" in path:
        inside += folder.inside(path.replace("\\", "/"))
    if not inside and (not path.startswith("/") or os.path.lexists(path)):  # noqa: PTH110  a Path is slow
        raise _leads_out(path, where, folder)
    return inside


def _leads_out(path: str, where: str, folder: _Folder) -> DataError:
    return DataError(
        f"{where}: '{path}' leads out of '{folder.root}'. Give the folder that has all the images: --images DIR."
    )


def _shortened(paths: Sequence[str], folder: _Folder) -> list[str]:
    """Return the paths without leading folders that all have, where most images are there then; else nothing.

    One folder at least is the same as before, that of the images itself if need be: `test/1.png` is not `train/1.png`.
    """
    shared = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    for parts, name in enumerate(filter(None, shared.split("/")), 1):
        rest = [path.split("/", parts)[-1] for path in paths]
        found = [folder.find(path) for path in rest]
        same = _name(folder.root) == name or all("/" in path for path in rest)
        if same and 2 * sum(map(bool, found)) > len(rest):
            return [there or path for there, path in zip(found, rest, strict=True)]
    return []


def _sought(paths: Sequence[str], where: str, folder: _Folder, layout: Layout) -> list[str]:
    """Return where images are that are not where they were listed: all below one folder, or each in one place only."""
    files = _by_stem(_files_below(folder.root, layout))
    places = [_places(path, files) for path in paths]
    counts = Counter(before for each in places for before in each)
    common = sorted(before for before, count in counts.items() if 2 * count > len(paths))
    if len(common) == 1:
        return [each.get(common[0], common[0] + path) for path, each in zip(paths, places, strict=True)]
    if not common and 2 * sum(map(bool, places)) > len(paths) and all(len(each) < 2 for each in places):
        return [next(iter(each.values()), path) for path, each in zip(paths, places, strict=True)]
    names = (files.get(_stem(_name(path)), []) for path in paths[:1000])
    images = (file for each in files.values() for file in each if is_image_name(file))
    near = common or next(filter(None, names), []) or list(itertools.islice(images, 1))
    there = f" There is: {', '.join(repr(each) for each in near[:5])}." if near else ""
    raise DataError(
        f"{where}: no listed image is where the list says. Looked for '{folder.root}/{paths[0]}'.{there} "
        "Give the folder that the paths start from, --images DIR, or write them as they are there."
    )


def _places(path: str, files: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the files that a path may mean, by the folder that they are below, where that is one file only."""
    if not files:
        return {}
    found = defaultdict[str, list[str]](list)
    plain, depth = _plain(path), path.count("/") + 1
    for file in files.get(_stem(_name(path)), ()):
        above, last = "/".join(file.split("/")[:-depth]), "/".join(file.split("/")[-depth:])
        if plain in (_plain(last), _stem(last)):
            found[above and f"{above}/"].append(file)
    return {before: each[0] for before, each in found.items() if len(each) == 1}


def _by_stem(files: Iterable[str]) -> Mapping[str, list[str]]:
    found = defaultdict[str, list[str]](list)
    for file in files:
        found[_stem(_name(file))].append(file)
    return found


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _stem(name: str) -> str:
    """Return a plain name, without its ending if it is an image's."""
    return _plain(name.rpartition(".")[0] if is_image_name(name) else name)


def _plain(name: str) -> str:
    """Return a name in small letters, its accents in one form."""
    return unicodedata.normalize("NFC", name).casefold()
