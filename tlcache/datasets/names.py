"""What datasets are called: by their own names, and by the folder or manifest that they were made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tlcache.datasets.dataset import names_of, source_of
from tlcache.errors import CacheError, UnknownNameError, closest, meant
from tlcache.files import folder_meant
from tlcache.kinds import listing

__all__ = ["chosen_names", "is_here", "unknown_dataset"]


def is_here(data: str | Path) -> bool:
    """Return whether a source knows of this, or it is a path that exists."""
    return source_of(str(data)) is not None or (bool(str(data)) and Path(data).expanduser().exists())


def chosen_names(data: str | Path | Sequence[str | Path], known: Mapping[str, str], what: str) -> list[str]:
    """Return the names of datasets that are given by name, folder or manifest.

    Parameters
    ----------
    data
        One or several.
    known
        Name -> the `--data` that it was made of.
    what
        What there is of those: "features".

    Raises
    ------
    CacheError, UnknownNameError
        There is nothing of a dataset that can be read, or nothing is called so.
    """
    return list(dict.fromkeys(_chosen(each, known, what) for each in listing(data)))


def _chosen(data: str | Path, known: Mapping[str, str], what: str) -> str:
    if is_here(data):
        place = Path(data).expanduser().resolve()
        for name, made_of in known.items():
            if made_of == str(data) or Path(made_of).resolve() == place:
                return name
    for name in names_of(str(data)):
        if name in known:
            return name
    if is_here(data):
        raise CacheError(f"No {what} of '{data}'; there are some of: {', '.join(sorted(known))}.")
    raise unknown_dataset(data, known)


def unknown_dataset(data: str | Path, known: Iterable[str]) -> UnknownNameError:
    """Return the error for what is no dataset: neither of a known name nor a folder or manifest."""
    names = sorted(known)
    words = closest("dataset", str(data), names)
    beside = "" if meant(str(data), names) else folder_meant(Path(data))
    return UnknownNameError(f"{words} No folder or manifest is there, either.{beside} See: tlcache datasets")
