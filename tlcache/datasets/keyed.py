"""WebDataset's naming: the members of one key are an image and what is known of it, `1.jpg`, `1.cls` and `1.json`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tlcache.datasets.layout import Layout
from tlcache.datasets.source import Images
from tlcache.datasets.table import Table, is_image_name
from tlcache.errors import DataError

__all__ = ["PATH", "table_of_keys"]

PATH = "image of the key"  # the column of names, which is called as no field of a .json is
_ABOUT = ("cls", "json", "txt")  # endings of what is known of an image
_ENDINGS = tuple(f".{ending}" for ending in _ABOUT)


def table_of_keys(
    where: str, names: Collection[str], layout: Layout, members: Images, splits: Mapping[str, str]
) -> Table | None:
    """Return a table of the images and what is known of each; None where the names are no such keys.

    Parameters
    ----------
    where
        What to call the table in messages.
    names
        All members; those of a key have one name up to the first dot of its last part.
    layout
        Says what is passed over.
    members
        Reads those.
    splits
        Name -> its split, where its container is called as one.

    Raises
    ------
    DataError
        A key has several images, or what is known of one cannot be read.
    """
    if not any(name.lower().endswith(_ENDINGS) for name in names):
        return None
    keys = _keys(names, layout)
    images = {key: own for key, own in keys.items() if any(map(is_image_name, own.values()))}
    labelled = sum("cls" in own or "json" in own for own in images.values())
    captioned = all("/" not in key and "txt" in own for key, own in images.items())
    if not images or (2 * labelled < len(images) and not captioned):
        return None
    members.expect(own[ending] for own in images.values() for ending in _ABOUT if ending in own)
    found = [_fields(where, key, own, members.read) for key, own in images.items()]
    for fields in found:
        if split := splits.get(fields[PATH]):
            fields.setdefault("split", split)
    return Table.of_objects(where, enumerate(found, 1))


def _keys(names: Collection[str], layout: Layout) -> dict[str, dict[str, str]]:
    """Return key -> ending -> member."""
    keys: dict[str, dict[str, str]] = defaultdict(dict)
    for name in sorted(names):
        folder, _, last = name.rpartition("/")
        key, _, ending = last.partition(".")
        if key and ending and not layout.ignored_by(last):
            keys[f"{folder}/{key}".lstrip("/")][ending.lower()] = name
    return keys


def _fields(where: str, key: str, own: Mapping[str, str], read: Callable[[str], bytes]) -> dict[str, str]:
    images = [name for name in own.values() if is_image_name(name)]
    if len(images) > 1:
        other = images[1].rpartition("/")[2].partition(".")[2]
        raise DataError(
            f"'{where}' has {len(images)} images of the key '{key}': {', '.join(images)}. An image has a key of its "
            f"own: leave out those that are no images of a class, as in --ignore '*.{other}'."
        )
    try:
        texts = {ending: read(own[ending]).decode() for ending in _ABOUT if ending in own}
        known: Any = json.loads(texts["json"]) if "json" in texts else {}
        if not isinstance(known, dict):
            raise ValueError(f"'{own['json']}' is no object of JSON")
        fields = {name: str(value) for name, value in known.items() if isinstance(value, str | int | float)}
        "".join([*fields, *fields.values()]).encode()  # JSON may escape half of a character
    except (OSError, ValueError) as error:
        raise DataError(f"'{where}': what lies beside the image '{images[0]}' cannot be read: {error}.") from None
    label = texts.get("cls", fields.get("label") if known else texts.get("txt"))
    return {PATH: images[0], **fields, **({} if label is None else {"label": label.strip()})}
