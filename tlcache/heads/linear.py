"""A softmax layer, trained by gradient steps."""

from __future__ import annotations

from typing import Any

from tlcache.heads.network import Network

__all__ = ["Linear"]


class Linear(Network):
    """A softmax layer trained by gradient steps.

    Parameters
    ----------
    optimizer
        `sgd` (momentum 0.9), `rmsprop`, `adam`, `nadam` or `adamw`.
    learning_rate, weight_decay, seed
        As in torch.
    batch_size
        Rows to a step; None: 128, and up to 1,024 where that would be over 64 steps an epoch.
    epochs, patience
        Most epochs, and epochs without a better validation score after which training stops. None: `EPOCHS`, and
        fewer of more than 64 steps each, as many steps in all, but 10.
    class_weight
        `balanced`, a weight per label, or None.
    """

    def __init__(
        self,
        optimizer: str = "sgd",
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
        epochs: int | None = None,
        patience: int = 10,
        batch_size: int | None = None,
        class_weight: Any = None,
        seed: int = 0,
    ) -> None:
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.class_weight = class_weight
        self.seed = seed
