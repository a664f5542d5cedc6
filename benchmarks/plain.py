"""Heads against the plain ways of scikit-learn, LightGBM and torch, on feature files or on more and more made rows.

python -m benchmarks.plain [FEATURES.h5 ...] [--rows 100000 400000 1281167] [--classes 1000] [--heads logreg ridge]

A plain way tries as many settings as the head: fitted on standardised train, chosen by accuracy on validation, fitted
again on train + val. Either has a process of its own; a line of JSON for each has seconds of all that but reading the
file, CPU seconds, peak memory, and what it is worth on test. One that takes longer than `--at-most` is given up.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from benchmarks.growth import publish_large
from benchmarks.timing import cpu_seconds
from tlcache.cache.feature_file import open_features
from tlcache.evaluation.metrics import log_loss
from tlcache.heads.table import HEADS
from tlcache.machine import hardware, peak_rss_bytes
from tlcache.probing.fit import fit_heads

__all__ = ["PLAIN", "Plain", "fit_head", "fit_plain", "made_embeddings", "main", "measure"]


@dataclass(frozen=True)
class Plain:
    """An estimator of scikit-learn's kind: where it is, what it is given, and a parameter with the values to try."""

    place: str
    given: Mapping[str, Any] = field(default_factory=dict)
    parameter: str = ""
    values: Sequence[Any] = ()

    def settings(self) -> list[dict[str, Any]]:
        """Return the arguments of each candidate."""
        return [
            {**self.given, **({self.parameter: value} if self.parameter else {})} for value in self.values or [None]
        ]

    def make(self, setting: Mapping[str, Any]) -> Any:
        """Return an estimator."""
        module, _, name = self.place.partition(":")
        return getattr(import_module(module), name)(**setting)


class TorchLinear:
    """A linear layer as torch's users train it: AdamW, batches of 256, ten epochs."""

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate

    def fit(self, X: NDArray[np.float32], y: NDArray[np.int64]) -> Self:
        """Fit on rows (n, dim) and labels (n,)."""
        torch = import_module("torch")
        torch.manual_seed(0)
        rows = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
        self.layer = torch.nn.Linear(X.shape[1], int(y.max()) + 1)
        optimizer = torch.optim.AdamW(self.layer.parameters(), self.learning_rate)
        for _ in range(10):
            for some, labels in torch.utils.data.DataLoader(rows, 256, shuffle=True):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(self.layer(some), labels).backward()
                optimizer.step()
        return self

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities (n, C)."""
        torch = import_module("torch")
        with torch.inference_mode():
            found: NDArray[np.float32] = self.layer(torch.from_numpy(X)).softmax(1).numpy()
        return found

    def predict(self, X: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return labels (n,)."""
        found: NDArray[np.int64] = self.predict_proba(X).argmax(axis=1)
        return found


PLAIN: Mapping[str, Plain] = {
    "logreg": Plain("sklearn.linear_model:LogisticRegression", {"max_iter": 1000}, "C", HEADS["logreg"].quick["C"]),
    "ridge": Plain("sklearn.linear_model:RidgeClassifier", {}, "alpha", HEADS["ridge"].quick["alpha"]),
    "knn": Plain(
        "sklearn.neighbors:KNeighborsClassifier",
        {"metric": "cosine", "weights": "distance"},
        "n_neighbors",
        HEADS["knn"].quick["k"],
    ),
    "svm": Plain("sklearn.svm:SVC", {}, "C", (0.1, 1.0, 10.0, 100.0)),
    "ncm": Plain(
        "sklearn.discriminant_analysis:LinearDiscriminantAnalysis",
        {"solver": "lsqr"},
        "shrinkage",
        HEADS["ncm"].quick["shrinkage"],
    ),
    "lightgbm": Plain("lightgbm:LGBMClassifier", {"verbose": -1}),
    "linear": Plain("benchmarks.plain:TorchLinear", {}, "learning_rate", (3e-4, 1e-3, 3e-3, 1e-2)),
    "dense": Plain(
        "sklearn.neural_network:MLPClassifier",
        {"hidden_layer_sizes": (512, 512), "early_stopping": True},
        "learning_rate_init",
        HEADS["dense"].quick["learning_rate"],
    ),
}


def fit_head(file: str, name: str, memory: int | None = None) -> dict[str, Any]:
    """Fit a head as `tlcache fit-heads` does: seconds, CPU seconds, accuracy and log-loss on test."""
    import_module("tlcache.heads.training")
    with tempfile.TemporaryDirectory() as runs:
        began, spent = time.perf_counter(), cpu_seconds()
        (run,) = fit_heads([file], [name], runs=runs, memory=memory)
        return _figures(began, spent, run.test.accuracy, run.test.log_loss)


def fit_plain(file: str, name: str) -> dict[str, Any]:
    """Fit a plain way: seconds, CPU seconds, accuracy and (where it has probabilities) log-loss on test."""
    plain = PLAIN[name]
    with open_features(file) as opened:
        train, val, test = (opened.split(split) for split in ("train", "val", "test"))
    plain.make(plain.settings()[0])  # imported before the clock runs
    began, spent = time.perf_counter(), cpu_seconds()
    best, reached = plain.settings()[0], -1.0
    if len(plain.values) > 1:
        scaler = StandardScaler().fit(train.features)
        for setting in plain.settings():
            fitted = plain.make(setting).fit(scaler.transform(train.features), train.labels)
            accuracy = float((fitted.predict(scaler.transform(val.features)) == val.labels).mean())
            if accuracy > reached:
                best, reached = setting, accuracy
    both = np.concatenate([train.features, val.features])
    scaler = StandardScaler().fit(both)
    fitted = plain.make(best).fit(scaler.transform(both), np.concatenate([train.labels, val.labels]))
    rows = scaler.transform(test.features)
    accuracy = float((fitted.predict(rows) == test.labels).mean())
    loss = log_loss(test.labels, fitted.predict_proba(rows)) if hasattr(fitted, "predict_proba") else None
    return {**_figures(began, spent, accuracy, loss), "setting": best.get(plain.parameter)}


def made_embeddings(rows: int, dim: int, classes: int, folder: Path, spread: float = 0.85) -> Path:
    """Publish a feature file of made embeddings.

    Like those of real images, they vary most in few directions: the variance of direction i falls as 1 / i. Classes
    differ in the first 48, where their means are `spread` times as far from each other as images are from theirs: of a
    thousand classes, linear heads tell most, and nearest neighbours fewer. No more than 50,000 rows are for validation,
    and as many for testing, as ImageNet has them.
    """
    random = np.random.default_rng(0)
    falling = (1 / np.sqrt(np.arange(1, dim + 1))).astype(np.float32)
    turned = np.linalg.qr(random.standard_normal((dim, dim)))[0].astype(np.float32) * falling[:, None]
    means = np.float32(spread) * random.standard_normal((classes, dim), np.float32)
    means[:, 48:] = 0

    def make(start: int, stop: int) -> NDArray[np.float32]:
        noise = np.random.default_rng(start + 1).standard_normal((stop - start, dim), np.float32)
        found: NDArray[np.float32] = (noise + means[np.arange(start, stop) % classes]) @ turned
        return found

    key = json.dumps({"pool": "none", "precision": "fp32", "preprocess": {}})
    held = min(rows // 5, 50_000)
    return publish_large(rows, dim, folder, make, classes, held, source="made", arguments="{}", key_json=key)


def measure(file: Path, heads: Sequence[str], at_most_s: float, memory: int | None = None) -> list[dict[str, Any]]:
    """Fit heads and their plain ways, in turn, each in a process of its own; print a line of JSON for each."""
    found, opened = [], open_features(file)
    what = {"data": opened.attrs["dataset"], "rows": len(opened), "dim": opened.dim, "classes": len(opened.classes)}
    for name in heads:
        for way in ("tlcache", "plain"):
            if way == "plain" and name not in PLAIN:
                continue
            command = [sys.executable, "-m", "benchmarks.plain", str(file), "--only", way, name]
            command += ["--memory", str(memory)] if memory else []
            try:
                done = subprocess.run(command, stdout=subprocess.PIPE, timeout=at_most_s, check=False)
                figures = json.loads(done.stdout) if not done.returncode else {"failed": done.returncode}
            except subprocess.TimeoutExpired:
                figures = {"longer_than_s": at_most_s}
            one = {**what, "head": name, "way": way, **figures}
            print(json.dumps(one), flush=True)
            found.append(one)
    return found


def _figures(began: float, spent: float, accuracy: float, loss: float | None) -> dict[str, Any]:
    return {
        "wall_s": round(time.perf_counter() - began, 3),
        "cpu_s": round(cpu_seconds() - spent, 3),
        "peak_rss_bytes": peak_rss_bytes(),
        "accuracy": accuracy,
        "log_loss": loss,
    }


def main() -> None:
    """Print a line of JSON for each head and way, and the machine at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plain", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FEATURES.h5")
    parser.add_argument("--rows", type=int, nargs="*", default=[], help="of made embeddings")
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=list(HEADS), metavar="HEAD")
    parser.add_argument("--at-most", type=float, default=600.0, metavar="SECONDS", help="for one head and way")
    parser.add_argument("--memory", type=int, metavar="BYTES", help="for embeddings, of the heads")
    parser.add_argument("--only", nargs=2, metavar=("WAY", "HEAD"), help="fit this in this process")
    asked = parser.parse_args()
    if asked.only:
        way, name = asked.only
        (file,) = map(str, asked.files)
        print(json.dumps(fit_head(file, name, asked.memory) if way == "tlcache" else fit_plain(file, name)))
        return
    for file in asked.files:
        measure(file, asked.heads, asked.at_most, asked.memory)
    for rows in asked.rows:
        with tempfile.TemporaryDirectory() as folder:
            made = made_embeddings(rows, asked.dim, asked.classes, Path(folder))
            measure(made, asked.heads, asked.at_most, asked.memory)
    print(json.dumps(hardware()))


if __name__ == "__main__":
    main()
