"""Counts, times and lists as people read them; rows as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from math import ceil, inf, log10
from types import SimpleNamespace

__all__ = ["as_csv", "counted", "duration", "figure_text", "numbers_text", "p_text", "points", "times"]

_MEASURED = ("mae", "rmse")  # figures in the unit of what is learned, which may be of any size
_LEAST_P = 1e-12  # smaller ones say nothing more


def as_csv(rows: Iterable[Iterable[object]], delimiter: str = ",") -> str:
    r"""Return rows as CSV, a line feed after each; cells with one, or with a carriage return, are quoted.

    >>> as_csv([("path", "label"), ("a\r.png", "red")])
    'path,label\n"a\r.png",red\n'
    """
    lines: list[str] = []
    stream = SimpleNamespace(write=lines.append)
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\r\n")  # it quotes what has any of these
    writer.writerows(rows)
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines)


def counted(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> counted(1, "image"), counted(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def figure_text(value: float, name: str = "") -> str:
    """Return a figure of this name in three decimals; where it has a unit and is far from 1, in four digits.

    >>> figure_text(0.98765, "r2"), figure_text(2.25, "mae"), figure_text(1.23456e-12, "mae")
    ('0.988', '2.250', '1.235e-12')
    """
    far = name in _MEASURED and value and not 0.1 <= abs(value) < 100_000
    return f"{value:.4g}" if far else f"{value:.3f}"


def numbers_text(values: Iterable[float], apart: float = 0.0) -> list[str]:
    """Return numbers in six digits, or as many as show a thousandth of `apart`, or else of how far apart they are.

    >>> numbers_text([1e9 - 4.126, 1e9 + 8.25]), numbers_text([1e-12, 2.5e-12]), numbers_text([3.0])
    (['999999995.874', '1000000008.25'], ['1e-12', '2.5e-12'], ['3'])
    """
    values = list(values)
    apart = apart or max(values) - min(values)
    far = max(map(abs, values)) / apart if apart else 1.0
    digits = min(17, max(6, ceil(log10(far)) + 4)) if 0 < far < inf else 6
    return [f"{value:.{digits}g}" for value in values]


def duration(seconds: float) -> str:
    """Return a time as people say it, in two figures.

    >>> duration(0.0412), duration(42.4), duration(400), duration(9000), duration(720_000)
    ('0.041 s', '42 s', '6.7 min', '2.5 h', '200 h')
    """
    lengths = (("s", 1), ("min", 60), ("h", 3600))
    unit, length = next((each for each in lengths if seconds / each[1] < 99.5), lengths[-1])
    count = seconds / length
    return f"{count:.2g} {unit}" if count < 99.5 else f"{count:,.0f} {unit}"


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
