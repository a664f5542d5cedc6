"""From `--model` and its options to a network that can be run, and to the key of what it computes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters import EXPORT_VERSION
from tlcache.backbones import Backbone, find
from tlcache.errors import ModelError, UnknownNameError, closest
from tlcache.files import cache_folder, write_whole
from tlcache.images import Preprocess
from tlcache.keys import hash_json, slug
from tlcache.weights import Weights, resolve

if TYPE_CHECKING:
    import onnx

__all__ = ["KEY_VERSION", "Model", "load_model", "load_stem"]

KEY_VERSION = 1


@dataclass(frozen=True)
class Model:
    """A backbone with everything that decides its embeddings.

    Parameters
    ----------
    name
        Short name, used for files and tables.
    weights
        What the weights are, for people: `imagenet`, `embedded`, `random`, `file:NAME`, `onnx:NAME`.
    preprocess
        What happens to images before the network.
    identity
        Everything that changes an embedding, as JSON fields; nothing else.
    onnx
        Returns the bytes of the ONNX file, exporting it first when needed.
    """

    name: str
    weights: str
    preprocess: Preprocess
    identity: dict[str, Any]
    onnx: Callable[[], bytes]

    @property
    def key(self) -> str:
        """The sha256 of `identity`: equal keys mean equal embeddings for equal images."""
        return hash_json(self.identity)

    @property
    def file_stem(self) -> str:
        """Name of files that hold its embeddings, without the ending."""
        return f"{slug(self.name)}-{self.key[:12]}"

    @property
    def precision(self) -> str:
        """Of the network's arithmetic: `fp32`, `fp16` or `bf16`."""
        return str(self.identity["precision"])


def load_model(
    model: str,
    weights: str | None = None,
    *,
    pool: str | None = None,
    output: str | None = None,
    precision: str = "fp32",
    **changes: Any,
) -> Model:
    """Resolve a backbone's name or an ONNX file.

    Parameters
    ----------
    model
        A name of `tlcache.backbones.BACKBONES` or the path of an `.onnx` file.
    weights
        `imagenet`, `imagenet_v2`, `embedded`, `random` or the path of a state dict; default: the backbone's first
        published weights. Not used with an ONNX file.
    pool
        `avg`, `max`, `flatten` (`cls` for transformers, `quarters` for resnet20_cifar); default: the backbone's own.
    output
        Only with an ONNX file: the tensor that is the embedding.
    precision
        Of the network's arithmetic: `fp32`, `fp16` (weights are converted) or `bf16` (the engine computes so).
    **changes
        Fields of `Preprocess` that replace the backbone's own; None leaves a field as it is.

    Raises
    ------
    UnknownNameError, ModelError, WeightsError
        No such backbone, an unusable file, or weights that cannot be had.
    """
    changes = {name: value for name, value in changes.items() if value is not None}
    path = Path(model).expanduser()
    if path.suffix.lower() == ".onnx":
        return _at(precision, _from_onnx(path, pool, output, changes))
    if output is not None:
        raise ModelError("--output names a tensor of an .onnx file; built-in backbones are cut at a fixed layer.")
    backbone = find(model)
    found = resolve(backbone, weights)
    checkpoint = backbone.checkpoints.get(found.label, backbone.checkpoints[backbone.default_weights])
    preprocess = replace(checkpoint.preprocess, **changes)
    pool = pool or backbone.pools[0]
    if pool not in backbone.pools:
        raise UnknownNameError(closest(f"pooling for {backbone.name}", pool, backbone.pools))
    return _at(precision, _built_in(backbone, found, preprocess, pool))


def load_stem(backbone: Backbone, weights: Weights, preprocess: Preprocess, cut: str) -> Model:
    """Return a backbone up to `cut`, one of its stages' ends; the activation there, flat, is its embedding."""
    part = replace(backbone, layer=cut, stages=(), neck=None, pools=("flatten",))
    return _built_in(part, weights, preprocess, "flatten")


def _built_in(backbone: Backbone, weights: Weights, preprocess: Preprocess, pool: str) -> Model:
    source = {
        "builder": backbone.builder,
        "layer": backbone.layer,
        "weights_sha256": weights.sha256,
        "export": EXPORT_VERSION,
    }
    identity = _identity(source, "embedding", pool, preprocess)

    def make() -> bytes:
        from exporters.export import export

        return export(backbone, weights, preprocess, pool)

    exported = partial(_cached, backbone.name, identity, make)
    return Model(backbone.name, weights.label, preprocess, identity, exported)


def _at(precision: str, model: Model) -> Model:
    """Return a float32 model as one of another precision."""
    if precision == "fp32":
        return model
    onnx = partial(_half, model.onnx) if precision == "fp16" else model.onnx
    return replace(model, identity={**model.identity, "precision": precision}, onnx=onnx)


def _half(onnx: Callable[[], bytes]) -> bytes:
    from exporters.half import to_half

    return to_half(onnx())


def _from_onnx(path: Path, pool: str | None, output: str | None, changes: dict[str, Any]) -> Model:
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
        identity = _identity(source, "embedding", metadata["pool"], preprocess)
        return Model(path.stem, label, preprocess, identity, lambda: data)
    from exporters.adapt import adapt

    preprocess = _stated(path, model, changes)
    wrapped = adapt(model, preprocess, output, pool)
    identity = _identity(source, output or model.graph.output[0].name, pool, preprocess)
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
    from exporters.adapt import image_input

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


def _identity(source: dict[str, Any], output: str, pool: str | None, preprocess: Preprocess) -> dict[str, Any]:
    return {
        "version": KEY_VERSION,
        "backbone": source,
        "output": output,
        "pool": pool,
        "precision": "fp32",
        "dtype": "float32",
        "preprocess": preprocess.as_json(),
    }


def _cached(name: str, identity: dict[str, Any], make: Callable[[], bytes]) -> bytes:
    """Return an exported model from the cache folder, whose file names carry the hash of their content."""
    folder, stem = cache_folder() / "onnx", f"{name}-{hash_json(identity)[:12]}-"
    for path in folder.glob(f"{stem}*.onnx"):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest()[:12] == path.stem.removeprefix(stem):
            return data
        path.unlink(missing_ok=True)
    data = make()
    write_whole(folder / f"{stem}{hashlib.sha256(data).hexdigest()[:12]}.onnx", data)
    return data
