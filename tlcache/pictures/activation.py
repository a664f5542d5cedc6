"""Class activation maps of linear heads on embeddings that are means over places: exact, no gradient, one pass.

Source: Zhou et al. (2016), Learning deep features for discriminative localization.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from tlcache.backbones.engines import open_session
from tlcache.backbones.model import Model
from tlcache.backbones.onnx_mean import Averaged, averaged
from tlcache.backbones.onnx_weights import joined
from tlcache.backbones.opening import some_images
from tlcache.heads.fitted import FittedHead
from tlcache.heads.rows import View
from tlcache.pictures.heat import Embeds, Pixels, Values, grid_of

__all__ = ["ClassActivation"]

_CLOSE = 1e-3  # of the largest number


class ClassActivation:
    """What each place adds to the logit of a class: the sum of a map is that logit."""

    name = "class activation map"
    shows = (
        "Exact: what each place adds to the logit of the class, or takes from it; their sum is the logit. A place "
        "is a cell of the network's last map, which has seen its surroundings, too; nothing finer is known."
    )
    least = 0.0

    def __init__(self, found: Averaged, head: FittedHead, network: Embeds) -> None:
        self._found, self._head, self._network = found, head, network
        self._session = open_session(found.network, "cpu")
        weights, bias = _linear(head)
        self._weights = weights / head.scaler.scale[:, None]
        self._bias = bias - head.scaler.middle @ self._weights

    @classmethod
    def of(cls, model: Model, head: FittedHead, network: Embeds) -> Self | str:
        """Return it; or why not: the head is not linear, or what the network gives, as the run has it, is no mean."""
        if not _is_linear(head):
            return f"Not exact: the {head.name} head is not linear."
        found = averaged(joined(model.onnx()))
        if found is None:
            return f"Not exact: {model.name} in {model.precision} does not end with a mean over places."
        made = cls(found, head, network)
        if all(made._is_exact(pixels) for pixels in some_images(*model.preprocess.size)):
            return made
        return f"Not exact: logits on {model.name} in {model.precision} are not the sums over the places of its map."

    def probabilities(self, pixels: Pixels) -> Values:
        """Return what the run says of an image, float32 (C,)."""
        found: Values = self._head.predict_proba(self._network.embed(pixels[None]))[0]
        return found

    def heat(self, pixels: Pixels, label: int) -> Values:
        """Return what each place adds to the logit of a class (h, w); their sum is the logit."""
        column = self._head.head.classes_.tolist().index(label)
        _, places = self._run(pixels)
        grid = grid_of(len(places), *pixels.shape[1:])
        assert grid
        added = (places @ self._weights[:, column] + self._bias[column]) / len(places)
        heat: Values = added.reshape(grid).astype(np.float32)
        return heat

    def _run(self, pixels: Pixels) -> tuple[Values, Values]:
        """Return the embedding (1, dim) and what it is the mean of (places, dim)."""
        embedding, found = self._session.run(None, {self._session.get_inputs()[0].name: pixels[None]})
        return embedding, self._found.places(found)[0]

    def _is_exact(self, pixels: Pixels) -> bool:
        embedding, places = self._run(pixels)
        if places.shape[1:] != embedding.shape[1:] or grid_of(len(places), *pixels.shape[1:]) is None:
            return False
        logits = self._head.logits(self._network.embed(pixels[None]))[0]
        sums = places.mean(axis=0) @ self._weights + self._bias
        return bool(np.abs(sums - logits).max() <= _CLOSE * max(1.0, np.abs(logits).max()))


def _is_linear(head: FittedHead) -> bool:
    """Return whether the logits of two sums are those of what was summed, by a look at some."""
    some = np.random.default_rng(0).normal(size=(2, 8, len(head.scaler.middle))).astype(np.float32)
    first, second, both, none = (head.head.logits(View(each)) for each in (*some, some.sum(axis=0), 0 * some[0]))
    return bool(np.abs(first + second - both - none).max() <= _CLOSE * np.abs(both).max())


def _linear(head: FittedHead) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weights (dim, C) and bias (C,) of a linear head on standardised embeddings."""
    dim = len(head.scaler.middle)
    bias = head.head.logits(View(np.zeros((1, dim), np.float32)))[0].astype(np.float64)
    return head.head.logits(View(np.eye(dim, dtype=np.float32))) - bias, bias
