"""From `--model` and its options to a network that can be run, and to the key of what it computes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tlcache.backbones.backbone import Backbone, find
from tlcache.backbones.model import EXPORT_VERSION, Model, model_identity
from tlcache.backbones.onnx_file import from_onnx
from tlcache.backbones.weights import Weights, resolve
from tlcache.errors import ModelError, UnknownNameError, closest
from tlcache.files import cache_folder, write_whole
from tlcache.images import Preprocess
from tlcache.keys import hash_json

__all__ = ["load_model", "load_stem"]


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
        A name of `tlcache.backbones.backbone.BACKBONES` or the path of an `.onnx` file.
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
        return _at(precision, from_onnx(path, pool, output, changes))
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
    identity = model_identity(source, "embedding", pool, preprocess)

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
    from tlcache.backbones.half import to_half

    return to_half(onnx())


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
