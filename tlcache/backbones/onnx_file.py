"""Somebody's ONNX file as a backbone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcache.backbones.backbone import Backbone, TorchNetwork, Weights
from tlcache.backbones.model import Model, model_identity
from tlcache.errors import ModelError, OptionError
from tlcache.images import Preprocess

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

__all__ = ["ONNX_FILE", "read_onnx"]


class OnnxFile:
    """A source of any network that somebody exported: it can be run, not trained."""

    name = "onnx"
    form = "an ONNX file"
    trainable = False

    def names(self, pattern: str | None = None) -> Sequence[str]:
        """Return nothing: files are not looked for."""
        del pattern
        return ()

    def find(self, model: str) -> Backbone | None:
        """Return what ends with `.onnx`, whether it is there or not."""
        path = Path(model).expanduser()
        return Backbone(path.stem, self, str(path), pools=()) if path.suffix.lower() == ".onnx" else None

    def at_hand(self, backbone: Backbone) -> list[str]:
        """Return nothing: the weights are in the file."""
        del backbone
        return []

    def weights(self, backbone: Backbone, name: str) -> Weights:
        """Raise OptionError: the weights are in the file."""
        raise OptionError(f"'{backbone.builder}' has no weights beside its own; asked: {name}.")

    def build(
        self, backbone: Backbone, preprocess: Preprocess, state: Mapping[str, Tensor] | None = None
    ) -> TorchNetwork:
        """Raise ModelError: torch does not know the network."""
        del preprocess, state
        raise ModelError(f"'{backbone.builder}' is an ONNX file, which torch cannot build.")

    def load(
        self, backbone: Backbone, weights: str | None, pool: str | None, output: str | None, changes: Mapping[str, Any]
    ) -> Model:
        """Take the file as it is when it was exported here; otherwise put preprocessing and pooling into the graph."""
        del weights
        path = Path(backbone.builder)
        data, graph = read_onnx(path)
        metadata = {entry.key: entry.value for entry in graph.metadata_props}
        network = {"onnx_sha256": hashlib.sha256(data).hexdigest()}
        arguments = {"model": str(path.absolute()), "weights": None}
        made = partial(Model, backbone.name, f"onnx:{path.name}", arguments=arguments)
        if metadata.get("exporter", "").startswith("tlcache"):
            preprocess = _exported(path, metadata, pool, output, changes)
            identity = model_identity(network, "embedding", metadata["pool"], preprocess)
            return made(preprocess, identity, lambda: data)
        from tlcache.backbones.onnx_graph import adapt

        preprocess = _stated(path, graph, changes)
        adapted = adapt(graph, preprocess, output, pool)
        identity = model_identity(network, output or graph.graph.output[0].name, pool, preprocess)
        return made(preprocess, identity, adapted.SerializeToString)


ONNX_FILE = OnnxFile()


def read_onnx(path: Path) -> tuple[bytes, onnx.ModelProto]:
    """Read a single-file ONNX model.

    Raises
    ------
    ModelError
        Missing, not ONNX, cut, or keeping its weights in other files (which could be any file of this machine).
    """
    import onnx

    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"Cannot read the model '{path}': {error.strerror}.") from None
    try:
        model = onnx.load_model_from_string(data)
    except Exception:
        model = onnx.ModelProto()
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"'{path}' is not a whole ONNX model ({len(data):,} bytes, starts with {data[:12]!r}).")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model.graph)):
        raise ModelError(f"'{path}' keeps weights in other files. Save it as a single file (onnx.save does so).")
    return data, model


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _exported(
    path: Path, metadata: Mapping[str, str], pool: str | None, output: str | None, changes: Mapping[str, Any]
) -> Preprocess:
    """Return the preprocessing of one of our exports, in which only what comes before the graph can be changed."""
    in_graph = {"crop", "mean", "std"} & set(changes)
    if in_graph or output or pool not in (None, metadata["pool"]):
        raise OptionError(
            f"'{path}' was exported by tlcache: size, normalisation and pooling ({metadata['pool']}) are part of "
            "its graph. Export it again to change them."
        )
    return replace(Preprocess.from_json(json.loads(metadata["preprocess"])), **changes)


def _stated(path: Path, model: onnx.ModelProto, changes: Mapping[str, Any]) -> Preprocess:
    """Return the preprocessing that the caller states for a foreign model; guessing it would be silently wrong."""
    from tlcache.backbones.onnx_graph import image_input

    size, floating = image_input(model)
    fields = {"crop": size, **changes} if size else dict(changes)
    if not floating:
        fields = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), **fields}
    missing = [name for name in ("resize", "crop", "mean", "std") if name not in fields]
    if missing:
        raise OptionError(
            f"'{path}' does not say how its images are prepared. Give {', '.join('--' + name for name in missing)} "
            "(usual for ImageNet networks: --resize 256 --crop 224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225)."
        )
    if size not in (0, fields["crop"]):
        raise OptionError(f"'{path}' takes images of {size} x {size} pixels; asked: --crop {fields['crop']}.")
    return Preprocess(**fields)
