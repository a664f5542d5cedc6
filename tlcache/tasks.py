"""What can be learned of labels: which of several classes an image is of, which labels it has, or a number."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["CLASSIFY", "MULTILABEL", "NONE", "REGRESSION", "SMALLER", "TASKS", "USUAL", "joined_label"]

TASKS = CLASSIFY, MULTILABEL, REGRESSION = ("classify", "multilabel", "regression")
USUAL = {CLASSIFY: "accuracy", MULTILABEL: "mean_average_precision", REGRESSION: "mae"}  # what runs are chosen by
SMALLER = ("mae",)  # of these, the figures of which less is better
NONE = ";"  # the label of an image that has none of the labels


def joined_label(names: Sequence[str]) -> str:
    """Return the label of an image that has labels of these names.

    >>> joined_label(["dog", "cat", "dog"]), joined_label([])
    ('cat;dog', ';')
    """
    return NONE.join(sorted(set(names))) or NONE
