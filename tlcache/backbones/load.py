"""From `--model` and its options to a network that can be run, and to the key of what it computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from typing import Any

from tlcache.backbones.backbone import LAST
from tlcache.backbones.calibration import CALIBRATION
from tlcache.backbones.model import Model, Onnx
from tlcache.backbones.sources import find
from tlcache.errors import OptionError
from tlcache.images import Preprocess
from tlcache.progress import say

__all__ = ["load_again", "load_layers", "load_model"]


def load_model(
    model: str,
    weights: str | None = None,
    *,
    pool: str | None = None,
    output: str | None = None,
    precision: str = "fp32",
    dtype: str = "float32",
    **changes: Any,
) -> Model:
    """Resolve a backbone's name or an ONNX file.

    Parameters
    ----------
    model
        A name of `tlcache models`, `timm/NAME`, `hf-hub:ORG/NAME`, `package.module:function`, or the path of
        an `.onnx` file.
    weights
        `imagenet`, `imagenet_v2`, `embedded`, `random`, a tag of timm's or the path of a state dict; default: the
        backbone's first published weights. Not used with an ONNX file.
    pool
        `avg`, `max`, `flatten` (`cls` for transformers, `tokens` for tokens of an ONNX file, `quarters` for
        resnet20_cifar, `model` and `cls+avg` for networks of timm); default: the backbone's own.
    output
        Only with an ONNX file: the tensor that is the embedding.
    precision
        Of the network's arithmetic: `fp32`, `fp16` (weights are converted), `bf16` (the engine computes so) or `int8`
        (converted, with ranges that images show which are part of tlcache).
    dtype
        Of the numbers that are kept: `float32`, or `float16`.
    **changes
        Fields of `Preprocess` that replace the backbone's own; None leaves a field as it is.

    Raises
    ------
    OptionError, ModelError, WeightsError
        No such backbone, options that do not go with it, an unusable file, or weights that cannot be had.
    """
    backbone = find(model)
    usual = {"channels": "rgb", "range": 1, "jpeg_size": "twice"}
    stated = {name: value for name, value in changes.items() if value not in (None, usual.get(name))}
    loaded = _at(precision, backbone.source.load(backbone, weights, pool, output, stated))
    return loaded if dtype == "float32" else loaded.kept_as(dtype)


def load_again(arguments: Mapping[str, Any]) -> Model:
    """Return the network of an extraction, by the arguments of it that feature files and run records keep.

    What is not a network's is passed over. Errors are those of `load_model`.
    """
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()
    }
    prepared = {each.name: given.get(each.name) or None for each in fields(Preprocess)}
    same = {name: given.get(name) for name in ("weights", "pool", "output")}
    precision, dtype = given.get("precision") or "fp32", given.get("dtype") or "float32"
    return load_model(given["model"], precision=precision, dtype=dtype, **same, **prepared)


def load_layers(
    arguments: Mapping[str, Any], outputs: Sequence[str | None], pools: Sequence[str | None]
) -> list[tuple[str | None, str | None]]:
    """Return every layer with every pooling that it has, each embedding once.

    A pooling that a layer has not is left out, and said; so is all pooling where there is nothing to pool.

    Parameters
    ----------
    arguments
        As for `load_again`, save for layer and pooling.
    outputs, pools
        Layers and poolings that are asked for; None: the last, its own.

    Raises
    ------
    OptionError, ModelError
        As `load_model`; no such layer, one that has none of the poolings though it needs one, or a pooling that none of
        them has.
    """
    found, lacking = dict[str, tuple[str | None, str | None]](), dict[str | None, dict[str | None, OptionError]]()
    for output in (None if each == LAST else each for each in outputs):
        refused = dict[str | None, OptionError]()
        for pool in pools:
            try:
                key = load_again({**arguments, "output": output, "pool": pool}).key
            except OptionError as error:
                refused[pool] = error
            else:
                found.setdefault(key, (output, pool))
        if len(refused) == len(pools):
            first = refused[pools[0]]
            if len(outputs) == 1:
                raise first
            flat = _flat(arguments, output, first)
            found.setdefault(flat.key, (output, None))
            say(f"{output or LAST} has nothing to pool.")
            continue
        for pool, why in refused.items():
            lacking.setdefault(pool, {})[output] = why
    for errors in lacking.values():
        if len(errors) == len(outputs):
            raise next(iter(errors.values()))
    for pool, errors in lacking.items():
        say(f"{' and '.join(name or LAST for name in errors)} has no pooling {pool}, which is left out there.")
    return list(found.values())


def _flat(arguments: Mapping[str, Any], output: str | None, refusal: OptionError) -> Model:
    """Return the network up to a layer that has nothing to pool, or raise the refusal of a pooling."""
    with suppress(OptionError):
        model = load_again({**arguments, "output": output, "pool": None})
        if model.identity["pool"] is None:
            return model
    raise refusal


def _at(precision: str, model: Model) -> Model:
    """Return a float32 model as one of another precision."""
    if precision == "fp32":
        return model
    other = replace(model, identity={**model.identity, "precision": precision})
    if precision == "fp16":
        return replace(other, onnx=partial(_half, model.onnx))
    if precision == "int8":
        other = replace(other, identity={**other.identity, "calibration": CALIBRATION})
        return replace(other, onnx=partial(_int8, other.file_stem, model))
    return other


def _half(onnx: Callable[[], Onnx]) -> Onnx:
    from tlcache.backbones.half import to_half

    return to_half(onnx())


def _int8(stem: str, exact: Model) -> Onnx:
    from tlcache.backbones.integers import kept_int8

    return kept_int8(exact.name, stem, exact.onnx, exact.preprocess.size)
