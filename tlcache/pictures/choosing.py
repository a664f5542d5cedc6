"""Which way a run's answers can be explained best: the exact one first, the one that always works last."""

from __future__ import annotations

from tlcache.backbones.engines import open_network
from tlcache.backbones.onnx_weights import joined
from tlcache.deploying.saved import Saved
from tlcache.images import Preprocess
from tlcache.pictures.activation import ClassActivation
from tlcache.pictures.gradients import GradCam
from tlcache.pictures.heat import Method
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
        found = GradCam.of(saved.path, preprocess)
        return found or _occlusion(saved, device), tuple(saved.tuned["classes"]), preprocess
    model = saved.model("fp32")
    exact = ClassActivation.of(model, saved.asked)
    return exact or _occlusion(saved, device), saved.asked.classes, model.preprocess


def _occlusion(saved: Saved, device: str) -> Occlusion:
    network = open_network(joined(saved.model("fp32").onnx()), device)
    if not saved.tuned:
        return Occlusion(network, saved.asked.predict_proba)
    from tlcache.finetuning.saved import load_tuned_head

    return Occlusion(network, load_tuned_head(saved.path))
