"""How far the answers of a head go: sets of classes, confidences to answer from, and p-values of being unusual.

All of it is read off rows that took no part in fitting what judged them; for new images of the same kind, a rank among
these rows is a promise (Vovk, Gammerman and Shafer, 2005). It needs numpy and nothing else, so that a model that was
deployed can use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.heads.cosines import closest, unit_rows
from tlcache.heads.rows import Array, Indices, Labels, Scaler

__all__ = ["Answers", "Distances", "Ranks", "Uncertainty"]

Flags = NDArray[np.bool_]

_KEPT = 10_000  # numbers of a table that was thinned; of fewer images nothing is lost


@dataclass(frozen=True, eq=False)
class Ranks:
    """A sample of scores, sorted, that new ones are ranked in.

    Parameters
    ----------
    values
        float32 (m,), ascending: all of the sample, or every so-many-th of it. Where some are left out, `reached` and
        `p_values` err on the safe side.
    n
        The size of the sample.
    """

    values: Array
    n: int

    @classmethod
    def of(cls, scores: Array) -> Ranks:
        """Return the ranks of a sample (n,)."""
        return cls(np.sort(scores.astype(np.float32)), len(scores))

    def thinned(self, most: int = _KEPT) -> Ranks:
        """Return no more than `most` of the values."""
        kept = min(most, len(self.values))
        return Ranks(self.values[np.arange(1, kept + 1) * len(self.values) // max(1, kept) - 1], self.n)

    def reached(self, share: float) -> float:
        """Return the value that a new score reaches with a probability of at least `share`; -inf: there is none."""
        rank = self.n + 1 - ceil((self.n + 1) * share - 1e-9)
        kept = rank * len(self.values) // max(1, self.n)
        return float(self.values[kept - 1]) if kept else -np.inf

    def p_values(self, scores: Array) -> NDArray[np.float64]:
        """Return the share of the sample, with the score itself, that is at least as large as each score (k,)."""
        below = np.searchsorted(self.values, scores.astype(np.float32)) * self.n // max(1, len(self.values))
        shares: NDArray[np.float64] = (1 + self.n - below) / (self.n + 1)
        return shares


@dataclass(frozen=True, eq=False)
class Answers:
    """How many answers are right from a confidence on: float32 (k,) each, both ascending."""

    confidence: Array
    rate: Array

    @classmethod
    def of(cls, confidence: Array, right: Flags) -> Answers:
        """Return the confidences (n,) that no lower one is as good as.

        The share of right answers from there on counts one more wrong one than was seen, as a rank does.
        """
        order = np.argsort(-confidence, kind="stable")
        sorted_, answered = confidence[order], np.arange(1, len(order) + 1)
        rate = 1 - (1 + np.cumsum(~right[order])) / (answered + 1)
        last = np.append(sorted_[1:] < sorted_[:-1], True)[: len(order)]  # equal confidences are answered together
        sorted_, rate = sorted_[last][::-1], rate[last][::-1].astype(np.float32)
        better = rate > np.maximum.accumulate(np.append(np.float32(0), rate))[:-1]
        return cls(sorted_[better].astype(np.float32), rate[better])

    def thinned(self, most: int = _KEPT) -> Answers:
        """Return no more than `most` of them, the surest among these."""
        kept = min(most, len(self.rate))
        chosen = np.arange(1, kept + 1) * len(self.rate) // max(1, kept) - 1
        return Answers(self.confidence[chosen], self.rate[chosen])

    def threshold(self, right: float) -> float:
        """Return the smallest confidence from which on this share of the answers is right; nan: there is none."""
        place = int(np.searchsorted(self.rate, np.float32(right)))
        return float(self.confidence[place]) if place < len(self.rate) else np.nan


@dataclass(frozen=True, eq=False)
class Distances:
    """How far embeddings are from those of training: 1 - cosine to the k-th nearest (Sun et al., ICML 2022).

    Parameters
    ----------
    rows
        float32 (m, dim), embeddings of training images of length 1.
    k
        Which neighbour.
    ranks
        Distances of training images to the others.
    scaler
        Applied to embeddings first, of several backbones, so that none of these decides alone; None: nothing is.
    """

    rows: Array
    k: int
    ranks: Ranks
    scaler: Scaler | None = None

    def __call__(self, embeddings: Array) -> Array:
        """Return the distance of each embedding (n, dim), float32 (n,)."""
        unit = unit_rows(self.scaler(embeddings) if self.scaler else embeddings)
        return _kth_distance(unit, self.rows, self.k)

    @classmethod
    def of(cls, embeddings: Array, units: Labels, chosen: Indices, k: int, scaler: Scaler | None = None) -> Distances:
        """Measure how far training images are from those of other units.

        Parameters
        ----------
        embeddings, units
            float32 (n, dim), and a number for each row (n,): rows of one number are not compared.
        chosen
            (m,) numbers of the rows that are kept to be compared with.
        k
            Which neighbour.
        scaler
            Applied to embeddings first.
        """
        unit = unit_rows(scaler(embeddings) if scaler else embeddings)
        rows = unit[chosen]
        return cls(rows, k, Ranks.of(_kth_distance(unit, rows, k, (units, units[chosen]))), scaler)


def _kth_distance(unit: Array, rows: Array, k: int, unlike: tuple[Labels, Labels] | None = None) -> Array:
    cosines, _ = closest(unit, rows, k, unlike)
    distances: Array = 1 - cosines[:, -1]
    return distances


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """What a fitted head promises of new images that are drawn as its training images were.

    Parameters
    ----------
    coverage
        The share of images whose set holds their class, as it was asked for.
    scores
        Probabilities that the right class was given.
    by_class
        The same of the images of every class, where each is to have the coverage; else empty.
    answers
        Of the most probable classes.
    far
        Distances of the embeddings; None where they are not known.
    """

    coverage: float
    scores: Ranks
    by_class: Sequence[Ranks]
    answers: Answers
    far: Distances | None = None

    @classmethod
    def of(
        cls, probabilities: Array, labels: Labels, coverage: float, per_class: bool, far: Distances | None = None
    ) -> Uncertainty:
        """Return what calibrated probabilities (n, C) of images that were not fitted on promise; labels are (n,)."""
        right = probabilities[np.arange(len(labels)), labels]
        classes = range(probabilities.shape[1]) if per_class else ()
        by_class = tuple(Ranks.of(right[labels == label]) for label in classes)
        answers = Answers.of(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)
        return cls(coverage, Ranks.of(right), by_class, answers, far)

    def sets(self, probabilities: Array, coverage: float | None = None) -> Flags:
        """Return which classes are in the set of each image, bool (n, C), from its probabilities (n, C).

        A set has every class that is at least as probable as the right one mostly was (the least ambiguous sets of
        Sadinle, Lei and Wasserman, 2019). It may be empty: then no class is as probable as that.

        Parameters
        ----------
        probabilities
            Calibrated ones, float32 (n, C).
        coverage
            Another than was asked for at first.
        """
        flags: Flags = probabilities >= self.thresholds(probabilities.shape[1], coverage)
        return flags

    def thresholds(self, classes: int, coverage: float | None = None) -> Array:
        """Return the probability from which on each class is in a set, float32 (C,); -inf: it always is.

        Each class has its own where `by_class` was asked for, save those of too few images (`too_few`).
        """
        wanted = self.coverage if coverage is None else coverage
        own = np.array([each.reached(wanted) for each in self.by_class] or [-np.inf] * classes)
        return np.where(np.isfinite(own), own, self.scores.reached(wanted)).astype(np.float32)

    def too_few(self, coverage: float | None = None) -> Flags:
        """Return which classes have too few images for a threshold of their own, bool (C,)."""
        wanted = self.coverage if coverage is None else coverage
        return np.array([each.reached(wanted) == -np.inf for each in self.by_class], bool)

    def threshold(self, right: float) -> float:
        """Return the smallest confidence from which on this share of the answers is right.

        nan where no confidence is enough: no answer is at least as sure as that.
        """
        return self.answers.threshold(right)

    def distances(self, embeddings: Array) -> Array:
        """Return how far raw embeddings (n, dim) are from those of training, float32 (n,), for `unusual`."""
        return self._far(embeddings)

    def unusual(self, distances: Array) -> NDArray[np.float64]:
        """Return the share of training images that are at least as far from the others, a p-value, (n,)."""
        return self._far.ranks.p_values(distances)

    @property
    def _far(self) -> Distances:
        if self.far is None:
            raise ValueError("This model knows no distances of embeddings.")
        return self.far

    def tables(self, most: int = _KEPT) -> dict[str, list[Any]]:
        """Return what the file of a model that gives distances itself holds: `most` numbers of each table.

        Of more, sets are as large or larger by that, and fewer images are called unusual; nothing else is lost.
        """
        far = self.far and Distances(self.far.rows[:0], self.far.k, self.far.ranks.thinned(most))
        by_class = tuple(each.thinned(most) for each in self.by_class)
        kept = Uncertainty(self.coverage, self.scores.thinned(most), by_class, self.answers.thinned(most), far)
        return {name: array.tolist() for name, array in kept.arrays().items() if name != "rows"}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all of it as arrays, for `of_tables`."""
        ranks = [self.scores, *([self.far.ranks] if self.far else []), *self.by_class]
        far = {"neighbour": np.array([self.far.k]), "rows": self.far.rows} if self.far else {}
        scaler = self.far and self.far.scaler
        scaled = {"middle": scaler.middle, "scale": scaler.scale} if scaler else {}
        return {
            "coverage": np.array([self.coverage]),
            "values": np.concatenate([each.values for each in ranks]),
            "sizes": np.array([(len(each.values), each.n) for each in ranks], np.int64),
            "confidence": self.answers.confidence,
            "rate": self.answers.rate,
            **far,
            **scaled,
        }

    @classmethod
    def of_tables(cls, tables: Mapping[str, Any]) -> Uncertainty:
        """Return what `tables` or `arrays` described; of `tables`, distances can be judged, but not measured."""
        sizes = np.asarray(tables["sizes"], np.int64)
        values = np.split(np.asarray(tables["values"], np.float32), np.cumsum(sizes[:-1, 0]))
        scores, *ranks = (Ranks(kept, int(n)) for kept, n in zip(values, sizes[:, 1], strict=True))
        answers = Answers(*(np.asarray(tables[name], np.float32) for name in ("confidence", "rate")))
        far = None
        if "neighbour" in tables:
            rows = np.asarray(tables.get("rows", np.empty((0, 0))), np.float32)
            scaler = Scaler(tables["middle"], tables["scale"]) if "middle" in tables else None
            far = Distances(rows, int(tables["neighbour"][0]), ranks.pop(0), scaler)
        return cls(float(tables["coverage"][0]), scores, tuple(ranks), answers, far)
