"""The heads: one frozen row each. Adding one is a class and a row, here or, from outside, `HEADS[row.name] = row`."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from tlcache.errors import OptionError, UnknownNameError, closest
from tlcache.heads.optimizers import OPTIMIZERS
from tlcache.kinds import listing
from tlcache.tasks import CLASSIFY, MULTILABEL, REGRESSION, TASKS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlcache.heads.base import Head
    from tlcache.heads.logits import Fitted

__all__ = ["HEADS", "HeadRow", "find_head", "find_heads", "list_heads", "tuned_heads"]


@dataclass(frozen=True)
class HeadRow:
    """One head.

    Parameters
    ----------
    name
        As in `--heads`.
    builder
        `module:class` of a `tlcache.heads.base.Head`, imported when used.
    quick, full
        Values to choose from, by parameter, each from the simplest model to the most flexible; every combination is
        tried.
    scaled
        Whether features are standardised first.
    about
        One line for people.
    relative_cost
        About how long choosing and fitting take where ridge takes 1, for the estimates of a study.
    starts_from
        The head whose fitted layers are what fine-tuning begins with, by its name, or several: the first that learns
        such labels; None: fine-tuning has no such head. The class of this row then has `build`, the class of that one
        `layers`, as `tlcache.heads.base.LinearHead` has.
    exporter
        `module:function` that adds the head's logits to an ONNX graph, as those of `exporters.heads` do; None: what
        has `layers` is exported by these, and nothing else is.
    tolerance
        How far an exported head's probabilities may be from its own: what rounding can make of them.
    logits
        `module:function` that makes logits of the fitted arrays and rows, as those of `tlcache.heads.logits` do, for
        whoever only asks; None: the class is loaded for that.
    takes_columns
        Whether it takes columns of a table as they are, with the parameters `columns` and `categories` of
        `tlcache.heads.lightgbm.LightGbm`; what does not is given them as flags and standardised numbers.
    tasks
        What it learns, names of `tlcache.tasks.TASKS`; of others than classes by `Head.fit_columns`.
    """

    name: str
    builder: str
    quick: Mapping[str, tuple[Any, ...]]
    full: Mapping[str, tuple[Any, ...]]
    scaled: bool
    about: str
    relative_cost: float
    starts_from: str | tuple[str, ...] | None = None
    exporter: str | None = None
    tolerance: float = 1e-5
    logits: str | None = None
    takes_columns: bool = False
    tasks: tuple[str, ...] = (CLASSIFY,)

    def space(self, search: str = "quick") -> Mapping[str, tuple[Any, ...]]:
        """Return the search space called `quick` or `full`."""
        return {"quick": self.quick, "full": self.full}[search]

    def settings(self, search: str = "quick") -> list[dict[str, Any]]:
        """Return every combination of a search space."""
        space = self.space(search)
        return [dict(zip(space, values, strict=True)) for values in product(*space.values())]

    def start(self, task: str) -> HeadRow:
        """Return the head whose fitted layers fine-tuning begins with, of labels of a task.

        Raises
        ------
        OptionError
            None learns such labels.
        """
        for row in map(find_head, listing(self.starts_from or ())):
            if task in row.tasks:
                return row
        raise OptionError(f"No head learns --task {task} that --head {self.name} can begin with. Give another --head.")

    def defaults(self) -> dict[str, Any]:
        """Return the head's parameters as they are when nothing is given."""
        return dict(self.type()().get_params())

    def type(self) -> type[Head]:
        """Import and return the class."""
        found: type[Head] = _imported(self.builder)
        return found

    def restore(self, params: Mapping[str, Any], state: Mapping[str, NDArray[Any]], width: int) -> Fitted:
        """Return a fitted head that answers as the one of these parameters and arrays does, without its class."""
        if self.logits is None:
            return self.type().restore(params, state, width)
        from tlcache.heads.logits import Restored

        return Restored(_imported(self.logits), params, state)


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


# Relative costs are about those seen on flowers102_small with two MobileNets.
_ROWS = (
    HeadRow(
        "logreg",
        "tlcache.heads.logreg:LogReg",
        quick={"C": (1e-4, 1e-3, 1e-2, 1e-1, 1.0)},
        full={"C": (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)},
        scaled=True,
        about="multinomial logistic regression, L2",
        relative_cost=12.0,
        logits="tlcache.heads.logits:linear",
        tasks=(CLASSIFY, MULTILABEL),
    ),
    HeadRow(
        "ridge",
        "tlcache.heads.ridge:Ridge",
        quick={"alpha": (1e5, 3e4, 1e4, 3e3, 1e3, 3e2, 1e2, 1e1, 1.0)},
        full={"alpha": tuple(10.0 ** (exponent / 4) for exponent in range(24, -9, -1))},
        scaled=True,
        about="ridge regression in closed form",
        relative_cost=1.0,
        logits="tlcache.heads.logits:linear",
        tasks=TASKS,
    ),
    HeadRow(
        "knn",
        "tlcache.heads.knn:Knn",
        quick={"k": (50, 20, 10, 5, 3, 1)},
        full={"k": (200, 100, 50, 30, 20, 15, 10, 7, 5, 3, 2, 1), "temperature": (0.2, 0.07, 0.03)},
        scaled=True,
        about="k nearest neighbours by cosine, weighted",
        relative_cost=0.3,
        exporter="exporters.heads:neighbours",
        logits="tlcache.heads.logits:neighbours",
        tasks=TASKS,
    ),
    HeadRow(
        "svm",
        "tlcache.heads.svm:Svm",
        quick={"gamma": (0.5, 1.0), "C": (1.0, 10.0)},
        full={"gamma": (0.25, 0.5, 1.0, 2.0), "C": (0.1, 1.0, 10.0, 100.0)},
        scaled=True,
        about="support vector machine, Gaussian kernel (Nystroem)",
        relative_cost=12.0,
        exporter="exporters.heads:kernel",
        tolerance=1e-3,  # a small temperature magnifies what rounding does to the kernel
        logits="tlcache.heads.logits:kernel",
        tasks=(CLASSIFY, REGRESSION),
    ),
    HeadRow(
        "krr",
        "tlcache.heads.krr:Krr",
        quick={"gamma": (0.5, 1.0), "alpha": (3.0, 1.0, 0.3, 0.1, 0.03, 0.01)},
        full={"gamma": (0.25, 0.5, 1.0, 2.0), "alpha": tuple(10.0 ** (exponent / 4) for exponent in range(4, -13, -1))},
        scaled=True,
        about="kernel ridge regression, Gaussian kernel (Nystroem)",
        relative_cost=4.0,
        exporter="exporters.heads:kernel",
        tolerance=1e-3,
        logits="tlcache.heads.logits:kernel",
        tasks=TASKS,
    ),
    HeadRow(
        "ncm",
        "tlcache.heads.ncm:Ncm",
        quick={"shrinkage": (0.9, 0.7, 0.5, 0.3, 0.1, 0.03)},
        full={"shrinkage": (0.99, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.03, 0.01)},
        scaled=True,
        about="nearest class mean by cosine, whitened",
        relative_cost=1.0,
        exporter="exporters.heads:means",
        logits="tlcache.heads.logits:means",
    ),
    HeadRow(
        "lightgbm",
        "tlcache.heads.lightgbm:LightGbm",
        quick={"components": (64,), "splits": ("random",)},
        full={"components": (32, 64, 128, 256), "leaves": (7, 15, 31), "splits": ("random", "best")},
        scaled=True,
        about="boosted trees on principal components",
        relative_cost=60.0,
        exporter="exporters.trees:boosted",
        logits="tlcache.heads.logits:trees",
        takes_columns=True,
        tasks=TASKS,
    ),
    HeadRow(
        "linear",
        "tlcache.heads.linear:Linear",
        quick={"learning_rate": (1e-2, 3e-2), "weight_decay": (1e-2, 0.0)},
        full={"learning_rate": (1e-3, 1e-2, 3e-2), "weight_decay": (1e-1, 1e-2, 0.0), "optimizer": tuple(OPTIMIZERS)},
        scaled=True,
        about="softmax layer, stochastic gradient descent",
        relative_cost=5.0,
        starts_from=("logreg", "ridge"),  # whose optimum is the same, and known without gradient steps
        logits="tlcache.heads.logits:layered",
        tasks=(CLASSIFY, MULTILABEL),
    ),
    HeadRow(
        "dense",
        "tlcache.heads.dense:Dense",
        quick={"learning_rate": (3e-4, 1e-3)},
        full={"learning_rate": (1e-4, 3e-4, 1e-3), "dropout": (0.6, 0.3), "optimizer": tuple(OPTIMIZERS)},
        scaled=True,
        about="512 - dropout 0.6 - 512 - dropout 0.6 - softmax",
        relative_cost=12.0,
        starts_from="dense",
        logits="tlcache.heads.logits:layered",
        tasks=TASKS,
    ),
)

HEADS: dict[str, HeadRow] = {row.name: row for row in _ROWS}


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


def list_heads() -> list[HeadRow]:
    """Return the heads, each with the settings it chooses from.

    Examples
    --------
    >>> next(row.settings() for row in list_heads() if row.name == "knn")[0]
    {'k': 50}
    """
    return list(HEADS.values())


def tuned_heads() -> tuple[str, ...]:
    """Return the names of the heads that fine-tuning can have."""
    return tuple(row.name for row in HEADS.values() if row.starts_from)


def find_heads(names: str | Iterable[str] | None = None) -> list[HeadRow]:
    """Return the rows of these names, each once; default: all.

    Raises
    ------
    UnknownNameError
        No such head, or no name at all.
    """
    rows = [find_head(name) for name in dict.fromkeys(HEADS if names is None else listing(names))]
    if not rows:
        raise UnknownNameError(f"--heads names no head. Leave it out for all, or give some of: {', '.join(HEADS)}.")
    return rows
