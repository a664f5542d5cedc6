"""What every head has in common: scikit-learn's interface, logits, and arrays that can be saved without pickle."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from tlcache.heads.logits import linear, softmax
from tlcache.heads.rows import Array, Features, View, blocks
from tlcache.threads import blas_for

__all__ = ["Head", "LinearHead", "Validation"]

Validation = tuple[Features, NDArray[Any]] | None
Columns = NDArray[np.uint8] | NDArray[np.float32]


class Head(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A classifier on embeddings.

    A subclass sets its parameters in `__init__` as scikit-learn wants them, fits in `_fit` (or, where several settings
    share work, in `_fit_heads`) and answers in `_logits`; `STATE` names the fitted arrays that make it what it is, and
    `LEARNS_COLUMNS` says whether it can be fitted on what `fit_columns` takes, too.

    Attributes
    ----------
    classes_
        (C,) the labels seen by `fit`, sorted; columns of logits and probabilities are in this order.
    """

    STATE: ClassVar[tuple[str, ...]] = ()
    LEARNS_COLUMNS: ClassVar[bool] = False

    class_weight: Any

    def fit(
        self, X: ArrayLike | View, y: ArrayLike, X_val: ArrayLike | View | None = None, y_val: ArrayLike | None = None
    ) -> Self:
        """Fit on float32 (n, dim) features and (n,) labels.

        Heads that are trained by steps stop early on the validation rows when these are given; others ignore them.
        Validation rows of classes that `y` lacks are passed over.

        Raises
        ------
        ValueError
            Not finite, not two-dimensional, of unequal length, or fewer than two classes; an unknown class weight.
        """
        self.fit_together([self], X, y, X_val, y_val)
        return self

    @classmethod
    def fit_each(
        cls,
        settings: Sequence[Mapping[str, Any]],
        X: ArrayLike | View,
        y: ArrayLike,
        X_val: ArrayLike | View | None = None,
        y_val: ArrayLike | None = None,
    ) -> list[Self]:
        """Return a head for each of `settings`, fitted on the same rows; what they can share is computed once."""
        heads = [cls(**setting) for setting in settings]
        cls.fit_together(heads, X, y, X_val, y_val)
        return heads

    @classmethod
    def fit_together(
        cls,
        heads: Sequence[Self],
        X: ArrayLike | View,
        y: ArrayLike,
        X_val: ArrayLike | View | None = None,
        y_val: ArrayLike | None = None,
    ) -> None:
        """Fit several heads on the same rows, as `fit` says; they differ in their parameters."""
        first = heads[0]
        for head in heads:
            _check_weight(head.class_weight)
        features: Features
        if isinstance(X, View):
            features, labels = X, np.asarray(y)
            for some in blocks(len(X)):
                validate_data(first, X[some], labels[some], dtype=np.float32)
        else:
            features, labels = validate_data(first, X, y, dtype=np.float32, order="C")
        seen = {name: value for name, value in vars(first).items() if name in ("n_features_in_", "feature_names_in_")}
        with warnings.catch_warnings(action="ignore"):  # of as many classes as rows, which one shot per class is
            check_classification_targets(labels)
        classes, target = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"Classifying needs 2 classes or more; found {len(classes)} class.")
        for head in heads:
            head.__dict__.update(seen, classes_=classes)
        validation = _known(X_val, y_val, classes)
        by_weight: dict[str, list[Self]] = {}
        for head in heads:
            by_weight.setdefault(str(head.class_weight), []).append(head)
        with blas_for(len(features) * features.shape[1]):
            for group in by_weight.values():
                cls._fit_heads(group, features, target, validation)

    @classmethod
    def fit_columns(
        cls,
        settings: Sequence[Mapping[str, Any]],
        X: Features,
        Y: Columns,
        X_val: Features | None = None,
        Y_val: Columns | None = None,
    ) -> list[Self]:
        """Return a head for each of `settings` whose logits (n, C) are those of columns, each by itself.

        Parameters
        ----------
        X, X_val
            float32 (n, dim) rows.
        Y, Y_val
            uint8 (n, C), whether an image has each of several labels: the logistic function of a logit is its
            probability. Or float32 (n, C), numbers, which are what the logits are.

        Raises
        ------
        NotImplementedError
            The head is of classes alone.
        """
        if not cls.LEARNS_COLUMNS:
            raise NotImplementedError(f"{cls.__name__} is of classes alone")
        heads = [cls(**setting) for setting in settings]
        for head in heads:
            head.n_features_in_, head.classes_ = X.shape[1], np.arange(Y.shape[1])
        with blas_for(len(X) * X.shape[1]):
            cls._fit_heads(heads, X, Y, None if X_val is None or Y_val is None else (X_val, Y_val))
        return heads

    def chosen(self) -> dict[str, Any]:
        """Return the parameters to fit again with, what early stopping found included."""
        return dict(self.get_params())

    def logits(self, X: ArrayLike | View) -> Array:
        """Return logits, float32 (n, C); their softmax is `predict_proba`."""
        check_is_fitted(self)
        if isinstance(X, View):
            return np.concatenate([self.logits(X[some]) for some in blocks(max(1, len(X)))])  # of no rows, to refuse it
        return self._logits(validate_data(self, X, dtype=np.float32, order="C", reset=False))

    @classmethod
    def logits_each(cls, heads: Sequence[Self], X: ArrayLike | View) -> Iterator[Array]:
        """Yield the logits of heads that were fitted together; a subclass computes once what they share."""
        return (head.logits(X) for head in heads)

    def decision_function(self, X: ArrayLike) -> Array:
        """Return `logits`; with two classes, as scikit-learn wants it, how far the second is above the first (n,)."""
        logits = self.logits(X)
        return logits if logits.shape[1] > 2 else logits[:, 1] - logits[:, 0]

    def predict_proba(self, X: ArrayLike) -> Array:
        """Return probabilities, float32 (n, C), rows summing to 1."""
        return softmax(self.logits(X))

    def predict(self, X: ArrayLike | View) -> NDArray[Any]:
        """Return the most probable label of each row."""
        best = self.logits(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that `restore` needs to make the same head again."""
        return {name: np.ascontiguousarray(getattr(self, name)) for name in ("classes_", *self.STATE)}

    @classmethod
    def restore(cls, params: Mapping[str, Any], state: Mapping[str, NDArray[Any]], width: int) -> Self:
        """Return a fitted head from its parameters, its `state` and the number of features that it takes."""
        head = cls(**params)
        for name in ("classes_", *cls.STATE):
            setattr(head, name, state[name])
        head.n_features_in_ = width
        return head

    @classmethod
    def _fit_heads(cls, heads: Sequence[Self], X: Features, y: NDArray[Any], validation: Validation) -> None:
        """Fit heads of one class weight; `y` are indices (n,) into their `classes_`, or the columns (n, C)."""
        for head in heads:
            head._fit(X, y, validation)

    def _fit(self, X: Features, y: NDArray[Any], validation: Validation) -> None:
        raise NotImplementedError

    def row_weights(self, y: NDArray[Any]) -> Array | None:
        """Return a weight for each row, float32 (n,), or None where all are 1, as on columns (n, C)."""
        if self.class_weight is None or y.ndim == 2:
            return None
        weights: Array = compute_sample_weight(self.class_weight, self.classes_[y]).astype(np.float32)
        return weights

    def _logits(self, X: Array) -> Array:
        raise NotImplementedError


class LinearHead(Head):
    """A head whose logits are `X @ coef_ + intercept_`, with float32 `coef_` (dim, C) and `intercept_` (C,)."""

    STATE: ClassVar[tuple[str, ...]] = ("coef_", "intercept_")

    def layers(self) -> Iterator[tuple[Array, Array]]:
        """Yield `coef_` and `intercept_`: a network of a single layer."""
        yield self.coef_, self.intercept_

    def build(self, width: int) -> Any:
        """Return the layer as a torch module with fresh weights: (n, width) -> logits of `classes_`, (n, C)."""
        from torch import nn

        return nn.Sequential(nn.Linear(width, len(self.classes_)))

    def _logits(self, X: Array) -> Array:
        return linear(self, X)


def _check_weight(weight: Any) -> None:
    """Refuse what `row_weights` cannot use."""
    if weight is None or (isinstance(weight, str) and weight == "balanced"):
        return
    each = list(weight.values()) if isinstance(weight, Mapping) else [None]
    if not all(isinstance(one, (int, float, np.number)) and 0 <= one < np.inf for one in each):
        raise ValueError(
            f"class_weight is {weight!r}. Pass 'balanced', None, or a dict with a number from 0 on for each label."
        )


def _known(X_val: ArrayLike | View | None, y_val: ArrayLike | None, classes: NDArray[Any]) -> Validation:
    """Return the validation rows of known classes, and their indices into `classes`; None when there are none."""
    if X_val is None or y_val is None:
        return None
    labels = np.asarray(y_val)
    known = np.isin(labels, classes)
    if not known.any():
        return None
    rows = X_val if isinstance(X_val, View) else View(np.asarray(X_val, np.float32))
    return rows.of(np.flatnonzero(known)), np.searchsorted(classes, labels[known])
