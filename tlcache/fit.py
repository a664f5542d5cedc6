"""Feature file + head -> run record: settings chosen on validation, fitted again on train + val, tested once."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from tlcache.errors import DamagedError, DataError, HeadError
from tlcache.extraction import find_features
from tlcache.heads import HEADS, HeadRow, find_head
from tlcache.heads.base import Array, Head, softmax
from tlcache.heads.fitted import FittedHead, Scaler
from tlcache.machine import hardware, versions
from tlcache.metrics import evaluate, log_loss
from tlcache.progress import step_bar
from tlcache.runs import Run, path_of, runs_folder, write_run
from tlcache.store import STAGES, FeatureFile, Split

__all__ = ["fit_heads"]


@dataclass(frozen=True)
class Candidate:
    """A head fitted on train with some setting, and how it does on validation."""

    head: Head
    accuracy: float
    log_loss: float
    temperature: float


def fit_heads(
    paths: Iterable[str | Path] | None = None,
    heads: Sequence[str] | None = None,
    *,
    features: str | Path | None = None,
    runs: str | Path | None = None,
    seed: int = 0,
) -> list[Run]:
    """Fit heads on cached features, choose their settings on validation, and test each once.

    Parameters
    ----------
    paths
        Feature files, or folders of them; default: everything under `features`.
    heads
        Names of `tlcache.heads.HEADS`; default: all.
    features, runs
        Folders of feature files and of run records.
    seed
        Of everything random in a head.

    Returns
    -------
    list of Run
        One per file and head, in that order.

    Raises
    ------
    CacheError, DataError, HeadError, UnknownNameError
        No features, features that are not finite, an empty split, an unknown head.

    Examples
    --------
    >>> runs = fit_heads([feature_file], heads=["ridge", "knn"], runs=folder)
    >>> [run.fields["head"] for run in runs]
    ['ridge', 'knn']
    >>> sorted(runs[0].fields["test"])
    ['accuracy', 'accuracy_high', 'accuracy_low', 'ece', 'log_loss', 'macro_f1', 'n']
    """
    rows = [find_head(name) for name in heads or HEADS]
    found = find_features(paths, features)
    folder, results = runs_folder(runs), []
    with step_bar("fitting heads", len(found) * len(rows)) as advance:
        for path in found:
            with _opened(path) as file:
                data = _Data.of(file)
                for row in rows:
                    results.append(_fit_one(file, data, row, folder, seed))
                    advance(1)
    return results


@contextmanager
def _opened(path: Path) -> Iterator[FeatureFile]:
    try:
        with FeatureFile(path) as file:
            yield file
    except DamagedError as error:
        raise DamagedError(f"{error} To leave it out, name the others: tlcache fit-heads PATH ...") from None


@dataclass(frozen=True)
class _Data:
    train: Split
    val: Split
    test: Split

    @classmethod
    def of(cls, file: FeatureFile) -> _Data:
        splits = {name: file.split(name) for name in ("train", "val", "test")}
        for name, split in splits.items():
            if not len(split):
                raise DataError(f"'{file.path}' has no {name} images; heads need train, val and test.")
            if not np.isfinite(split.features).all():
                raise HeadError(f"'{file.path}' holds features that are not finite. Extract again.")
        if not np.isin(splits["val"].labels, splits["train"].labels).any():
            raise DataError(f"'{file.path}' has no class that is in train and in val; settings cannot be chosen.")
        return cls(**splits)


def _fit_one(file: FeatureFile, data: _Data, row: HeadRow, folder: Path, seed: int) -> Run:
    started, embedded = time.perf_counter(), json.loads(file.attrs["key_json"])
    candidates = _search(row, data, seed)
    best = max(candidates, key=lambda candidate: (candidate.accuracy, -candidate.log_loss))
    searched = time.perf_counter()
    fitted = _refit(row, file, data, best)
    ended = time.perf_counter()
    probabilities = fitted.predict_proba(data.test.features)
    identity = {
        "dataset": file.attrs["dataset"],
        "dataset_digest": file.attrs["dataset_digest"],
        "backbone": file.attrs["backbone"],
        "key": file.attrs["key"],
        "strategy": "frozen",
        "head": row.name,
        "arguments": {"seed": seed, "search": {name: list(values) for name, values in row.search.items()}},
    }
    path = path_of(folder, identity)
    fitted.save(path.with_suffix(".safetensors"))
    fields = {
        **identity,
        "weights": file.attrs["weights"],
        "pool": embedded["pool"],
        "precision": embedded["precision"],
        "preprocess": embedded["preprocess"],
        "classes": list(file.classes),
        "chosen": _chosen(row, best.head),
        "temperature": best.temperature,
        "candidates": [
            {**_chosen(row, each.head), "val_accuracy": each.accuracy, "val_log_loss": each.log_loss}
            for each in candidates
        ],
        "history": getattr(best.head, "history_", []),
        "fit_s": ended - started,
        "search_s": searched - started,
        "refit_s": ended - searched,
        "extract": {stage: file.attrs[stage] for stage in STAGES},
        "rows": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
        "test": evaluate(data.test.labels, probabilities),
        "features": str(file.path),
        "versions": versions(),
        "hardware": hardware(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return write_run(path, fields, data.test.paths, data.test.labels, probabilities)


def _search(row: HeadRow, data: _Data, seed: int) -> list[Candidate]:
    """Fit every setting on train and score it on validation."""
    scaler = Scaler.of(data.train.features, row.scaled)
    X, X_val = scaler(data.train.features), scaler(data.val.features)
    head_type = row.type()
    seeded = {"seed": seed} if "seed" in head_type().get_params() else {}
    settings = [{**setting, **seeded} for setting in row.settings()]
    try:
        fitted = head_type.fit_each(settings, X, data.train.labels, X_val, data.val.labels)
        return [_score(head, X_val, data.val.labels) for head in fitted]
    except (ValueError, FloatingPointError) as error:
        raise HeadError(f"The {row.name} head could not be fitted: {error}") from error


def _score(head: Head, X_val: Array, y_val: NDArray[np.int64]) -> Candidate:
    logits = head.decision_function(X_val)
    labels = head.classes_[logits.argmax(axis=1)]
    known = np.isin(y_val, head.classes_)
    columns = np.searchsorted(head.classes_, y_val[known])
    temperature = fit_temperature(logits[known], columns)
    return Candidate(
        head, float((labels == y_val).mean()), log_loss(columns, softmax(logits[known] / temperature)), temperature
    )


def fit_temperature(logits: Array, labels: NDArray[np.int64]) -> float:
    """Return the temperature that minimises the log-loss of `softmax(logits / temperature)` (Guo et al., 2017).

    The targets are smoothed by 1 / (n + 2), as Platt (1999) does: n right answers do not prove that none is wrong.
    """
    doubt = 1 / (len(labels) + 2)

    def loss(log_temperature: float) -> float:
        scores = logits.astype(np.float64) / np.exp(log_temperature)
        losses = logsumexp(scores, axis=1, keepdims=True) - scores
        right = losses[np.arange(len(labels)), labels]
        return float((1 - doubt) * right.mean() + doubt * losses.mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-7, 7), method="bounded").x))


def _refit(row: HeadRow, file: FeatureFile, data: _Data, best: Candidate) -> FittedHead:
    """Fit the chosen setting on train + val; the temperature stays the one found on validation."""
    X = np.concatenate([data.train.features, data.val.features])
    y = np.concatenate([data.train.labels, data.val.labels])
    scaler = Scaler.of(X, row.scaled)
    head = row.type()(**best.head.chosen()).fit(scaler(X), y)
    attrs = file.attrs
    return FittedHead(row.name, head, scaler, best.temperature, file.classes, attrs["backbone"], attrs["key"])


def _chosen(row: HeadRow, head: Head) -> dict[str, Any]:
    """Return the searched parameters of a head, and those that early stopping found."""
    found, start = head.chosen(), type(head)().get_params()
    return {name: value for name, value in found.items() if name in row.search or value != start[name]}
