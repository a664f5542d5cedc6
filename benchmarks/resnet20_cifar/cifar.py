"""CIFAR-10 in memory: from an unpacked folder of images, or from torchvision's copy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tlcache.backbones.sources import find
from tlcache.datasets.dataset import load_dataset
from tlcache.errors import DataError
from tlcache.images import prepare
from tlcache.progress import image_bar

__all__ = ["CLASSES", "PREPROCESS", "Images", "read_folder", "read_torchvision"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PREPROCESS = find("resnet20_cifar").checkpoints["embedded"].preprocess


@dataclass(frozen=True)
class Images:
    """Images and classes: uint8 (N, 3, 32, 32), RGB, and int64 (N,), indices into `CLASSES`."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Tensor) -> Images:
        """Return the images whose numbers are in int64 `rows`."""
        return replace(self, pixels=self.pixels[rows], labels=self.labels[rows])


def read_folder(folder: str | Path, split: str) -> Images:
    """Read `folder/train` or `folder/test`, each with a folder of images for every class.

    Raises
    ------
    DataError
        The folder is not like that; the message says what was found.
    BadImageError
        An image cannot be decoded.
    """
    dataset = load_dataset(folder)
    if dataset.classes != CLASSES or split not in dataset.splits:
        raise DataError(
            f"'{folder}' is no unpacked CIFAR-10: expected {split}/ with the folders {', '.join(CLASSES)}; "
            f"found {', '.join(sorted(set(dataset.splits)))} with {', '.join(dataset.classes[:10])}."
        )
    rows = [row for row, each in enumerate(dataset.splits) if each == split]
    pixels = np.empty((len(rows), 3, PREPROCESS.crop, PREPROCESS.crop), np.uint8)

    def read(number: int) -> None:
        pixels[number] = prepare(dataset.read(rows[number]), PREPROCESS)[0]

    with image_bar(f"reading {split}", len(rows)) as advance, ThreadPoolExecutor() as pool:
        for _ in pool.map(read, range(len(rows))):
            advance(1)
    return Images(torch.from_numpy(pixels), torch.from_numpy(dataset.labels[rows]))


def read_torchvision(folder: str | Path, split: str) -> Images:
    """Read torchvision's CIFAR-10 from below `folder`, where it is downloaded to when it is not there."""
    from torchvision.datasets import CIFAR10

    found = CIFAR10(str(folder), train=split == "train", download=True)
    pixels = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(found.targets))
