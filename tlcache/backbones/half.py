"""A float32 ONNX network -> the same network computing in float16."""

from __future__ import annotations

import warnings

import onnx

from tlcache.backbones.model import Onnx, Parted
from tlcache.errors import ModelError, first_line

__all__ = ["to_half"]


def to_half(model: Onnx) -> Onnx:
    """Return an ONNX model whose weights and arithmetic are float16; inputs and outputs stay as they are.

    Weights beyond what float16 holds are set to its largest value, as ONNX Runtime's own converter does. Operators
    that have no float16 kernel anywhere (resizing, for instance) stay in float32, with casts around them.

    Raises
    ------
    ModelError
        The converter does not accept the model.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16, convert_np_to_float16

    apart = dict(model.weights) if isinstance(model, Parted) else {}
    try:
        network = onnx.load_model_from_string(model.graph if isinstance(model, Parted) else model)
        network = onnx.shape_inference.infer_shapes(network)
        with warnings.catch_warnings(action="ignore"):  # one line for every weight too small for float16
            for tensor in network.graph.initializer:
                if tensor.name in apart and tensor.data_type == onnx.TensorProto.FLOAT:
                    tensor.data_type = onnx.TensorProto.FLOAT16
                    apart[tensor.name] = convert_np_to_float16(apart[tensor.name])
            half = convert_float_to_float16(network, keep_io_types=True, disable_shape_infer=True)
    except Exception as error:
        raise ModelError(
            f"The model cannot be converted to fp16: {first_line(error)}. Use --precision fp32."
        ) from error
    data: bytes = half.SerializeToString()
    return Parted(data, apart) if apart else data
