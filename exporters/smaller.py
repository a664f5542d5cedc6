"""A float32 network as one that computes in float16, or in integers of 8 bits."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from tlcache.backbones.half import to_half
from tlcache.backbones.onnx_graph import alone
from tlcache.backbones.onnx_weights import joined
from tlcache.backbones.quantised import to_int8

__all__ = ["swapped", "to_precision"]


def to_precision(network: bytes, precision: str, images: NDArray[np.uint8]) -> bytes:
    """Return a network in `fp16` or `int8`; `images` (n, 3, H, W) show the latter which numbers to expect."""
    return joined(to_half(network)) if precision == "fp16" else to_int8(network, images)


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
