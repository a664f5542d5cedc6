"""A fitted head as nodes of an ONNX graph, behind the network whose embeddings it takes: images in, answers out."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from exporters.heads import layers, nearest
from tlcache.backbones.onnx_graph import freed
from tlcache.backbones.onnx_nodes import Nodes
from tlcache.errors import ModelError
from tlcache.heads.answering import Answering
from tlcache.heads.fitted import FittedHead
from tlcache.heads.rows import Scaler
from tlcache.heads.table import find_head
from tlcache.heads.uncertainty import Distances
from tlcache.keys import portable

__all__ = [
    "OUTPUTS",
    "answered",
    "classified",
    "head_alone",
    "serialized",
    "stated",
]

OUTPUTS = ("probabilities", "label", "labels", "value", "low", "high", "embedding", "distance")
_OURS = ("image", *OUTPUTS)
_MOST_BYTES = 2**31 - 1  # that a single ONNX file can have

_DOMAINS = {"ai.onnx.ml": 3}

Builder = Callable[[Nodes, str, Any], str]


def classified(network: bytes, head: FittedHead) -> onnx.ModelProto:
    """Put a head behind the network whose embeddings it was fitted on.

    Parameters
    ----------
    network
        A single-file model: uint8 images (n, 3, H, W) in, float32 embeddings (n, dim) out.
    head
        Its logits are added by what its row of `tlcache.heads.table.HEADS` names as `exporter`.

    Returns
    -------
    onnx.ModelProto
        Input `image`; outputs `probabilities`, float32 (n, C), calibrated, 0 for classes that were never seen; `label`,
        (n,) the name of the likeliest class; `embedding`, float32 (n, dim); and `distance`, float32 (n,), where the
        head can tell by it what is unusual. Of several labels `labels` instead of `label`, bool (n, C): what reaches
        its threshold. Of a number instead of both `value`, and `low` and `high` where an interval is promised, float64
        (n, 1).

    Raises
    ------
    ModelError
        The head cannot be exported.
    """
    model = freed(onnx.load_model_from_string(network), _OURS)
    image, embedding = model.graph.input[0], model.graph.output[0]
    nodes = Nodes("tlcache.answer", _opset(model))
    if image.name != "image":
        model.graph.node.insert(0, helper.make_node("Identity", ["image"], [image.name]))
        image.name = "image"
    if embedding.name != "embedding":
        nodes.made.append(helper.make_node("Identity", [embedding.name], ["embedding"]))
        embedding.name = "embedding"
    return _with_head(model, nodes, head)


def head_alone(head: FittedHead) -> bytes:
    """Return a head as a model of its own: float32 `embedding` (n, dim) in, `probabilities` and `label` out."""
    value = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", len(head.scaler.middle)])
    model = helper.make_model(
        helper.make_graph([], "head", [value], []), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    return serialized(_with_head(model, Nodes("tlcache.answer", 18), head))


def _with_head(model: onnx.ModelProto, nodes: Nodes, head: FittedHead) -> onnx.ModelProto:
    logits = _builder(head)(nodes, _standardised(nodes, "embedding", head.scaler), head.head)
    calibrated = nodes.add("Div", logits, np.float32(head.temperature))
    if head.uncertainty is not None and head.uncertainty.far is not None:
        far = head.uncertainty.far
        rows = _standardised(nodes, "embedding", far.scaler) if far.scaler else "embedding"
        distance = _distance(nodes, rows, far)
        nodes.made.append(helper.make_node("Identity", [distance], ["distance"]))
        model.graph.output.append(helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["batch"]))
    return answered(model, nodes, calibrated, head.classes, head.head.classes_, head.answering)


def answered(
    model: onnx.ModelProto,
    nodes: Nodes,
    logits: str,
    classes: Sequence[str],
    seen: NDArray[np.int64] | None = None,
    answering: Answering | None = None,
) -> onnx.ModelProto:
    """Add nodes and what makes answers of calibrated logits to a model that may give embeddings, and its outputs.

    Parameters
    ----------
    model
        Is changed, and returned.
    nodes
        To add, in which `logits` (n, k) are made.
    classes
        Names of all classes.
    seen
        int64 (k,): of which classes the logits are; default: of all.
    answering
        How logits are read that are not of classes.
    """
    made = _of_columns(nodes, logits, answering) if answering else _of_classes(nodes, logits, classes, seen)
    nodes.made += [helper.make_node("Identity", [each], [name]) for name, (each, _, _) in made.items()]
    for domain in {node.domain for node in nodes.made} - {entry.domain for entry in model.opset_import} - {""}:
        model.opset_import.append(helper.make_opsetid(domain, _DOMAINS[domain]))
    model.graph.node.extend(nodes.made)
    others = [value for value in model.graph.output if value.name in OUTPUTS]
    del model.graph.output[:]
    own = [helper.make_tensor_value_info(name, kind, ["batch", *shape]) for name, (_, kind, shape) in made.items()]
    model.graph.output.extend([*own, *others])
    return model


_Outputs = dict[str, tuple[str, int, list[int]]]  # name -> tensor, type and shape after the batch


def _of_classes(nodes: Nodes, logits: str, classes: Sequence[str], seen: NDArray[np.int64] | None) -> _Outputs:
    probabilities = nodes.add("Softmax", logits, axis=1)
    if seen is not None and len(seen) < len(classes):
        probabilities = _placed(nodes, probabilities, seen, len(classes))
    best = nodes.add("ArgMax", probabilities, axis=1, keepdims=0)
    names = [portable(name).encode(errors="backslashreplace") for name in classes]
    table = nodes.add("Constant", value=helper.make_tensor("classes", TensorProto.STRING, [len(names)], names))
    label = nodes.add("Gather", table, best, axis=0)
    return {
        "probabilities": (probabilities, TensorProto.FLOAT, [len(classes)]),
        "label": (label, TensorProto.STRING, []),
    }


def _of_columns(nodes: Nodes, logits: str, answering: Answering) -> _Outputs:
    if answering.output == "probabilities":
        probabilities, count = nodes.add("Sigmoid", logits), len(answering.names)
        least = np.array(answering.thresholds, np.float32)
        said = nodes.add("Not", nodes.add("Less", probabilities, least))
        return {
            "probabilities": (probabilities, TensorProto.FLOAT, [count]),
            "labels": (said, TensorProto.BOOL, [count]),
        }
    middle, spread, margin = (np.float64(each) for each in (answering.middle, answering.spread, answering.margin))
    wide = nodes.add("Cast", logits, to=TensorProto.DOUBLE)  # of numbers far from 0 float32 has too few digits
    value = nodes.add("Add", nodes.add("Mul", wide, spread), middle)
    ends = {"low": "Sub", "high": "Add"} if answering.coverage else {}
    made = {"value": value, **{name: nodes.add(operator, value, margin) for name, operator in ends.items()}}
    return {name: (each, TensorProto.DOUBLE, [1]) for name, each in made.items()}


def stated(model: onnx.ModelProto, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Put these into a model's metadata, beside what it states already."""
    known = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    helper.set_model_props(model, {**known, **metadata})
    return model


def serialized(model: onnx.ModelProto) -> bytes:
    """Return the bytes of a model's file.

    Raises
    ------
    ModelError
        They would be over 2 GB.
    """
    try:
        data: bytes = model.SerializeToString()
    except Exception:  # protobuf's own kinds, which differ between its versions
        data = b""
    if not 0 < len(data) <= _MOST_BYTES:
        raise ModelError(
            "The network and its head are over 2 GB, which one ONNX file cannot hold. Export a smaller head, such as "
            "logreg, or use the run with: tlcache predict"
        )
    return data


def _builder(head: FittedHead) -> Builder:
    row = find_head(head.name)
    if row.exporter:
        module, _, name = row.exporter.partition(":")
        found: Builder = getattr(importlib.import_module(module), name)
        return found
    if hasattr(head.head, "layers"):
        return layers
    raise ModelError(
        f"The head '{head.name}' cannot be exported: its row of tlcache.heads.table.HEADS names no exporter. Give it "
        "one, exporter='module:function', which adds its logits to a graph (docs/deploy.md)."
    )


def _standardised(nodes: Nodes, embeddings: str, scaler: Scaler) -> str:
    """Add the standardised rows, as heads take them.

    They are not folded into what follows: of a feature whose mean is far larger than its deviation, float32 would then
    lose the digits that tell images apart.
    """
    factors = 1 / scaler.scale.astype(np.float64)  # 0 where the feature is constant, and its scale infinite
    centred = nodes.add("Sub", embeddings, scaler.middle)
    return nodes.add("Mul", centred, factors.astype(np.float32))


def _distance(nodes: Nodes, embeddings: str, far: Distances) -> str:
    """Add 1 - cosine of embeddings to their k-th nearest of training, (n,)."""
    k = min(far.k, len(far.rows))
    similar, _ = nearest(nodes, embeddings, far.rows, k)
    last = nodes.add("Gather", similar, np.array(k - 1, np.int64), axis=1)
    return nodes.add("Sub", np.float32(1), last)


def _placed(nodes: Nodes, probabilities: str, seen: NDArray[np.int64], classes: int) -> str:
    """Add the probabilities of all classes, (n, C), those that were never seen with 0."""
    first = nodes.add("Gather", probabilities, np.array([0], np.int64), axis=1)
    nothing = nodes.add("Mul", first, np.float32(0))
    where = np.full(classes, len(seen), np.int64)
    where[seen] = np.arange(len(seen))
    return nodes.add("Gather", nodes.add("Concat", probabilities, nothing, axis=1), where, axis=1)


def _opset(model: onnx.ModelProto) -> int:
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
