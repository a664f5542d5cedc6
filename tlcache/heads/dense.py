"""The study's head: dense layers with dropout."""

from __future__ import annotations

from typing import Any, ClassVar

from tlcache.heads.network import Network

__all__ = ["Dense"]


class Dense(Network):
    """The study's head: dense 512, dropout 0.6, dense 512, dropout 0.6, softmax.

    Parameters
    ----------
    hidden, depth, dropout
        Units of a hidden layer, number of hidden layers, and share of units dropped after each.
    optimizer, learning_rate, weight_decay, epochs, patience, batch_size, seed
        As for `Linear`.
    """

    EPOCHS: ClassVar[int] = 60

    def __init__(
        self,
        hidden: int = 512,
        depth: int = 2,
        dropout: float = 0.6,
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        epochs: int | None = None,
        patience: int = 10,
        batch_size: int | None = None,
        class_weight: Any = None,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.depth = depth
        self.dropout = dropout
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.class_weight = class_weight
        self.seed = seed

    def hidden_sizes(self) -> tuple[int, ...]:
        """Return the units of each hidden layer."""
        return (self.hidden,) * self.depth

    def dropout_rate(self) -> float:
        """Return the share of units that are dropped after each hidden layer."""
        return self.dropout
