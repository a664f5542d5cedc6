"""A fine-tuned network as a file: safetensors to load again, ONNX to use anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tlcache.backbones.backbone import Backbone, Weights
from tlcache.backbones.sources import find
from tlcache.backbones.torch_network import embedding, pretrained
from tlcache.backbones.weights import HEAD_PREFIX, load_state
from tlcache.errors import ModelError
from tlcache.files import hash_file, write_whole
from tlcache.finetuning.heads import fresh_head
from tlcache.heads.answering import Answering, answering_of
from tlcache.heads.uncertainty import Uncertainty
from tlcache.images import Preprocess
from tlcache.keys import canonical_json, native
from tlcache.runs.finetuned import FORMAT, FinetunedRun

__all__ = ["FORMAT", "Tuned", "export_tuned", "load_tuned", "save_weights"]

_ABOUT = ("backbone", "head", "classes", "preprocess", "temperature", "key")


def save_weights(
    model: nn.Module,
    head: nn.Module,
    run: FinetunedRun,
    promised: Uncertainty | None = None,
    answering: Answering | None = None,
) -> None:
    """Write the network of a run: the backbone under its source's names, for `--weights`, and the head beside it.

    What it promises is in the metadata, with the head's classes and temperature, and how it answers if not by classes.
    """
    state = model.state_dict() | {HEAD_PREFIX + name: each for name, each in head.state_dict().items()}
    tensors = {name: each.detach().cpu().contiguous() for name, each in state.items()}
    about = {name: getattr(run, name) for name in _ABOUT}
    about |= {"uncertainty": promised.tables()} if promised else {}
    about |= {"answering": answering.as_fields()} if answering else {}
    write_whole(run.head_path, save(tensors, {"format": FORMAT, "fields": canonical_json(about)}))


def export_tuned(path: Path) -> bytes:
    """Return a network that `finetune` saved as ONNX: uint8 images in, answers and embeddings out.

    Raises
    ------
    ModelError
        Not such a file, or ONNX Runtime and torch differ by more than 1e-4 of the largest value.
    """
    from exporters.export import export_classifier

    network, fields = load_tuned(path), _read(path)[1]
    made_of = network.backbone, network.weights, network.preprocess
    return export_classifier(network, *made_of, fields["classes"], answering_of(fields))


def load_tuned(path: Path) -> Tuned:
    """Return a network that `finetune` saved as a torch module, ready to answer.

    Raises
    ------
    ModelError
        Not such a file.
    """
    head, fields = _read(path)
    backbone, preprocess = find(fields["backbone"]), Preprocess.from_json(fields["preprocess"])
    weights = Weights(f"file:{path.name}", path, hash_file(path))
    network = Tuned(backbone, weights, preprocess, _head(head, fields), float(fields["temperature"]))
    return network.eval()


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


class Tuned(nn.Module):
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
        self.backbone, self.weights, self.preprocess = backbone, weights, preprocess
        network = pretrained(backbone, load_state(weights), weights.label, preprocess)
        self.embedding = embedding(backbone, network, backbone.pool(), preprocess)
        self.head, self.temperature = head, temperature

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, of uint8 images (n, 3, H, W)."""
        embeddings = cast(Tensor, self.embedding(image))
        return self.head(embeddings) / self.temperature, embeddings
