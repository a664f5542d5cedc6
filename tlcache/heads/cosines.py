"""Which rows are most similar, by the cosine of their features; compared a block at a time."""

from __future__ import annotations

import numpy as np

from tlcache.heads.rows import Array, Indices, Labels, blocks

__all__ = ["closest", "unit_rows"]

_ASKED, _KNOWN = 512, 8_000  # rows at a time; beyond 32 MB of ranks, memory comes from the system, page by page


def unit_rows(X: Array) -> Array:
    """Return rows (n, dim) divided by their length, so that products of them are cosines."""
    lengths = np.sqrt(np.einsum("ij,ij->i", X, X))[:, None]  # without squares of all numbers in memory
    unit: Array = X / np.maximum(lengths, np.float32(1e-12))
    return unit


def closest(
    asked: Array, known: Array, k: int = 1, unlike: tuple[Labels, Labels] | None = None
) -> tuple[Array, Indices]:
    """Return cosines and numbers of the k rows of `known` that are most similar to each of `asked`: (n, k) each.

    The most similar comes first; where there are fewer than k rows, all are returned.

    Parameters
    ----------
    asked, known
        float32 (n, dim) and (m, dim), rows of length 1.
    unlike
        Labels (n,) and (m,): rows of one label are not compared, their cosine is -1.
    """
    cosines = np.empty((len(asked), min(k, len(known))), np.float32)
    numbers = np.empty(cosines.shape, np.int64)
    for some in blocks(len(asked), _ASKED):
        parts = []
        for others in blocks(len(known), _KNOWN):
            similar = asked[some] @ known[others].T
            if unlike is not None:
                similar[unlike[0][some][:, None] == unlike[1][others]] = -1
            found, columns = _highest(similar, k)
            parts.append((found, columns + others.start))
        similar, nearest = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        similar, columns = _highest(similar, k)
        order = np.argsort(-similar, axis=1, kind="stable")
        cosines[some] = np.take_along_axis(similar, order, axis=1)
        numbers[some] = np.take_along_axis(np.take_along_axis(nearest, columns, axis=1), order, axis=1)
    return cosines, numbers


def _highest(cosines: Array, k: int) -> tuple[Array, Indices]:
    """Return the k highest of each row and their columns (n, k), in no order."""
    k = min(k, cosines.shape[1])
    columns = cosines.argmax(axis=1)[:, None] if k == 1 else np.argpartition(cosines, -k, axis=1)[:, -k:]
    return np.take_along_axis(cosines, columns, axis=1), columns
