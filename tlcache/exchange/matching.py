"""Which row of the embeddings is which image: by its path, its name, or its name without an ending."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

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

    Ids may be paths, their last parts, or these without an ending: the first form by which each row has its own image.

    Raises
    ------
    DataError
        Rows without an image, or images without a row.
    """
    check_once(ids, where)
    found: dict[str, int] = {}
    keys = list[str]()
    for form in _FORMS:
        rows, keys = {form(each): row for row, each in enumerate(ids)}, [form(path) for path in paths]
        if len(rows) == len(ids) and len({*keys}) == len(keys) and len(rows.keys() & {*keys}) > len(found):
            found = {path: rows[key] for path, key in zip(paths, keys, strict=True) if key in rows}
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


def _plain(path: str) -> str:
    return path.replace("\\", "/").removeprefix("./")


def _name(path: str) -> str:
    return _plain(path).rpartition("/")[2]


def _stem(path: str) -> str:
    before, dot, _ = _name(path).rpartition(".")
    return before if dot else _name(path)


_FORMS: tuple[Callable[[str], str], ...] = (_plain, _name, _stem)
