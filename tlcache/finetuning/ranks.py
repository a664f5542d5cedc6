"""One training in several processes, as torchrun starts them: each computes its share of every batch.

Without torchrun there is one process, and all of this does nothing.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["exchanging", "first_alone", "joined", "parallel", "rank", "shared", "size", "total"]

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


def parallel(module: nn.Module, has_idle: bool) -> nn.Module:
    """Return a module whose gradients are the means over all processes, which begin with the first one's numbers.

    `has_idle` says that some of its parameters take no part in its output. Statistics of BatchNorms are not exchanged:
    those of the first process are what is validated and kept.
    """
    if size() == 1:
        return module
    found = DistributedDataParallel(module, find_unused_parameters=has_idle, gradient_as_bucket_view=True)
    found.broadcast_buffers = False  # as an argument it would keep them from being the same to begin with
    return found


def exchanging(module: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """Exchange gradients after the last part of a batch, and add them up in this process alone before."""
    wait: AbstractContextManager[None] = nullcontext()
    if isinstance(module, DistributedDataParallel) and not is_last:
        wait = module.no_sync()
    return wait
