"""A network as a file: safetensors of a fine-tuned one to load again, ONNX of any to use anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tlcache import arguments
from tlcache.arguments import OnnxFile, Pool, TunedModel
from tlcache.backbones.backbone import Backbone, Weights
from tlcache.backbones.load import load_model
from tlcache.backbones.model import Parted
from tlcache.backbones.sources import find, lookup
from tlcache.backbones.torch_network import embedding, pretrained
from tlcache.backbones.weights import HEAD_PREFIX, load_state
from tlcache.errors import ModelError, OptionError
from tlcache.files import hash_file, write_whole
from tlcache.finetuning.heads import fresh_head
from tlcache.heads.base import softmax
from tlcache.images import Preprocess
from tlcache.keys import canonical_json, native
from tlcache.options import described
from tlcache.runs.finetuned import FinetunedRun

__all__ = ["FORMAT", "export", "export_tuned", "load_tuned_head", "save_weights"]

FORMAT = "tlcache-finetuned"
_ABOUT = ("backbone", "head", "classes", "preprocess", "temperature", "key")


def save_weights(model: nn.Module, head: nn.Module, run: FinetunedRun) -> None:
    """Write the network of a run: the backbone under its source's names, for `--weights`, and the head beside it."""
    state = model.state_dict() | {HEAD_PREFIX + name: each for name, each in head.state_dict().items()}
    tensors = {name: each.detach().cpu().contiguous() for name, each in state.items()}
    about = {name: getattr(run, name) for name in _ABOUT}
    write_whole(run.head_path, save(tensors, {"format": FORMAT, "fields": canonical_json(about)}))


@described()
def export(model: TunedModel, out: OnnxFile, weights: arguments.Weights = None, *, pool: Pool = None) -> Path:
    """Write a network as an ONNX file: uint8 images (n, 3, H, W) in, embeddings (n, D) out, parity with torch checked.

    The `.safetensors` of a fine-tuning (`run.head_path`) has weights and pooling of its own, and calibrated logits
    (n, C) as the first output of its file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OptionError, ModelError, WeightsError
        No such network, weights or pooling, or ONNX Runtime and torch differ by more than 1e-4 of the largest value.

    Examples
    --------
    >>> extract(photos, export("resnet20_cifar", folder / "network.onnx")).rows
    24
    """
    saved = Path(model).is_file() and not lookup(str(model))  # what it is, it says itself
    if saved and (weights or pool):
        raise OptionError(f"'{model}' has its own weights and pooling. Leave out --weights and --pool.")
    data = export_tuned(Path(model)) if saved else load_model(str(model), weights, pool=pool).onnx()
    if isinstance(data, Parted):
        raise ModelError(f"'{model}' is an ONNX file already, with weights in other files. Copy them all.")
    write_whole(Path(out), data)
    return Path(out)


def export_tuned(path: Path) -> bytes:
    """Return a network that `finetune` saved as ONNX: uint8 images in, calibrated logits and embeddings out.

    Raises
    ------
    ModelError
        Not such a file, or ONNX Runtime and torch differ by more than 1e-4 of the largest value.
    """
    from exporters.export import export_classifier

    head, fields = _read(path)
    backbone, preprocess = find(fields["backbone"]), Preprocess.from_json(fields["preprocess"])
    weights = Weights(f"file:{path.name}", path, hash_file(path))
    network = _Tuned(backbone, weights, preprocess, _head(head, fields), float(fields["temperature"]))
    return export_classifier(network.eval(), backbone, weights, preprocess, fields["classes"])


def load_tuned_head(path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return what makes calibrated probabilities (n, C) of embeddings (n, dim) of a network that `finetune` saved.

    Raises
    ------
    ModelError
        Not such a file.
    """
    tensors, fields = _read(path)
    head, temperature = _head(tensors, fields).eval(), float(fields["temperature"])

    def probabilities(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return softmax(head(torch.from_numpy(rows)).numpy() / temperature)

    return probabilities


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of the head, and what the file says of itself."""
    try:
        with safe_open(path, "torch") as file:
            metadata = file.metadata() or {}
            head = {name: file.get_tensor(name) for name in file.keys() if name.startswith(HEAD_PREFIX)}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"Cannot read the network '{path}': {error}.") from None
    if metadata.get("format") != FORMAT:
        what = metadata.get("format", "no file of tlcache")
        raise ModelError(f"'{path}' is not a network that tlcache finetune saved, but {what}. See: tlcache models")
    return head, native(json.loads(metadata["fields"]))


def _head(tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> nn.Module:
    head = fresh_head(fields["head"], find(fields["backbone"]).dim, len(fields["classes"]))
    head.load_state_dict({name.removeprefix(HEAD_PREFIX): each for name, each in tensors.items()})
    return head


class _Tuned(nn.Module):
    """Images -> logits, divided by the temperature so that their softmax is calibrated, and embeddings."""

    def __init__(
        self,
        backbone: Backbone,
        weights: Weights,
        preprocess: Preprocess,
        head: nn.Module,
        temperature: float,
    ) -> None:
        super().__init__()
        network = pretrained(backbone, load_state(weights), weights.label, preprocess)
        self.embedding = embedding(backbone, network, backbone.pool(), preprocess)
        self.head, self.temperature = head, temperature

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = cast(Tensor, self.embedding(image))
        return self.head(embeddings) / self.temperature, embeddings
