"""A backbone of the table -> ONNX, with its preprocessing in the graph and in the metadata, and a parity check."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from exporters.classify import answered, serialized
from tlcache.backbones.backbone import Backbone, Weights
from tlcache.backbones.model import EXPORT_VERSION
from tlcache.backbones.onnx_nodes import Nodes
from tlcache.backbones.torch_network import embedding, pretrained
from tlcache.backbones.weights import load_state
from tlcache.errors import ModelError, root_line
from tlcache.heads.answering import Answering
from tlcache.images import Preprocess
from tlcache.keys import canonical_json

__all__ = ["check_parity", "export", "export_classifier"]

OPSET = 18
TOLERANCE = 1e-4


def export(backbone: Backbone, weights: Weights, preprocess: Preprocess, pool: str) -> bytes:
    """Export a backbone to ONNX and check that ONNX Runtime agrees with torch.

    Returns
    -------
    bytes
        A single-file model. Input `image`: uint8 (batch, 3, crop, crop), batch dynamic. Output `embedding`: float32
        (batch, dim). The metadata names backbone, weights, preprocessing, pooling and exporter.

    Raises
    ------
    ModelError
        Export failed, or torch and ONNX Runtime differ by more than 1e-4 of the largest value.
    """
    whole = pretrained(backbone, load_state(weights), weights.label, preprocess)
    network = embedding(backbone, whole, pool, preprocess)
    return _to_onnx(network, ("embedding",), preprocess.crop, _metadata(backbone, weights, preprocess, pool))


def export_classifier(
    network: nn.Module,
    backbone: Backbone,
    weights: Weights,
    preprocess: Preprocess,
    classes: Sequence[str],
    answering: Answering | None = None,
) -> bytes:
    """Export a fine-tuned network, as `export` does with a frozen one.

    Parameters
    ----------
    network
        uint8 images -> calibrated logits (n, C) and embeddings (n, dim).
    classes
        Names of the classes, in the order of the logits.
    answering
        How these are read, where they are not of classes.

    Returns
    -------
    bytes
        A single-file model. Input `image`: uint8 (batch, 3, crop, crop); outputs as of `exporters.classify.classified`.
    """
    metadata = _metadata(backbone, weights, preprocess, backbone.pool())
    data = _to_onnx(network, ("logits", "embedding"), preprocess.crop, metadata)
    model = onnx.load_model_from_string(data)
    return serialized(answered(model, Nodes("tlcache.answer", OPSET), "logits", classes, answering=answering))


def _to_onnx(network: nn.Module, outputs: tuple[str, ...], size: int, metadata: dict[str, str]) -> bytes:
    example = torch.zeros(2, 3, size, size, dtype=torch.uint8)  # a batch of 1 becomes a constant
    try:
        with _quiet(), sdpa_kernel(SDPBackend.MATH):  # fused ones give strides that the exporter trips over
            program = torch.onnx.export(
                network,
                (example,),
                input_names=["image"],
                output_names=list(outputs),
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        raise ModelError(f"{metadata['backbone']} cannot be exported to ONNX. {root_line(error)}") from error
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, metadata)
    data: bytes = model.SerializeToString()
    for number, output in enumerate(outputs):
        check_parity(data, _run_torch(network, number), size, metadata["backbone"], output)
    return data


def check_parity(
    model: bytes,
    reference: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    size: int,
    name: str,
    output: str = "embedding",
) -> float:
    """Compare an output of a model in ONNX Runtime with `reference` on fixed inputs, in batches of 1 and 3.

    Returns
    -------
    float
        The largest difference, relative to the largest value of the reference.

    Raises
    ------
    ModelError
        The difference is above 1e-4, or not a number.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in (1, 3):
        image = np.random.default_rng(batch).integers(0, 256, (batch, 3, size, size), dtype=np.uint8)
        expected, found = reference(image), session.run([output], {"image": image})[0]
        worst = max(worst, float(np.abs(expected - found).max() / max(np.abs(expected).max(), 1e-12)))
    if not worst <= TOLERANCE:
        raise ModelError(
            f"The exported {name} is not the same network: ONNX Runtime differs from torch by {worst:.1e} of the "
            f"largest value; at most {TOLERANCE:.0e} is accepted. Report this with the versions of torch and onnx."
        )
    return worst


def _run_torch(network: nn.Module, number: int) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    def run(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            outputs = network(torch.from_numpy(image))
        array: NDArray[np.float32] = (outputs[number] if isinstance(outputs, tuple) else outputs).numpy()
        return array

    return run


def _metadata(backbone: Backbone, weights: Weights, preprocess: Preprocess, pool: str) -> dict[str, str]:
    return {
        "backbone": backbone.name,
        "weights": weights.label,
        "weights_sha256": weights.sha256,
        "licence": backbone.licence(weights.label),
        "preprocess": canonical_json(preprocess.as_json()),
        "pool": pool,
        "exporter": f"tlcache export {EXPORT_VERSION}, torch {torch.__version__}, onnx {onnx.__version__}",
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress report and its warnings about itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
