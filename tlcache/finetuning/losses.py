"""What a training minimises, by name; torch is imported when a loss is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LOSSES", "Loss", "make_loss"]

Loss = Callable[["Tensor", "Tensor"], "Tensor"]


def _cross_entropy(logits: Tensor, labels: Tensor, smoothing: float, weights: Tensor | None) -> Tensor:
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, labels, weights, label_smoothing=smoothing)


def _binary_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float, weights: Tensor | None) -> Tensor:
    """Return the cross-entropy of every class against the others, summed over classes."""
    from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

    classes = logits.shape[1]
    targets = one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes
    losses = binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)
    if weights is None:
        return losses.mean()
    return (losses * weights[labels]).sum() / weights[labels].sum()


LOSSES: Mapping[str, Callable[[Tensor, Tensor, float, Tensor | None], Tensor]] = {
    "ce": _cross_entropy,
    "bce": _binary_cross_entropy,
}


def make_loss(name: str, smoothing: float = 0.0, weights: Tensor | None = None) -> Loss:
    """Return the mean loss of logits (n, C) and labels (n,): a name of `LOSSES`, classes weighted by `weights` (C,)."""
    return lambda logits, labels: LOSSES[name](logits, labels, smoothing, weights)
