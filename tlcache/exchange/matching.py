"""Which row of the embeddings is which image: by its path or a part of it, with or without an ending."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence

from tlcache.errors import DataError
from tlcache.keys import quoted, some

__all__ = ["check_once", "places_of"]


def check_once(ids: Sequence[str], where: str) -> None:
    """Raise DataError where a row has no id, or two have the same."""
    if "" in ids:
        raise DataError(f"'{where}': row {ids.index('') + 1:,} has no path or id. Every embedding needs one.")
    if twice := [each for each, count in Counter(ids).items() if count > 1]:
        raise DataError(f"'{where}' has several rows of one id: {some(twice)}. Keep one of each.")


def places_of(ids: Sequence[str], paths: Sequence[str], where: str, data: str) -> list[int]:
    """Return for each path of a dataset the row of its embedding.

    Ids may be paths from another folder, the last parts of paths, or these without an ending: the first reading by
    which the most rows have an image.

    Raises
    ------
    DataError
        Rows without an image, or images without a row.
    """
    check_once(ids, where)
    found: dict[str, int] = {}
    for names, own in _readings(list(map(_plain, ids)), list(map(_plain, paths))):
        rows = {name: row for row, name in enumerate(names)}
        if len(rows) == len(ids) and len({*own}) == len(own) and len(rows.keys() & {*own}) > len(found):
            found = {path: rows[name] for path, name in zip(paths, own, strict=True) if name in rows}
    strange = sorted(set(range(len(ids))) - set(found.values()))
    lacking = [path for path in paths if path not in found]
    if strange or lacking:
        parts = [
            f"{len(strange):,} of {len(ids):,} rows have no image there: {some([ids[row] for row in strange])}"
        ] * bool(strange)
        parts += [f"{len(lacking):,} of {len(paths):,} images have no row: {some(lacking)}"] * bool(lacking)
        raise DataError(
            f"'{where}' and '{data}' do not have the same images. {'; '.join(parts)}. Leave out what is on one side "
            f"alone (images: --ignore), or give ids as the images are called: {quoted(paths[0])}."
        )
    return [found[path] for path in paths]


def _readings(ids: Sequence[str], paths: Sequence[str]) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """Yield ids and paths as they may be compared: whole, without folders that all ids have, endings, any folders."""
    yield ids, paths
    for parts in range(1, 1 + len(os.path.commonprefix([each.split("/")[:-1] for each in ids]))):
        yield [each.split("/", parts)[-1] for each in ids], paths
    yield list(map(_bare, ids)), list(map(_bare, paths))
    for form in (_name, lambda path: _bare(_name(path))):
        yield list(map(form, ids)), list(map(form, paths))


def _plain(path: str) -> str:
    return path.replace("\\", "/").removeprefix("./")


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _bare(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"
