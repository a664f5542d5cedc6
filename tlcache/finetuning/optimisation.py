"""What a training step is made of: weights of classes, parameter groups, and the moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from tlcache.backbones.backbone import Layer
from tlcache.finetuning.recipe import Recipe
from tlcache.heads.optimizers import find_optimizer

__all__ = ["averaged", "balance", "in_place", "make_optimizer"]


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


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """Return a moving average of a module's parameters and statistics.

    `decay` is the share of it that a step keeps; it is smaller in the first steps, so that the beginning is forgotten.
    """

    def follow(mean: Tensor, new: Tensor, steps: Tensor | int) -> Tensor:
        keep = min(decay, int(steps) / (int(steps) + 10))
        return mean.lerp(new, 1 - keep) if mean.is_floating_point() else new  # BatchNorms count their batches

    found = AveragedModel(module, avg_fn=follow, use_buffers=True)
    found.n_averaged.fill_(1)  # what it begins with is averaged, too
    return found


@contextmanager
def in_place(average: AveragedModel, module: nn.Module) -> Iterator[None]:
    """Put the averages into the module for a while."""
    own = {name: each.clone() for name, each in module.state_dict().items()}
    module.load_state_dict(average.module.state_dict())
    try:
        yield
    finally:
        module.load_state_dict(own)
