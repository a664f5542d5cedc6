"""Which device to train on, and the precision and memory layout that are fastest there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlcache.backbones.engines import DEVICES
from tlcache.errors import DeviceError, UnknownNameError, closest
from tlcache.finetuning.classifier import Classifier
from tlcache.machine import forget_peak_rss, peak_rss_bytes

__all__ = [
    "CHOICE_IMAGES",
    "COMPUTE_FORMATS",
    "ComputeFormat",
    "Ends",
    "choose_format",
    "find_torch_device",
    "forget_peak",
    "images_per_s",
    "never",
    "peak_bytes",
    "quickest",
    "training_step",
]

Ends = Callable[[], bool]  # whether the time for measuring is over

_IMAGES, _STEPS = 8, 3
_WORTH = 1.1  # a way that rounds more or is less usual has to be faster by more than a short measurement's noise


def never() -> bool:
    """Let everything be measured."""
    return False


@dataclass(frozen=True)
class ComputeFormat:
    """How a network is computed: `fp32` or `bf16` (autocast), and the `contiguous` or `channels_last` layout."""

    precision: str
    layout: str

    def __str__(self) -> str:
        return f"{self.precision} {self.layout}"

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout in torch's terms."""
        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format

    def lay(self, model: nn.Module) -> None:
        """Bring the weights of a model into this layout."""
        model.to(memory_format=self.memory_format)

    @contextmanager
    def computing(self, device: str) -> Iterator[None]:
        """Compute in this precision."""
        with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
            yield

    def forward(self, network: nn.Module, inputs: Tensor, ready: bool) -> Tensor:
        """Return float32 logits of a `Classifier`, or of one in several processes; inputs and `ready` as for that."""
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=self.memory_format)
        with self.computing(inputs.device.type):
            logits: Tensor = network(inputs, ready).float()
        return logits


COMPUTE_FORMATS = tuple(
    ComputeFormat(precision, layout) for precision in ("fp32", "bf16") for layout in ("contiguous", "channels_last")
)
CHOICE_IMAGES = len(COMPUTE_FORMATS) * (1 + _STEPS) * _IMAGES  # that a choice among all of them trains on


def find_torch_device(device: str) -> str:
    """Return `cpu` or `cuda`.

    Raises
    ------
    UnknownNameError, DeviceError
        No such device, or torch cannot use it.
    """
    if device not in DEVICES:
        raise UnknownNameError(closest("device", device, DEVICES))
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("CUDA was asked for, but torch finds no GPU. Pass --device cpu, or install torch for CUDA.")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def choose_format(
    precision: str, layout: str, network: Classifier, crop: int, device: str, ends: Ends = never
) -> tuple[ComputeFormat, dict[str, float]]:
    """Return how to compute, and the images per second that were measured where `auto` leaves a choice.

    A few training steps are timed without an optimizer; afterwards the network is as it was. Once `ends` says so, the
    choice is among the ways that are measured by then: the first always is.
    """
    ways = [way for way in COMPUTE_FORMATS if precision in ("auto", way.precision) and layout in ("auto", way.layout)]
    if len(ways) == 1:
        return ways[0], {}
    buffers = [(each, each.clone()) for each in network.buffers()]
    rates = dict[ComputeFormat, float]()
    for way in ways:
        if rates and ends():
            break
        rates[way] = images_per_s(way, network, crop, device, ends=ends)
    for each, before in buffers:
        each.copy_(before)
    network.zero_grad(set_to_none=True)
    fastest = max(rates, key=lambda way: rates[way] / (1 if way == ways[0] else _WORTH))
    return fastest, {str(way): rate for way, rate in rates.items()}


def images_per_s(
    way: ComputeFormat,
    network: Classifier,
    crop: int,
    device: str,
    images: int = _IMAGES,
    steps: int = _STEPS,
    ends: Ends = never,
) -> float:
    """Time the fastest of a few training steps on a batch that is ready; weights stay, statistics do not."""
    batch = torch.zeros(images, 3, crop, crop, dtype=torch.uint8, device=device)
    way.lay(network)
    network.unfreeze()
    network.train()
    return images / quickest(lambda: training_step(way, network, batch), device, steps, ends)


def training_step(way: ComputeFormat, network: Classifier, inputs: Tensor, ready: bool = False) -> None:
    """Do a training step without an optimizer; inputs as for `ComputeFormat.forward`."""
    way.forward(network, inputs, ready).square().mean().backward()  # type: ignore[no-untyped-call]


def quickest(act: Callable[[], object], device: str, times: int, ends: Ends = never) -> float:
    """Return the seconds of the quickest of a few calls; one before them sets things up.

    No other call is made once `ends` says so: if there was that one alone, its seconds are returned.
    """
    seconds = list[float]()
    for _ in range(1 + times):
        if seconds and ends():
            break
        began = time.perf_counter()
        act()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:] or seconds)


def forget_peak(device: str) -> None:
    """Begin anew to note the largest memory."""
    torch.cuda.reset_peak_memory_stats() if device == "cuda" else forget_peak_rss()


def peak_bytes(device: str) -> int:
    """Return the largest memory since then: what tensors take on a GPU, else all that this process has."""
    return int(torch.cuda.max_memory_allocated()) if device == "cuda" else peak_rss_bytes()
