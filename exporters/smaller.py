"""A float32 network as one that computes in float16, or in integers of 8 bits."""

from __future__ import annotations

import io
import logging
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from tlcache.backbones.half import to_half
from tlcache.backbones.onnx_graph import alone
from tlcache.backbones.onnx_weights import joined
from tlcache.errors import ModelError, first_line
from tlcache.progress import Advance, image_bar

__all__ = ["swapped", "to_int8", "to_precision"]

_AT_ONCE = 16  # images whose values within the network, 30 MB each and more, are in memory


def to_precision(network: bytes, precision: str, images: NDArray[np.uint8]) -> bytes:
    """Return a network in `fp16` or `int8`; `images` (n, 3, H, W) show the latter which numbers to expect."""
    return joined(to_half(network)) if precision == "fp16" else to_int8(network, images)


def to_int8(network: bytes, images: NDArray[np.uint8]) -> bytes:
    """Return a network whose products and sums are of 8-bit integers, with scales that are fixed beforehand.

    Activations are unsigned, weights signed with a scale for each channel (QDQ); the range of an activation is that of
    all but the outermost of its values for `images` (ONNX Runtime's calibration by percentiles).

    Raises
    ------
    ModelError
        ONNX Runtime cannot quantise the network.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quant_pre_process, quantize_static

    before = logging.root.level
    logging.root.setLevel(logging.ERROR)  # of its loggers, and not of ours
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            redirect_stdout(io.StringIO()),  # it prints what it does
            image_bar("calibrating", len(images)) as advance,
        ):
            given, prepared, made = (Path(folder, f"{name}.onnx") for name in ("given", "prepared", "made"))
            given.write_bytes(network)
            quant_pre_process(given, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                made,
                _reader(images, advance),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.Percentile,
                extra_options={"CalibStridedMinMax": _AT_ONCE},
            )
            return made.read_bytes()
    except Exception as error:  # of networks that it does not expect it raises many kinds
        raise ModelError(f"The network cannot be quantised: {first_line(error)}. Export it in fp32.") from error
    finally:
        logging.root.setLevel(before)


def swapped(bundle: onnx.ModelProto, network: bytes) -> onnx.ModelProto:
    """Return a bundle with another network in the place of its own: `image` in, `embedding` out."""
    own, found = alone(bundle, "embedding"), onnx.load_model_from_string(network)
    inside = {name for node in own.graph.node for name in node.output}
    found.graph.node.extend(node for node in bundle.graph.node if not inside & set(node.output))
    missing = {name for node in found.graph.node for name in node.input}
    missing -= {tensor.name for tensor in found.graph.initializer}
    missing -= {name for node in found.graph.node for name in node.output}
    found.graph.initializer.extend(tensor for tensor in bundle.graph.initializer if tensor.name in missing)
    del found.graph.output[:]
    found.graph.output.extend(bundle.graph.output)
    domains = {entry.domain for entry in found.opset_import}
    found.opset_import.extend(entry for entry in bundle.opset_import if entry.domain not in domains)
    del found.metadata_props[:]
    found.metadata_props.extend(bundle.metadata_props)
    return found


def _reader(images: NDArray[np.uint8], advance: Advance) -> object:
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
            return {"image": image[None]}

    return Reader()
