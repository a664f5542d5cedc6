"""Heads as torch modules: fresh, or with the weights of one that was fitted on cached embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tlcache.cache.feature_file import Split
from tlcache.evaluation.task import CLASSES, Task
from tlcache.heads.rows import Array, Scaler
from tlcache.heads.table import find_head
from tlcache.probing.folds import choosing_folds
from tlcache.probing.protocol import SearchProtocol
from tlcache.probing.search import choose, fit_each, search

__all__ = ["Layered", "as_module", "cached_head", "fresh_head"]

_NEVER = -20.0  # logit of a class that train does not have


class Layered(Protocol):
    """A fitted head that is a network: linear layers, with nothing to fit between them."""

    classes_: NDArray[np.int64]

    def layers(self) -> Iterator[tuple[Array, Array]]:
        """Yield weights (in, out) and biases (out,) of each layer, from the features on."""
        ...


def fresh_head(kind: str, width: int, classes: int) -> nn.Sequential:
    """Return a head with layers as torch initialises it: embeddings (n, width) -> logits (n, classes)."""
    head = find_head(kind).type()()
    head.classes_ = np.arange(classes)
    return cast(nn.Sequential, head.build(width))


def cached_head(
    kind: str,
    train: Split,
    val: Split,
    classes: int,
    seed: int,
    refit: bool = False,
    class_weight: str | None = None,
    target: Task = CLASSES,
) -> nn.Sequential:
    """Return a head fitted on the embeddings of train, its settings chosen on val, the standardisation folded in.

    Where val is so small that heads choose by folds of train and val, this one does, too.

    Of the settings within one standard error of the best figure of the task, the first is taken: of logistic
    regressions the most regularised (Breiman et al., 1984), whose boundaries move least with single images. Its logits
    are near 0, and so its loss is large although its answers are right: the first steps would repair the loss and tear
    the backbone from what it knows. The logits are therefore divided by the temperature that was chosen with it.

    Only with `refit` it is then fitted on train + val, as `fit_heads` does: what follows is otherwise chosen on val.
    """
    row = find_head(kind).start(target.name)
    protocol = SearchProtocol(seed=seed, class_weight=class_weight).of_task(target.name)
    both = train.joined(val if refit else val.of(np.flatnonzero(target.seen(train.wanted, val.wanted))))
    folds, metric = choosing_folds(both, len(train), protocol.folds, seed), protocol.metric
    tried = search(row, protocol.settings(row), folds, classes, None, metric, target)
    chosen = choose(tried, metric, one_se=True, task=target)
    rows = both if refit else train
    scaler = Scaler.of(rows.features, row.scaled)
    (head,) = fit_each(row, [chosen.params], target, scaler.over(rows.features), rows.wanted)
    return as_module(kind, cast(Layered, head), scaler, classes, chosen.temperature)


def as_module(kind: str, head: Layered, scaler: Scaler, classes: int, temperature: float = 1.0) -> nn.Sequential:
    """Return a head that was fitted on standardised embeddings, of perhaps not all classes, as one for embeddings.

    Its logits are divided by `temperature`.
    """
    matrices = [(weights.T, biases) for weights, biases in head.layers()]
    first, bias = matrices[0]
    first = first / scaler.scale
    matrices[0] = (first, bias - first @ scaler.middle)
    weight, bias = matrices[-1]
    matrices[-1] = _for_all_classes(weight / temperature, bias / temperature, head.classes_, classes)
    network = fresh_head(kind, first.shape[1], classes)
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, (weight, bias) in zip(layers, matrices, strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
    return network


def _for_all_classes(weight: Array, bias: Array, known: NDArray[np.int64], classes: int) -> tuple[Array, Array]:
    whole, offsets = np.zeros((classes, weight.shape[1]), np.float32), np.full(classes, _NEVER, np.float32)
    whole[known], offsets[known] = weight, bias
    return whole, offsets
