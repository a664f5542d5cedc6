"""What an image costs a recipe here: a few steps are timed."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

import torch

from tlcache.finetuning.classifier import Classifier
from tlcache.finetuning.speed import ComputeFormat, Ends, never, quickest, training_step

__all__ = ["Pace", "measured"]

_IMAGES, _TIMES = 8, 2


@dataclass(frozen=True)
class Pace:
    """What an image costs.

    Parameters
    ----------
    train_s, look_s
        Seconds to train on it once, and to say what it shows, without what is frozen where that is kept.
    once_s, kept_bytes, views
        Seconds for what is frozen and the size of that, for each view of which it is kept; 0 where it is not.
    """

    train_s: float
    look_s: float
    once_s: float = 0.0
    kept_bytes: int = 0
    views: int = 1

    def least(self, other: Pace) -> Pace:
        """Return the quicker of each."""
        return Pace(*map(min, astuple(self), astuple(other)))

    def slowed(self, times: float) -> Pace:
        """Return the pace where everything takes so many times as long."""
        return replace(self, train_s=times * self.train_s, look_s=times * self.look_s, once_s=times * self.once_s)

    def anew(self) -> Pace:
        """Return the pace where what is frozen is not kept."""
        return Pace(self.train_s + self.once_s, self.look_s + self.once_s)


def measured(network: Classifier, way: ComputeFormat, crop: int, device: str, ends: Ends = never) -> Pace:
    """Time a few steps, and of each kind one alone once `ends` says so; weights stay, statistics do not."""
    batch = torch.zeros(_IMAGES, 3, crop, crop, dtype=torch.uint8, device=device)
    way.lay(network)
    network.unfreeze()
    network.train()
    with way.computing(device):
        ready = network.before(batch).float()
        once_s = quickest(lambda: network.before(batch), device, _TIMES, ends)
    train_s = quickest(lambda: training_step(way, network, ready, ready=True), device, _TIMES, ends)
    network.eval()
    with torch.no_grad():
        look_s = quickest(lambda: way.forward(network, ready, ready=True), device, _TIMES, ends)
    network.zero_grad(set_to_none=True)
    pace = Pace(train_s / _IMAGES, look_s / _IMAGES, once_s / _IMAGES, ready[0].numel() * ready.element_size())
    return pace if network.cut else pace.anew()
