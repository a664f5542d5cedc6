"""Several containers as one: which files a pattern means, and the images of all, by names that are theirs alone."""

from __future__ import annotations

import errno
import glob
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from pathlib import Path

from tlcache.datasets.container import Container, contents_of, read_member
from tlcache.datasets.layout import Layout
from tlcache.datasets.places import images_in, stem_of, there
from tlcache.datasets.remote import LISTED, is_url, list_objects
from tlcache.datasets.source import Images
from tlcache.errors import DataError, UnreachableError
from tlcache.keys import some

__all__ = ["called", "is_pattern", "merged", "name_of", "open_shards", "pattern_of", "shards_of", "splits_of"]

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def is_pattern(given: str) -> bool:
    """Return whether it may mean several files: `*`, `?`, `[0-9]` or `{000..099}`; a file of that name is itself."""
    return (glob.has_magic(given) or bool(_RANGE.search(given))) and (is_url(given) or not there(given))


def pattern_of(data: str, ending: str) -> str:
    """Return the absolute path or pattern that `--data` means; of a folder of such files alone, that of these."""
    if is_url(data):
        return data
    path = Path(data).expanduser()
    with suppress(OSError), os.scandir(path) as entries:
        seen = [each for each in entries if not each.name.startswith(".")]
        if any(each.name.lower().endswith(ending) for each in seen) and not any(each.is_dir() for each in seen):
            path = Path(glob.escape(str(path))) / f"*{ending}"
    return os.path.abspath(path)  # noqa: PTH100  links stay: what they lead to may have no ending


def shards_of(given: str) -> list[str]:
    """Return the files that a pattern means, sorted; a name that is no pattern is itself.

    Raises
    ------
    DataError
        There is none, or one of those of a range is not there.
    """
    if not is_pattern(given):
        return [given]
    found = [_matching(each) for each in _numbered(given)]
    if missing := [each for each, paths in zip(_numbered(given), found, strict=True) if not paths]:
        raise DataError(f"'{given}': {len(missing):,} of {len(found):,} are not there: {some(missing)}.")
    return sorted({*chain.from_iterable(found)})


def _matching(pattern: str) -> list[str]:
    if is_url(pattern):
        return _matching_far(pattern)
    if glob.has_magic(pattern):
        return glob.glob(pattern)  # noqa: PTH207  the folder may be a pattern, too
    return [pattern] if there(pattern) else []


def _matching_far(pattern: str) -> list[str]:
    """Return the objects of a pattern; without one, whether it is there is found out when it is read."""
    if not glob.has_magic(pattern):
        return [pattern]
    if not pattern.startswith(LISTED):
        raise DataError(f"'{pattern}': such an address cannot be searched. Give a range, as in {{000..099}}.tar.")
    above = posixpath.dirname(pattern[: min(map(pattern.find, filter(pattern.__contains__, "*?[")))])
    names = (f"{above}/{name}" for name in list_objects(above))
    return [name for name in names if name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)]


def _numbered(pattern: str) -> Iterator[str]:
    """Yield what a range stands for.

    >>> list(_numbered("{a}-{08..10}.tar"))
    ['{a}-08.tar', '{a}-09.tar', '{a}-10.tar']
    """
    if not (found := _RANGE.search(pattern)):
        yield pattern
        return
    for number in range(int(found[1]), int(found[2]) + 1):
        yield from _numbered(f"{pattern[: found.start()]}{number:0{len(found[1])}}{pattern[found.end() :]}")


def called(paths: list[str]) -> dict[str, str]:
    """Return what to call each of several files: its path below the folder that all are in, without the ending."""
    above = [posixpath.dirname(path) for path in paths]
    top = above[0] if len({*above}) == 1 else posixpath.commonprefix([f"{each}/" for each in above]).rpartition("/")[0]
    return {path: posixpath.splitext(path[len(top) :].lstrip("/"))[0] for path in paths}


_Places = Mapping[str, tuple[str, str]]  # name -> its container, and what it begins with beside its name there
_KEPT: dict[tuple[str, str], _Places] = {}  # of patterns, as last listed: too much to find out anew for every image


def merged(kind: Container, given: str) -> tuple[_Places, Counter[str]]:
    """Return name -> container and what the name has before that of the member, and what else is in them, by kind.

    Members have their own names, so that these stay when a container is renamed; where two containers have one of a
    name, the names of all begin with that of their container.

    Raises
    ------
    DataError
        A container is not there, cut off, or of another kind.
    """
    paths = shards_of(given)
    listed = {path: contents_of(kind, path) for path in paths}
    begins = dict.fromkeys(paths, "")
    if len(paths) > 1:
        times = Counter(name for contents in listed.values() for name in contents.names if not name.endswith("/"))
        if max(times.values(), default=0) > 1:
            begins = {path: f"{name}/" for path, name in called(paths).items()}
    places = dict[str, tuple[str, str]]()
    for path, contents in listed.items():
        place = path, begins[path]  # one for all of them
        places |= ((begins[path] + name, place) for name in contents.names)
    if is_pattern(given):
        _KEPT[kind.name, given] = places
    return places, sum((contents.passed_over for contents in listed.values()), Counter[str]())


def name_of(given: str) -> str:
    """Return what a dataset is called: as its file, as the pattern begins, or as the folder of the files."""
    stem = re.sub(r"[\W\d_]*[{*?\[].*", "", stem_of(given)) if is_pattern(given) else stem_of(given)
    return stem or posixpath.basename(posixpath.dirname(given))


def splits_of(paths: list[str], layout: Layout) -> dict[str, str]:
    """Return the split of each file, where all are called as splits are: train-000.tar, val-000.tar."""
    names = called(paths)
    known = layout.named_splits(names.values())
    whole = len(paths) > 1 and known.keys() >= set(names.values())
    return {path: known[name] for path, name in names.items()} if whole else {}


def open_shards(kind: Container, given: str) -> Images:
    """Return the images in a container, or in all that a pattern means."""

    def places() -> dict[str, str]:
        return {name: path for name, (path, _) in merged(kind, given)[0].items()}

    return images_in(f"{kind.name}:{given}", partial(_read, kind, given), partial(shards_of, given), places)


def _read(kind: Container, given: str, name: str) -> bytes:
    if not is_pattern(given):
        return read_member(kind, given, name)
    try:
        path, begins = (_KEPT.get((kind.name, given)) or merged(kind, given)[0])[name]
    except UnreachableError:
        raise
    except DataError as error:
        raise OSError(str(error)) from None
    except KeyError:
        raise FileNotFoundError(errno.ENOENT, f"no such image in the {kind.name} files") from None
    return read_member(kind, path, name.removeprefix(begins))
