"""One training step: the gradient of a batch, in parts and in several processes where that is asked, and the update."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from tlcache.evaluation.task import Task
from tlcache.finetuning.augment import Mix
from tlcache.finetuning.losses import Loss, hits, row_weights, teaching
from tlcache.finetuning.ranks import exchanging, rank, size, total
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.sources import parts_of
from tlcache.finetuning.speed import ComputeFormat

__all__ = ["Step"]


@dataclass(frozen=True)
class Step:
    """Forward, backward and update for one batch: called with inputs, labels and the factor of the learning rate.

    Parameters
    ----------
    network, ready
        Logits of images, or with `ready` of what `Classifier.after` takes; of several processes, one for all of them.
    learning_rate
        Of the head; the optimizer's groups say what share of it they have.
    both
        What an average follows.
    weights, loss_of
        Of the classes, where they are weighed, and the loss by them.
    """

    network: nn.Module
    ready: bool
    learning_rate: float
    both: nn.Module
    way: ComputeFormat
    device: str
    recipe: Recipe
    target: Task
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    loss_of: Loss
    weights: Tensor | None
    mix: Mix | None = None

    def __call__(
        self, inputs: Tensor, labels: Tensor, factor: float, taught: Tensor | None = None
    ) -> tuple[float, int, int]:
        """Return the loss of the batch, before the update, how many of it were right, and how many there were.

        Of several processes each has a part of the batch, and computes that in parts where gradients are accumulated;
        the loss is the mean over the whole.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * self.learning_rate * factor
        targets = torch.from_numpy(self.target.learned(labels.numpy())).to(self.device)
        inputs = inputs.to(self.device)
        if self.mix:
            inputs, targets = self.mix(inputs, targets)
        ones = torch.ones(len(labels), device=self.device)
        weights = ones if self.weights is None else row_weights(targets, self.weights)
        whole, count = total(float(weights.sum()), len(labels))
        shares = torch.stack([weights / whole, ones / count], 1)
        self.optimizer.zero_grad(set_to_none=True)
        done, parts = [], self._parts(int(count))
        for at in parts:
            with exchanging(self.network, at is parts[-1]):
                done.append(self._descend(inputs[at], targets[at], shares[at], None if taught is None else taught[at]))
        trained = [each for group in self.optimizer.param_groups for each in group["params"]]
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(trained, self.recipe.clip)
        self.optimizer.step()
        if self.average:
            self.average.update_parameters(self.both)
        mean, right, images = total(*map(sum, zip(*done, strict=True)), len(labels))
        return mean, int(right), int(images)

    def _parts(self, images: int) -> list[slice]:
        """Return which of its images each process computes at once, in as many turns as the others."""
        of = size()
        most = math.ceil(self.recipe.batch_size / of / self.recipe.accumulate)
        own = parts_of(np.arange(images), most * of, (rank(), of))
        return [slice(rows[0] // of, rows[-1] // of + 1) for rows in own]

    def _descend(self, inputs: Tensor, targets: Tensor, shares: Tensor, taught: Tensor | None) -> tuple[float, int]:
        """Add the gradient of some images; the loss is returned, and how many were right.

        `shares` (n, 2) are those of each image in the loss of the whole batch, and in what a teacher says of it.
        """
        logits = self.way.forward(self.network, inputs, self.ready)
        own, told = (float(each) for each in shares.sum(0))
        loss = self.loss_of(logits, targets) * own
        if taught is not None:
            share, softness = self.recipe.distill_weight, self.recipe.distill_temperature
            loss = (1 - share) * loss + share * told * teaching(logits, taught.to(self.device), softness)
        (loss * size()).backward()  # type: ignore[no-untyped-call]  # of which the mean over processes is taken
        shown = targets.argmax(1) if self.mix else targets  # of a mixed image, what it has most of
        return float(loss.detach()), hits(logits, shown)
