"""A comparison in one or two plain sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tlcache.comparison import Comparison, Entry, Pair

__all__ = ["LEVEL", "p_of", "p_text", "points", "verdict"]

LEVEL = 0.05


def verdict(found: Comparison) -> str:
    """Return which is best, whether fine-tuning is worth its time, and what is as good for less."""
    frozen, tuned = found.top(frozen=True), found.top(frozen=False)
    first = _strategies(found, tuned, frozen) if frozen and tuned else _single(found)
    return " ".join(filter(None, [first, _quickest(found)]))


def _strategies(found: Comparison, tuned: Entry, frozen: Entry) -> str:
    pair = found.pair(tuned, frozen)
    gain = pair.found.difference
    figures = f"(95 % CI {points(pair.found.low)} to {points(pair.found.high)}, {p_of(pair, found)})"
    what, other = f"Fine-tuning {tuned.backbone}", f"the best frozen head ({frozen.name})"
    times = f"{tuned.first_s / frozen.first_s:.2g} x its time"
    if pair.p_corrected >= LEVEL:
        text = f"{what} is not shown to differ from {other}: {points(gain)} points {figures}, for {times}."
    elif gain > 0:
        text = f"{what} gains {points(gain)} points {figures} over {other}, for {times}."
    else:
        text = f"{what} loses {points(-gain)} points {figures} against {other}, and takes {times}."
    if tuned.run.fields["rows"]["val"] and not tuned.run.fields["arguments"]["refit"]:
        text += " It was trained on train alone, the head on train + val; with --refit both are."
    return text


def _single(found: Comparison) -> str:
    best, others = found.entries[0], found.entries[1:]
    figures = f"{best.name}, {best.accuracy:.3f} ({best.low:.3f}-{best.high:.3f})"
    if not others:
        return f"One run: {figures}. There is nothing to compare it with."
    alike = sum(entry.best for entry in others)
    if not alike:
        return f"The most accurate is {figures}; all {len(others)} others are shown to be worse."
    are = "is" if alike == 1 else "are"
    return f"The most accurate is {figures}; {alike} of {len(others)} others {are} not shown to be worse."


def _quickest(found: Comparison) -> str:
    """Name the quickest of those that share the mark, unless that is the best one itself."""
    quickest = min((entry for entry in found.entries if entry.best), key=lambda entry: entry.first_s)
    if quickest is found.entries[0]:
        return ""
    seconds = f"{quickest.first_s:,.0f} s from nothing"
    return f"Of those not shown to be worse than the best, the quickest is {quickest.name}: {seconds}."


def p_of(pair: Pair, found: Comparison) -> str:
    """Return a pair's p value, and what the number of comparisons makes of it."""
    many = len(found.pairs)
    corrected = f", corrected for {many} comparisons {p_text(pair.p_corrected)[4:]}" if many > 1 else ""
    return p_text(pair.found.p) + corrected


def p_text(p: float) -> str:
    """Return a p value as people write it.

    >>> p_text(0.0021), p_text(3e-12), p_text(1.0)
    ('p = 0.0021', 'p = 3e-12', 'p = 1')
    """
    return f"p = {p:.2g}".replace("e-0", "e-")


def points(share: float) -> str:
    """Return a share in percentage points.

    >>> points(0.031), points(-0.012)
    ('3.1', '-1.2')
    """
    return f"{100 * share:.1f}"
