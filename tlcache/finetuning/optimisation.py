"""What a training step is made of: weights of classes, parameter groups, and the moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlcache.backbones.backbone import Layer
from tlcache.finetuning.recipe import Recipe
from tlcache.heads.optimizers import find_optimizer

__all__ = ["Average", "balance", "make_optimizer"]


def balance(labels: NDArray[np.int64], classes: int) -> Tensor:
    """Return weights (C,) with which all classes count alike; a class without a row has 0."""
    counts = np.bincount(labels, minlength=classes)
    weights = np.divide(len(labels) / classes, counts, out=np.zeros(classes), where=counts > 0)
    return torch.from_numpy(weights).float()


def make_optimizer(
    recipe: Recipe, learning_rate: float, model: nn.Module, head: nn.Module, layers: Sequence[Layer]
) -> torch.optim.Optimizer:
    """Return the optimizer of all that is trained, in groups of one stage each.

    Weight decay falls on matrices and kernels alone; every stage further from the head learns `layer_decay` times as
    fast as the next.
    """
    named = dict(model.named_parameters())
    last = max((layer.stage for layer in layers), default=0)
    groups = []
    for stage in range(last, 0, -1):
        own = [named[name] for layer in layers if layer.stage == stage for name in layer.parameters]
        groups += _groups(own, recipe.layer_decay ** (last - stage + 1), recipe.weight_decay)
    groups += _groups(list(head.parameters()), 1.0, recipe.weight_decay)
    row = find_optimizer(recipe.optimizer)
    rated = [{**group, "lr": group["share"] * learning_rate} for group in groups]
    made: torch.optim.Optimizer = row.type()(rated, lr=learning_rate, **row.settings)
    return made


def _groups(parameters: list[nn.Parameter], share: float, decay: float) -> list[dict[str, Any]]:
    kinds = (
        ([each for each in parameters if each.ndim > 1], decay),
        ([each for each in parameters if each.ndim <= 1], 0.0),
    )
    return [{"params": each, "share": share, "weight_decay": amount} for each, amount in kinds if each]


class Average:
    """An exponential moving average of a module's floating-point state.

    Parameters
    ----------
    module
        What is averaged.
    decay
        Share of the average that a step keeps; smaller in the first steps, so that the beginning is forgotten.
    saved
        What `state` returned, to go on from there.
    """

    def __init__(self, module: nn.Module, decay: float, saved: Mapping[str, Any] | None = None) -> None:
        self._module, self._decay = module, decay
        start: Mapping[str, Any] = saved or {"steps": 0, "weights": dict(self._tensors())}
        self.steps: int = start["steps"]
        self.weights: dict[str, Tensor] = {name: each.clone() for name, each in start["weights"].items()}

    def state(self) -> dict[str, Any]:
        """Return the average for a checkpoint."""
        return {"steps": self.steps, "weights": self.weights}

    def update(self) -> None:
        """Take the weights of this step in."""
        self.steps += 1
        keep = min(self._decay, self.steps / (self.steps + 10))
        with torch.no_grad():
            for name, each in self._tensors():
                self.weights[name].lerp_(each, 1 - keep)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages into the module for a while."""
        own = {name: each.clone() for name, each in self._tensors()}
        self._put(self.weights)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, each in self._tensors():
                each.copy_(weights[name])

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, each) for name, each in self._module.state_dict().items() if each.is_floating_point())
