"""Several networks whose embeddings are joined: what they are called together, their key, and one network of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tlcache.backbones.model import KEY_VERSION, Model, Onnx
from tlcache.errors import ModelError

__all__ = ["joined_identity", "joined_model", "joined_name"]

_IN_GRAPH = ("mean", "std", "channels", "range")  # what of the preprocessing each network does itself


def joined_name(names: Sequence[str]) -> str:
    """Return what joined backbones are called.

    >>> joined_name(["resnet50", "mobilenetv2"])
    'resnet50+mobilenetv2'
    """
    return "+".join(names)


def joined_identity(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return everything that changes joined embeddings, of the identities of the parts in their order.

    What is said of a single network is said of all of them where it is the same.
    """
    same = _common(parts)
    precisions = dict.fromkeys(str(each["precision"]) for each in parts)
    return {
        "version": KEY_VERSION,
        "joined": [dict(each) for each in parts],
        "output": None,
        "pool": same.get("pool"),
        "precision": "+".join(precisions),
        "preprocess": _common([each["preprocess"] for each in parts]),
    }


def joined_model(models: Sequence[Model]) -> Model:
    """Return networks as one, from an image to their embeddings side by side.

    Raises
    ------
    ModelError
        They take images that are prepared differently.
    """
    first = models[0]
    for other in models[1:]:
        if (mine := _pixels(first)) != (theirs := _pixels(other)):
            apart = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
            how = " and ".join(
                f"{model.name} ({', '.join(f'{name} {pixels.get(name)}' for name in apart)})"
                for model, pixels in ((first, mine), (other, theirs))
            )
            raise ModelError(
                f"{how} take images that are prepared differently, and one file has one image input. Use the run with "
                "tlcache predict, or join backbones that were extracted with the same --resize and --crop."
            )
    return Model(
        joined_name([model.name for model in models]),
        "+".join(dict.fromkeys(model.weights for model in models)),
        first.preprocess,
        joined_identity([model.identity for model in models]),
        partial(_onnx, models),
        {},
        "; ".join(dict.fromkeys(model.licence for model in models)),
    )


def _common(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields that are the same in all."""
    return {name: value for name, value in parts[0].items() if all(each.get(name) == value for each in parts)}


def _pixels(model: Model) -> dict[str, Any]:
    """Return what decides the pixels that a network is given."""
    stated = model.preprocess.as_json()
    filled = stated.get("crop_mode") == "border"  # with the mean
    return {name: value for name, value in stated.items() if filled or name not in _IN_GRAPH}


def _onnx(models: Sequence[Model]) -> Onnx:
    from tlcache.backbones.onnx_merge import merged

    found = merged([model.onnx() for model in models])
    if found is None:
        raise ModelError(
            f"{' and '.join(model.name for model in models)} cannot be one file: they are in different versions of "
            "ONNX operators, or take other numbers of images at a time. Save them in the same version; the run itself "
            "can be used with: tlcache predict"
        )
    return found
