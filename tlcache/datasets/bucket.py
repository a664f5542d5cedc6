"""Objects in a store as a dataset: what would lie in folders has its place in the names of objects."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Mapping
from functools import partial

from tlcache.datasets.archive import ARCHIVE
from tlcache.datasets.far import FarImages
from tlcache.datasets.folder import rows_below
from tlcache.datasets.layout import Layout
from tlcache.datasets.parquet import PARQUET
from tlcache.datasets.remote import LISTED, Stamp, get, is_url, list_objects
from tlcache.datasets.source import Form, Images, Listing, Source
from tlcache.datasets.table import SUFFIXES
from tlcache.datasets.tree import OTHER_DATA, Place, Tree, tree_of
from tlcache.errors import DataError

__all__ = ["BUCKET"]

_CONTAINERS: Mapping[str, Source] = {".zip": ARCHIVE, ".tar": ARCHIVE, ".parquet": PARQUET}


class Bucket(Source):
    """A source: the objects below a prefix, `s3://bucket/prefix`, one for every image."""

    forms = (
        Form("bucket", "--data s3://bucket/photos", "photos/cat/1.jpg, or photos/train/cat/1.jpg; also gs://"),
        Form("address", "--data https://host/photos.zip", "a .zip, .tar or .parquet; also s3:// and gs://"),
    )

    def takes(self, data: str) -> bool:
        """Return whether this is the address of a store; nobody is asked for it yet."""
        return is_url(data)

    def find(self, data: str, layout: Layout) -> Listing:
        """Return the objects below the prefix, understood as files in folders; or what is in them, if all hold many."""
        given = data.rstrip("/")
        if not given.startswith(LISTED):
            raise DataError(_no_container(data))
        objects = list_objects(given)
        if ending := _only(objects, _CONTAINERS):
            return _CONTAINERS[ending].find(f"{given}/*{ending}", layout)
        _check(data, objects)
        tree = tree_of(objects, layout)
        rows, left, warnings = rows_below(Place(given, "", tree), layout)
        return Listing(posixpath.basename(given), given, _open(given, objects), rows, left, warnings)

    def tree(self, data: str, layout: Layout) -> Tree:
        """Return what lies below the prefix, as `tlcache.datasets.tree.scan` does of folders."""
        if not data.startswith(LISTED):
            raise DataError(_no_container(data))
        objects = list_objects(data)
        _check(data, objects)
        return tree_of(objects, layout)

    def images(self, data: str) -> Images:
        """Return the images below the prefix, whatever their labels."""
        return _open(data.rstrip("/"))

    def reopen(self, source: str) -> Images | None:
        """Return the images below a prefix."""
        return _open(source) if is_url(source) else None


BUCKET = Bucket()


def _no_container(data: str) -> str:
    if "?" in data:
        return f"'{data}': addresses are read without what follows the question mark. Leave that out."
    return (
        f"'{data}': what lies at such an address cannot be listed. Give a file of many images "
        f"({', '.join(_CONTAINERS)}), or a bucket ({', '.join(LISTED)})."
    )


def _check(data: str, objects: Mapping[str, Stamp]) -> None:
    """Raise DataError where there is nothing, or nothing but containers, which are given as such."""
    if not objects:
        ending = posixpath.splitext(data)[1].lower()
        remedy = "Look at the name of the bucket and of what is in it."
        if ending in SUFFIXES:
            remedy = f"Tables are read on this machine: --data list{ending} --images {posixpath.dirname(data)}"
        elif ending in OTHER_DATA:
            remedy = OTHER_DATA[ending][1]
        raise DataError(f"There are no objects below '{data}'. {remedy}")
    if ending := _only(objects, _CONTAINERS):
        raise DataError(
            f"'{data}' holds {len(objects):,} {ending} files. Give them: --data '{data.rstrip('/')}/*{ending}'."
        )


def _only(objects: Iterable[str], endings: Collection[str]) -> str:
    """Return the one of these endings that all objects have, none in a folder; nothing where they have not."""
    found = {"" if "/" in name else posixpath.splitext(name)[1] for name in objects}
    return next(iter(found)) if len(found) == 1 and found <= {*endings} else ""


def _open(given: str, objects: Mapping[str, Stamp] | None = None) -> Images:
    def stamps() -> dict[str, str]:
        listed = list_objects(given) if objects is None else objects
        return {name: f"{size} {tag}" for name, (size, tag) in listed.items() if tag}

    return FarImages(given, partial(_read, given), partial(_exists, given), stamps)


def _read(given: str, name: str) -> bytes:
    return get(f"{given}/{name}")


def _exists(given: str) -> bool:
    try:
        return bool(list_objects(given))
    except (DataError, OSError):
        return False
