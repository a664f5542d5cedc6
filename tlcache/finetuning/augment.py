"""Random changes to batches of uint8 images, decided by (seed, epoch, image) alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from tlcache.finetuning.presets import Preset

__all__ = ["Mix", "augment", "draws", "mixing"]

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_DRAWS = 7  # random numbers per image: which of them decides what is fixed below
_WEIGHTS = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # of red, green and blue in grey (ITU-R BT.601)


def draws(seed: int, epoch: int, images: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return numbers in [0, 1), (n, 7), for each image: the same in every batch, order and process."""
    return np.stack(
        [np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, epoch, i])).random(_DRAWS) for i in images]
    )


def augment(pixels: Tensor, crop: int, preset: Preset, random: NDArray[np.float64]) -> Tensor:
    """Change a batch.

    Parameters
    ----------
    pixels
        uint8 (n, 3, side, side).
    crop
        Side of the result in pixels.
    preset
        A value of `PRESETS`.
    random
        float64 (n, 7), from `draws`.

    Returns
    -------
    Tensor
        uint8 (n, 3, crop, crop).
    """
    numbers = torch.from_numpy(random).float().to(pixels.device)
    grid = _grid(_placed(pixels.shape[-1], crop, preset, numbers), crop)
    images = grid_sample(pixels.float(), grid, padding_mode="reflection", align_corners=False)
    if preset.saturation:
        grey = (images * _WEIGHTS.to(images.device)).sum(1, keepdim=True)
        images = _blend(images, grey, preset.saturation, numbers[:, 5])
    if preset.contrast:
        images = _blend(images, images.mean((1, 2, 3), keepdim=True), preset.contrast, numbers[:, 6])
    changed = images.round_().clamp_(0, 255).to(torch.uint8)
    if preset.trivial:
        chosen = (random[:, 5] * len(_TRIVIAL)).astype(int)
        for image, which, number in zip(changed, chosen, random[:, 6], strict=True):
            image.copy_(_TRIVIAL[which](image, 2 * float(number) - 1))
    return changed


def mixing(mixup: float, cutmix: float, classes: int) -> Mix | None:
    """Return what mixes pairs of a batch: images (n, 3, H, W) as floats, and labels (n,) as shares of classes (n, C).

    Either is torchvision's MixUp (Zhang et al., 2018) or CutMix (Yun et al., 2019) with this alpha; of both, one by
    chance for each batch. None where both are 0.
    """
    from torchvision.transforms.v2 import CutMix, MixUp, RandomChoice

    kinds = [kind(alpha=alpha, num_classes=classes) for kind, alpha in ((MixUp, mixup), (CutMix, cutmix)) if alpha]
    choice = RandomChoice(kinds) if kinds else None
    return choice and (lambda images, labels: choice(images.float(), labels))


def _placed(side: int, crop: int, preset: Preset, numbers: Tensor) -> Tensor:
    """Return the affine maps (n, 2, 3) from the result to where it is taken from, in units of half the side."""
    scale = numbers.new_full((len(numbers),), crop / side)
    shift = numbers.new_zeros(len(numbers), 2)
    if preset.area:
        least, most = preset.area
        scale = (least + (most - least) * numbers[:, 0]).sqrt()
        shift = (2 * numbers[:, 1:3] - 1) * (1 - scale)[:, None]
    angle = math.radians(preset.rotation) * (2 * numbers[:, 3] - 1)
    flip = numbers[:, 4]
    across, down = preset.flips
    x = torch.where(2 * flip % 1 < across, -1.0, 1.0)  # one number decides both flips: its half, and where in it
    y = torch.where(flip < down, -1.0, 1.0)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = (torch.stack([cos * x, -sin * y, shift[:, 0]], 1), torch.stack([sin * x, cos * y, shift[:, 1]], 1))
    return torch.stack(rows, 1)


def _grid(maps: Tensor, crop: int) -> Tensor:
    """Return where the pixels of the result lie, (n, crop, crop, 2): torch's `affine_grid`, at a tenth of its time."""
    along = (2 * torch.arange(crop, device=maps.device) + 1) / crop - 1
    grid = maps.new_empty(len(maps), crop, crop, 2)
    for axis in range(2):
        x, y, shift = (maps[:, axis, part, None] for part in range(3))
        torch.add((x * along)[:, None, :], (y * along + shift)[:, :, None], out=grid[..., axis])
    return grid


def _blend(images: Tensor, other: Tensor, most: float, numbers: Tensor) -> Tensor:
    factor = (1 + most * (2 * numbers - 1)).view(-1, 1, 1, 1)
    return images * factor + other * (1 - factor)


def _functional(name: str) -> Callable[..., Tensor]:
    from torchvision.transforms import functional

    found: Callable[..., Tensor] = getattr(functional, name)
    return found


def _affine(image: Tensor, **change: float) -> Tensor:
    from torchvision.transforms.functional import affine

    shear = [change.get("shear_x", 0.0), change.get("shear_y", 0.0)]
    shift = [round(change.get("x", 0.0)), round(change.get("y", 0.0))]
    moved: Tensor = affine(image, change.get("angle", 0.0), shift, 1.0, shear)
    return moved


def _enhanced(name: str) -> Callable[[Tensor, float], Tensor]:
    return lambda image, level: _functional(name)(image, 1 + 0.99 * level)


_STEEPEST = math.degrees(math.atan(0.99))

# TrivialAugment's wide space (Mueller and Hutter, 2021, table 7): one operation, at a level drawn from (-1, 1).
_TRIVIAL: tuple[Callable[[Tensor, float], Tensor], ...] = (
    lambda image, _: image,
    lambda image, level: _affine(image, shear_x=_STEEPEST * level),
    lambda image, level: _affine(image, shear_y=_STEEPEST * level),
    lambda image, level: _affine(image, x=32 * level),
    lambda image, level: _affine(image, y=32 * level),
    lambda image, level: _affine(image, angle=135 * level),
    _enhanced("adjust_brightness"),
    _enhanced("adjust_saturation"),
    _enhanced("adjust_contrast"),
    _enhanced("adjust_sharpness"),
    lambda image, level: _functional("posterize")(image, 8 - round(6 * abs(level))),
    lambda image, level: _functional("solarize")(image, 255 * (1 - abs(level))),
    lambda image, _: _functional("autocontrast")(image),
    lambda image, _: _functional("equalize")(image),
)
