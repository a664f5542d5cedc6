"""LightGBM's trees as a node of an ONNX graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tlcache.backbones.onnx_nodes import Nodes
from tlcache.heads.rows import Array

__all__ = ["boosted", "rounded_down"]


def boosted(nodes: Nodes, rows: str, head: Any) -> str:
    """Add the logits of boosted trees on principal components, a `TreeEnsembleRegressor` of ai.onnx.ml 3."""
    import lightgbm

    centred = nodes.add("Sub", rows, head.middle_)
    components = nodes.add("MatMul", centred, head.vectors_)
    boosters = [lightgbm.Booster(model_str=text) for text in head.text_.tobytes().decode().split("\0")]
    trees = [(at, tree) for at, each in enumerate(boosters) for tree in each.dump_model()["tree_info"]]
    columns = defaultdict[str, list[Any]](list)
    for number, (at, tree) in enumerate(trees):  # a booster for each column, or one with trees of all classes in turn
        _add(columns, number, at if len(boosters) > 1 else number % len(head.classes_), tree["tree_structure"])
    return nodes.add(
        "TreeEnsembleRegressor",
        components,
        domain="ai.onnx.ml",
        n_targets=len(head.classes_),
        aggregate_function="SUM",
        post_transform="NONE",
        **columns,
    )


def rounded_down(thresholds: ArrayLike) -> Array:
    """Return the largest float32 that is not above each number.

    A float32 is at most a number when it is at most that one, so that trees with float32 thresholds split as those with
    float64 ones; rounding to the nearest does not do that.
    """
    exact = np.asarray(thresholds, np.float64)
    nearest = exact.astype(np.float32)
    below: Array = np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    return below


def _add(columns: defaultdict[str, list[Any]], tree: int, target: int, root: Mapping[str, Any]) -> None:
    """Add the nodes of a tree to the columns of the ensemble, the root as number 0."""
    waiting, count = [(0, root)], 1
    while waiting:
        number, node = waiting.pop()
        leaf = "split_feature" not in node
        row = {"treeids": tree, "nodeids": number, "modes": "LEAF", "featureids": 0, "values": 0.0}
        row |= {"truenodeids": 0, "falsenodeids": 0, "missing_value_tracks_true": 0}
        if leaf:
            own = {"treeids": tree, "nodeids": number, "ids": target, "weights": node["leaf_value"]}
            for name, value in own.items():
                columns[f"target_{name}"].append(value)
        else:
            row |= {"modes": "BRANCH_LEQ", "featureids": node["split_feature"]}
            row |= {"values": float(rounded_down(node["threshold"])), "truenodeids": count, "falsenodeids": count + 1}
            waiting += [(count, node["left_child"]), (count + 1, node["right_child"])]
            count += 2
        for name, value in row.items():
            columns[f"nodes_{name}"].append(value)
