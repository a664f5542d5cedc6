"""What people write otherwise: a torch DataLoader and torchvision's network in eager mode.

Each measurement is a process of its own, `python -m benchmarks.peers ...`, which prints images per second; starting
Python, building the network and starting the loader's workers do not count.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ABOUT", "Peer", "candidates", "has_timm", "measure"]

ABOUT = {
    "fp32": "torch, eager, fp32",
    "bf16": "torch, channels_last, bf16",
    "timm": "timm, eager, fp32",
}
_TIMM = {"mobilenetv3_small": "mobilenetv3_small_100", "mobilenetv3_large": "mobilenetv3_large_100"}
BATCH = 32


@dataclass(frozen=True)
class Peer:
    """One setting of the loop: variant, workers of the DataLoader, threads of torch."""

    variant: str
    workers: int
    threads: int


def candidates(cpus: int, few: bool) -> list[Peer]:
    """Return the settings among which a fair peer is chosen; timm's network is tried with the best plain one."""
    settings = {(1, max(1, cpus - 1)), (cpus, 1)}
    if not few:
        settings |= {(1, cpus), (cpus, cpus)}
    return [Peer(variant, *setting) for variant in ("fp32", "bf16") for setting in sorted(settings)]


def has_timm(model: str) -> bool:
    """Return whether timm is installed and has this network."""
    if importlib.util.find_spec("timm") is None:
        return False
    import timm

    return bool(timm.is_model(_TIMM.get(model, model)))


def measure(peer: Peer, model: str, photos: Path, seconds: float, device: str) -> float:
    """Return images per second of a peer, over whole batches of so many seconds at least."""
    command = [sys.executable, "-m", "benchmarks.peers", model, str(photos), str(seconds), device]
    settings = [peer.variant, str(peer.workers), str(peer.threads)]
    done = subprocess.run(command + settings, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure one setting and print images per second."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in (("model", str), ("photos", Path), ("seconds", float), ("device", str), ("variant", str)):
        parser.add_argument(name, type=kind)
    for name in ("workers", "threads"):
        parser.add_argument(name, type=int)
    print(_rate(**vars(parser.parse_args())))


def _rate(model: str, photos: Path, seconds: float, device: str, variant: str, workers: int, threads: int) -> float:
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    from tlcache.backbones.sources import find

    torch.set_num_threads(threads)
    preprocess = find(model).checkpoints["imagenet"].preprocess
    transform = transforms.Compose(
        [
            transforms.Resize(preprocess.resize),
            transforms.CenterCrop(preprocess.crop),
            transforms.ToTensor(),
            transforms.Normalize(preprocess.mean, preprocess.std),
        ]
    )
    network, low = _network(model, variant).to(device), variant == "bf16"
    loader = DataLoader(ImageFolder(str(photos), transform), batch_size=BATCH, num_workers=workers)
    layout = torch.channels_last if low else torch.contiguous_format
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=low):
        batches = iter(loader)
        network(next(batches)[0].to(device, memory_format=layout))
        began, count = time.perf_counter(), 0
        for batch, _ in batches:
            network(batch.to(device, memory_format=layout)).float().cpu().numpy()
            count += len(batch)
            if (spent := time.perf_counter() - began) > seconds:
                break
        return count / spent


def _network(model: str, variant: str) -> nn.Module:
    if variant == "timm":
        import timm

        network: nn.Module = timm.create_model(_TIMM.get(model, model), pretrained=False, num_classes=0)
        return network.eval()
    import torch
    from torchvision.models import get_model

    from tlcache.backbones.sources import find

    whole: nn.Module = get_model(find(model).builder, weights=None).eval()
    head = "fc" if hasattr(whole, "fc") else "classifier"
    setattr(whole, head, torch.nn.Identity())  # the pooled trunk, as our own embeddings
    return whole.to(memory_format=torch.channels_last) if variant == "bf16" else whole


if __name__ == "__main__":
    main()
