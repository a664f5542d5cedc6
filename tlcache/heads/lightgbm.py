"""Gradient-boosted trees on the principal components of the features."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tlcache.heads.base import Head, Validation
from tlcache.heads.logits import components, trees
from tlcache.heads.rows import Array, Features, View
from tlcache.heads.solver import Basis
from tlcache.threads import team_for

__all__ = ["LightGbm"]

_RANDOM = {"extra_trees": True, "bagging_fraction": 0.7, "bagging_freq": 1}
_TREES = 30_000  # of 200 classes 150 rounds; with 1,200 classes a round takes a second


class LightGbm(Head):
    """LightGBM in a form that suits embeddings.

    Trees look at one feature at a time, while the information of an embedding is spread over all of them; on the
    leading principal components boosting is both better and, with one tree per class and round, many times faster.

    Parameters
    ----------
    components
        Principal components that the trees see.
    leaves
        Leaves of a tree; small trees suffice on components.
    splits
        `random`: each tree sees 70 % of the rows, and of every component one threshold, drawn at random (Geurts et al.,
        2006), which keeps so many trees from being alike; `best`, and where there are columns: all rows and thresholds.
    learning_rate, rounds, patience
        Shrinkage, most rounds, and rounds without a better validation loss after which boosting stops. A round is one
        tree per class; of more than 75 classes there are no more rounds than make 30,000 trees.
    seconds
        Boosting begins no round after so many seconds; None: no limit.
    columns, categories
        How many of the features, at the end, are columns of a table, which trees see as they are; the first
        `categories` of these are numbers of categories.
    class_weight
        `balanced`, a weight per label, or None.
    seed
        For the components that each node chooses from, a random fifth.
    """

    STATE: ClassVar[tuple[str, ...]] = ("middle_", "vectors_", "text_")
    LEARNS_COLUMNS: ClassVar[bool] = True

    def __init__(
        self,
        components: int = 64,
        leaves: int = 15,
        splits: str = "random",
        learning_rate: float = 0.3,
        rounds: int = 400,
        patience: int = 20,
        seconds: float | None = None,
        columns: int = 0,
        categories: int = 0,
        class_weight: Any = None,
        seed: int = 0,
    ) -> None:
        self.components = components
        self.leaves = leaves
        self.splits = splits
        self.learning_rate = learning_rate
        self.rounds = rounds
        self.patience = patience
        self.seconds = seconds
        self.columns = columns
        self.categories = categories
        self.class_weight = class_weight
        self.seed = seed

    def chosen(self) -> dict[str, Any]:
        """Return the parameters, with the number of rounds that was best on validation, which need no limit."""
        return {**self.get_params(), "rounds": self.best_round_, "seconds": None}

    def _fit(self, X: Features, y: NDArray[Any], validation: Validation) -> None:
        """Boost trees of all classes, or those of every column; rounds to fit again with are the columns' median."""
        self._turn(X)
        Z, held_out = components(self, X), validation and (components(self, validation[0]), validation[1])
        if y.ndim == 1:
            several = {"objective": "multiclass", "num_class": len(self.classes_)}
            found = [self._boost(Z, y, self.row_weights(y), held_out, several)]
        else:
            each = {"objective": "binary" if y.dtype == np.uint8 else "regression"}
            found = [
                self._boost(Z, column, None, held_out and (held_out[0], held_out[1][:, number]), each)
                for number, column in enumerate(y.T)
            ]
        self.best_round_ = round(median(rounds for _, rounds in found))
        self.text_ = np.frombuffer("\0".join(text for text, _ in found).encode(), np.uint8)

    def _boost(
        self,
        Z: Array,
        y: NDArray[Any],
        weights: Array | None,
        validation: tuple[Array, NDArray[Any]] | None,
        objective: Mapping[str, Any],
    ) -> tuple[str, int]:
        """Return a model of components (n, k) as text, and its best round."""
        import lightgbm

        first = self.vectors_.shape[1]
        options = {
            **objective,
            "num_leaves": self.leaves,
            "learning_rate": self.learning_rate,
            "feature_fraction_bynode": 0.2 if first else 1.0,
            "min_data_in_leaf": 3,
            "lambda_l2": 5.0,  # without it a rare class's first steps are as large as 1 / its share
            "max_bin": 31,
            "seed": self.seed,
            "deterministic": True,  # whatever the number of threads is
            "num_threads": team_for(Z.size),
            "force_row_wise": True,
            "verbosity": -1,
            **(_RANDOM if self.splits == "random" and not self.columns else {}),
            **({"min_data_per_group": 3} if self.categories else {}),
        }
        named: Any = [*range(first, first + self.categories)] or "auto"
        rows = lightgbm.Dataset(Z, y, weight=weights, params=options, categorical_feature=named)
        watched: list[lightgbm.Dataset] = []
        callbacks: list[Callable[..., Any]] = []
        if validation is not None:
            watched = [lightgbm.Dataset(*validation, reference=rows)]
            callbacks = [lightgbm.early_stopping(self.patience, verbose=False)]
        if self.seconds is not None:
            models = 1 if "num_class" in objective else len(self.classes_)
            callbacks.append(_Limit(time.monotonic() + self.seconds / models))
        rounds = min(self.rounds, max(1, _TREES // len(self.classes_)))
        booster = lightgbm.train(options, rows, rounds, valid_sets=watched, callbacks=callbacks)
        best = booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration()
        return booster.model_to_string(num_iteration=best), best

    def _turn(self, X: Features) -> None:
        """Find the principal components of what is no column."""
        width = X.shape[1] - self.columns
        if not width:
            self.middle_, self.vectors_ = np.zeros(0, np.float32), np.zeros((0, 0), np.float32)
            return
        basis = Basis.of((X if isinstance(X, View) else View(X)).leading(width) if self.columns else X)
        if not basis.vectors.shape[1] and not self.columns:
            raise ValueError("all rows are equal, and trees have nothing to split.")
        self.middle_, self.vectors_ = basis.middle, basis.vectors[:, : -self.components - 1 : -1]

    def _logits(self, X: Array) -> Array:
        return trees(self, X)


class _Limit:
    """Ends boosting at a moment of the monotonic clock; the best round so far is kept."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.best: tuple[float, int, Any] | None = None

    def __call__(self, env: Any) -> None:
        from lightgbm.callback import EarlyStopException

        results = env.evaluation_result_list or []
        if results and (self.best is None or results[0][2] < self.best[0]):
            self.best = (results[0][2], env.iteration, results)
        if time.monotonic() > self.until:
            _, iteration, best = self.best or (0.0, env.iteration, results)
            raise EarlyStopException(iteration, best)
