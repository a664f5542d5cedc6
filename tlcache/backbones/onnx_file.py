"""Somebody's ONNX file as a backbone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcache.backbones.model import Model, model_identity
from tlcache.errors import ModelError
from tlcache.images import Preprocess

if TYPE_CHECKING:
    import onnx

__all__ = ["from_onnx", "read_onnx"]


def from_onnx(path: Path, pool: str | None, output: str | None, changes: dict[str, Any]) -> Model:
    """Take an ONNX file as it is when it was exported here; otherwise put preprocessing and pooling into the graph."""
    data, model = read_onnx(path)
    label, source = f"onnx:{path.name}", {"onnx_sha256": hashlib.sha256(data).hexdigest()}
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if metadata.get("exporter", "").startswith("tlcache"):
        in_graph = {"crop", "mean", "std"} & set(changes)
        if in_graph or output or pool not in (None, metadata["pool"]):
            raise ModelError(
                f"'{path}' was exported by tlcache: size, normalisation and pooling ({metadata['pool']}) are part of "
                "its graph. Export it again to change them."
            )
        preprocess = replace(Preprocess.from_json(json.loads(metadata["preprocess"])), **changes)
        identity = model_identity(source, "embedding", metadata["pool"], preprocess)
        return Model(path.stem, label, preprocess, identity, lambda: data)
    from tlcache.backbones.onnx_graph import adapt

    preprocess = _stated(path, model, changes)
    wrapped = adapt(model, preprocess, output, pool)
    identity = model_identity(source, output or model.graph.output[0].name, pool, preprocess)
    return Model(path.stem, label, preprocess, identity, wrapped.SerializeToString)


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


def _stated(path: Path, model: onnx.ModelProto, changes: dict[str, Any]) -> Preprocess:
    """Return the preprocessing that the caller states for a foreign model; guessing it would be silently wrong."""
    from tlcache.backbones.onnx_graph import image_input

    size, floating = image_input(model)
    fields = {"crop": size, **changes} if size else changes
    if not floating:
        fields = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), **fields}
    missing = [name for name in ("resize", "crop", "mean", "std") if name not in fields]
    if missing:
        raise ModelError(
            f"'{path}' does not say how its images are prepared. Give {', '.join('--' + name for name in missing)} "
            "(usual for ImageNet networks: --resize 256 --crop 224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225)."
        )
    if size not in (0, fields["crop"]):
        raise ModelError(f"'{path}' takes images of {size} x {size} pixels; asked: --crop {fields['crop']}.")
    return Preprocess(**fields)
