"""A float32 ONNX network -> the same network computing in integers of 8 bits."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
from numpy.typing import NDArray

from tlcache.backbones.onnx_nodes import every_node
from tlcache.errors import ModelError, first_line
from tlcache.progress import Advance, image_bar

__all__ = ["Fed", "to_int8"]

_AT_ONCE = 16  # images whose values within the network, 30 MB each and more, are in memory
_OPSET = 13  # the first with scales for each channel
_PRODUCTS = {"Conv", "Gemm", "MatMul"}


def to_int8(network: bytes, images: NDArray[np.uint8]) -> bytes:
    """Return a network whose products and sums are of 8-bit integers, with scales that are fixed beforehand.

    Activations are unsigned, weights signed with a scale for each channel (QDQ); the range of an activation is that of
    all but the outermost of its values for `images` (ONNX Runtime's calibration by percentiles).

    Raises
    ------
    ModelError
        ONNX Runtime cannot quantise the network, or there is nothing in it to quantise.
    """
    if why := _why_not(onnx.load_model_from_string(network)):
        raise ModelError(f"The network cannot be quantised: {why}. Take it as it is, with --precision fp32.")
    try:
        return _quantised(network, images)
    except Exception as error:  # of networks that it does not expect it raises many kinds
        raise ModelError(
            f"The network cannot be quantised: {first_line(error).rstrip('.')}. Take it in fp32."
        ) from error


def _quantised(network: bytes, images: NDArray[np.uint8]) -> bytes:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quant_pre_process, quantize_static

    with tempfile.TemporaryDirectory() as folder, _quiet(), image_bar("calibrating", len(images)) as advance:
        given, prepared, made = (Path(folder, f"{name}.onnx") for name in ("given", "prepared", "made"))
        onnx.save(_modern(onnx.load_model_from_string(network)), given)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            made,
            _reader(Fed(network), images, advance),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibStridedMinMax": _AT_ONCE},
        )
        return made.read_bytes()


def _why_not(model: onnx.ModelProto) -> str:
    """Return what is in the way of quantising a network; empty where nothing is."""
    found = {node.op_type for node in every_node(model.graph.node)}
    if any("Quantize" in name or "Integer" in name or name.startswith("QLinear") for name in found):
        return "it computes in integers already"
    if any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer):
        return "its weights are float16"
    return "" if found & _PRODUCTS else "it has no convolutions or products of matrices"


def _modern(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a network in operators that know a scale for each channel."""
    old = any(entry.domain in ("", "ai.onnx") and entry.version < _OPSET for entry in model.opset_import)
    return onnx.version_converter.convert_version(model, _OPSET) if old else model


class Fed:
    """How a network is given one image: under which name, and how many times, where its batch is fixed."""

    def __init__(self, network: bytes) -> None:
        (value,) = onnx.load_model_from_string(network).graph.input
        self._name, self._count = value.name, max(1, value.type.tensor_type.shape.dim[0].dim_value)

    def __call__(self, image: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
        """Return what a session takes for uint8 (3, H, W)."""
        return {self._name: np.repeat(image[None], self._count, axis=0)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what it prints and logs from the user, and its way of logging from our messages."""
    root = logging.root
    level, handlers = root.level, root.handlers[:]
    root.setLevel(logging.ERROR)
    root.addHandler(logging.NullHandler())  # without any, the first to log adds one for everybody
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


def _reader(fed: Fed, images: NDArray[np.uint8], advance: Advance) -> object:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
        """The images one by one: percentiles are of batches of one size, and some networks take no other.

        Of so many at a time all values within the network are in memory.
        """

        def __len__(self) -> int:
            return -(-len(images) // _AT_ONCE) * _AT_ONCE  # as it has to be divisible

        def set_range(self, start_index: int, end_index: int) -> None:
            self._left = iter(images[start_index:end_index])

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            image = next(self._left, None)
            if image is None:
                return None
            advance(1)
            return fed(image)

    return Reader()
