"""The logits of heads as nodes of an ONNX graph, each from the standardised rows of embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from tlcache.backbones.onnx_nodes import Nodes
from tlcache.errors import ModelError
from tlcache.heads.logits import SMOOTHING
from tlcache.heads.rows import Array

__all__ = ["kernel", "layers", "means", "nearest", "neighbours"]

_MOST_ROWS = 100_000  # of nearest neighbours, which a file holds at 4 bytes a feature


def layers(nodes: Nodes, rows: str, head: Any) -> str:
    """Add the logits of a head that is linear layers with ReLU between them."""
    for number, (weights, biases) in enumerate(head.layers()):
        taken = nodes.add("Relu", rows) if number else rows
        rows = nodes.add("Gemm", taken, weights, biases)
    return rows


def kernel(nodes: Nodes, rows: str, head: Any) -> str:
    """Add the logits of a kernel head: a Gaussian of the distance to each of its points, and a layer."""
    points: Array = head.points_
    squares = np.einsum("ij,ij->i", points, points)[None]
    products = nodes.add("Gemm", rows, -2 * points.T, squares)
    distances = nodes.add("Relu", nodes.add("Add", products, _squares(nodes, rows, points.shape[1])))
    values = nodes.add("Exp", nodes.add("Mul", distances, -head.width_))
    return nodes.add("Gemm", values, head.coef_, head.intercept_)


def means(nodes: Nodes, rows: str, head: Any) -> str:
    """Add the logits of the nearest class mean: whitened rows of length 1, and a layer."""
    white = nodes.add("Gemm", nodes.add("Sub", rows, head.middle_), head.axes_)
    unit, log_weights = _unit(nodes, white, head.axes_.shape[1]), np.log(head.weights_ / head.weights_.sum())
    return nodes.add("Gemm", unit, head.sharpness_ * head.means_.T, log_weights)


def neighbours(nodes: Nodes, rows: str, head: Any) -> str:
    """Add the logits of nearest neighbours, whose training rows become part of the file."""
    known: Array = head.rows_
    if len(known) > _MOST_ROWS:
        raise ModelError(
            f"The knn head has {len(known):,} training rows, and all of them would be in the file; at most "
            f"{_MOST_ROWS:,} are accepted. Export another head, such as logreg, or use it with: tlcache predict"
        )
    similar, numbers = nearest(nodes, rows, known, head.k)
    best = nodes.add("Gather", similar, np.array([0], np.int64), axis=1)
    nearer = nodes.add("Div", nodes.add("Sub", similar, best), np.float32(head.temperature))
    weights = nodes.add("Gather", head.weights_, numbers)
    votes = nodes.add("Mul", nodes.add("Exp", nearer), weights)
    if head.targets_.ndim == 2:
        return _neighbours_mean(nodes, votes, numbers, head)
    count = len(head.classes_)
    targets = nodes.add("Gather", head.targets_.astype(np.int64), numbers)
    depth, off_on = np.array([count], np.int64), np.array([0, 1], np.float32)
    each = nodes.add("OneHot", targets, depth, off_on)
    beside = nodes.add("Reshape", votes, np.array([0, 1, -1], np.int64))
    tally = nodes.add("Reshape", nodes.add("MatMul", beside, each), np.array([0, -1], np.int64))
    share = nodes.add("Div", tally, nodes.add("MatMul", tally, np.ones((count, 1), np.float32)))
    smooth = nodes.add("Add", share, np.float32(SMOOTHING))
    return nodes.add("Log", nodes.add("Div", smooth, np.float32(1 + count * SMOOTHING)))


def _neighbours_mean(nodes: Nodes, votes: str, numbers: str, head: Any) -> str:
    """Add the weighted means of the neighbours' columns, of labels as logits."""
    several = nodes.add("MatMul", votes, np.ones((min(head.k, len(head.rows_)), 1), np.float32))
    weights = nodes.add("Reshape", nodes.add("Div", votes, several), np.array([0, 1, -1], np.int64))
    targets = nodes.add("Gather", head.targets_.astype(np.float32), numbers)
    means = nodes.add("Reshape", nodes.add("MatMul", weights, targets), np.array([0, -1], np.int64))
    if head.targets_.dtype != np.uint8:
        return means
    smooth = nodes.add("Add", means, np.float32(SMOOTHING))
    share = nodes.add("Div", smooth, np.float32(1 + 2 * SMOOTHING))
    return nodes.add("Log", nodes.add("Div", share, nodes.add("Sub", np.float32(1), share)))


def nearest(nodes: Nodes, rows: str, known: Array, k: int) -> list[str]:
    """Add the cosines of the k most similar of some rows of length 1, in falling order, and their numbers."""
    if nodes.opset < 10:
        raise ModelError(
            f"The network is in ONNX operators of version {nodes.opset}, and nearest neighbours need 10 or "
            "later. Save the network in a newer version, or export a head without them."
        )
    cosines = nodes.add("MatMul", _unit(nodes, rows, known.shape[1]), known.T)
    return nodes.several(2, "TopK", cosines, np.array([min(k, len(known))], np.int64), axis=1)


def _unit(nodes: Nodes, rows: str, width: int) -> str:
    """Add the rows divided by their length, as `tlcache.heads.cosines.unit_rows` does."""
    lengths = nodes.add("Sqrt", _squares(nodes, rows, width))
    return nodes.add("Div", rows, nodes.add("Max", lengths, np.float32(1e-12)))


def _squares(nodes: Nodes, rows: str, width: int) -> str:
    """Add the squared length of each row, (n, 1), as every operator set has it."""
    return nodes.add("MatMul", nodes.add("Mul", rows, rows), np.ones((width, 1), np.float32))
