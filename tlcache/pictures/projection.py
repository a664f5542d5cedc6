"""Embeddings -> points in a plane, and how far their neighbours there can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcache.auditing.neighbours import fit_basis
from tlcache.errors import OptionError
from tlcache.extras import extra
from tlcache.heads.cosines import unit_rows
from tlcache.heads.rows import Array, blocks
from tlcache.threads import available_cpus

__all__ = ["Projection", "components", "pca", "tsne", "trustworthiness"]

_WIDTH = 50  # components that t-SNE is given, as its authors do
_NEIGHBOURS = 15
_ASKED = 1000  # rows whose neighbours are looked at
_FEWEST = 10  # images that t-SNE makes sense of
_PERPLEXITY = 30
_EARLY, _LATE = 125, 300  # rounds; twice as many took 1.7 times as long on flowers and gave 0.963 in place of 0.960


@dataclass(frozen=True)
class Projection:
    """Points in a plane.

    Parameters
    ----------
    name
        How they were found: "PCA".
    points
        float32 (n, 2).
    trusted
        Trustworthiness of their 15 nearest neighbours, from 0 to 1; NaN of too few images.
    note
        What else there is to say.
    """

    name: str
    points: Array
    trusted: float
    note: str


def components(rows: Array) -> tuple[Array, Array, NDArray[np.float64]]:
    """Return rows (n, dim) of length 1, their principal components (n, k), and the variance that each has (k,)."""
    unit = unit_rows(rows)
    basis = fit_basis(unit)
    vectors = basis.vectors[:, : -_WIDTH - 1 : -1]
    parts = [(unit[block] - basis.middle) @ vectors for block in blocks(len(unit), 8192)]
    return unit, np.concatenate(parts), basis.power[: -_WIDTH - 1 : -1] / basis.power.sum()


def pca(unit: Array, found: Array, shares: NDArray[np.float64]) -> Projection:
    """Return the first two components, of what `components` returns."""
    points = np.zeros((len(found), 2), np.float32)
    points[:, : found.shape[1]] = found[:, :2]
    return Projection("PCA", points, trustworthiness(unit, points), f"{shares[:2].sum():.0%} of the variance")


def tsne(unit: Array, found: Array) -> Projection | None:
    """Return a map of openTSNE, of what `components` returns; None for too few images, or all of them on a line.

    Raises
    ------
    OptionError
        It is not installed.

    References
    ----------
    Kobak and Berens, "The art of using t-SNE for single-cell transcriptomics", 2019: the start at the components.
    """
    if len(found) < _FEWEST or found.shape[1] < 2:
        return None
    library = extra("openTSNE", "openTSNE, which makes the other map,", '"tlcache[map]"', OptionError)
    perplexity = min(_PERPLEXITY, (len(found) - 1) / 3)
    rounds = {"early_exaggeration_iter": _EARLY, "n_iter": _LATE}
    made = library.TSNE(perplexity=perplexity, initialization="pca", n_jobs=available_cpus(), random_state=0, **rounds)
    points = np.asarray(made.fit(found.astype(np.float64)), np.float32)
    return Projection("t-SNE", points, trustworthiness(unit, points), f"perplexity {perplexity:.3g}")


def trustworthiness(unit: Array, points: Array, k: int = _NEIGHBOURS) -> float:
    """Return how far neighbours in a plane (n, 2) are neighbours by cosine, rows (n, dim) being of length 1.

    1: all of them are; 0: none could be farther. Of more than 1,000 rows that many random ones are asked for.

    References
    ----------
    Venna and Kaski, "Neighborhood preservation in nonlinear projection methods", 2001.
    """
    n = len(unit)
    k = min(k, (n - 1) // 2)
    if k < 1:
        return float("nan")
    asked = np.random.default_rng(0).permutation(n)[:_ASKED]
    farther = 0
    for some in (asked[block] for block in blocks(len(asked), 64)):
        own = np.arange(len(some)), some
        near = np.square(points[some, None] - points[None]).sum(axis=2)
        near[own] = np.inf
        chosen = np.argpartition(near, k, axis=1)[:, :k] if k < n - 1 else np.argsort(near, axis=1)[:, :k]
        cosines = unit[some] @ unit.T
        cosines[own] = -np.inf
        of_chosen = np.take_along_axis(cosines, chosen, axis=1)
        for row, values in zip(cosines, of_chosen, strict=True):
            ranks = n - np.searchsorted(np.sort(row), values, side="right")  # images that are closer
            farther += int(np.maximum(ranks + 1 - k, 0).sum())
    return 1 - 2 * farther / (len(asked) * k * (2 * n - 3 * k - 1))
