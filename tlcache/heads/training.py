"""Small networks trained side by side, as batched matrix products."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from tlcache.heads.base import Array, Validation

if TYPE_CHECKING:
    from tlcache.heads.neural import Network

__all__ = ["OPTIMIZERS", "train"]

OPTIMIZERS: Mapping[str, tuple[Callable[..., torch.optim.Optimizer], Mapping[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "fused": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adam": (torch.optim.Adam, {"fused": True}),
    "nadam": (torch.optim.NAdam, {}),
    "adamw": (torch.optim.AdamW, {"fused": True}),
}

_ROWS = 1024  # that are scored at a time


def train(heads: Sequence[Network], X: Array, y: NDArray[np.int64], validation: Validation) -> None:
    """Train networks of one shape until each has had its epochs, or no better validation score for its patience.

    Every network draws its weights, its order of rows and its dropout from its own seed, and so becomes the same, up
    to rounding, whatever is trained beside it.

    Raises
    ------
    FloatingPointError
        A loss is not finite.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    row_weights = heads[0]._row_weights(y)
    weights = np.ones(len(y), np.float32) if row_weights is None else row_weights
    features, *others = (torch.from_numpy(part).to(device) for part in (X, y, weights))
    rows = [features.bfloat16() if _fast_bf16(device) else features, *others]
    held_out = None if validation is None else [torch.from_numpy(part).to(device) for part in validation]
    stack = _Stack.start(heads, X.shape[1], device)
    for epoch in range(1, heads[0].epochs + 1):
        losses = stack.epoch(*rows)
        scores = None if held_out is None else stack.score(*held_out)
        going = [
            _note(head, epoch, losses[number], scores[number] if scores else None)
            for number, head in enumerate(stack.heads)
        ]
        for number, head in enumerate(stack.heads):
            if head.best_epoch_ == epoch:
                head._keep(stack.layers_of(number))
        if not any(going):
            return
        if not all(going):
            stack = stack.of([number for number, on in enumerate(going) if on])


def _note(head: Network, epoch: int, loss: float, score: tuple[float, float] | None) -> bool:
    """Note what an epoch brought; return whether the network is to have another one."""
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss became {loss} in epoch {epoch}")
    figures = {"epoch": epoch, "train_loss": loss}
    if score is None:
        head.history_.append(figures)
        head.best_epoch_ = epoch if epoch == head.epochs else 0
        return epoch < head.epochs
    accuracy, val_loss = score
    best = head.history_[head.best_epoch_ - 1] if head.best_epoch_ else {"val_accuracy": -1.0, "val_loss": 0.0}
    head.history_.append({**figures, "val_loss": val_loss, "val_accuracy": accuracy})
    if (accuracy, -val_loss) > (best["val_accuracy"], -best["val_loss"]):
        head.best_epoch_ = epoch
    return epoch < head.epochs and epoch - head.best_epoch_ < head.patience


def _fast_bf16(device: torch.device) -> bool:
    """Return whether products in bfloat16 take half the time; weights, sums and steps stay float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


class _Stack:
    """B networks of one shape: `layers` are pairs of weights (B, in, out) and biases (B, 1, out)."""

    def __init__(
        self, heads: Sequence[Network], layers: list[tuple[Tensor, Tensor]], randoms: list[np.random.Generator]
    ) -> None:
        self.heads, self.layers, self.randoms = heads, layers, randoms
        self._device = layers[0][0].device
        self._tensors = [part.requires_grad_() for layer in layers for part in layer]
        self._parts = [[part.detach()[number] for part in self._tensors] for number in range(len(heads))]
        groups = [
            {"params": parts, "lr": head.learning_rate, "weight_decay": head.weight_decay}
            for head, parts in zip(heads, self._parts, strict=True)
        ]
        kind, options = OPTIMIZERS[heads[0].optimizer]
        self._optimizer = kind(groups, lr=0.1, **options)
        threshold = np.round(65536 * np.array([head._dropout() for head in heads]))[:, None, None]
        self._threshold, self._makes_up = threshold.astype(np.uint16), (65536 / (65536 - threshold)).astype(np.float32)

    @classmethod
    def start(cls, heads: Sequence[Network], width: int, device: torch.device) -> _Stack:
        """Draw weights as torch draws those of its linear layers: uniform within 1 / sqrt(inputs)."""
        randoms = [np.random.default_rng(head.seed) for head in heads]
        layers = []
        for size in (*heads[0]._hidden(), len(heads[0].classes_)):
            bound = 1 / np.sqrt(width)
            drawn = [random.uniform(-bound, bound, (width + 1, size)).astype(np.float32) for random in randoms]
            both = torch.from_numpy(np.stack(drawn)).to(device)
            layers.append((both[:, :-1].contiguous(), both[:, -1:].contiguous()))
            width = size
        for head in heads:
            head.history_, head.best_epoch_ = [], 0
        return cls(heads, layers, randoms)

    def of(self, numbers: list[int]) -> _Stack:
        """Return some of the networks, which go on as if nothing had happened."""
        layers = [(weights.detach()[numbers], biases.detach()[numbers]) for weights, biases in self.layers]
        fewer = _Stack([self.heads[number] for number in numbers], layers, [self.randoms[number] for number in numbers])
        for new, number in zip(fewer._parts, numbers, strict=True):
            for part, old in zip(new, self._parts[number], strict=True):
                fewer._optimizer.state[part] = self._optimizer.state[old]
        return fewer

    def epoch(self, features: Tensor, labels: Tensor, row_weights: Tensor) -> list[float]:
        """Take every row once; return each network's mean loss."""
        n = len(labels)
        size = self.heads[0].batch_size or max(128, n // 64)
        orders = torch.from_numpy(np.stack([random.permutation(n) for random in self.randoms])).to(self._device)
        total = torch.zeros(len(self.heads), device=self._device)
        for rows in torch.split(orders, size, dim=1):
            logits = self._forward(features[rows], dropping=True)
            losses = cross_entropy(logits.mT, labels[rows], reduction="none")
            weights = row_weights[rows]
            mean = (losses * weights).sum(1) / weights.sum(1)
            for part in self._tensors:
                part.grad = None
            mean.sum().backward()  # type: ignore[no-untyped-call]
            self._step()
            total += mean.detach() * rows.shape[1]
        means: list[float] = (total / n).tolist()
        return means

    def _forward(self, x: Tensor, dropping: bool) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=_fast_bf16(self._device)):
            for number, (weights, biases) in enumerate(self.layers):
                if number:
                    x = x.relu()
                    if dropping:
                        x = x * self._kept(x.shape)
                x = torch.matmul(x, weights) + biases
        return x.float()

    def _kept(self, shape: torch.Size) -> Tensor:
        """Return 0 where a unit is dropped, else what makes up for those that are."""
        drawn = np.stack([random.integers(0, 65536, shape[1:], np.uint16) for random in self.randoms])
        return torch.from_numpy((drawn >= self._threshold) * self._makes_up).to(self._device)

    def _step(self) -> None:
        for number, parts in enumerate(self._parts):
            for part, stacked in zip(parts, self._tensors, strict=True):
                part.grad = None if stacked.grad is None else stacked.grad[number]
        self._optimizer.step()

    @torch.inference_mode()
    def score(self, features: Tensor, labels: Tensor) -> list[tuple[float, float]]:
        """Return each network's accuracy and mean log-loss on validation rows."""
        parts = [self._forward(some, dropping=False) for some in torch.split(features, _ROWS)]
        logits = torch.cat(parts, dim=1)
        accuracy = (logits.argmax(2) == labels).float().mean(1)
        losses = cross_entropy(logits.mT, labels.expand(len(logits), -1), reduction="none").mean(1)
        return list(zip(accuracy.tolist(), losses.tolist(), strict=True))

    def layers_of(self, number: int) -> list[tuple[Array, Array]]:
        """Return the layers of one network as arrays, (in, out) and (out,)."""
        return [
            (weights.detach()[number].cpu().numpy(), biases.detach()[number, 0].cpu().numpy())
            for weights, biases in self.layers
        ]
