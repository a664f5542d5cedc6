"""What an audit lists, as pictures: pairs side by side, label issues beside what they look like, odd images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tlcache.auditing.findings import Audit, DuplicatePair
from tlcache.auditing.leakage import LeakageGap
from tlcache.auditing.verdict import alarm, told
from tlcache.datasets.dataset import reopen
from tlcache.keys import printable
from tlcache.pictures.reasons import Reasons, near_in
from tlcache.report.audits import audit_counts, telling
from tlcache.report.thumbnails import Listed, Shown, Thumbnails
from tlcache.text import counted

__all__ = ["Kind", "Leaks", "leaks"]

_FIRST = 8  # of a kind that are seen at once


@dataclass(frozen=True)
class Kind:
    """Findings of a kind: those that are seen at once, and the others."""

    name: str
    first: Sequence[Listed]
    rest: Sequence[Listed]
    note: str = ""


class Leaks(NamedTuple):
    """What an audit of the same images and splits found, and in words, first those of a warning if it is one."""

    audit: Audit
    warning: str
    verdict: str
    counts: Sequence[tuple[str, str, str]]
    kinds: Sequence[Kind]


class _Image(NamedTuple):
    path: str
    line: str


_Told = tuple[tuple[str, ...], str, Sequence[_Image]]  # row, line, images


def leaks(audit: Audit, gaps: Sequence[LeakageGap], reasons: Reasons | None, room: Thumbnails) -> Leaks:
    """Return what an audit found, everything that it lists as pictures, as far as there is room for these."""
    line, matters = alarm(audit, gaps)
    listed: list[tuple[str, Sequence[_Told], str]] = [
        ("Pairs across splits", [_pair(each) for each in telling(audit) if each.across], _pairs_note(audit)),
        ("Pairs within a split", [_pair(each) for each in telling(audit) if not each.across], ""),
        ("Pairs alike", [_pair(each) for each in audit.alike], "One thing seen twice, or two that look alike."),
        ("Label issues", list(_label_issues(audit, reasons)), _label_note(reasons)),
        ("Images unlike all others", [_outlier(path) for path in audit.outliers], ""),
        ("Images that look odd among the others", list(_odd(audit)), ""),
    ]
    drawn = _draw(audit, [each for _, each, _ in listed], room)
    kinds = [Kind(name, first, rest, note) for (name, _, note), (first, rest) in zip(listed, drawn, strict=True)]
    counts = list(audit_counts(audit))
    return Leaks(audit, line if matters else "", told(audit, gaps), counts, [each for each in kinds if each.first])


def _pair(pair: DuplicatePair) -> _Told:
    images = [_Image(end.path, f"{end.split}, {printable(end.label)}" if end.label else end.split) for end in pair.ends]
    kind = "exact" if pair.exact else "near"
    ends = (pair.first_split, pair.second_split, pair.first_label, pair.second_label)
    return (kind, pair.first, pair.second, f"{pair.cosine:.4f}", *ends), pair.close, images


def _pairs_note(audit: Audit) -> str:
    lacking = audit.near_count - len(audit.near)
    return f"{counted(lacking, 'pair')} more are not listed here." if lacking > 0 else ""


def _label_note(reasons: Reasons | None) -> str:
    return f"Beside each the most similar images of both labels, by {reasons.backbone}." if reasons else ""


def _label_issues(audit: Audit, reasons: Reasons | None) -> Iterator[_Told]:
    nearest = near_in(reasons)
    for each in audit.label_issues:
        images = [_Image(each.path, f"{each.split}, {printable(each.label)}")]
        for label in (each.label, each.predicted):
            if near := nearest(each.path, label):
                images.append(_Image(near.path, f"nearest {printable(label)} ({near.cosine:.2f})"))
        line = f"{printable(each.label)}, looks like {printable(each.predicted)} ({each.confidence:.2f})"
        row = ("label", each.path, "", f"{each.confidence:.4f}", each.split, "", each.label, each.predicted)
        yield row, line, images


def _outlier(path: str) -> _Told:
    return ("outlier", path, *[""] * 6), "", [_Image(path, "")]


def _odd(audit: Audit) -> Iterator[_Told]:
    for each in audit.odd or ():
        said = f"{each.split}, {printable(each.label)}" if each.label else each.split
        row = ("odd", each.path, "", "; ".join(each.findings), each.split, "", each.label, "")
        yield row, ", ".join(each.findings), [_Image(each.path, said)]


def _draw(audit: Audit, listed: Sequence[Sequence[_Told]], room: Thumbnails) -> list[tuple[list[Listed], list[Listed]]]:
    """Return the first and the other findings of each kind; the first of all kinds have room before all others."""
    images = reopen(audit.source)

    def found(some: Sequence[_Told]) -> list[Listed]:
        pictures = iter(room.of(images, [image.path for *_, each in some for image in each]))
        return [
            Listed(row, line, tuple(Shown(next(pictures), image.line, printable(image.path)) for image in each))
            for row, line, each in some
        ]

    first = [found(each[:_FIRST]) for each in listed]
    return [(own, found(each[_FIRST:])) for own, each in zip(first, listed, strict=True)]
