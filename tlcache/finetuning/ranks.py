"""One training in several processes, as torchrun starts them: each computes its share of every batch.

Without torchrun there is one process, and all of this does nothing.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import distributed, nn

__all__ = ["add_gradients", "broadcast", "first_alone", "joined", "rank", "shared", "size", "total"]

_PATIENCE = datetime.timedelta(days=1)  # the first process may decode images for long while others wait
T = TypeVar("T")


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Join the other processes for a while; with CUDA, each takes the GPU of its number on this machine."""
    if not distributed.is_torchelastic_launched():
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Return the number of this process, from 0; the first one writes, validates and talks."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """Return how many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def shared(make: Callable[[], T]) -> T:
    """Return in every process what the first one makes."""
    if size() == 1:
        return make()
    box = [make() if rank() == 0 else None]
    distributed.broadcast_object_list(box)
    made: T = box[0]  # type: ignore[assignment]
    return made


def first_alone(make: Callable[[], T]) -> T:
    """Make something in every process, in the first one before the others: they find files that are there."""
    made = make() if rank() == 0 else None
    if size() > 1:
        distributed.barrier()
    return make() if made is None else made


def total(*numbers: float) -> list[float]:
    """Return the sums of numbers over all processes."""
    if size() == 1:
        return list(numbers)
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    sums = torch.tensor(numbers, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return [float(each) for each in sums.tolist()]


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their sums over all processes."""
    if size() == 1:
        return
    gradients = [each.grad for each in parameters if each.grad is not None]
    flat = torch.cat([each.flatten() for each in gradients])
    distributed.all_reduce(flat)
    parts = torch.split(flat, [each.numel() for each in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))


def broadcast(module: nn.Module) -> None:
    """Give every process the first one's parameters and statistics."""
    if size() == 1:
        return
    for each in module.state_dict().values():
        whole = each.contiguous()
        distributed.broadcast(whole, 0)
        each.copy_(whole)
