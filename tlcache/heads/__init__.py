"""The heads: one frozen row each, with the settings to choose from. Adding one is a class and a row."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from tlcache.errors import UnknownNameError, closest

if TYPE_CHECKING:
    from tlcache.heads.base import Head

__all__ = ["HEADS", "HeadRow", "find_head", "load_head"]


@dataclass(frozen=True)
class HeadRow:
    """One head.

    Parameters
    ----------
    name
        As in `--heads`.
    builder
        `module:class` of a `tlcache.heads.base.Head`, imported when used.
    search
        Values to choose from, by parameter; every combination is tried.
    scaled
        Whether features are standardised first.
    about
        One line for people.
    """

    name: str
    builder: str
    search: Mapping[str, tuple[Any, ...]]
    scaled: bool
    about: str

    def settings(self) -> list[dict[str, Any]]:
        """Return every combination of the search space."""
        return [dict(zip(self.search, values, strict=True)) for values in product(*self.search.values())]

    def type(self) -> type[Head]:
        """Import and return the class."""
        module, _, name = self.builder.partition(":")
        found: type[Head] = getattr(importlib.import_module(module), name)
        return found


_ROWS = (
    HeadRow(
        "logreg",
        "tlcache.heads.linear:LogReg",
        {"C": (1e-4, 1e-3, 1e-2, 1e-1, 1.0)},
        scaled=True,
        about="multinomial logistic regression, L2",
    ),
    HeadRow(
        "ridge",
        "tlcache.heads.linear:Ridge",
        {"alpha": (1.0, 1e1, 1e2, 1e3, 1e4, 1e5)},
        scaled=True,
        about="ridge regression in closed form",
    ),
    HeadRow(
        "knn",
        "tlcache.heads.neighbours:Knn",
        {"k": (1, 3, 5, 10, 20, 50)},
        scaled=True,
        about="k nearest neighbours by cosine, weighted",
    ),
    HeadRow(
        "svm",
        "tlcache.heads.kernel:Svm",
        {"gamma": (0.5, 1.0), "C": (1.0, 10.0)},
        scaled=True,
        about="support vector machine, Gaussian kernel (Nystroem)",
    ),
    HeadRow(
        "lightgbm",
        "tlcache.heads.boosting:LightGbm",
        {"components": (64, 128)},
        scaled=True,
        about="boosted trees on principal components",
    ),
    HeadRow(
        "linear",
        "tlcache.heads.neural:Linear",
        {"learning_rate": (1e-3, 1e-2), "weight_decay": (0.0, 1e-2)},
        scaled=True,
        about="softmax layer, stochastic gradient descent",
    ),
    HeadRow(
        "dense",
        "tlcache.heads.neural:Dense",
        {"learning_rate": (3e-4, 1e-3)},
        scaled=True,
        about="512 - dropout 0.6 - 512 - dropout 0.6 - softmax",
    ),
)

HEADS: Mapping[str, HeadRow] = {row.name: row for row in _ROWS}


def find_head(name: str) -> HeadRow:
    """Return the row called `name`.

    Raises
    ------
    UnknownNameError
        No such head; the message names the nearest one and all that exist.
    """
    if name not in HEADS:
        raise UnknownNameError(closest("head", name, HEADS))
    return HEADS[name]


def __getattr__(name: str) -> Any:
    if name == "load_head":
        from tlcache.heads.fitted import load_head

        return load_head
    raise AttributeError(f"module 'tlcache.heads' has no attribute '{name}'")
