"""What a training minimises, by name; torch is imported when a loss is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tlcache.tasks import MULTILABEL, REGRESSION

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LOSSES", "Loss", "hits", "make_loss", "row_weights", "teaching"]

Loss = Callable[["Tensor", "Tensor"], "Tensor"]


def _cross_entropy(logits: Tensor, labels: Tensor, smoothing: float, weights: Tensor | None) -> Tensor:
    from torch.nn.functional import cross_entropy

    loss = cross_entropy(logits, labels, weights, label_smoothing=smoothing)
    return loss if labels.ndim == 1 or weights is None else loss * len(labels) / row_weights(labels, weights).sum()


def _binary_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float, weights: Tensor | None) -> Tensor:
    """Return the cross-entropy of every class against the others, summed over classes."""
    from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

    classes = logits.shape[1]
    shares = one_hot(labels, classes).float() if labels.ndim == 1 else labels
    targets = shares * (1 - smoothing) + smoothing / classes
    losses = binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)
    if weights is None:
        return losses.mean()
    own = row_weights(labels, weights)
    return (losses * own).sum() / own.sum()


def _logistic(logits: Tensor, has: Tensor, smoothing: float, weights: Tensor | None) -> Tensor:
    """Return the binary cross-entropy of labels (n, C) of 0 and 1, summed over labels."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    del smoothing, weights  # which are of classes
    return binary_cross_entropy_with_logits(logits, has.float(), reduction="none").sum(1).mean()


def _square(logits: Tensor, numbers: Tensor, smoothing: float, weights: Tensor | None) -> Tensor:
    """Return half of the squared errors of standardised numbers (n, C)."""
    del smoothing, weights
    return (logits - numbers).square().sum(1).mean() / 2


LOSSES: Mapping[str, Callable[[Tensor, Tensor, float, Tensor | None], Tensor]] = {
    "ce": _cross_entropy,
    "bce": _binary_cross_entropy,
}
_OF_COLUMNS = {MULTILABEL: _logistic, REGRESSION: _square}


def make_loss(name: str, smoothing: float = 0.0, weights: Tensor | None = None) -> Loss:
    """Return the mean loss of logits (n, C) and what is learned.

    Parameters
    ----------
    name
        Of `LOSSES`, with labels (n,) or shares of classes (n, C); or a task other than classes, with its columns.
    smoothing, weights
        Share of a label that is spread over all classes; weights of the classes (C,).
    """
    loss = {**LOSSES, **_OF_COLUMNS}[name]
    return lambda logits, wanted: loss(logits, wanted, smoothing, weights)


def teaching(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of logits (n, C) with what a teacher says (n, C), both at a temperature, by its square.

    Its gradient is that of the divergence that Hinton et al. (2015) take.
    """
    from torch.nn.functional import cross_entropy

    softer = taught ** (1 / temperature)
    return cross_entropy(logits / temperature, softer / softer.sum(1, keepdim=True)) * temperature**2


def row_weights(labels: Tensor, weights: Tensor) -> Tensor:
    """Return the weights (n,) of labels (n,), or of shares of classes (n, C), by those of classes (C,)."""
    return weights[labels] if labels.ndim == 1 else labels @ weights


def hits(logits: Tensor, wanted: Tensor) -> int:
    """Return how many labels (n,) have the largest logit (n, C); 0 of columns (n, C), which are not counted."""
    return int((logits.argmax(1) == wanted).sum()) if wanted.ndim == 1 else 0
