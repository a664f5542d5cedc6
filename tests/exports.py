"""Torch exports a network once for all tests: one that is the same to the last bit is the same file."""

import hashlib
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import torch


class _Content(pickle.Pickler):
    """Pickles tensors as their numbers, wherever these are in memory."""

    def reducer_override(self, obj: object) -> Any:
        if isinstance(obj, torch.Tensor):
            return bytes, (str((obj.dtype, obj.shape)).encode() + obj.detach().numpy().tobytes(),)
        return NotImplemented


def content(*what: object) -> str:
    """Return the hash of objects; whatever `pickle` raises if they cannot be pickled."""
    buffer = io.BytesIO()
    _Content(buffer).dump(what)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def remembering(export: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """Return `torch.onnx.export` that keeps what it made in `folder`; its caller checks each for parity, new or not."""

    def exported(network: torch.nn.Module, example: object, **options: Any) -> Any:
        try:
            path = folder / content(network, example, options)
        except (pickle.PicklingError, AttributeError, TypeError, RecursionError):  # local classes, deep graphs
            return export(network, example, **options)
        if not path.exists():
            program = export(network, example, **options)
            part = path.with_suffix(f".{os.getpid()}")
            part.write_bytes(program.model_proto.SerializeToString())
            part.rename(path)
        return SimpleNamespace(model_proto=onnx.load_model_from_string(path.read_bytes()))

    return exported
