"""Counts, times and lists as people read them; rows as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from types import SimpleNamespace

__all__ = ["as_csv", "counted", "duration"]


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


def duration(seconds: float) -> str:
    """Return a time as people say it, in two figures.

    >>> duration(0.0412), duration(42.4), duration(400), duration(9000), duration(720_000)
    ('0.041 s', '42 s', '6.7 min', '2.5 h', '200 h')
    """
    lengths = (("s", 1), ("min", 60), ("h", 3600))
    unit, length = next((each for each in lengths if seconds / each[1] < 99.5), lengths[-1])
    count = seconds / length
    return f"{count:.2g} {unit}" if count < 99.5 else f"{count:,.0f} {unit}"
