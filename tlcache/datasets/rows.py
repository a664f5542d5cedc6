"""Images as a source lists them, in columns: a row costs its path and a few numbers, and no object of Python's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from operator import attrgetter
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from tlcache.datasets.splits import Row
from tlcache.datasets.texts import Texts, filled, numbers, picked

__all__ = ["Names", "Rows"]

_BLOCK = 2048  # rows at a time


class Names(Sequence[str]):
    """Texts of which few differ, such as labels, by their numbers.

    Parameters
    ----------
    codes
        int32 (N,), indices into `names`.
    names
        The texts that are there, each once.
    """

    def __init__(self, codes: NDArray[np.int32], names: Iterable[str]) -> None:
        self.codes, self.names = codes, tuple(names)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Names:
        """Return texts of any kind."""
        known = dict[str, int]()
        return cls(np.fromiter((known.setdefault(text, len(known)) for text in texts), np.int32, len(texts)), known)

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice | NDArray[Any]) -> Names: ...
    def __getitem__(self, row: int | slice | NDArray[Any]) -> str | Names:
        found: Any = self.codes[row]
        if not isinstance(found, np.ndarray):
            return str(self.names[found])
        used = np.flatnonzero(np.bincount(found, minlength=len(self.names)))
        place = np.zeros(len(self.names), np.int32)
        place[used] = np.arange(len(used))
        return Names(place[found], [self.names[each] for each in used.tolist()])

    def __iter__(self) -> Iterator[str]:
        return map(self.names.__getitem__, numbers(self.codes))

    def counts(self) -> dict[str, int]:
        """Return how often each is there."""
        return dict(zip(self.names, np.bincount(self.codes, minlength=len(self.names)).tolist(), strict=True))

    def numbered(self, number: Mapping[str, int], default: int) -> NDArray[np.int64]:
        """Return another number (N,) for each: that of its text, or `default`."""
        found: NDArray[np.int64] = np.array([number.get(name, default) for name in self.names], np.int64)[self.codes]
        return found

    def renamed(self, names: Mapping[str, str]) -> Names:
        """Return these texts, of which some are called otherwise."""
        new = [names.get(name, name) for name in self.names]
        place = {name: number for number, name in enumerate(dict.fromkeys(new))}
        return Names(np.array([place[name] for name in new], np.int32)[self.codes], place)


@dataclass(frozen=True)
class Rows(Sequence[Row]):
    """The images of a listing, each of which is a `Row` while somebody looks at it.

    Parameters
    ----------
    paths, labels, splits, groups
        (N,) what a `Row` has of each.
    cells
        Name of another column of its table -> (N,) cells, empty where there is none.

    Examples
    --------
    >>> rows = Rows.of([Row("b.png", "ant"), Row("a.png", "bee", "test")])
    >>> rows[1], rows.renamed(labels={"bee": "wasp"}).labels.counts()
    (Row(path='a.png', label='bee', split='test', group='', cells=()), {'ant': 1, 'wasp': 1})
    """

    paths: Texts
    labels: Names
    splits: Names
    groups: Names
    cells: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Rows:
        """Return rows of any kind, each of which is looked at once."""
        if isinstance(rows, cls):
            return rows
        paths, roles, start = [np.empty(0, "S1")], ("label", "split", "group"), 0
        known: list[dict[str, int]] = [{} for _ in roles]
        codes = [[np.empty(0, np.int32)] for _ in roles]
        cells = dict[str, list[str]]()
        left = iter(rows)
        while block := list(islice(left, _BLOCK)):
            paths.append(Texts.of([row.path for row in block]).stored)
            for role, names, found in zip(roles, known, codes, strict=True):
                texts = map(attrgetter(role), block)
                found.append(np.array([names.setdefault(text, len(names)) for text in texts], np.int32))
            for number, row in enumerate(block, start):
                for name, cell in row.cells:
                    filled(cells.setdefault(name, []), number).append(cell)
            start += len(block)
        labels, splits, groups = map(Names, map(np.concatenate, codes), known)
        others = {name: filled(column, start) for name, column in cells.items()}
        return cls(Texts(np.concatenate(paths)), labels, splits, groups, others)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, row: int) -> Row: ...
    @overload
    def __getitem__(self, row: slice) -> Rows: ...
    def __getitem__(self, row: int | slice) -> Row | Rows:
        if isinstance(row, slice):
            return self.picked(np.arange(len(self))[row])
        cells = tuple((name, cells[row]) for name, cells in self.cells.items())
        return Row(self.paths[row], self.labels[row], self.splits[row], self.groups[row], cells)

    def __iter__(self) -> Iterator[Row]:
        cells = zip(*self.cells.values(), strict=True) if self.cells else iter(lambda: (), None)
        columns = self.paths, self.labels, self.splits, self.groups
        for path, label, split, group, own in zip(*columns, cells, strict=False):
            yield Row(path, label, split, group, tuple(zip(self.cells, own, strict=True)))

    def picked(self, rows: NDArray[np.int64]) -> Rows:
        """Return some of the rows, by their numbers (n,)."""
        cells = {name: picked(column, rows) for name, column in self.cells.items()}
        return Rows(self.paths[rows], self.labels[rows], self.splits[rows], self.groups[rows], cells)

    def renamed(self, **names: Mapping[str, str]) -> Rows:
        """Return these rows, of whose `labels`, `splits` or `groups` some are called otherwise."""
        return replace(self, **{column: getattr(self, column).renamed(new) for column, new in names.items()})

    def ordered(self, splits: Sequence[str]) -> Rows:
        """Return these rows by their splits, in this order, and in a split by the bytes of their paths."""
        number = {name: place for place, name in enumerate(splits)}
        by_path = np.argsort(self.paths.stored, kind="stable")
        by_split = np.argsort(self.splits.numbered(number, -1)[by_path], kind="stable")
        return self.picked(by_path[by_split])
