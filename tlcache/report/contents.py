"""One comparison -> what a page shows of it: figures, tables, mistakes and commands, ready for a template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.auditing.findings import Audit, audit_of
from tlcache.auditing.leakage import LeakageGap
from tlcache.deploying.best import best_of
from tlcache.evaluation.comparison import Comparison, Entry, Pair
from tlcache.evaluation.metrics import confusion, recalls
from tlcache.evaluation.mistakes import hardest_classes
from tlcache.evaluation.operating import Rates
from tlcache.evaluation.screening import Screening, latest
from tlcache.evaluation.verdict import p_of, verdict
from tlcache.keys import printable, quoted, slug
from tlcache.pictures.reasons import Reasons
from tlcache.probing.columns import ColumnComparison
from tlcache.probing.shots import Curve
from tlcache.records import as_json
from tlcache.report.columns import shortcuts
from tlcache.report.curves import few_shot_curves, learning_curves
from tlcache.report.figures import calibration_figure, confusion_figure, cost_figure, map_figure, recall_figure
from tlcache.report.findings import Leaks, leaks
from tlcache.report.inline import inline_svg
from tlcache.report.mistakes import Mistakes, mistakes
from tlcache.report.plain import interval, share_text
from tlcache.report.reached import COLUMNS
from tlcache.report.reproduce import commands, map_of
from tlcache.report.robustness import Worse
from tlcache.report.thumbnails import Thumbnails
from tlcache.runs.finetuned import FinetunedRun
from tlcache.runs.frozen import FrozenRun
from tlcache.runs.licences import licences
from tlcache.runs.record import Run
from tlcache.tasks import CLASSIFY, USUAL
from tlcache.text import duration, figure_text, points, times

__all__ = ["Chapter", "chapter"]

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


@dataclass(frozen=True)
class Errors:
    """Where a run goes wrong.

    Parameters
    ----------
    entry
        The run.
    counts
        Confusion matrix (C, C) for few classes, else None.
    figure
        SVG of it for many classes, else empty.
    mistakes
        The most confused pairs of classes, and the mistakes of the largest confidence, as pictures.
    wrong, answers
        How many are wrong, of how many: one for each test image, and of a repeated cross-validation one each time.
    classes
        What it reaches on each class.
    """

    entry: Entry
    counts: list[list[int]] | None
    figure: str
    mistakes: Mistakes
    wrong: int
    answers: int
    classes: Sequence[OfClass]


class OfClass(NamedTuple):
    """What a run reaches on a class, its figures with their intervals as text."""

    name: str
    n: int
    figures: Sequence[str]


@dataclass(frozen=True)
class Chapter:
    """Everything a page says of one comparison, of several labels and of numbers less; figures are SVG."""

    slug: str
    found: Comparison
    verdict: str
    run: Run
    learning: Sequence[tuple[str, str]]
    weights: Sequence[tuple[str, str, str]]
    use: Entry
    reproduce: Sequence[tuple[Entry, list[str]]]
    hardware: Mapping[str, Any]
    tiles: Sequence[Tile] = ()
    cost: str = ""
    recall: str = ""
    recall_note: str = ""
    calibration: str = ""
    errors: Sequence[Errors] = ()
    map: tuple[str, str, str] | None = None  # figure, what it shows, and the command for a page of it
    shots: str = ""
    shortcuts: Sequence[str] = ()
    leaks: Leaks | None = None
    gaps: Sequence[LeakageGap] = ()
    screening: Screening | None = None
    labels: Sequence[tuple[Entry, Sequence[OfClass]]] = ()
    rates: Rates | None = None
    torn: str = ""  # that folds tear groups apart; where an audit is of these splits, `leaks` has all of it
    worse: Worse | None = None

    @property
    def repeats(self) -> int:
        """How often every image was tested."""
        return self.run.cross_validation.repeats if self.run.cross_validation else 1

    @property
    def folded(self) -> list[FinetunedRun]:
        """The fine-tunings that were tested in folds."""
        runs = (entry.run for entry in self.found.entries)
        return [run for run in runs if isinstance(run, FinetunedRun) and run.cross_validation]


def chapter(
    found: Comparison,
    curves: Sequence[Curve],
    beside: Sequence[ColumnComparison],
    audits: Sequence[Audit],
    gaps: Sequence[LeakageGap],
    screenings: Sequence[Screening],
    room: Thumbnails,
) -> Chapter:
    """Read what the records of a comparison hold, and draw it; of all others, take those that belong."""
    name, run = f"{slug(found.dataset)}-{found.digest[:8]}", found.entries[0].run
    tops = [entry for strategy in _KINDS if (entry := found.top(strategy))] or [found.picked[0]]
    audit = audit_of(audits, found.digest)
    common = Chapter(
        slug=name,
        found=found,
        verdict=verdict(found),
        run=run,
        learning=[_learning(f"{name}-learning{n}", *tuned) for n, tuned in enumerate(_tuned(found))],
        weights=sorted(
            {(entry.backbone, entry.run.weights, "; ".join(licences(entry.run))) for entry in found.entries}
        ),
        use=best_of(found),
        reproduce=[(entry, commands(entry.run)) for entry in found.entries],
        hardware=as_json(run.hardware),
    )
    if found.task != CLASSIFY:
        return replace(
            common,
            tiles=_tiles_of_columns(found, tops),
            leaks=leaks(audit, gaps, None, room) if audit else None,
            labels=[(entry, _classes(entry)) for entry in tops if entry.per_class],
        )
    counts = [confusion(entry.top.label, entry.top.predicted, len(entry.run.classes)) for entry in tops]
    figure, hints = cost_figure(found.entries)
    best = ", ".join(f"{entry.name} {entry.accuracy:.3f} in {duration(entry.first_s)}" for entry in tops)
    recall, recall_note = _recall(name, tops, counts)
    reasons = _Explained(found)
    return replace(
        common,
        tiles=_tiles(found, tops),
        cost=inline_svg(figure, f"{name}-cost", f"Test accuracy against seconds. Best: {best}.", hints),
        recall=recall,
        recall_note=recall_note,
        calibration=_calibration(name, tops),
        errors=[_errors(name, entry, each, reasons.of(entry), room) for entry, each in zip(tops, counts, strict=True)],
        map=_map(name, tops[0], reasons.of(tops[0])),
        shots=_shots(name, [curve for curve in curves if curve.digest == found.digest]),
        shortcuts=shortcuts([each for each in beside if each.digest == found.digest]),
        leaks=leaks(audit, gaps, reasons.of(tops[0]), room) if audit else None,
        gaps=[each for each in gaps if each.dataset == found.dataset],
        screening=latest(screenings, found.dataset),
    )


def _tuned(found: Comparison) -> list[tuple[Entry, FinetunedRun]]:
    """Return the fine-tunings that have learning curves, which those of folds have not."""
    own = ((entry, entry.run) for entry in found.entries)
    return [(entry, run) for entry, run in own if isinstance(run, FinetunedRun) and run.history]


def _tiles_of_columns(found: Comparison, tops: Sequence[Entry]) -> list[Tile]:
    """Return what is read first of runs on several labels, or on numbers."""
    title = COLUMNS[found.task][0].title if found.by == USUAL[found.task] else found.by
    reached = [(entry, interval(*entry.figure(found.by), found.by)) for entry in tops]
    tiles = [Tile(_kind(entry), f"{title} {of}", f"{entry.name}; {duration(entry.first_s)}") for entry, of in reached]
    return [*tiles, *([Tile("Without looking", "", str(found.baseline))] if found.baseline else [])]


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
    if found.baseline is None:
        return tiles
    answer, accuracy, _ = found.baseline
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
    folds = tops[0].run.cross_validation
    images = counts[0].sum(axis=1) // (folds.repeats if folds else 1)
    order = tested[:_RECALLS]
    classes = tops[0].run.classes
    figure = recall_figure(
        [f"{_short(classes[c])} ({images[c]})" for c in order],
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


class _Explained:
    """The images that runs were trained on, which are read once for those on the same embeddings."""

    def __init__(self, found: Comparison) -> None:
        self._frozen = [entry.run for entry in found.entries if isinstance(entry.run, FrozenRun)]
        self._read: dict[tuple[str, ...], Reasons | None] = {}

    def of(self, entry: Entry) -> Reasons | None:
        """Return those of a run; a fine-tuning has those of heads on its backbone as it was, else on another one."""
        near = sorted(self._frozen, key=lambda run: (run != entry.run, run.backbone != entry.backbone))
        files = tuple(dict.fromkeys(file for run in near for file in run.feature_files[:1]))
        if files[:1] not in self._read:
            self._read = {files[:1]: Reasons.of(files)}  # embeddings are large: those of one at a time
        return self._read[files[:1]]


def _map(name: str, entry: Entry, reasons: Reasons | None) -> tuple[str, str, str] | None:
    if reasons is None:
        return None
    paths, made = reasons.plane()
    mistaken = {path for path, right in zip(entry.top.paths, entry.top.right, strict=True) if not right}
    figure = map_figure(made.points, np.array([path in mistaken for path in paths]))
    shows = f"{made.name} of the embeddings of {reasons.backbone}: {made.note}, trustworthiness {made.trusted:.2f}"
    alt = f"{shows}. {len(mistaken):,} of {len(paths):,} images are classified wrongly by {entry.name}."
    return inline_svg(figure, f"{name}-map", alt), shows, map_of(entry.run, reasons.name)


def _errors(name: str, entry: Entry, counts: NDArray[np.int64], reasons: Reasons | None, room: Thumbnails) -> Errors:
    classes = [printable(each) for each in entry.run.classes]
    few = len(counts) <= _TABLE
    svg = "" if few else _confusion(f"{name}-confusion-{entry.run.strategy}", entry, counts, classes)
    drawn, wrong = mistakes(entry, counts, reasons, room), int((~entry.top.right).sum())
    return Errors(entry, counts.tolist() if few else None, svg, drawn, wrong, len(entry.top.right), _classes(entry))


def _classes(entry: Entry) -> list[OfClass]:
    """Return what a run reaches on each class, those with the smallest F1 first."""
    ordered = sorted(entry.per_class, key=lambda each: each.f1.value if each.f1 else -1.0)
    return [
        OfClass(printable(each.name), each.n, [share_text(getattr(each, name)) for name in OF_CLASS])
        for each in ordered
    ]


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


def _learning(name: str, entry: Entry, run: FinetunedRun) -> tuple[str, str]:
    last = run.history[-1]
    reached = f"{last.figure.replace('_', ' ')} {figure_text(last.value, last.figure)}"
    alt = f"Learning curves of {entry.name}: validation {reached} after the last epoch."
    return entry.name, inline_svg(learning_curves(run), name, alt)


def _shots(name: str, curves: Sequence[Curve]) -> str:
    if not curves:
        return ""
    best = max(curves, key=lambda curve: curve.points[-1].mean)
    steps = ", ".join(f"{point.shots or 'all'}: {point.mean:.3f}" for point in best.points)
    alt = f"Accuracy against labelled images per class; {best.head} on {best.backbone}: {steps}."
    return inline_svg(few_shot_curves(curves), f"{name}-shots", alt)
