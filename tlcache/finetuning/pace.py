"""What an image costs a recipe here: a few steps are timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from tlcache.finetuning.classifier import Classifier
from tlcache.finetuning.speed import ComputeFormat

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

    def anew(self) -> Pace:
        """Return the pace where what is frozen is not kept."""
        return Pace(self.train_s + self.once_s, self.look_s + self.once_s)


def measured(network: Classifier, way: ComputeFormat, crop: int, device: str) -> Pace:
    """Time a few steps; weights stay, statistics do not."""
    batch = torch.zeros(_IMAGES, 3, crop, crop, dtype=torch.uint8, device=device)
    way.lay(network)
    network.unfreeze()
    network.train()
    with way.computing(device):
        ready = network.before(batch).float()
        once_s = _seconds(lambda: network.before(batch), device)
    train_s = _seconds(lambda: _step(network, way, ready), device)
    network.eval()
    with torch.no_grad():
        look_s = _seconds(lambda: way.forward(network, ready, ready=True), device)
    network.zero_grad(set_to_none=True)
    pace = Pace(train_s, look_s, once_s, ready[0].numel() * ready.element_size())
    return pace if network.cut else pace.anew()


def _step(network: Classifier, way: ComputeFormat, ready: Tensor) -> Tensor:
    loss = way.forward(network, ready, ready=True).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


def _seconds(act: Callable[[], object], device: str) -> float:
    """Return the seconds for an image of the quickest of a few calls; the first one sets things up."""
    seconds = []
    for _ in range(1 + _TIMES):
        began = time.perf_counter()
        act()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:]) / _IMAGES
