"""What must stay together when images are dealt out to splits, and which of it is drawn: arrays, whatever their number.

Texts are compared by 64 bits of a hash: two that have these in common would stay together, which harms nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.datasets.texts import numbers

__all__ = ["codes", "draw", "joined_rows", "repeated", "together"]


def codes(texts: Iterable[str], n: int) -> NDArray[np.int64]:
    """Return a number for each of n texts (n,), equal ones having the same."""
    found: NDArray[np.int64] = np.unique(_hashes(texts, n), return_inverse=True)[1]
    return found


def repeated(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return the numbers of those texts that may be there several times; a dictionary of all would be larger."""
    hashes = np.fromiter(map(hash, texts), np.int64, len(texts))
    order = np.argsort(hashes)
    hashes = hashes[order]
    same = np.flatnonzero(hashes[1:] == hashes[:-1])
    return np.unique(order[np.concatenate([same, same + 1])])


def together(rows: NDArray[np.int64], groups: Sequence[str], contents: Sequence[str]) -> NDArray[np.int64]:
    """Return which rows (n,) have a group or content in common, directly or through others.

    Returns
    -------
    int64 (n,), the number of what each belongs to; they are numbered as they first appear.
    """
    found = codes((contents[row] for row in numbers(rows)), len(rows))
    grouped = np.fromiter((bool(groups[row]) for row in numbers(rows)), bool, len(rows))
    if grouped.any():
        found = _linked(found, grouped, codes((groups[row] for row in numbers(rows[grouped])), int(grouped.sum())))
    _, first, found = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[found]


def _linked(found: NDArray[np.int64], grouped: NDArray[np.bool_], group: NDArray[np.int64]) -> NDArray[np.int64]:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    contents = int(found.max()) + 1
    nodes = contents + int(group.max()) + 1
    links = coo_matrix((np.ones(len(group), bool), (found[grouped], contents + group)), (nodes, nodes))
    linked: NDArray[np.int64] = connected_components(links, directed=False)[1][found].astype(np.int64)
    return linked


def joined_rows(rows: NDArray[np.int64], groups: Sequence[str], contents: Sequence[str]) -> list[list[int]]:
    """Return the rows that `together` says belong together."""
    if not len(rows):
        return []
    joined = together(rows, groups, contents)
    order = np.argsort(joined, kind="stable")
    return [part.tolist() for part in np.split(rows[order], np.cumsum(np.bincount(joined))[:-1])]


def draw(
    labels: NDArray[Any],
    rows: NDArray[np.int64],
    groups: Sequence[str],
    contents: Sequence[str],
    seed: int,
    shares: Mapping[str, float],
) -> dict[str, NDArray[np.int64]]:
    """Return which of some rows (n,), with their labels (n,), go to the splits of `shares`, in that order."""
    joined = together(rows, groups, contents)
    sizes, classes = np.bincount(joined), _commonest(labels, joined)
    order = np.lexsort((_ranks(joined, rows, contents, seed), classes))
    drawn = {name: np.zeros(len(sizes), bool) for name in shares}
    for ranked in np.split(order, np.flatnonzero(np.diff(classes[order])) + 1):
        left, total = ranked, int(sizes[ranked].sum())
        for name, share in shares.items():
            taken = _take(sizes[left], max(1, round(share * total)))
            drawn[name][left[taken]], left = True, left[~taken]
    return {name: rows[each[joined]] for name, each in drawn.items()}


def _commonest(labels: NDArray[Any], joined: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the label that most rows of what belongs together have (K,), the lowest of several."""
    known, found = np.unique(labels, return_inverse=True)
    pairs, counts = np.unique(joined * len(known) + found, return_counts=True)
    best = pairs[np.lexsort((-counts, pairs // len(known)))]
    _, first = np.unique(best // len(known), return_index=True)
    commonest: NDArray[np.int64] = known[best[first] % len(known)]
    return commonest


def _ranks(
    joined: NDArray[np.int64], rows: NDArray[np.int64], contents: Sequence[str], seed: int
) -> NDArray[np.uint64]:
    """Return what is drawn by (K,): of what belongs together, a hash of the seed and the least content."""
    order = np.argsort(joined, kind="stable")
    parts = groupby(zip(numbers(joined[order]), numbers(rows[order]), strict=True), itemgetter(0))
    least = (f"{seed}:{min(contents[row] for _, row in part)}" for _, part in parts)
    return np.fromiter((_start(hashlib.sha256(_bytes(text)).digest()) for text in least), np.uint64)


def _take(sizes: NDArray[np.int64], wanted: int) -> NDArray[np.bool_]:
    """Return which to take for about `wanted` rows: from the front, whole ones only, and always one is left behind."""
    taken, count, spare = np.zeros(len(sizes), bool), 0, len(sizes) - 1
    for place, size in enumerate(numbers(sizes)):
        if spare and count + size / 2 <= wanted:
            taken[place], count, spare = True, count + size, spare - 1
    if not count and spare:
        taken[sizes.argmin()] = True
    return taken


def _hashes(texts: Iterable[str], n: int) -> NDArray[np.uint64]:
    return np.fromiter((_start(hashlib.blake2b(_bytes(text), digest_size=8).digest()) for text in texts), np.uint64, n)


def _start(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # it may be a path
