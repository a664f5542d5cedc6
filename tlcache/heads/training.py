"""Small networks trained side by side, as batched matrix products."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlcache.heads.base import Validation
from tlcache.heads.large import empty
from tlcache.heads.losses import OF_CLASSES, Loss, loss_of
from tlcache.heads.optimizers import Optimizer, find_optimizer
from tlcache.heads.rows import Array, Features, blocks

__all__ = ["train"]


@dataclass(frozen=True)
class _Memory:
    """What an optimizer keeps of one network: two moments of its numbers, and two counters."""

    first: Tensor
    second: Tensor
    steps: Tensor
    product: Tensor

    @classmethod
    def fresh(cls, numbers: Tensor) -> _Memory:
        return cls(torch.zeros_like(numbers), torch.zeros_like(numbers), numbers.new_zeros(()), numbers.new_ones(()))


@dataclass(frozen=True)
class _Steps:
    """What changes a network by one step: an optimizer's function with its settings."""

    function: Callable[..., None]
    keeps: tuple[str, ...]
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, optimizer: Optimizer) -> _Steps:
        return cls(optimizer.function(), optimizer.keeps, optimizer.function_settings())

    def __call__(self, numbers: Tensor, gradient: Tensor, memory: _Memory, lr: float, weight_decay: float) -> None:
        """Change `numbers` and `memory` by one step against the gradient."""
        kept = ([getattr(memory, name)] if name else [] for name in self.keeps)
        self.function([numbers], [gradient], *kept, lr=lr, weight_decay=weight_decay, **self.settings)


class Network(Protocol):
    """What is trained: a head with these settings, which is told of its epochs and given its layers."""

    classes_: NDArray[Any]
    optimizer: str
    learning_rate: float
    weight_decay: float
    epochs: int | None
    EPOCHS: ClassVar[int]
    patience: int
    batch_size: int | None
    seed: int
    history_: list[dict[str, float]]
    best_epoch_: int

    def hidden_sizes(self) -> tuple[int, ...]:
        """Return the units of each hidden layer."""
        ...

    def dropout_rate(self) -> float:
        """Return the share of units that are dropped after each hidden layer."""
        ...

    def row_weights(self, y: NDArray[np.int64]) -> Array | None:
        """Return a weight for each row, float32 (n,), or None where all are 1."""
        ...

    def keep(self, layers: Sequence[tuple[Array, Array]]) -> None:
        """Copy layers, each (in, out) weights and (out,) biases."""
        ...


_ROWS = 1024  # that are scored at a time
_STEPS = 64  # of an epoch, where its rows are enough and not too many
_FEWEST, _MOST = 128, 1024  # rows to a step: with more, a pass over many rows teaches less, in the same time
_LEAST_EPOCHS = 10
_NEWEST = 0.3  # share of the newest weights in the average


def train(heads: Sequence[Network], X: Features, y: NDArray[Any], validation: Validation) -> None:
    """Train networks of one shape until each has had its epochs, or no better validation score for its patience.

    Every network draws its weights, its order of rows and its dropout from its own seed, and so becomes the same, up
    to rounding, whatever is trained beside it. What is scored and kept is the moving average of its weights after each
    epoch, which is steadier and a little better than the last weights (Polyak and Juditsky, 1992).

    Parameters
    ----------
    y
        Labels (n,), or columns (n, C) as `tlcache.heads.base.Head.fit_columns` takes them.

    Raises
    ------
    FloatingPointError
        A loss is not finite.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    row_weights, loss = heads[0].row_weights(y), loss_of(y)
    weights = np.ones(len(y), np.float32) if row_weights is None else row_weights
    rows = _tensor(X, device), _wanted(y, device), torch.from_numpy(weights).to(device)
    held_out = validation and (_tensor(validation[0], device), _wanted(validation[1], device))
    stack = _Stack.start(heads, X.shape[1], device, loss)
    last = _last_epoch(heads[0], len(y))
    for epoch in range(1, last + 1):
        losses = stack.epoch(*rows)
        scores = None if held_out is None else stack.score(*held_out)
        going = [
            _note(head, epoch, last, losses[number], scores[number] if scores else None)
            for number, head in enumerate(stack.heads)
        ]
        for number, head in enumerate(stack.heads):
            if head.best_epoch_ == epoch:
                head.keep(stack.layers_of(number))
        if not any(going):
            return
        if not all(going):
            stack = stack.of([number for number, on in enumerate(going) if on])


def _step_rows(head: Network, n: int) -> int:
    return head.batch_size or min(max(_FEWEST, n // _STEPS), _MOST)


def _last_epoch(head: Network, n: int) -> int:
    """Return the most epochs of `n` rows: where these have more steps than usual, as many steps as of fewer rows."""
    steps = max(_STEPS, n // _step_rows(head, n))
    return max(_LEAST_EPOCHS, head.EPOCHS * _STEPS // steps) if head.epochs is None else head.epochs


def _note(head: Network, epoch: int, last: int, loss: float, score: tuple[float | None, float] | None) -> bool:
    """Note what an epoch brought; return whether the network is to have another one."""
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss became {loss} in epoch {epoch}")
    figures = {"epoch": epoch, "train_loss": loss}
    if score is None:
        head.history_.append(figures)
        head.best_epoch_ = epoch if epoch == last else 0
        return epoch < last
    accuracy, val_loss = score
    best = head.history_[head.best_epoch_ - 1] if head.best_epoch_ else {"val_accuracy": -1.0, "val_loss": np.inf}
    known = {} if accuracy is None else {"val_accuracy": accuracy}  # without it, the loss alone decides
    head.history_.append({**figures, "val_loss": val_loss, **known})
    if (accuracy or 0.0, -val_loss) > (best.get("val_accuracy", 0.0), -best["val_loss"]):
        head.best_epoch_ = epoch
    return epoch < last and epoch - head.best_epoch_ < head.patience


def _tensor(X: Features, device: torch.device) -> Tensor:
    """Return rows as the products take them."""
    kind = _kind(device)
    if device.type != "cpu":
        rows = torch.empty(X.shape, dtype=kind, device=device)
    elif kind == torch.bfloat16:  # which NumPy does not have
        rows = torch.from_numpy(empty(X.shape, np.int16)).view(kind)
    else:
        rows = torch.from_numpy(empty(X.shape))
    for some in blocks(len(X)):
        rows[some] = torch.from_numpy(X[some])
    return rows


def _wanted(y: NDArray[Any], device: torch.device) -> Tensor:
    """Return labels (n,), or columns (n, C), as losses take them."""
    return torch.from_numpy(y if y.ndim == 1 else y.astype(np.float32)).to(device)


def _kind(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if _fast_bf16(device) else torch.float32


def _fast_bf16(device: torch.device) -> bool:
    """Return whether products in bfloat16 take half the time; weights, sums and steps stay float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


class _Stack:
    """B networks of one shape.

    `numbers` (B, P) are all their weights and biases, `averages` (B, P) the moving average of these.
    """

    def __init__(
        self,
        heads: Sequence[Network],
        width: int,
        numbers: Tensor,
        averages: Tensor,
        randoms: list[np.random.Generator],
        loss: Loss,
    ) -> None:
        self._loss = loss
        self.heads, self.numbers, self.averages, self.randoms = heads, numbers, averages, randoms
        self._width, self._gradient = width, torch.zeros_like(numbers)
        self._memories = [_Memory.fresh(own) for own in numbers]
        threshold = np.round(65536 * np.array([head.dropout_rate() for head in heads]))[:, None, None]
        self._threshold = threshold.astype(np.uint16)
        self._makes_up = torch.from_numpy((65536 / (65536 - threshold)).astype(np.float32)).to(numbers.device)

    @classmethod
    def start(cls, heads: Sequence[Network], width: int, device: torch.device, loss: Loss = OF_CLASSES) -> _Stack:
        """Draw weights as torch draws those of its linear layers: uniform within 1 / sqrt(inputs)."""
        randoms = [np.random.default_rng(head.seed) for head in heads]
        drawn = [
            [random.uniform(-(rows**-0.5), rows**-0.5, (rows + 1) * columns) for rows, columns in _shapes(head, width)]
            for head, random in zip(heads, randoms, strict=True)
        ]
        for head in heads:
            head.history_, head.best_epoch_ = [], 0
        numbers = torch.from_numpy(np.stack([np.concatenate(layers) for layers in drawn]).astype(np.float32))
        return cls(heads, width, numbers.to(device), torch.empty(0), randoms, loss)

    def _layers(self, numbers: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return views of (B, P) numbers: of each layer the weights (B, in, out) and biases (B, 1, out)."""
        views, start = [], 0
        for rows, columns in _shapes(self.heads[0], self._width):
            end = start + (rows + 1) * columns
            both = numbers[:, start:end].view(-1, rows + 1, columns)
            views.append((both[:, :-1], both[:, -1:]))
            start = end
        return views

    def of(self, numbers: list[int]) -> _Stack:
        """Return some of the networks, which go on as if nothing had happened."""
        heads, randoms = [self.heads[number] for number in numbers], [self.randoms[number] for number in numbers]
        fewer = _Stack(heads, self._width, self.numbers[numbers], self.averages[numbers], randoms, self._loss)
        fewer._memories = [self._memories[number] for number in numbers]
        return fewer

    @torch.inference_mode()
    def epoch(self, features: Tensor, labels: Tensor, row_weights: Tensor) -> list[float]:
        """Take every row once; return each network's mean loss."""
        n, device = len(labels), self.numbers.device
        size = _step_rows(self.heads[0], n)
        orders = torch.from_numpy(np.stack([random.permutation(n) for random in self.randoms])).to(device)
        step = _Steps.of(find_optimizer(self.heads[0].optimizer))
        total = torch.zeros(len(self.heads), device=device)
        for rows in torch.split(orders, size, dim=1):
            weights = row_weights[rows]
            losses = self._descend(features[rows], labels[rows], weights / weights.sum(1, keepdim=True))
            for number, head in enumerate(self.heads):
                own = self.numbers[number], self._gradient[number], self._memories[number]
                step(*own, head.learning_rate, head.weight_decay)
            total += losses * rows.shape[1]
        self.averages = self.averages.lerp_(self.numbers, _NEWEST) if len(self.averages) else self.numbers.clone()
        means: list[float] = (total / n).tolist()
        return means

    def _descend(self, x: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Set the gradients of the losses, the weighted sums over rows, and return these."""
        logits, inputs, matrices = self._forward(self.numbers, x, dropping=True)
        losses, back = self._loss.descend(logits, labels, weights)
        gradients = self._layers(self._gradient)
        for number in reversed(range(len(inputs))):
            of_weights, of_biases = gradients[number]
            of_biases.copy_(back.sum(1, keepdim=True))
            back = back.to(x.dtype)
            of_weights.copy_(inputs[number].mT @ back)
            if number:  # a unit that was dropped, or below zero, has 0 there
                back = (back @ matrices[number].mT).float().mul_(inputs[number] > 0).mul_(self._makes_up)
        return losses

    def _forward(self, numbers: Tensor, x: Tensor, dropping: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return the logits, what went into each layer, and the weights that it was multiplied by."""
        kind = _kind(x.device)
        inputs, matrices = [], []
        for number, (weights, biases) in enumerate(self._layers(numbers)):
            if number:
                x.relu_()
                if dropping:
                    x.mul_(self._kept(x.shape)).mul_(self._makes_up)
            inputs.append(x.to(kind))
            matrices.append(weights.to(kind))
            x = torch.matmul(inputs[-1], matrices[-1]).float().add_(biases)
        return x, inputs, matrices

    def _kept(self, shape: torch.Size) -> Tensor:
        """Draw which units are not dropped: bool (B, rows, units)."""
        drawn = np.stack([random.integers(0, 65536, shape[1:], np.uint16) for random in self.randoms])
        return torch.from_numpy(drawn >= self._threshold).to(self.numbers.device)

    @torch.inference_mode()
    def score(self, features: Tensor, labels: Tensor) -> list[tuple[float | None, float]]:
        """Return each network's accuracy, where there is one, and its mean loss on validation rows."""
        parts = [self._forward(self.averages, some, dropping=False) for some in torch.split(features, _ROWS)]
        return self._loss.score(torch.cat([logits for logits, _, _ in parts], dim=1), labels)

    def layers_of(self, number: int) -> list[tuple[Array, Array]]:
        """Return the layers of one network as arrays, (in, out) and (out,)."""
        return [
            (weights[number].cpu().numpy(), biases[number, 0].cpu().numpy())
            for weights, biases in self._layers(self.averages)
        ]


def _shapes(head: Network, width: int) -> list[tuple[int, int]]:
    """Return the shapes (in, out) of a network's layers on features of this width."""
    sizes = [width, *head.hidden_sizes(), len(head.classes_)]
    return list(pairwise(sizes))
