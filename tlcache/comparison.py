"""Run records -> one comparison per dataset and split: accuracy with intervals, paired tests, costs, and a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.backbones import BACKBONES
from tlcache.datasets import names_of
from tlcache.errors import CacheError
from tlcache.keys import slug
from tlcache.metrics import balanced_accuracy, confusion
from tlcache.naming import backbone_label, head_label
from tlcache.progress import warn
from tlcache.runs import Baseline, Run, read_predictions, read_runs, runs_folder
from tlcache.significance import Difference, clustered_interval, compare_paired, correct_for_many, unit_numbers
from tlcache.verdict import LEVEL, verdict

__all__ = ["Comparison", "Entry", "Pair", "compare", "compare_runs"]


@dataclass(frozen=True)
class Entry:
    """One run among those it is compared with.

    Parameters
    ----------
    run
        Its record.
    backbone, head
        What it is called here; together they name one run.
    accuracy, low, high
        On the test split, with the 95 % interval; by group where there are groups.
    macro_f1, balanced_accuracy, log_loss, ece
        On the test split.
    extract_s, train_s
        Seconds that embedding all images took, and choosing settings and fitting, or fine-tuning.
    first_s
        Seconds to this result from nothing: `extract_s + train_s`.
    images_per_s
        Images that `extract` embedded per second with this backbone, decoding included.
    parameters
        Of the backbone; None for an ONNX file.
    best
        Whether it is the most accurate, or not shown to be less accurate than that one.
    """

    run: Run
    backbone: str
    head: str
    accuracy: float
    low: float
    high: float
    macro_f1: float
    balanced_accuracy: float
    log_loss: float
    ece: float
    extract_s: float
    train_s: float
    first_s: float
    images_per_s: float
    parameters: int | None
    best: bool

    @property
    def name(self) -> str:
        """Head and backbone."""
        return f"{self.head} on {self.backbone}"

    @property
    def frozen(self) -> bool:
        """Whether the backbone was left as it is."""
        return bool(self.run.fields["strategy"] == "frozen")

    @property
    def tuned(self) -> bool:
        """Whether the backbone is another one than the pretrained: not when no epoch of a fine-tuning was a gain."""
        return not (self.frozen or self.run.untuned)

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        figures = {name: value for name, value in vars(self).items() if name != "run"}
        wanted = ("strategy", "weights", "key", "record", "created")
        return {
            **figures,
            "one_more_s": self.train_s,
            "tuned": self.tuned,
            **{name: self.run.fields[name] for name in wanted},
        }


@dataclass(frozen=True)
class Pair:
    """Two runs compared image by image; `p_corrected` is Holm's for all pairs of the comparison."""

    a: Entry
    b: Entry
    found: Difference
    p_corrected: float

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        records = {"a": str(self.a.run.path), "b": str(self.b.run.path)}
        return {**records, **asdict(self.found), "p_corrected": self.p_corrected}


@dataclass(frozen=True)
class Comparison:
    """All runs on the same test images.

    Parameters
    ----------
    dataset, digest
        The dataset's name, and the hash of its rows, labels and splits.
    entries
        The most accurate first.
    pairs
        Every two of them, the more accurate first.
    verdict
        A few plain sentences.
    groups
        How many groups the test images are in, which intervals and tests then count; None where they have none.
    baseline
        What always answering the largest class of the test images would reach.
    """

    dataset: str
    digest: str
    entries: tuple[Entry, ...]
    pairs: tuple[Pair, ...]
    verdict: str
    groups: int | None
    baseline: Baseline

    def pair(self, a: Entry, b: Entry) -> Pair:
        """Return what `a` has over `b`."""
        found = next(pair for pair in self.pairs if {id(pair.a), id(pair.b)} == {id(a), id(b)})
        return found if found.a is a else Pair(a, b, found.found.reversed(), found.p_corrected)

    def top(self, frozen: bool) -> Entry | None:
        """Return the most accurate head on a frozen backbone, or the most accurate backbone that is fine-tuned."""
        return next((entry for entry in self.entries if (entry.frozen if frozen else entry.tuned)), None)

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        return {
            "dataset": self.dataset,
            "digest": self.digest,
            "groups": self.groups,
            "runs": [entry.as_json() for entry in self.entries],
            "pairs": [pair.as_json() for pair in self.pairs],
            "baseline_accuracy": self.baseline.accuracy,
            "baseline_class": self.baseline.answer,
            "verdict": self.verdict,
        }


def compare(
    runs: str | Path | None = None, data: str | None = None, tell: Callable[[str], None] = warn
) -> list[Comparison]:
    """Compare all recorded runs, those of each dataset and split among themselves.

    The best is the most accurate on the test images; a run that is not shown to be less accurate, by McNemar's test on
    the same images, is called best too. p is corrected for all pairs of runs (Holm, 1979), not for those with the best
    alone: which one that is was seen on these images. (Simulated with 16 equal runs, that would call some run worse
    14 % of the time, this 2 %.)

    Parameters
    ----------
    runs
        Folder of run records; default `TLCACHE_RUNS`, else `runs`.
    data
        Name of a dataset, or its folder or manifest; default: all.
    tell
        Called with a sentence for each record that cannot be read and is left out; default: warns on standard error.

    Returns
    -------
    list of Comparison
        By dataset; of one dataset, the split that was used last first.

    Raises
    ------
    CacheError
        No runs that can be read, or none of that dataset.

    Examples
    --------
    >>> runs = fit_heads([feature_file], heads=["ridge", "knn", "logreg"], runs=folder)
    >>> (found,) = compare(folder)
    >>> len(found.entries), len(found.pairs)
    (3, 3)
    """
    folder = runs_folder(runs)
    only = None if data is None else [slug(name) for name in names_of(data)]
    read = read_runs(folder, tell, only) or read_runs(folder, tell)  # all of them where it is to be said what there is
    found = compare_runs(_chosen(read, folder, data), tell)
    if not found:
        raise CacheError(f"No run in '{folder}' has predictions that can be read. Do them again: tlcache fit-heads")
    return found


def compare_runs(runs: Iterable[Run], tell: Callable[[str], None] = warn) -> list[Comparison]:
    """Compare these runs, those of each dataset and split among themselves."""
    alike: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.fields["created"], reverse=True):
        alike.setdefault((run.fields["dataset"], run.fields["dataset_digest"]), []).append(run)
    ordered = sorted(alike.items(), key=lambda item: item[0][0])
    found = (_compare(dataset, digest, group, tell) for (dataset, digest), group in ordered)
    return [each for each in found if each]


def _chosen(runs: Iterable[Run], folder: Path, data: str | None) -> Iterator[Run]:
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.fields["dataset"], []).append(run)
    if not by_name:
        raise CacheError(f"No runs are recorded in '{folder}'. Make some with: tlcache fit-heads")
    if data is None:
        wanted = list(by_name)
    else:
        wanted = [name for name in names_of(data) if name in by_name][:1]
        if not wanted:
            raise CacheError(
                f"No runs on '{data}' are recorded in '{folder}'; there are some on: {', '.join(by_name)}."
            )
    for name in wanted:
        yield from by_name[name]


@dataclass(frozen=True)
class _Tested:
    """A run with what it said of each test image, in one order for all runs."""

    run: Run
    right: NDArray[np.bool_]
    balanced_accuracy: float
    interval: tuple[float, float]


def _compare(dataset: str, digest: str, runs: Sequence[Run], tell: Callable[[str], None]) -> Comparison | None:
    """Compare runs on the same test images; None when the predictions of none can be read."""
    rows = units = None
    tested = []
    for run, stored in read_predictions(runs, tell):
        order = np.argsort(stored["row"])
        if rows is None:
            rows, units = stored["row"][order], unit_numbers(stored["group"][order])
        if not np.array_equal(stored["row"][order], rows):
            raise CacheError(
                f"The predictions of '{run.path}' are not those of its dataset. Remove it, and run it again."
            )
        labels = stored["label"][order]
        tested.append(_test(run, labels, stored["probabilities"][order], units))
    if not tested:
        return None
    tested.sort(key=_rank)
    two = list(combinations(range(len(tested)), 2))
    found = [compare_paired(tested[a].right, tested[b].right, units) for a, b in two]
    corrected = correct_for_many([each.p for each in found])
    worse = {b for (a, b), p in zip(two, corrected, strict=True) if a == 0 and p < LEVEL}
    named = [each.run for each in tested]
    entries = tuple(_entry(each, named, best=number not in worse) for number, each in enumerate(tested))
    pairs = tuple(
        Pair(entries[a], entries[b], difference, float(p))
        for (a, b), difference, p in zip(two, found, corrected, strict=True)
    )
    groups = None if units is None else int(units.max()) + 1
    baseline = Baseline.of(labels, named[0].fields["classes"])
    comparison = Comparison(dataset, digest, entries, pairs, "", groups, baseline)
    return replace(comparison, verdict=verdict(comparison))


def _test(
    run: Run, labels: NDArray[np.int64], probabilities: NDArray[np.float32], units: NDArray[np.int64] | None
) -> _Tested:
    predicted = probabilities.argmax(axis=1)
    right = predicted == labels
    balanced = balanced_accuracy(confusion(labels, predicted, probabilities.shape[1]))
    return _Tested(run, right, balanced, clustered_interval(right, units))


def _rank(tested: _Tested) -> tuple[float, float, str]:
    return -float(tested.right.mean()), tested.run.fields["test"]["log_loss"], str(tested.run.path)


def _entry(tested: _Tested, runs: Sequence[Run], best: bool) -> Entry:
    run, fields = tested.run, tested.run.fields
    extract_s, train_s = fields["extract"]["wall_s"], run.train_s
    low, high = tested.interval
    known = BACKBONES.get(fields["backbone"])
    return Entry(
        run=run,
        backbone=backbone_label(run, runs),
        head=head_label(run, runs),
        accuracy=float(tested.right.mean()),
        low=low,
        high=high,
        **{name: fields["test"][name] for name in ("macro_f1", "log_loss", "ece")},
        balanced_accuracy=tested.balanced_accuracy,
        extract_s=extract_s,
        train_s=train_s,
        first_s=extract_s + train_s,
        images_per_s=sum(fields["rows"].values()) / extract_s,
        parameters=known.parameters if known else None,
        best=best,
    )
