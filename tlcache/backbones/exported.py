"""A backbone that torch runs, as the ONNX network that embeds images: exported when it is first needed, then kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from tlcache.backbones.backbone import Backbone, Weights
from tlcache.backbones.kept import kept
from tlcache.backbones.model import EXPORT_VERSION, Model, model_identity
from tlcache.backbones.weights import resolve
from tlcache.errors import OptionError
from tlcache.images import Preprocess
from tlcache.keys import hash_json, slug
from tlcache.progress import say

__all__ = ["from_torch", "load_stem"]


def from_torch(
    backbone: Backbone, weights: str | None, pool: str | None, output: str | None, changes: Mapping[str, Any]
) -> Model:
    """Return a backbone with weights, preprocessing and pooling: `tlcache.backbones.backbone.Source.load` of most."""
    backbone = backbone.cut(output)
    if own := [f"--{name}" for name in ("channels", "range") if name in changes]:
        raise OptionError(f"{' and '.join(own)} are of .onnx files; {backbone.name} takes RGB values from 0 to 1.")
    pool = backbone.pool(pool)
    found = resolve(backbone, weights)
    return _model(backbone, found, replace(backbone.preprocess(found.label), **changes), pool, output)


def load_stem(backbone: Backbone, weights: Weights, preprocess: Preprocess, cut: str) -> Model:
    """Return a backbone up to `cut`, one of its stages' ends; the activation there, flat, is its embedding."""
    part = replace(backbone, layer=cut, stages=(), neck=None, pools=("flatten",))
    return _model(part, weights, preprocess, "flatten")


def _model(backbone: Backbone, weights: Weights, preprocess: Preprocess, pool: str, output: str | None = None) -> Model:
    trunk = {**backbone.origin, "layer": backbone.layer, "weights_sha256": weights.sha256, "export": EXPORT_VERSION}
    identity = model_identity(trunk, "embedding", pool, preprocess)
    named = weights.label in ("random", *backbone.checkpoints)
    arguments = {"model": backbone.name, "weights": weights.label if named else str(weights.path.absolute())}
    told = " ".join(filter(None, (backbone.name, output, pool if pool != backbone.pool() else "")))
    onnx = partial(_kept, backbone, weights, preprocess, pool, identity, told)
    return Model(backbone.name, weights.label, preprocess, identity, onnx, arguments, backbone.licence(weights.label))


def _kept(
    backbone: Backbone, weights: Weights, preprocess: Preprocess, pool: str, identity: Mapping[str, Any], told: str
) -> bytes:
    """Return the exported network: the one place where tlcache calls `exporters`, which is built on it."""

    def exported() -> bytes:
        say(f"exporting {told} (once) ...")
        from exporters.export import export

        return export(backbone, weights, preprocess, pool)

    return kept(f"{slug(backbone.name)}-{hash_json(identity)[:12]}", exported)
