"""Penalised linear classifiers in the eigenbasis of their features, many penalties at once.

Rotating the centred features to the eigenvectors of their Gram matrix changes neither losses nor penalty, drops
directions that no row has (all but n of them when there are fewer rows than features), and makes the Hessian nearly
diagonal, so that one rescaling of the unknowns saves most of L-BFGS's iterations. Where there are few classes, reading
the features is what an iteration costs; penalties that are solved side by side share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear

from tlcache.heads.lbfgs import minimise

__all__ = ["Basis", "Loss", "softmax_loss", "solve_path", "squared_hinge"]

Array = NDArray[np.float32]
Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_COLUMNS = 64  # of scores in one product: with fewer, the cores wait for memory; with more, warm starts save more
_SMALLEST = 1e-8  # eigenvalues below this share of the largest are rounding


@dataclass(frozen=True)
class Basis:
    """Features in their eigenbasis, on the GPU where there is one.

    Parameters
    ----------
    Z
        float32 (n, r + 1): the centred rows along r eigenvectors, and a column of ones for the intercept.
    power
        float64 (r,): eigenvalues, the sum of squares of each column of `Z`.
    vectors
        float32 (dim, r).
    middle
        float32 (dim,): mean of the rows.
    """

    Z: Tensor
    power: Tensor
    vectors: Tensor
    middle: Tensor

    @classmethod
    def of(cls, X: Array, row_weights: Array | None = None) -> Self:
        """Decompose float32 (n, dim) rows through the smaller of the two Gram matrices.

        With `row_weights`, the mean is weighted, and centred rows are scaled by the weights' roots.
        """
        rows = torch.from_numpy(X).to("cuda" if torch.cuda.is_available() else "cpu")
        n, dim = rows.shape
        middle = torch.from_numpy(_mean(X, row_weights).astype(np.float32)).to(rows.device)
        Z = torch.ones(n, min(n, dim) + 1, device=rows.device)
        centred = rows - middle
        if row_weights is not None:
            centred *= torch.from_numpy(np.sqrt(row_weights)).to(rows.device)[:, None]
        gram = (centred.T @ centred if dim <= n else centred @ centred.T).double()
        power, vectors = (torch.from_numpy(part).to(rows.device) for part in np.linalg.eigh(gram.cpu().numpy()))
        kept = power > max(_SMALLEST * float(power[-1]), np.finfo(np.float64).tiny)
        power, vectors = power[kept], vectors[:, kept]
        if dim > n:
            vectors = centred.T.double() @ (vectors / power.sqrt())
        Z = Z[:, : len(power) + 1]
        torch.mm(centred, vectors.float(), out=Z[:, :-1])
        return cls(Z, power, vectors.float(), middle)

    def back(self, weights: Tensor) -> tuple[Array, Array]:
        """Turn (C, r + 1) weights in this basis, intercepts last, into float32 `coef` (dim, C) and `intercept` (C,)."""
        coef = self.vectors.double() @ weights[:, :-1].T.double()
        intercept = weights[:, -1] - self.middle.double() @ coef
        return coef.float().cpu().numpy(), intercept.float().cpu().numpy()


def solve_path(
    basis: Basis, y: NDArray[np.int64], penalties: Sequence[float], loss: Loss, row_weights: Array | None = None
) -> Iterator[Tensor]:
    """Minimise `C * sum of weighted losses + |weights|^2 / 2` for every C of ascending `penalties`.

    Yields
    ------
    Tensor
        float32 (classes, r + 1) for every C, intercepts last and free of penalty.
    """
    target = torch.from_numpy(y).to(basis.Z.device)
    each = None if row_weights is None else torch.from_numpy(row_weights).to(basis.Z.device)[:, None, None]
    together = max(1, _COLUMNS // (int(y.max()) + 1))
    start = None
    for first in range(0, len(penalties), together):
        found = _solve(basis, target, penalties[first : first + together], loss, each, start)
        start = found[-1]
        yield from found


def _solve(
    basis: Basis, y: Tensor, penalties: Sequence[float], loss: Loss, each: Tensor | None, start: Tensor | None
) -> Tensor:
    """Return (B, classes, r + 1) weights for B penalties; all start from `start` (classes, r + 1), or from 0."""
    device, (n, width), classes = basis.Z.device, basis.Z.shape, int(y.max()) + 1
    C = torch.tensor(penalties, device=device, dtype=torch.float64)
    curvature = 2.0 if loss is squared_hinge else 1.0 / classes
    power = torch.cat([basis.power, torch.tensor([float(n)], device=device)])
    penalised = torch.ones(width, device=device)
    penalised[-1] = 0
    scale = (C[:, None] * curvature * power + penalised).sqrt().float()[:, None]

    def objective(flat: Tensor, some: Tensor) -> tuple[Tensor, Tensor]:
        weights = flat.view(len(flat), classes, width) / scale[some]
        scores = linear(basis.Z, weights.flatten(0, 1)).view(n, len(flat), classes)
        losses, slopes = loss(scores, y)
        if each is not None:
            losses, slopes = losses * each[:, 0], slopes * each
        pull = penalised * weights
        value = C[some] * losses.sum(0, dtype=torch.float64) + 0.5 * (pull * weights).sum((1, 2), dtype=torch.float64)
        slope = (slopes.flatten(1).T @ basis.Z).view_as(weights)  # in this form few classes are four times as fast
        return value, ((C[some, None, None].float() * slope + pull) / scale[some]).flatten(1)

    first = torch.zeros(len(C), classes, width, device=device) if start is None else start * scale
    return minimise(objective, first.flatten(1)).view(len(C), classes, width) / scale


def _mean(X: Array, row_weights: Array | None) -> NDArray[np.float64]:
    weights = np.ones(len(X)) if row_weights is None else row_weights.astype(np.float64)
    mean: NDArray[np.float64] = weights @ X / weights.sum()
    return mean


def softmax_loss(scores: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-losses (n, B) of the softmax of `scores` (n, B, C) for labels (n,), and their slopes (n, B, C)."""
    logs = torch.log_softmax(scores, 2)
    hit = y[:, None, None].expand(-1, scores.shape[1], 1)
    losses = -logs.gather(2, hit)[..., 0]
    slopes = logs.exp_()
    return losses, slopes.scatter_add_(2, hit, scores.new_full((), -1.0).expand(hit.shape))


def squared_hinge(scores: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared hinge losses (n, B) of one-against-rest `scores` (n, B, C), and their slopes (n, B, C)."""
    sign = scores.new_full((len(y), 1, scores.shape[2]), -1.0)
    sign.scatter_(2, y[:, None, None], 1.0)
    short = (1 - sign * scores).clamp_min_(0)
    return short.square().sum(2), -2 * sign * short
