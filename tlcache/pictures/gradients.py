"""Grad-CAM of fine-tuned networks.

Source: Selvaraju et al. (2017), Grad-CAM: visual explanations from deep networks via gradient-based localization.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np

from tlcache.backbones.opening import some_images
from tlcache.images import Preprocess
from tlcache.pictures.heat import Pixels, Values, grid_of

__all__ = ["GradCam"]


class GradCam:
    """How much the places of a network's last features that speak for a class are there."""

    name = "Grad-CAM"
    shows = (
        "Where features lie that speak for the class, weighted by how fast its logit grows with each, on average over "
        "the image. It shows no place that speaks against the class, and its values have no unit; finer than the cells "
        "of the network's last map nothing is known."
    )
    least = 0.0

    def __init__(self, network: Any) -> None:
        self._network = network

    @classmethod
    def of(cls, path: Path, preprocess: Preprocess) -> Self | None:
        """Return it of a saved network; None where its last features are no places, or only a class token is used."""
        from tlcache.finetuning.saved import load_tuned

        made = cls(load_tuned(path))
        pixels = some_images(*preprocess.size)[2]
        found = made._weighed(pixels, int(made.probabilities(pixels).argmax()))
        return made if found is not None and found[1].any() else None

    def probabilities(self, pixels: Pixels) -> Values:
        """Return what the run says of an image, float32 (C,)."""
        import torch

        with torch.inference_mode():
            logits, _ = self._network(torch.from_numpy(pixels[None]))
            found: Values = logits.softmax(1)[0].numpy()
        return found

    def heat(self, pixels: Pixels, label: int) -> Values:
        """Return the map (h, w), from 0 on."""
        found = self._weighed(pixels, label)
        assert found
        places, gradients = found
        grid = grid_of(len(places), *pixels.shape[1:])
        assert grid
        weighed = np.maximum(places @ gradients.mean(axis=0), 0)
        heat: Values = weighed.reshape(grid).astype(np.float32)
        return heat

    def _weighed(self, pixels: Pixels, label: int) -> tuple[Values, Values] | None:
        """Return the last features and the gradients of a logit by them, both (places, channels)."""
        import torch

        body = self._network.embedding
        with torch.no_grad():
            features = body.trunk(body.normalised(torch.from_numpy(pixels[None])))
        of_places = features[-1] if isinstance(features, tuple) else features
        if not isinstance(of_places, torch.Tensor) or of_places.ndim not in (3, 4):
            return None
        of_places = of_places.detach().requires_grad_()
        with torch.enable_grad():
            given = (*features[:-1], of_places) if isinstance(features, tuple) else of_places
            logit = self._network.head(body.pooling(given))[0, label]
            (gradient,) = torch.autograd.grad(logit, of_places)
        return _in_a_row(of_places.detach()[0].numpy(), gradient[0].numpy(), pixels)


def _in_a_row(features: Values, gradients: Values, pixels: Pixels) -> tuple[Values, Values] | None:
    """Return features and gradients as (places, channels), without tokens that stand for no place."""
    size = pixels.shape[1:]
    if features.ndim == 3:
        if grid_of(features[0].size, *size) == features.shape[1:]:  # channels first
            features, gradients = np.moveaxis(features, 0, -1), np.moveaxis(gradients, 0, -1)
        shape = (-1, features.shape[-1])
        return features.reshape(shape), gradients.reshape(shape)
    for tokens in range(len(features)):  # a class token, registers
        grid = grid_of(len(features) - tokens, *size)
        if grid and abs(grid[0] * size[1] - grid[1] * size[0]) < 1e-9:
            return features[tokens:], gradients[tokens:]
    return None
