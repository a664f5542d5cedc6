"""One comparison -> what a page shows of it: figures, tables, mistakes and commands, ready for a template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.auditing.findings import Audit, DuplicatePair, OddImage, audit_of
from tlcache.auditing.leakage import LeakageGap
from tlcache.auditing.verdict import alarm, told
from tlcache.datasets.dataset import reopen
from tlcache.datasets.source import Images
from tlcache.deploying.best import best_of
from tlcache.evaluation.comparison import Comparison, Entry, Pair
from tlcache.evaluation.metrics import confusion, recalls
from tlcache.evaluation.mistakes import confusions, hardest_classes, surest_mistakes
from tlcache.evaluation.verdict import p_of, points, times, verdict
from tlcache.keys import printable, quoted, slug
from tlcache.probing.shots import Curve
from tlcache.records import as_json
from tlcache.report.audits import audit_counts, sample_pairs, telling
from tlcache.report.curves import few_shot_curves, learning_curves
from tlcache.report.figures import calibration_figure, confusion_figure, cost_figure, recall_figure
from tlcache.report.inline import inline_image, inline_svg
from tlcache.report.plain import interval
from tlcache.report.reproduce import commands
from tlcache.runs.classes import Share
from tlcache.runs.finetuned import FinetunedRun
from tlcache.runs.predictions import TopPredictions
from tlcache.runs.record import Run
from tlcache.text import duration

__all__ = ["Chapter", "chapter"]

_MISTAKES = 12
_PAIRS = 10
_TWINS = 8
_TABLE = 12  # classes whose confusion is a table of numbers; more are an image
_RECALLS = 24  # classes in the figure of recalls: the worst
OF_CLASS = ("precision", "recall", "f1", "auroc", "average_precision")
_NAME = 24  # characters of a class's name in a figure
_KINDS = {"frozen": "Best frozen head", "joined": "Best joined head", "finetune": "Best fine-tuning"}  # by strategy


class Tile(NamedTuple):
    """A figure that is read first."""

    label: str
    value: str
    note: str


class Mistake(NamedTuple):
    """A test image that was taken for another class, with the confidence in it."""

    path: str
    true: str
    predicted: str
    confidence: float
    image: str


class Confused(NamedTuple):
    """How often images of one class were taken for another, by name: times, and the share of the class's images."""

    true: str
    predicted: str
    times: int
    share: float


@dataclass(frozen=True)
class Errors:
    """Where a run goes wrong.

    Parameters
    ----------
    entry
        The run.
    pairs
        The most confused pairs of classes.
    counts
        Confusion matrix (C, C) for few classes, else None.
    figure
        SVG of it for many classes, else empty.
    mistakes
        Those with the largest confidence.
    wrong
        How many test images are classified wrongly.
    classes
        What it reaches on each class.
    """

    entry: Entry
    pairs: Sequence[Confused]
    counts: list[list[int]] | None
    figure: str
    mistakes: Sequence[Mistake]
    wrong: int
    classes: Sequence[OfClass]


class OfClass(NamedTuple):
    """What a run reaches on a class, its figures with their intervals as text."""

    name: str
    n: int
    figures: Sequence[str]


class Twins(NamedTuple):
    """Two images that are the same or nearly: what is said of each, how close they are, and small pictures."""

    first: str
    second: str
    close: str
    images: tuple[str, str]


class Odd(NamedTuple):
    """An image that looks odd among the others: in what, what is said of it, and a small picture."""

    findings: str
    name: str
    image: str


class Leaks(NamedTuple):
    """What an audit of the same images and splits found, and in words, first those of a warning if it is one."""

    audit: Audit
    warning: str
    verdict: str
    counts: Sequence[tuple[str, str, str]]
    twins: Sequence[Twins]
    odd: Sequence[Odd]


@dataclass(frozen=True)
class Chapter:
    """Everything a page says of one comparison; figures are SVG."""

    slug: str
    found: Comparison
    verdict: str
    run: Run
    tiles: Sequence[Tile]
    cost: str
    recall: str
    recall_note: str
    calibration: str
    errors: Sequence[Errors]
    learning: Sequence[tuple[str, str]]
    shots: str
    leaks: Leaks | None
    gaps: Sequence[LeakageGap]
    weights: Sequence[tuple[str, str]]
    use: Entry
    reproduce: Sequence[tuple[Entry, list[str]]]
    hardware: Mapping[str, Any]


def chapter(found: Comparison, curves: Sequence[Curve], audits: Sequence[Audit], gaps: Sequence[LeakageGap]) -> Chapter:
    """Read what the records of a comparison hold, and draw it; of curves, audits and gaps, take those that belong."""
    name = f"{slug(found.dataset)}-{found.digest[:8]}"
    tops = [entry for strategy in _KINDS if (entry := found.top(strategy))] or [found.picked[0]]
    counts = [confusion(entry.top.label, entry.top.predicted, len(entry.run.classes)) for entry in tops]
    run = found.entries[0].run
    figure, hints = cost_figure(found.entries)
    best = ", ".join(f"{entry.name} {entry.accuracy:.3f} in {duration(entry.first_s)}" for entry in tops)
    recall, recall_note = _recall(name, tops, counts)
    tuned = [(entry, entry.run) for entry in found.entries if isinstance(entry.run, FinetunedRun)]
    return Chapter(
        slug=name,
        found=found,
        verdict=verdict(found),
        run=run,
        tiles=_tiles(found, tops),
        cost=inline_svg(figure, f"{name}-cost", f"Test accuracy against seconds. Best: {best}.", hints),
        recall=recall,
        recall_note=recall_note,
        calibration=_calibration(name, tops),
        errors=[_errors(name, entry, each) for entry, each in zip(tops, counts, strict=True)],
        learning=[_learning(f"{name}-learning{n}", entry, run) for n, (entry, run) in enumerate(tuned)],
        shots=_shots(name, [curve for curve in curves if curve.digest == found.digest]),
        leaks=_leaks(audit_of(audits, found.digest), gaps),
        gaps=[each for each in gaps if each.dataset == found.dataset],
        weights=sorted({(entry.backbone, entry.run.weights) for entry in found.entries}),
        use=best_of(found),
        reproduce=[(entry, commands(entry.run)) for entry in found.entries],
        hardware=as_json(run.hardware),
    )


def _tiles(found: Comparison, tops: Sequence[Entry]) -> list[Tile]:
    tiles = [
        Tile(
            _kind(entry),
            f"{100 * entry.accuracy:.1f} %",
            f"{entry.name}; {100 * entry.low:.1f} to {100 * entry.high:.1f} % (95 %); {duration(entry.first_s)}",
        )
        for entry in tops
    ]
    tiles += _gain(found, "Joining backbones", found.top("joined"), found.top("frozen"))
    tiles += _gain(found, "Fine-tuning", found.top("finetune"), found.top("frozen", "joined"))
    if not found.top("finetune") and any(entry.run.untuned for entry in found.entries):
        tiles.append(Tile("Fine-tuning", "0 epochs", "kept: none was better on validation than the head it began with"))
    answer, accuracy = found.baseline
    return [
        *tiles,
        Tile("Always the same answer", f"{100 * accuracy:.1f} %", f"{printable(answer)}, the largest test class"),
    ]


def _gain(found: Comparison, what: str, tried: Entry | None, usual: Entry | None) -> list[Tile]:
    """Return what a strategy has over another one, and what that costs, where both were tried."""
    if not (tried and usual):
        return []
    (pair,) = found.among([(tried, usual)])
    gain, low, high = pair.found.difference, points(pair.found.low), points(pair.found.high)
    return [
        Tile(
            _effect(pair, what),
            f"{points(abs(gain) if pair.shown else gain)} points",
            f"95 % interval of the difference {low} to {high}; {p_of(pair)}",
        ),
        Tile("and takes", times(tried.first_s / usual.first_s), "the time from nothing to the result"),
    ]


def _effect(pair: Pair, what: str) -> str:
    """Return what the difference is, where one is shown."""
    if not pair.shown:
        return f"{what}: no difference shown"
    return f"{what} {'gains' if pair.found.difference > 0 else 'loses'}"


def _kind(entry: Entry) -> str:
    return _KINDS[entry.run.strategy]


def _recall(name: str, tops: Sequence[Entry], counts: Sequence[NDArray[np.int64]]) -> tuple[str, str]:
    """Draw the recall of every class, or of those that are recognised worst."""
    tested, shares = hardest_classes(counts), [recalls(each) for each in counts]
    order = tested[:_RECALLS]
    classes = tops[0].run.classes
    figure = recall_figure(
        [f"{_short(classes[c])} ({counts[0][c].sum()})" for c in order],
        [(_kind(entry), entry.run.strategy, share[order]) for entry, share in zip(tops, shares, strict=True)],
    )
    worst = ", ".join(f"{quoted(classes[c])} {shares[0][c]:.2f}" for c in order[:5])
    alt = f"Share of each class's test images that is recognised; lowest with {tops[0].name}: {worst}."
    some = len(order) < len(tested)
    note = f"The {len(order)} of {len(tested)} classes that are recognised worst" if some else "Every class"
    return inline_svg(figure, f"{name}-recall", alt), f"{note}; in brackets their test images."


def _calibration(name: str, tops: Sequence[Entry]) -> str:
    figure = calibration_figure([(_kind(entry), entry) for entry in tops])
    errors = ", ".join(f"{entry.name} {entry.ece:.3f}" for entry in tops)
    return inline_svg(figure, f"{name}-calibration", f"Confidence against accuracy. Calibration error: {errors}.")


def _errors(name: str, entry: Entry, counts: NDArray[np.int64]) -> Errors:
    classes = [printable(each) for each in entry.run.classes]
    pairs = [Confused(classes[a], classes[b], times, share) for a, b, times, share in confusions(counts, _PAIRS)]
    few = len(counts) <= _TABLE
    svg = "" if few else _confusion(f"{name}-confusion-{entry.run.strategy}", entry, counts, classes)
    mistakes = _mistakes(reopen(entry.run.source), classes, entry.top)
    return Errors(
        entry, pairs, counts.tolist() if few else None, svg, mistakes, int((~entry.top.right).sum()), _classes(entry)
    )


def _classes(entry: Entry) -> list[OfClass]:
    """Return what a run reaches on each class, those with the smallest F1 first."""
    ordered = sorted(entry.per_class, key=lambda each: each.f1.value if each.f1 else -1.0)
    return [
        OfClass(printable(each.name), each.n, [_share(getattr(each, name)) for name in OF_CLASS]) for each in ordered
    ]


def _share(found: Share | None) -> str:
    return "-" if found is None else interval(found.value, found.low, found.high)


def _confusion(name: str, entry: Entry, counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    alt = (
        f"Confusion matrix of {entry.name}, {len(classes)} classes; the most confused pairs are in the list beside it."
    )
    figure, hints = confusion_figure(counts, [_short(each) for each in classes])
    return inline_svg(figure, name, alt, hints)


def _short(name: str) -> str:
    """Return a class's name as a figure has room for it."""
    text = printable(name)
    return text if len(text) <= _NAME else f"{text[: _NAME - 3]}..."


def _mistakes(images: Images, classes: Sequence[str], top: TopPredictions) -> list[Mistake]:
    paths = top.paths
    return [
        Mistake(
            printable(paths[row]),
            classes[top.label[row]],
            classes[top.predicted[row]],
            float(top.confidence[row]),
            inline_image(images, paths[row]),
        )
        for row in surest_mistakes(top, _MISTAKES)
    ]


def _learning(name: str, entry: Entry, run: FinetunedRun) -> tuple[str, str]:
    last = run.history[-1].val_accuracy
    alt = f"Learning curves of {entry.name}: validation accuracy {last:.3f} after the last epoch."
    return entry.name, inline_svg(learning_curves(run), name, alt)


def _shots(name: str, curves: Sequence[Curve]) -> str:
    if not curves:
        return ""
    best = max(curves, key=lambda curve: curve.points[-1].mean)
    steps = ", ".join(f"{point.shots or 'all'}: {point.mean:.3f}" for point in best.points)
    alt = f"Accuracy against labelled images per class; {best.head} on {best.backbone}: {steps}."
    return inline_svg(few_shot_curves(curves), f"{name}-shots", alt)


def _leaks(audit: Audit | None, gaps: Sequence[LeakageGap]) -> Leaks | None:
    if audit is None:
        return None
    images = reopen(audit.source)
    twins = [_twins(each, images) for each in sample_pairs(telling(audit), _TWINS)]
    odd = [_odd(each, images) for each in (audit.odd or ())[:_TWINS]]
    line, matters = alarm(audit, gaps)
    return Leaks(audit, line if matters else "", told(audit, gaps), list(audit_counts(audit)), twins, odd)


def _odd(found: OddImage, images: Images) -> Odd:
    name = f"{found.split}, {printable(found.label)}: {printable(found.path)}"
    return Odd(", ".join(found.findings), name, inline_image(images, found.path))


def _twins(pair: DuplicatePair, images: Images) -> Twins:
    first, second = (f"{end.split}, {printable(end.label)}: {printable(end.path)}" for end in pair.ends)
    return Twins(first, second, pair.close, (inline_image(images, pair.first), inline_image(images, pair.second)))
