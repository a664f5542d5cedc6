"""What heads have in common that are trained by gradient steps in torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from tlcache.heads.base import Head, Validation
from tlcache.heads.logits import layered, split_layers
from tlcache.heads.optimizers import find_optimizer
from tlcache.heads.rows import Array, Features

__all__ = ["Network"]


class Network(Head):
    """Fully connected layers with ReLU and dropout between them; minimises the log-loss in mini-batches.

    Networks of one shape are trained side by side, whatever their learning rates, decays, dropout and seeds are.
    """

    STATE: ClassVar[tuple[str, ...]] = ("layers_", "shapes_")
    EPOCHS: ClassVar[int] = 100
    LEARNS_COLUMNS: ClassVar[bool] = True

    optimizer: str
    learning_rate: float
    weight_decay: float
    epochs: int | None
    patience: int
    batch_size: int | None
    seed: int
    history_: list[dict[str, float]]
    best_epoch_: int

    def hidden_sizes(self) -> tuple[int, ...]:
        """Return the units of each hidden layer."""
        return ()

    def dropout_rate(self) -> float:
        """Return the share of units that are dropped after each hidden layer."""
        return 0.0

    def chosen(self) -> dict[str, Any]:
        """Return the parameters, with the number of epochs that was best on validation."""
        return {**self.get_params(), "epochs": self.best_epoch_}

    @classmethod
    def _fit_heads(cls, heads: Sequence[Self], X: Features, y: NDArray[Any], validation: Validation) -> None:
        from tlcache.heads.training import train

        for head in heads:
            find_optimizer(head.optimizer)
        for _, alike in groupby(sorted(heads, key=cls._shape), key=cls._shape):
            train(list(alike), X, y, validation)

    def _shape(self) -> tuple[Any, ...]:
        """Return what networks must share to be trained side by side."""
        return (self.hidden_sizes(), self.optimizer, self.batch_size, self.epochs, self.patience)

    def build(self, width: int) -> Any:
        """Return the layers as a torch module with fresh weights: (n, width) -> logits of `classes_`, (n, C)."""
        from torch import nn

        layers: list[nn.Module] = []
        for size in self.hidden_sizes():
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(self.dropout_rate())]
            width = size
        return nn.Sequential(*layers, nn.Linear(width, len(self.classes_)))

    def keep(self, layers: Sequence[tuple[Array, Array]]) -> None:
        """Copy layers, each (in, out) weights and (out,) biases, into one array of numbers and one of shapes (L, 2)."""
        self.layers_ = np.concatenate([part.ravel() for layer in layers for part in layer])
        self.shapes_ = np.array([weights.shape for weights, _ in layers], np.int64)

    def layers(self) -> Iterator[tuple[Array, Array]]:
        """Return weights (in, out) and biases (out,) of each fitted layer, from the features on."""
        return split_layers(self)

    def _logits(self, X: Array) -> Array:
        return layered(self, X)
