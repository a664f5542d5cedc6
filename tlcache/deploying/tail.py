"""The head of an ONNX file that classifies images: what follows the embedding in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from tlcache.backbones.onnx_file import read_onnx
from tlcache.backbones.onnx_output import cut
from tlcache.errors import ModelError
from tlcache.heads.answering import ANSWERS

__all__ = ["load_tail", "stated_in"]

_ENDS = (*ANSWERS, "distance")
Rows = NDArray[np.float32]


def stated_in(path: Path) -> Mapping[str, str]:
    """Return what a file that `tlcache export` made of a run says of itself.

    Raises
    ------
    ModelError
        It is no such file.
    """
    model = read_onnx(path)[1]
    stated = {entry.key: entry.value for entry in model.metadata_props}
    outputs = [value.name for value in model.graph.output]
    if "classes" not in stated or "embedding" not in outputs or not {*ANSWERS}.intersection(outputs):
        raise ModelError(
            f"'{path}' gives {', '.join(outputs)} and is no file of a run, which says what its classes are. Make one "
            "with: tlcache export RUN --out model.onnx"
        )
    return stated


def load_tail(path: Path) -> Callable[[Rows], tuple[Rows, Rows | None]]:
    """Return what makes answers (n, C) and, where it knows them, distances (n,) of embeddings (n, dim).

    That is the head of such a file in ONNX Runtime: what it gives for embeddings of images, the file gives for these.
    """
    from tlcache.backbones.engines import open_session

    model = _after_embedding(read_onnx(path)[1])
    names, session = [value.name for value in model.graph.output], open_session(model.SerializeToString())
    (main,) = (name for name in names if name in ANSWERS)

    def answer(rows: Rows) -> tuple[Rows, Rows | None]:
        found = dict(zip(names, session.run(names, {"embedding": rows}), strict=True))
        return found[main], found.get("distance")

    return answer


def _after_embedding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the part of a model that takes `embedding`."""
    graph, ends = model.graph, [value for value in model.graph.output if value.name in _ENDS]
    start = [value for value in graph.output if value.name == "embedding"]
    later = onnx.GraphProto()
    later.node.extend(node for node in graph.node if "embedding" not in node.output)
    needed = [cut(later, value.name) for value in ends]
    made = {name for nodes, _ in needed for node in nodes for name in node.output}
    taken = {name for _, names in needed for name in names}
    nodes = [node for node in later.node if made.intersection(node.output)]
    weights = [tensor for tensor in graph.initializer if tensor.name in taken]
    tail = onnx.helper.make_graph(nodes, "tail", start, ends, weights)
    return onnx.helper.make_model(tail, opset_imports=model.opset_import, ir_version=model.ir_version)
