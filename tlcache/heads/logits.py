"""What fitted heads answer, from their arrays alone: whoever only asks need not load what fits them, scikit-learn.

Each function takes a head, which is anything with the arrays of the class that it is named for, and standardised
float32 rows (n, dim); it returns logits, float32 (n, C).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tlcache.heads.cosines import closest, unit_rows
from tlcache.heads.rows import Array, Features, View, blocks

__all__ = [
    "SMOOTHING",
    "Fitted",
    "Restored",
    "components",
    "gaussian",
    "kernel",
    "layered",
    "linear",
    "logistic",
    "means",
    "neighbours",
    "softmax",
    "split_layers",
    "squared_distances",
    "trees",
    "votes",
    "white_cosines",
]

_ASKED = 512  # rows at a time, of neighbours
_MANY = 4_000_000  # visits of rows to trees: fewer take less time than many calls
SMOOTHING = 1e-3  # of the shares of neighbours' votes


class Fitted(Protocol):
    """A fitted head."""

    @property
    def classes_(self) -> NDArray[np.int64]:
        """(C,) labels, in the order of logits."""

    def get_params(self) -> dict[str, Any]:
        """Return its parameters."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Return its fitted arrays."""

    def logits(self, X: View) -> Array:
        """Return logits, float32 (n, C)."""


class Restored:
    """A fitted head that answers as the one that was saved, and cannot be fitted.

    Parameters
    ----------
    answer
        One of the functions of this module.
    params, state
        Of the head: its parameters and fitted arrays, which are attributes of this object.
    """

    classes_: NDArray[np.int64]

    def __init__(
        self, answer: Callable[[Any, Array], Array], params: Mapping[str, Any], state: Mapping[str, NDArray[Any]]
    ) -> None:
        self._answer = answer
        self._params, self._state = dict(params), dict(state)
        vars(self).update(params, **state)

    def get_params(self) -> dict[str, Any]:
        """Return its parameters."""
        return self._params

    def state(self) -> dict[str, NDArray[Any]]:
        """Return its fitted arrays."""
        return self._state

    def logits(self, X: View) -> Array:
        """Return logits, float32 (n, C), a block of rows at a time."""
        return np.concatenate([self._answer(self, X[some]) for some in blocks(len(X))])


def softmax(logits: NDArray[np.floating]) -> Array:
    """Return the softmax of (n, C) or (n, ..., C) over the last axis as float32, computed in float64, by blocks."""
    probabilities = np.empty(logits.shape, np.float32)
    for rows in blocks(len(logits)):
        shifted = np.exp(logits[rows].astype(np.float64) - logits[rows].max(axis=-1, keepdims=True))
        probabilities[rows] = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def linear(head: Any, X: Array) -> Array:
    """Return one layer, as of `LinearHead`."""
    logits: Array = X @ head.coef_ + head.intercept_
    return logits


def layered(head: Any, X: Array) -> Array:
    """Return layers with ReLU between them, as of `Network`."""
    return through_layers(split_layers(head), X)


def through_layers(layers: Iterable[tuple[Array, Array]], X: Array) -> Array:
    """Return what layers, each weights (in, out) and biases (out,), make of rows (n, in), with ReLU between them."""
    # products in float32 differ in the last bit with a row's place among the others
    exact = [(weights.astype(np.float64), biases) for weights, biases in layers]
    logits = np.empty((len(X), len(exact[-1][1])), np.float32)
    for rows in blocks(len(X)):
        wide = X[rows].astype(np.float64)
        for number, (weights, biases) in enumerate(exact):
            wide = (np.maximum(wide, 0) if number else wide) @ weights + biases
        logits[rows] = wide
    return logits


def split_layers(head: Any) -> Iterator[tuple[Array, Array]]:
    """Yield weights (in, out) and biases (out,) of each layer of a `Network`, from the features on."""
    start = 0
    for rows, columns in head.shapes_:
        stop = start + rows * columns
        yield head.layers_[start:stop].reshape(rows, columns), head.layers_[stop : stop + columns]
        start = stop + columns


def kernel(head: Any, X: Array) -> Array:
    """Return a layer on a Gaussian of the distance to each landmark, as of `KernelHead`."""
    logits: Array = gaussian(X, head.points_, head.width_) @ head.coef_ + head.intercept_
    return logits


def gaussian(A: NDArray[Any], B: NDArray[Any], width: np.float32) -> NDArray[Any]:
    """Return `exp(-width * d^2)` of the distances of rows (n, dim) and (m, dim), (n, m)."""
    values = squared_distances(A, B)
    values *= -width
    np.exp(values, out=values)
    return values


def squared_distances(A: NDArray[Any], B: NDArray[Any]) -> NDArray[Any]:
    """Return the squared distances of rows (n, dim) and (m, dim), (n, m)."""
    distances: NDArray[Any] = A @ B.T
    distances *= -2
    distances += np.einsum("ij,ij->i", A, A)[:, None]
    distances += np.einsum("ij,ij->i", B, B)
    np.maximum(distances, 0, out=distances)
    return distances


def means(head: Any, X: Array) -> Array:
    """Return the logarithm of how likely rows are in each class, as of `Ncm`."""
    logits: Array = head.sharpness_ * white_cosines(head, X) + np.log(head.weights_ / head.weights_.sum())
    return logits


def white_cosines(head: Any, X: Array) -> Array:
    """Return the cosines of whitened rows and the mean of each class, (n, C)."""
    similar: Array = unit_rows((X - head.middle_) @ head.axes_) @ head.means_.T
    return similar


def neighbours(head: Any, X: Array) -> Array:
    """Return the votes of the nearest training rows, as of `Knn`."""
    return next(votes([head], X))


def votes(heads: Sequence[Any], X: Features) -> Iterator[Array]:
    """Yield the logits of several `Knn` that keep the same rows, whose neighbours are looked for once."""
    most = max(heads, key=lambda head: head.k)
    shape = len(X), min(most.k, len(most.rows_))
    similar, nearest = np.empty(shape, np.float32), np.empty(shape, np.int64)
    for block in blocks(len(X), _ASKED):
        similar[block], nearest[block] = closest(unit_rows(X[block]), most.rows_, most.k)
    for head in heads:
        logits = np.empty((len(X), len(head.classes_)), np.float32)
        for block in blocks(len(X), _ASKED):
            logits[block] = _shares(head, similar[block, : head.k], nearest[block, : head.k])
        yield logits


def _shares(head: Any, similar: Array, nearest: NDArray[np.int64]) -> Array:
    """Return the logarithm of each class's share of the votes (n, C); of columns what `Head.fit_columns` says."""
    n, classes = len(similar), len(head.classes_)
    if head.targets_.ndim == 2:
        return _means(head, similar, nearest)
    each = np.exp((similar - similar[:, :1]) / head.temperature) * head.weights_[nearest]
    places = np.arange(n)[:, None] * classes + head.targets_[nearest]
    tally = np.bincount(places.ravel(), each.ravel(), n * classes).reshape(n, classes)
    share = tally / tally.sum(axis=1, keepdims=True)
    logs: Array = np.log((share + SMOOTHING) / (1 + classes * SMOOTHING)).astype(np.float32)
    return logs


def _means(head: Any, similar: Array, nearest: NDArray[np.int64]) -> Array:
    """Return the weighted means of the neighbours' columns (n, C), of labels as logits."""
    weights = np.exp((similar - similar[:, :1]) / head.temperature)
    weights /= weights.sum(axis=1, keepdims=True)
    means = np.einsum("nk,nkc->nc", weights.astype(np.float64), head.targets_[nearest])
    if head.targets_.dtype == np.uint8:
        share = (means + SMOOTHING) / (1 + 2 * SMOOTHING)
        means = np.log(share / (1 - share))
    found: Array = means.astype(np.float32)
    return found


def logistic(logits: NDArray[np.floating]) -> Array:
    """Return the logistic function as float32, computed in float64."""
    found: Array = (0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))).astype(np.float32)
    return found


def trees(head: Any, X: Array) -> Array:
    """Return the scores of boosted trees on principal components, as of `LightGbm`."""
    Z = components(head, X)
    found = [_scored(booster, Z) for booster in _boosters(head.text_.tobytes())]
    scores: Array = np.asarray(found[0] if found[0].ndim == 2 else np.stack(found, axis=1), np.float32)
    return scores


def _scored(booster: Any, Z: Array) -> NDArray[np.float64]:
    """Return what a booster says of rows, (n, C) or (n,): a round at a time where there is much to do.

    LightGBM takes a row through all trees, and then the next row. 30,000 trees fit in no cache of a processor; those of
    a round do, and sums of rounds are the same to the bit.
    """
    trees = booster.num_trees()
    found: NDArray[np.float64]
    if len(Z) * trees < _MANY:
        found = booster.predict(Z, raw_score=True)
        return found
    rounds = range(trees // booster.num_model_per_iteration())
    found = sum(booster.predict(Z, raw_score=True, start_iteration=each, num_iteration=1) for each in rounds)
    return found


def components(head: Any, X: Features) -> Array:
    """Return what the trees of a `LightGbm` see, float32 (n, k): principal components, and columns as they are."""
    width, read = len(head.middle_), (X[some] for some in blocks(len(X)))
    return np.concatenate(
        [np.hstack([(rows[:, :width] - head.middle_) @ head.vectors_, rows[:, width:]]) for rows in read]
    )


@lru_cache(maxsize=1)
def _boosters(text: bytes) -> list[Any]:
    """Read the model, or one for each column, once for all blocks of rows: a quarter of the time of 1,024 answers."""
    import lightgbm

    return [lightgbm.Booster(model_str=each.decode()) for each in text.split(b"\0")]
