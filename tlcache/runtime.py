"""A network in ONNX Runtime: uint8 (n, 3, H, W) -> float32 (n, dim), on the device that was asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tlcache.errors import DeviceError, ModelError, UnknownNameError, closest, first_line

__all__ = ["BATCH_SIZES", "DEVICES", "Session", "find_device"]

# Images per call. Measured on 2 CPU cores, images/s with 8 against 32 to a call: MobileNetV3-Small 1,220 against 919,
# MobileNetV2 234 against 223, ResNet-50 25.7 against 26.3. On a GPU not measured yet.
BATCH_SIZES = {"cpu": 8, "cuda": 64}

DEVICES = ("auto", "cpu", "cuda")
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Session:
    """One ONNX Runtime session, safe to call from many threads at once.

    On the CPU a call uses one core: the extraction loop runs one call per core.

    Parameters
    ----------
    model
        The bytes of a single-file ONNX model with one uint8 input and one embedding output.
    device
        `auto` (a GPU when there is one), `cpu` or `cuda`.

    Attributes
    ----------
    provider
        The execution provider that runs, as ONNX Runtime names it.
    dim
        Length of an embedding.

    Raises
    ------
    DeviceError
        CUDA was asked for and cannot be used.
    ModelError
        ONNX Runtime does not accept the model.
    """

    def __init__(self, model: bytes, device: str = "auto") -> None:
        self._session = _open(model, find_device(device))
        self.provider = self._session.get_providers()[0]
        if device == "cuda" and self.provider != _PROVIDERS["cuda"]:
            raise DeviceError(
                f"CUDA was asked for, but the session runs on {self.provider}. "
                "Install a CUDA-capable onnxruntime-gpu and driver, or pass --device cpu."
            )
        image, embedding = self._session.get_inputs(), self._session.get_outputs()
        if len(image) != 1 or image[0].type != "tensor(uint8)" or len(embedding) != 1:
            found = [f"{value.name}: {value.type} {value.shape}" for value in (*image, *embedding)]
            raise ModelError(f"Expected one uint8 image input and one embedding; found {'; '.join(found)}.")
        self._input, shape = image[0].name, image[0].shape
        self._batch = shape[0] if isinstance(shape[0], int) else None
        self.dim = int(self(np.zeros((1, *shape[1:]), np.uint8)).shape[1])

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed a batch: uint8 (n, 3, H, W) -> float32 (n, dim)."""
        if self._batch in (None, len(images)):
            result: NDArray[np.float32] = self._session.run(None, {self._input: images})[0]
            return result
        return self._in_fixed_batches(images, self._batch)

    def _in_fixed_batches(self, images: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
        """Feed a network whose batch size is a constant, padding the last batch."""
        rows = []
        for start in range(0, len(images), size):
            batch = np.zeros((size, *images.shape[1:]), np.uint8)
            part = images[start : start + size]
            batch[: len(part)] = part
            rows.append(self._session.run(None, {self._input: batch})[0][: len(part)])
        return np.concatenate(rows)


def find_device(device: str) -> str:
    """Return `cpu` or `cuda` for `auto`, `cpu` or `cuda`.

    Raises
    ------
    UnknownNameError, DeviceError
        No such device; CUDA was asked for and there is none.
    """
    if device not in DEVICES:
        raise UnknownNameError(closest("device", device, DEVICES))
    if device == "auto":
        return "cuda" if _has_gpu() else "cpu"
    if device == "cuda" and not _has_gpu():
        raise DeviceError(
            "CUDA was asked for, but there is no CUDA device here, or ONNX Runtime is built without CUDA "
            f"(providers: {', '.join(onnxruntime.get_available_providers())}). Pass --device cpu or auto."
        )
    return device


def _has_gpu() -> bool:
    """Return whether a CUDA device and a runtime built for it are both there; ONNX Runtime lists CUDA without one."""
    if _PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
        return False
    if sys.platform == "linux" and not any(Path("/dev", name).exists() for name in ("nvidiactl", "dxg")):
        return False  # without importing torch
    import torch

    return torch.cuda.is_available()


def _open(model: bytes, device: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors come back as exceptions; a provider that fell back is checked for
    providers = [_PROVIDERS["cpu"]]
    if device == "cpu":
        options.intra_op_num_threads = 1
    else:
        onnxruntime.preload_dlls()
        providers.insert(0, _PROVIDERS["cuda"])
    try:
        return onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:
        raise ModelError(f"ONNX Runtime does not accept the model: {first_line(error)}") from None
