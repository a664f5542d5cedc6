"""Which way a run's answers can be explained best: the exact one first, the one that always works last."""

from __future__ import annotations

import numpy as np

from tlcache.backbones.engines import open_network
from tlcache.backbones.load import load_again
from tlcache.backbones.onnx_weights import joined
from tlcache.deploying.saved import Saved
from tlcache.images import Preprocess
from tlcache.pictures.activation import ClassActivation
from tlcache.pictures.gradients import GradCam
from tlcache.pictures.heat import Method, Pixels, Values
from tlcache.pictures.occlusion import Occlusion

__all__ = ["chosen_method"]


def chosen_method(saved: Saved, device: str = "auto") -> tuple[Method, tuple[str, ...], Preprocess]:
    """Return the way, the classes of the run, and how images are prepared for it.

    Raises
    ------
    HeadError, ModelError, WeightsError, DeviceError
        The run's files are damaged, or its network cannot be had or run.
    """
    if saved.tuned:
        preprocess = Preprocess.from_json(saved.tuned["preprocess"])
        gradients = GradCam.of(saved.path, preprocess)
        return gradients or _covering(saved, device), tuple(saved.tuned["classes"]), preprocess
    model, network = saved.model(), _Own(saved, device)
    found = ClassActivation.of(model, saved.asked, network)
    method = Occlusion(network, saved.asked.predict_proba, found) if isinstance(found, str) else found
    return method, saved.asked.classes, model.preprocess


class _Own:
    """The networks of a run, as they embed for it: each in its engine and precision, their embeddings side by side."""

    def __init__(self, saved: Saved, device: str) -> None:
        self._networks = [
            open_network(
                joined(load_again(request).onnx()),
                device,
                engine=request.get("engine") or "onnxruntime",
                precision=request.get("precision") or "fp32",
            )
            for request, _ in saved.networks
        ]

    def embed(self, images: Pixels) -> Values:
        return np.concatenate([each.embed(images) for each in self._networks], axis=1)


def _covering(saved: Saved, device: str) -> Occlusion:
    """Return occlusion of a fine-tuned network."""
    why = "No Grad-CAM: the network answers by no features of places."
    return Occlusion(open_network(joined(saved.model().onnx()), device), saved.tuned_answers, why)
