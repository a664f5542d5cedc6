"""Heads trained by gradient steps in torch: a softmax layer, and the study's dense layers with dropout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tlcache.errors import UnknownNameError, closest
from tlcache.heads.base import Array, Head

__all__ = ["OPTIMIZERS", "Dense", "Linear"]

OPTIMIZERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "sgd": ("SGD", {"momentum": 0.9}),
    "rmsprop": ("RMSprop", {}),
    "adam": ("Adam", {}),
    "nadam": ("NAdam", {}),
    "adamw": ("AdamW", {}),
}


class _Network(Head):
    """Fully connected layers with ReLU and dropout between them; minimises the log-loss in mini-batches."""

    STATE: ClassVar[tuple[str, ...]] = ("layers_", "shapes_")

    optimizer: str
    learning_rate: float
    weight_decay: float
    epochs: int
    patience: int
    batch_size: int
    seed: int

    def _hidden(self) -> tuple[int, ...]:
        return ()

    def _dropout(self) -> float:
        return 0.0

    def chosen(self) -> dict[str, Any]:
        """Return the parameters, with the number of epochs that was best on validation."""
        return {**self.get_params(), "epochs": self.best_epoch_}

    def _fit(self, X: Array, y: NDArray[np.int64], validation: tuple[Array, NDArray[np.int64]] | None) -> None:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self._train(X, y, validation)

    def _train(self, X: Array, y: NDArray[np.int64], validation: tuple[Array, NDArray[np.int64]] | None) -> None:
        import torch
        from torch.nn.functional import cross_entropy

        network = self.build(X.shape[1])
        features, labels = torch.from_numpy(X), torch.from_numpy(y)
        optimizer = self._optimizer(network.parameters())
        self.history_: list[dict[str, float]] = []
        best, self.best_epoch_ = (-1.0, 0.0), self.epochs
        for epoch in range(1, self.epochs + 1):
            network.train()
            total = 0.0
            for rows in torch.split(torch.randperm(len(labels)), self.batch_size):
                loss = cross_entropy(network(features[rows]), labels[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += float(loss.detach()) * len(rows)
            figures = {"epoch": epoch, "train_loss": total / len(labels)}
            if not np.isfinite(total):
                raise FloatingPointError(f"the loss became {total / len(labels)} in epoch {epoch}")
            if validation is None:
                self.history_.append(figures)
                continue
            accuracy, loss_val = _score(network, *validation)
            self.history_.append({**figures, "val_loss": loss_val, "val_accuracy": accuracy})
            if (accuracy, -loss_val) > best:
                best, self.best_epoch_ = (accuracy, -loss_val), epoch
                self._keep(network)
            elif epoch - self.best_epoch_ >= self.patience:
                break
        if validation is None:
            self._keep(network)

    def build(self, width: int) -> Any:
        """Return the layers as a torch module with fresh weights: (n, width) -> logits of `classes_`, (n, C)."""
        from torch import nn

        layers: list[nn.Module] = []
        for size in self._hidden():
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(self._dropout())]
            width = size
        return nn.Sequential(*layers, nn.Linear(width, len(self.classes_)))

    def _optimizer(self, parameters: Any) -> Any:
        import torch

        if self.optimizer not in OPTIMIZERS:
            raise UnknownNameError(closest("optimizer", self.optimizer, OPTIMIZERS))
        name, extra = OPTIMIZERS[self.optimizer]
        return getattr(torch.optim, name)(parameters, lr=self.learning_rate, weight_decay=self.weight_decay, **extra)

    def _keep(self, network: Any) -> None:
        """Copy all layers into one array of weights and one of shapes, (L, 2)."""
        matrices = [layer for layer in network if hasattr(layer, "weight")]
        weights = [part.detach().numpy().ravel() for layer in matrices for part in (layer.weight, layer.bias)]
        self.layers_ = np.concatenate(weights)
        self.shapes_ = np.array([tuple(layer.weight.shape) for layer in matrices], np.int64)

    def _logits(self, X: Array) -> Array:
        start = 0
        for number, (rows, columns) in enumerate(self.shapes_):
            if number:
                X = np.maximum(X, 0)
            stop = start + rows * columns
            weight, bias = self.layers_[start:stop].reshape(rows, columns), self.layers_[stop : stop + rows]
            X, start = X @ weight.T + bias, stop + rows
        return X

    def _width(self) -> int:
        return int(self.shapes_[0, 1])


def _score(network: Any, X: Array, y: NDArray[np.int64]) -> tuple[float, float]:
    """Return accuracy and mean log-loss on validation rows."""
    import torch
    from torch.nn.functional import cross_entropy

    network.eval()
    with torch.inference_mode():
        logits, labels = network(torch.from_numpy(X)), torch.from_numpy(y)
        return float((logits.argmax(dim=1) == labels).float().mean()), float(cross_entropy(logits, labels))


class Linear(_Network):
    """A softmax layer trained by gradient steps.

    Parameters
    ----------
    optimizer
        `sgd` (momentum 0.9), `rmsprop`, `adam`, `nadam` or `adamw`.
    learning_rate, weight_decay, batch_size, seed
        As in torch.
    epochs, patience
        Most epochs, and epochs without a better validation score after which training stops.
    """

    def __init__(
        self,
        optimizer: str = "sgd",
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
        epochs: int = 100,
        patience: int = 10,
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.seed = seed


class Dense(_Network):
    """The study's head: dense 512, dropout 0.6, dense 512, dropout 0.6, softmax.

    Parameters
    ----------
    hidden, depth, dropout
        Units of a hidden layer, number of hidden layers, and share of units dropped after each.
    optimizer, learning_rate, weight_decay, epochs, patience, batch_size, seed
        As for `Linear`.
    """

    def __init__(
        self,
        hidden: int = 512,
        depth: int = 2,
        dropout: float = 0.6,
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        epochs: int = 100,
        patience: int = 15,
        batch_size: int = 128,
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
        self.seed = seed

    def _hidden(self) -> tuple[int, ...]:
        return (self.hidden,) * self.depth

    def _dropout(self) -> float:
        return self.dropout
