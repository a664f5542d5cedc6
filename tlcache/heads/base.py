"""What every head has in common: scikit-learn's interface, logits, and arrays that can be saved without pickle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["Head", "LinearHead", "softmax"]

Array = NDArray[np.float32]


class Head(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A classifier on embeddings.

    A subclass sets its parameters in `__init__` as scikit-learn wants them, fits in `_fit` and answers in `_logits`;
    `STATE` names the fitted arrays that make it what it is.

    Attributes
    ----------
    classes_
        (C,) the labels seen by `fit`, sorted; columns of logits and probabilities are in this order.
    """

    STATE: ClassVar[tuple[str, ...]] = ()

    def fit(self, X: ArrayLike, y: ArrayLike, X_val: ArrayLike | None = None, y_val: ArrayLike | None = None) -> Self:
        """Fit on float32 (n, dim) features and (n,) labels.

        Heads that are trained by steps stop early on the validation rows when these are given; others ignore them.
        Validation rows of classes that `y` lacks are passed over.

        Raises
        ------
        ValueError
            Not finite, not two-dimensional, of unequal length, or fewer than two classes.
        """
        features, labels = validate_data(self, X, y, dtype=np.float32)
        self.classes_, target = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"Classifying needs 2 classes or more; found {len(self.classes_)} class.")
        validation = None
        if X_val is not None and y_val is not None:
            known = np.isin(y_val, self.classes_)
            rows, numbers = (
                np.asarray(X_val, np.float32)[known],
                np.searchsorted(self.classes_, np.asarray(y_val)[known]),
            )
            validation = (rows, numbers) if len(rows) else None
        self._fit(features, target, validation)
        return self

    @classmethod
    def fit_each(
        cls, settings: Sequence[Mapping[str, Any]], X: Array, y: ArrayLike, X_val: Array, y_val: ArrayLike
    ) -> Iterator[Self]:
        """Fit one head for each of `settings`; a subclass overrides it where that is cheaper together."""
        for setting in settings:
            yield cls(**setting).fit(X, y, X_val, y_val)

    def chosen(self) -> dict[str, Any]:
        """Return the parameters to fit again with, what early stopping found included."""
        return dict(self.get_params())

    def decision_function(self, X: ArrayLike) -> Array:
        """Return logits, float32 (n, C); their softmax is `predict_proba`."""
        check_is_fitted(self)
        return self._logits(validate_data(self, X, dtype=np.float32, reset=False))

    def predict_proba(self, X: ArrayLike) -> Array:
        """Return probabilities, float32 (n, C), rows summing to 1."""
        return softmax(self.decision_function(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable label of each row."""
        labels: NDArray[Any] = self.classes_[self.decision_function(X).argmax(axis=1)]
        return labels

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that `restore` needs to make the same head again."""
        return {name: np.ascontiguousarray(getattr(self, name)) for name in ("classes_", *self.STATE)}

    @classmethod
    def restore(cls, params: Mapping[str, Any], state: Mapping[str, NDArray[Any]]) -> Self:
        """Return a fitted head from its parameters and `state`."""
        head = cls(**params)
        for name in ("classes_", *cls.STATE):
            setattr(head, name, state[name])
        head.n_features_in_ = head._width()
        return head

    def _fit(self, X: Array, y: NDArray[np.int64], validation: tuple[Array, NDArray[np.int64]] | None) -> None:
        raise NotImplementedError

    def _logits(self, X: Array) -> Array:
        raise NotImplementedError

    def _width(self) -> int:
        """Return the number of features that a restored head expects."""
        raise NotImplementedError


class LinearHead(Head):
    """A head whose logits are `X @ coef_ + intercept_`, with float32 `coef_` (dim, C) and `intercept_` (C,)."""

    STATE: ClassVar[tuple[str, ...]] = ("coef_", "intercept_")

    def _set(self, coef: NDArray[Any], intercept: NDArray[Any]) -> None:
        self.coef_, self.intercept_ = coef.astype(np.float32), intercept.astype(np.float32)

    def _logits(self, X: Array) -> Array:
        logits: Array = X @ self.coef_ + self.intercept_
        return logits

    def _width(self) -> int:
        return len(self.coef_)


def softmax(logits: NDArray[np.floating]) -> Array:
    """Return the softmax over the last axis as float32, computed in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities: Array = (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)
    return probabilities
