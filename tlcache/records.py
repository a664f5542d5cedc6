"""Records: typed objects as JSON files that say what they are; whole on disk, or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from tlcache.errors import CacheError
from tlcache.files import relative, write_whole
from tlcache.keys import native, portable
from tlcache.progress import warn

__all__ = ["Form", "as_json", "from_json", "renamed"]

T = TypeVar("T")


def as_json(value: Any) -> Any:
    """Return dataclasses, structs, tuples, paths and numpy's numbers, however nested, as what `json` writes.

    >>> as_json({"path": Path("photos"), "sizes": (1, 2)})
    {'path': 'photos', 'sizes': (1, 2)}
    """
    return msgspec.to_builtins(value, enc_hook=lambda each: each.item() if hasattr(each, "item") else str(each))


def from_json(kind: type[T], value: Any) -> T:
    """Return what `as_json` described; fields that `kind` does not have are passed over.

    Raises
    ------
    msgspec.ValidationError
        A field is missing or of another type.
    """
    return msgspec.convert(value, kind, dec_hook=lambda custom, each: custom(each))


def renamed(names: Mapping[str, str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a function that gives fields of these names others."""
    return lambda fields: {names.get(name, name): value for name, value in fields.items()}


@dataclass(frozen=True)
class Form(Generic[T]):
    """A kind of record.

    Parameters
    ----------
    name, version
        What its files state as `format` and `format_version`.
    what
        What people call such a file: "a run record".
    type
        The dataclass or struct that it is read as, or a union of such with a tag. Fields of a file that the type does
        not have are passed over; `record`, where it has one, is the path.
    nested
        Makes what `type` is read from of what the file holds.
    earlier
        Versions that are read as well, each with what makes the fields of this version of its own.
    places
        Fields that are paths, a dot between a field and one inside it, or inside each of a list. Absolute ones are
        stored relative to the record's folder (`./`) or the home folder (`~/`), and read as absolute ones.
    """

    name: str
    version: int
    what: str
    type: Any
    nested: Callable[[dict[str, Any]], Mapping[str, Any]] = dict
    earlier: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = field(default_factory=dict)
    places: tuple[str, ...] = ()

    def write(self, path: Path, value: Any, **more: Any) -> None:
        """Write a record, in place of an earlier one: the fields of `value`, and more."""
        stated = {"format": self.name, "format_version": self.version, **as_json(value), **as_json(more)}
        _change(stated, ("record", *self.places), lambda place: _stored(place, path.parent))
        write_whole(path, json.dumps(portable(stated), indent=1, allow_nan=False).encode() + b"\n")

    def read(self, path: Path) -> T:
        """Read a record.

        Raises
        ------
        CacheError
            It cannot be read, or is not JSON, or not of this form.
        """
        fields = self._fields(path)
        try:
            current = self.earlier.get(fields["format_version"], dict)(fields)
            _change(current, self.places, lambda place: _read(place, path.parent))
            found: T = from_json(self.type, {**self.nested(current), "record": str(path)})
        except (msgspec.ValidationError, LookupError, TypeError, AttributeError) as error:
            raise CacheError(f"'{path}' is not {self.what} by this tlcache ({error}). Move it away.") from None
        return found

    def read_all(self, paths: Iterable[Path], on_warning: Callable[[str], None] = warn) -> list[T]:
        """Return records, by path; those that cannot be read are left out, and `on_warning` is called with why."""
        found = []
        for path in sorted(paths):
            try:
                found.append(self.read(path))
            except CacheError as error:
                on_warning(f"{error} Until then it is left out.")
        return found

    def _fields(self, path: Path) -> dict[str, Any]:
        try:
            fields = native(json.loads(path.read_bytes()))
        except OSError as error:
            raise CacheError(f"'{path}' cannot be read ({error.strerror}). Make it readable.") from None
        except ValueError as error:
            raise CacheError(f"'{path}' is not {self.what} ({error}). Move it away.") from None
        is_ours = isinstance(fields, dict) and fields.get("format") == self.name
        version = fields.get("format_version") if is_ours else None
        if isinstance(version, int) and version > self.version:
            newer = f"of format version {version}, by a newer tlcache; this one reads version {self.version}"
            raise CacheError(f"'{path}' is {self.what} {newer}. Upgrade tlcache.")
        if isinstance(fields, dict) and not is_ours and str(fields.get("format")).startswith("tlcache-"):
            run = f" It was made beside the run '{_read(fields['run'], path.parent)}'." if "run" in fields else ""
            raise CacheError(f"'{path}' is not {self.what}, but a record of the format {fields['format']}.{run}")
        if version not in (self.version, *self.earlier):
            raise CacheError(f"'{path}' is not {self.what} by this tlcache. Move it away.")
        return dict(fields)


def _change(fields: dict[str, Any], names: Iterable[str], change: Callable[[str], str]) -> None:
    """Put something else in place of some texts, where they are there."""
    for name in names:
        first, _, rest = name.partition(".")
        found = fields.get(first)
        if rest:
            for inside in found if isinstance(found, list | tuple) else [found or {}]:
                _change(inside, [rest], change)
        elif isinstance(found, str):
            fields[first] = change(found)


def _stored(place: str, folder: Path) -> str:
    if not Path(place).is_absolute():
        return place  # a name, or what its user typed
    found = relative(place, folder)
    return found if found.startswith("~") else f"./{found}"


def _read(place: str, folder: Path) -> str:
    if place.startswith("~/"):
        return str(Path(place).expanduser())
    return os.path.normpath(folder.resolve() / place) if place.startswith("./") else place
