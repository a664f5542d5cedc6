"""What networks of `tlcache.heads.training` minimise: a loss of (B, n, C) logits, and its slopes."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

__all__ = ["OF_CLASSES", "Loss", "loss_of"]


class Loss(Protocol):
    """A loss of logits (B, n, C) of B networks; `wanted` are labels (n,), or columns (n, C) as floats."""

    def descend(self, logits: Tensor, wanted: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of losses (B,) weighted by rows (B, n), and their slopes, which may be the logits' memory."""

    def score(self, logits: Tensor, wanted: Tensor) -> list[tuple[float | None, float]]:
        """Return for each network its accuracy, where it is of classes, and its mean loss."""


def loss_of(y: NDArray[Any]) -> Loss:
    """Return the loss of labels (n,), or of columns as `tlcache.heads.base.Head.fit_columns` takes them."""
    return OF_CLASSES if y.ndim == 1 else _Logistic() if y.dtype == np.uint8 else _Square()


class _Softmax:
    def descend(self, logits: Tensor, wanted: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        logs = logits.log_softmax(2)
        chosen = wanted[:, :, None]
        losses = -(logs.gather(2, chosen)[:, :, 0] * weights).sum(1)
        return losses, logs.exp_().scatter_add_(2, chosen, torch.full_like(logs[:, :, :1], -1)).mul_(
            weights[:, :, None]
        )

    def score(self, logits: Tensor, wanted: Tensor) -> list[tuple[float | None, float]]:
        accuracy = (logits.argmax(2) == wanted).float().mean(1)
        losses = cross_entropy(logits.mT, wanted.expand(len(logits), -1), reduction="none").mean(1)
        return list(zip(accuracy.tolist(), losses.tolist(), strict=True))


class _Logistic:
    """The log-losses of independent labels, summed over the labels."""

    def descend(self, logits: Tensor, wanted: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        losses = binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(2)
        return (losses * weights).sum(1), (logits.sigmoid() - wanted).mul_(weights[:, :, None])

    def score(self, logits: Tensor, wanted: Tensor) -> list[tuple[float | None, float]]:
        losses = binary_cross_entropy_with_logits(logits, wanted.expand_as(logits), reduction="none").mean((1, 2))
        return [(None, loss) for loss in losses.tolist()]


class _Square:
    """Half of the squared errors."""

    def descend(self, logits: Tensor, wanted: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        apart = logits - wanted
        return (apart.square().sum(2) * weights).sum(1) / 2, apart.mul_(weights[:, :, None])

    def score(self, logits: Tensor, wanted: Tensor) -> list[tuple[float | None, float]]:
        losses = mse_loss(logits, wanted.expand_as(logits), reduction="none").mean((1, 2)) / 2
        return [(None, loss) for loss in losses.tolist()]


OF_CLASSES: Loss = _Softmax()
