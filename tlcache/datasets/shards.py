"""Several containers as one: which files a pattern means, and the images of all, by names that are theirs alone."""

from __future__ import annotations

import errno
import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path

from tlcache.datasets.container import Container, contents_of, read_member
from tlcache.datasets.layout import Layout
from tlcache.datasets.source import Images
from tlcache.errors import DataError
from tlcache.keys import some

__all__ = ["called", "is_pattern", "merged", "name_of", "open_shards", "pattern_of", "shards_of", "splits_of"]

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def is_pattern(given: str) -> bool:
    """Return whether it may mean several files: `*`, `?`, `[0-9]` or `{000..099}`; a file of that name is itself."""
    return (glob.has_magic(given) or bool(_RANGE.search(given))) and not Path(given).is_file()


def pattern_of(data: str, ending: str) -> str:
    """Return the absolute path or pattern that `--data` means; of a folder of such files alone, that of these."""
    path = Path(data).expanduser()
    with suppress(OSError), os.scandir(path) as entries:
        seen = [each for each in entries if not each.name.startswith(".")]
        if any(each.name.lower().endswith(ending) for each in seen) and not any(each.is_dir() for each in seen):
            path = Path(glob.escape(str(path))) / f"*{ending}"
    return os.path.abspath(path)  # noqa: PTH100  links stay: what they lead to may have no ending


def shards_of(given: str) -> list[Path]:
    """Return the files that a pattern means, sorted; a name that is no pattern is itself.

    Raises
    ------
    DataError
        There is none, or one of those of a range is not there.
    """
    if not is_pattern(given):
        return [Path(given)]
    found = [_matching(each) for each in _numbered(given)]
    if missing := [each for each, paths in zip(_numbered(given), found, strict=True) if not paths]:
        raise DataError(f"'{given}': {len(missing):,} of {len(found):,} are not there: {some(missing)}.")
    return [Path(path) for path in sorted({*chain.from_iterable(found)})]


def _matching(pattern: str) -> list[str]:
    if glob.has_magic(pattern):
        return glob.glob(pattern)  # noqa: PTH207  the folder may be a pattern, too
    return [pattern] if Path(pattern).is_file() else []


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


def called(paths: list[Path]) -> dict[Path, str]:
    """Return what to call each of several files: its path below the folder that all are in, without the ending."""
    top = os.path.commonpath([path.parent for path in paths])
    return {path: path.relative_to(top).with_suffix("").as_posix() for path in paths}


_Places = Mapping[str, tuple[Path, str]]
_KEPT: dict[tuple[str, str], _Places] = {}  # of patterns, as last listed: too much to find out anew for every image


def merged(kind: Container, given: str) -> tuple[_Places, Counter[str]]:
    """Return name -> container and member of it, and what else is in them, by kind.

    Members have their own names, so that these stay when a container is renamed; where two containers have one of a
    name, the names of all begin with that of their container.

    Raises
    ------
    DataError
        A container is not there, cut off, or of another kind.
    """
    paths = shards_of(given)
    listed = {path: contents_of(kind, path) for path in paths}
    times = Counter(name for contents in listed.values() for name in contents.rows if not name.endswith("/"))
    prefixes = called(paths) if times and max(times.values()) > 1 else {}
    begins = {path: f"{prefixes[path]}/" if path in prefixes else "" for path in paths}
    places = {begins[path] + name: (path, name) for path, contents in listed.items() for name in contents.rows}
    _KEPT[kind.name, given] = places
    return places, sum((contents.passed_over for contents in listed.values()), Counter[str]())


def name_of(given: str) -> str:
    """Return what a dataset is called: as its file, as the pattern begins, or as the folder of the files."""
    stem = re.sub(r"[\W\d_]*[{*?\[].*", "", Path(given).stem) if is_pattern(given) else Path(given).stem
    return stem or Path(given).parent.name


def splits_of(paths: list[Path], layout: Layout) -> dict[Path, str]:
    """Return the split of each file, where all are called as splits are: train-000.tar, val-000.tar."""
    names = called(paths)
    known = layout.named_splits(names.values())
    whole = len(paths) > 1 and known.keys() >= set(names.values())
    return {path: known[name] for path, name in names.items()} if whole else {}


def open_shards(kind: Container, given: str) -> Images:
    """Return the images in a container, or in all that a pattern means."""
    return Images(f"{kind.name}:{given}", partial(_read, kind, given), partial(_exists, given))


def _exists(given: str) -> bool:
    try:
        return all(path.is_file() for path in shards_of(given))
    except DataError:
        return False


def _read(kind: Container, given: str, name: str) -> bytes:
    if not is_pattern(given):
        return read_member(kind, given, name)
    try:
        path, member = (_KEPT.get((kind.name, given)) or merged(kind, given)[0])[name]
    except DataError as error:
        raise OSError(str(error)) from None
    except KeyError:
        raise FileNotFoundError(errno.ENOENT, f"no such image in the {kind.name} files") from None
    return read_member(kind, str(path), member)
