"""A comparison in a few plain sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlcache.evaluation.significance import LEVEL
from tlcache.keys import printable
from tlcache.runs.finetuned import FinetunedRun
from tlcache.text import duration

if TYPE_CHECKING:
    from tlcache.evaluation.comparison import Comparison, Entry, Pair
    from tlcache.runs.record import Run

__all__ = ["no_gain", "p_of", "p_text", "points", "times", "verdict"]

_LEAST_P = 1e-12  # smaller ones say nothing more


def verdict(found: Comparison) -> str:
    """Return in a few plain sentences which is best, whether fine-tuning is worth its time, what is as good for less.

    Examples
    --------
    >>> runs = fit_heads([feature_file], heads=["ridge"], runs=folder)
    >>> verdict(compare(folder)[0]).partition(":")[0]
    'One run'
    """
    frozen, tuned = found.top(frozen=True), found.top(frozen=False)
    first = _strategies(found, tuned, frozen) if frozen and tuned else _single(found)
    return " ".join(filter(None, ["" if tuned else _start(found), first, _quickest(found), _baseline(found)]))


def _strategies(found: Comparison, tuned: Entry, frozen: Entry) -> str:
    pair = found.pair(tuned, frozen)
    gain = pair.found.difference
    figures = f"(95 % CI {points(pair.found.low)} to {points(pair.found.high)}, {p_of(pair, found)})"
    what, other = f"Fine-tuning {tuned.backbone}", f"the best frozen head ({frozen.name})"
    cost = f"{times(tuned.first_s / frozen.first_s)} its time"
    if pair.p_corrected >= LEVEL:
        sign = "+" if gain > 0 else ""
        text = f"{what} is not shown to differ from {other}: {sign}{points(gain)} points {figures}, for {cost}."
    elif gain > 0:
        text = f"{what} gains {points(gain)} points {figures} over {other}, for {cost}."
    else:
        text = f"{what} loses {points(-gain)} points {figures} against {other}, and takes {cost}."
    return text + _unequal(tuned.run)


def _unequal(run: Run) -> str:
    """Say it where a fine-tuning had fewer images than heads have."""
    if run.rows.val and not run.settings["refit"]:
        return " It was trained on train alone, heads on train + val; with --refit both are."
    return ""


def _start(found: Comparison) -> str:
    """Say that no fine-tuning became better than it began, where there are only such."""
    tried = [(e.backbone, e.run) for e in found.entries if isinstance(e.run, FinetunedRun) and e.run.untuned]
    if not tried:
        return ""
    backbones = ", ".join(dict.fromkeys(backbone for backbone, _ in tried))
    if len(tried) == 1:
        _, run = tried[0]
        return f"Fine-tuning {backbones} gave nothing: {_untuned(run)}.{_unequal(run)}"
    many = f"in none of {len(tried)} runs was an epoch better on validation than the head it began with"
    return f"Fine-tuning {backbones} gave nothing: {many}."


def no_gain(run: Run) -> str:
    """Return that a fine-tuning was in vain, and what to try; empty for all other runs."""
    if not (isinstance(run, FinetunedRun) and run.untuned):
        return ""
    return f"{_untuned(run).capitalize()}. {_advice(run)}"


def _untuned(run: FinetunedRun) -> str:
    """Return that no epoch of a fine-tuning was better than the head it began with, and by how much."""
    trained = [epoch for epoch in run.history if epoch.phase == "backbone" and epoch.epoch]
    before = [epoch for epoch in run.history if epoch not in trained]
    first, best = (max(some, key=lambda each: each.score) for some in (before, trained))
    scores = [f"{epoch.val_accuracy:.3f} with a loss of {epoch.val_loss:.3f}" for epoch in (first, best)]
    return (
        f"no epoch was better on validation than the head it began with (accuracy {scores[0]}; the best epoch "
        f"{scores[1]}), which is what is tested"
    )


def _advice(run: FinetunedRun) -> str:
    """Return what to try where no epoch of a fine-tuning was better than its start."""
    asked = run.settings
    still = [] if asked["batch_norm"] == "eval" else ["--batch-norm eval"]
    *ways, last = [*still, f"a smaller --lr than {asked['lr']:g}", "fewer layers (--unfreeze last:N or stage:K)"]
    return f"Try {', '.join(ways)} or {last}."


def _single(found: Comparison) -> str:
    best, others = found.entries[0], found.entries[1:]
    figures = f"{best.name}, {best.accuracy:.3f} ({best.low:.3f}-{best.high:.3f})"
    if not others:
        return f"One run: {figures}. There is nothing to compare it with."
    alike = sum(entry.best for entry in others)
    shown = "are not shown" if alike else "are shown"
    who = f"the other {len(others)}"
    if len(others) == 1:
        who, shown = "the other one", shown.replace("are", "is")
    elif 0 < alike < len(others):
        who, shown = f"{alike} of {who}", shown if alike > 1 else shown.replace("are", "is")
    return f"The most accurate is {figures}; {who} {shown} to be worse."


def _quickest(found: Comparison) -> str:
    """Name the quickest of those that share the mark, unless that is the best one itself."""
    quickest = min((entry for entry in found.entries if entry.best), key=lambda entry: entry.first_s)
    if quickest is found.entries[0]:
        return ""
    took = f"{duration(quickest.first_s)} from nothing"
    return f"Of those not shown to be worse than the best, the quickest is {quickest.name}: {took}."


def _baseline(found: Comparison) -> str:
    """Say it where the most accurate run may be no better than a constant answer."""
    answer, accuracy = found.baseline
    if found.entries[0].low > accuracy:
        return ""
    return (
        f"Nothing here is shown to be better than always answering '{printable(answer)}', which gives {accuracy:.3f}."
    )


def p_of(pair: Pair, found: Comparison) -> str:
    """Return a pair's p value, and what the number of comparisons makes of it."""
    many = len(found.pairs)
    corrected = f", corrected for {many} comparisons {p_text(pair.p_corrected)}" if many > 1 else ""
    return p_text(pair.found.p) + corrected


def p_text(p: float) -> str:
    """Return a p value as people write it.

    >>> p_text(0.0021), p_text(3e-8), p_text(0.0)
    ('p = 0.0021', 'p = 3e-8', 'p < 1e-12')
    """
    relation, shown = ("<", _LEAST_P) if p < _LEAST_P else ("=", p)
    return f"p {relation} {shown:.2g}".replace("e-0", "e-")


def points(share: float) -> str:
    """Return a share in percentage points.

    >>> points(0.031), points(-0.012), points(-0.0001)
    ('3.1', '-1.2', '0.0')
    """
    return f"{round(100 * share, 1) + 0.0:.1f}"


def times(ratio: float) -> str:
    """Return how many times as much something takes.

    >>> times(4.93), times(41.3), times(1234.5)
    ('4.9 x', '41 x', '1,234 x')
    """
    return f"{ratio:,.{0 if ratio >= 10 else 1}f} x"
