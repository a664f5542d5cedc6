"""The nearest class mean, by the angle between whitened rows; a class can be added to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from tlcache.heads.base import Head, Validation
from tlcache.heads.cosines import unit_rows
from tlcache.heads.logits import means, white_cosines
from tlcache.heads.rows import Array, Features, blocks, one_hot
from tlcache.heads.solver import Basis

__all__ = ["Ncm"]

_SHARPNESS = (0.1, 100.0)  # least and most; of rows that planes separate there is no likeliest
_LEAST = 1e-6  # of the rows' variance: what one image of each class leaves to whiten by


class Ncm(Head):
    """The class whose mean is in the most similar direction, once rows are whitened.

    Rows are seen from the middle of the class means, and scaled so that the rows of a class vary alike in all
    directions; logits are `sharpness * cosine + log(share of the class)`: a von Mises-Fisher distribution for each
    class (Banerjee et al., 2005) in the space of linear discriminant analysis with a shrunk covariance.

    Parameters
    ----------
    shrinkage
        Share of a multiple of the identity in the covariance within classes (Friedman, 1989).
    sharpness
        Of the distributions; None: the likeliest, given validation rows, or else the rows themselves.
    class_weight
        `balanced`, a weight per label, or None.
    """

    STATE: ClassVar[tuple[str, ...]] = ("middle_", "axes_", "means_", "weights_", "sharpness_")

    def __init__(self, shrinkage: float = 0.3, sharpness: float | None = None, class_weight: Any = None) -> None:
        self.shrinkage = shrinkage
        self.sharpness = sharpness
        self.class_weight = class_weight

    def chosen(self) -> dict[str, Any]:
        """Return the parameters, with the sharpness that was found."""
        return {**self.get_params(), "sharpness": float(self.sharpness_)}

    @classmethod
    def _fit_heads(cls, heads: Sequence[Self], X: Features, y: NDArray[np.int64], validation: Validation) -> None:
        """Whiten by every shrinkage in the eigenbasis of the covariance within classes."""
        share = heads[0].row_weights(y)
        basis, weights = Basis.of(X, share), np.bincount(y, share)
        centres = _sums(X, y, share) / weights[:, None]
        middle, among = centres.mean(axis=0), (centres - basis.middle) @ basis.vectors
        within = np.diag(basis.power) - (among.T * weights) @ among
        power, turned = np.linalg.eigh(within / weights.sum())
        power, vectors = np.maximum(power, 0), (basis.vectors @ turned).astype(np.float32)
        directions = max(len(power), 1)  # there are none where all rows are equal
        least = _LEAST * basis.power.sum() / directions / weights.sum()
        for head in heads:
            shrunk = (1 - head.shrinkage) * power + head.shrinkage * power.sum() / directions + least
            head.middle_, head.axes_ = middle.astype(np.float32), vectors / np.sqrt(shrunk).astype(np.float32)
            head.means_ = unit_rows((centres - middle).astype(np.float32) @ head.axes_)
            head.weights_ = weights.astype(np.float32)
            head.sharpness_ = np.float32(head.sharpness or head._likeliest(*(validation or (X, y))))

    def _likeliest(self, X: Features, y: NDArray[np.int64]) -> float:
        """Return the sharpness at which these labels (n,) are likeliest, each by its weight."""
        similar = np.concatenate([white_cosines(self, X[some]) for some in blocks(len(X))]).astype(np.float64)
        share, prior = self.row_weights(y), np.log(self.weights_ / self.weights_.sum())

        def loss(log_sharpness: float) -> float:
            logits = np.exp(log_sharpness) * similar + prior
            return float(np.average(logsumexp(logits, axis=1) - logits[np.arange(len(y)), y], weights=share))

        return float(np.exp(minimize_scalar(loss, bounds=np.log(_SHARPNESS), method="bounded").x))

    def with_class(self, label: Any, rows: Array) -> Self:
        """Return this head with one more class, of rows (n, dim); what it answers is otherwise as before.

        The rows of the new class are taken to vary as those of the others do.

        Raises
        ------
        ValueError
            There is such a class, or there are no rows.
        """
        if label in self.classes_ or not len(rows):
            raise ValueError(f"A new class has a label that none has, and rows; given {label!r}, {len(rows)} rows.")
        place = int(np.searchsorted(self.classes_, label))
        mean = unit_rows((np.mean(rows, axis=0, dtype=np.float32) - self.middle_)[None] @ self.axes_)
        added = {"classes_": label, "means_": mean[0], "weights_": len(rows)}
        state = self.state()
        state |= {name: np.insert(state[name], place, value, axis=0) for name, value in added.items()}
        return self.restore(self.get_params(), state, self.n_features_in_)

    def _logits(self, X: Array) -> Array:
        return means(self, X)


def _sums(X: Features, y: NDArray[np.int64], share: Array | None) -> NDArray[np.float64]:
    """Return the weighted sums of the rows of each class, (C, dim)."""
    sums = np.zeros((int(y.max()) + 1, X.shape[1]))
    for some in blocks(len(X)):
        each = one_hot(y[some], len(sums)).astype(np.float64)
        sums += (each if share is None else each * share[some, None]).T @ X[some]
    return sums
