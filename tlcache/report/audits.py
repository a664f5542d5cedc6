"""Audits as tables for a terminal, and their closest pairs as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.auditing.clean import Cleaned
from tlcache.auditing.findings import Audit, DuplicatePair
from tlcache.auditing.leak import Leak
from tlcache.auditing.leakage import LeakageGap
from tlcache.datasets.dataset import reopen
from tlcache.datasets.source import Images
from tlcache.errors import DataError
from tlcache.keys import printable, some
from tlcache.report.plain import interval, plain_table
from tlcache.report.reproduce import extraction
from tlcache.tasks import CLASSIFY, MULTILABEL, REGRESSION
from tlcache.text import counted

__all__ = [
    "QUOTE",
    "audit_counts",
    "audits_tables",
    "clean_lines",
    "plot_pairs",
    "sample_pairs",
    "telling",
    "leakage_table",
]

QUOTE = (
    "Quote the accuracy under the group split: nothing there was trained on an image of a test image's group, and new "
    "images will be of new groups."
)
_SHOWN = 5
_ROWS, _COLUMNS = 6, 2  # pairs on a sheet
_SIDE = 256  # pixels of the height of an image there
_WIDTH, _TITLE = 5.2, 0.5  # inches of a pair, and of what is written above it


def audits_tables(audits: Sequence[Audit]) -> RenderableType:
    """Return counts, the most telling pairs and the verdict of each audit."""
    parts: list[RenderableType] = []
    for found in audits:
        drawn = dict.fromkeys(found.drawn or (), " (drawn)")
        sizes = ", ".join(f"{count:,} {name}{drawn.get(name, '')}" for name, count in found.splits.items() if count)
        title = f"{found.dataset}: {counted(found.images, 'image')} ({sizes}), {_learned(found)}"
        table = plain_table("Finding", "Count", "", numbers=slice(1, 2))
        for name, count, note in audit_counts(found):
            table.add_row(name, count, Text(note, overflow="fold"))
        by = f"Compared by {', '.join(filter(None, (found.backbone, found.why)))}."
        notes = [Text(found.calibration.note, style="magenta")] if found.calibration.note else []
        where = Text(f"All of it: {found.record.with_suffix('.csv')}", style="dim")
        verdict = Text(found.verdict, style="bold green" if found.judged and not found.leaks else "bold")
        parts += [
            Text(title, style="bold"),
            Text(by, style="dim"),
            table,
            *_shown(found),
            *notes,
            where,
            verdict,
            Text(),
        ]
    return Group(*parts[:-1])


def clean_lines(cleaned: Cleaned) -> Iterator[str]:
    """Yield what was written of a dataset without what was found in it, what was not, and the next command."""
    sizes = ", ".join(f"{name} {count:,}" for name, count in cleaned.splits.items())
    yield f"{cleaned.path}: {counted(sum(cleaned.splits.values()), 'image')} ({sizes})"
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in cleaned.dropped.items())
    yield f"{cleaned.dropped_path}: {sum(cleaned.dropped.values()):,} left out{f' ({kinds})' if kinds else ''}"
    if cleaned.stay:
        yield f"Label issues in test stay ({cleaned.stay:,}): without what heads get wrong accuracy would be too high."
    yield f"Next, with nothing to embed: {extraction(cleaned.arguments)}"


def _shown(found: Audit) -> Iterator[RenderableType]:
    """Yield some pairs and some label issues, an image a line."""
    if pairs := telling(found)[:_SHOWN]:
        table = plain_table("Some pairs", "Split", "Label", "Image", apart=1)
        for pair in pairs:
            for close, end in zip((pair.close, ""), pair.ends, strict=True):
                table.add_row(close, end.split, printable(end.label), printable(end.path))
        yield from (Text(), table)
    if found.label_issues:
        table = plain_table("Label issues", "Split", "Label", "Image", apart=1)
        for issue in found.label_issues[:_SHOWN]:
            looks = f"looks like {printable(issue.predicted)}"
            table.add_row(looks, issue.split, printable(issue.label), printable(issue.path))
        yield from (Text(), table)
    if found.odd:
        table = plain_table("Odd images", "Split", "Label", "Image", apart=1)
        for image in found.odd[:_SHOWN]:
            table.add_row(", ".join(image.findings), image.split, printable(image.label), printable(image.path))
        yield from (Text(), table)
    yield Text()


def telling(found: Audit) -> list[DuplicatePair]:
    """Return the pairs that say most: under two labels, then across splits, exact ones and the closest first."""
    pairs = (*found.exact, *found.near)
    return sorted(pairs, key=lambda pair: (not pair.conflict, not pair.across, -pair.exact, -pair.cosine))


def leakage_table(found: Sequence[LeakageGap]) -> RenderableType:
    """Return accuracy under both splits side by side, and the gap between them."""
    parts: list[RenderableType] = []
    for dataset, group in groupby(found, key=lambda each: each.dataset):
        parts += [Text(f"Leakage gap on {dataset}", style="bold"), _leakage_rows(list(group)), Text()]
    note = "Leakage gap: points of accuracy that the own split gives and the group split does not (95 % intervals)."
    return Group(*parts[:-1], Text(QUOTE), Text(note, style="dim"))


def _leakage_rows(found: Sequence[LeakageGap]) -> RenderableType:
    first = "Drawn split" if all(each.given_is_drawn for each in found) else "Given split"
    table = plain_table("Head", first, "Group split", "Leakage gap", numbers=slice(1, 4), apart=1)
    for each in found:
        middle, low, high = (100 * value for value in each.difference)
        gap = f"{middle:+.1f} ({low:+.1f} to {high:+.1f})"
        table.add_row(f"{each.head} on {each.backbone}", interval(*each.given), interval(*each.group), gap)
    return table


def plot_pairs(found: Audit, path: Path) -> None:
    """Draw the most telling pairs, the two of each side by side, as many as fit on a sheet.

    Raises
    ------
    DataError
        There are no pairs; an image is gone or cannot be used.
    """
    from matplotlib.figure import Figure

    from tlcache.report.plots import save_figure

    pairs = sample_pairs(telling(found), _ROWS * _COLUMNS)
    if not pairs:
        raise DataError(f"'{found.dataset}' has no pairs of near-duplicates to draw.")
    images = reopen(found.source)
    sheet = [
        [(pair, _side_by_side(images, pair)) for pair in pairs[at : at + _COLUMNS]]
        for at in range(0, len(pairs), _COLUMNS)
    ]
    heights = [_TITLE + max(_WIDTH * len(both) / both.shape[1] for _, both in row) for row in sheet]
    figure = Figure(figsize=(_WIDTH * _COLUMNS, sum(heights) + _TITLE), layout="constrained")
    axes = figure.subplots(len(sheet), _COLUMNS, squeeze=False, height_ratios=heights)
    for ax in axes.flat:
        ax.set_axis_off()
    for row, places in zip(sheet, axes, strict=True):
        for (pair, both), ax in zip(row, places, strict=False):
            ax.imshow(both)
            names = [f"{end.split}, {printable(end.label)}: {printable(Path(end.path).name)}" for end in pair.ends]
            ax.set_title(f"{names[0]}\n{names[1]} ({pair.close})", fontsize=8)
    figure.suptitle(f"{found.dataset}: near-duplicates side by side, with split, label and file of each")
    save_figure(figure, path)


def sample_pairs(pairs: Sequence[DuplicatePair], most: int) -> list[DuplicatePair]:
    """Return so many pairs: the most telling half, and of the rest some from the closest to the farthest."""
    first, rest = pairs[: most // 2], sorted(pairs[most // 2 :], key=lambda pair: -pair.cosine)
    wanted = most - len(first)
    return [*first, *(rest[number * len(rest) // wanted] for number in range(min(wanted, len(rest))))]


def _side_by_side(images: Images, pair: DuplicatePair) -> NDArray[np.uint8]:
    """Return both images of a pair at one height, (h, w, 3), with a little white between them."""
    from PIL import Image

    from tlcache.images import BadImageError, decode

    parts = []
    for name in (pair.first, pair.second):
        try:
            image = Image.fromarray(np.ascontiguousarray(decode(images.read(name), _SIDE)[0]))
        except BadImageError as error:
            raise DataError(f"'{images.name(name)}' cannot be drawn: {error}. Leave it out.") from None
        parts.append(np.asarray(image.resize((max(1, round(image.width * _SIDE / image.height)), _SIDE))))
    return np.hstack([parts[0], np.full((_SIDE, _SIDE // 40, 3), 255, np.uint8), parts[1]])


def audit_counts(found: Audit) -> Iterator[tuple[str, str, str]]:
    """Yield each finding's name, its count, and what there is to say of it."""
    exact, near = sum(pair.across for pair in found.exact), found.near_across
    yield "Exact duplicates", f"{len(found.exact):,}", f"{exact:,} across splits; equal bytes"
    if found.calibration.judges:
        yield "Near-duplicates", f"{found.near_count:,}", f"{near:,} across splits; cosine above {_threshold(found)}"
    else:
        yield (
            "Near-duplicates",
            "-",
            "cannot be judged: some altered copies are no closer than other images",
        )
    if found.alike:
        across = sum(pair.across for pair in found.alike)
        note = f"{across:,} across splits; cosine above {found.calibration.alike:.3f}, other pixels: they share a group"
        yield "Pairs alike", f"{len(found.alike):,}", note
    if found.classes or found.task == REGRESSION:
        labels = "numbers far apart" if found.task == REGRESSION else "different labels"
        yield "Under two labels", f"{len(found.conflicts()):,}", f"duplicates and near-duplicates with {labels}"
        yield "Label issues", f"{len(found.label_issues):,}" if found.labels_judged else "-", _label_issues(found)
    yield "Outliers", f"{len(found.outliers):,}", "images unlike all others"
    yield "Odd images", "-" if found.odd is None else f"{len(found.odd):,}", _odd(found)
    torn = f"; {_torn(found.torn, found.leak)}" if found.torn else ""
    note = f"of what belongs together, by {found.group_by}; the largest has {counted(found.largest, 'image')}{torn}"
    yield "Groups", f"{found.groups:,}", note
    if sizes := sorted(found.classes.values()):
        few = f"; fewer than 10 test images: {some(found.small)}" if found.small else ""
        each = counted(sizes[-1], "image")
        yield "Classes", f"{len(sizes):,}", (each if sizes[0] == sizes[-1] else f"{sizes[0]:,} to {each}") + few
    if gap := found.neighbour_gap:
        sign = ", which is less, as where images leak" if gap.suspicious else ""
        note = f"test accuracy by the label of the most similar image; by a linear head {gap.linear:.3f}{sign}"
        yield "Nearest image", f"{gap.nearest:.3f}", note


def _torn(groups: Sequence[str], leak: Leak) -> str:
    """Return how many groups are torn apart, and which: those of near-duplicates are only called as an image is."""
    words = f"{len(groups):,} {'lies' if len(groups) == 1 else 'lie'} in several splits"
    return f"{words}: {some(groups)}" if leak.known else words


def _odd(found: Audit) -> str:
    """Return how many images are odd in what."""
    if found.odd is None:
        return "cannot be judged: the images are gone"
    counts = Counter(words for image in found.odd for words in image.findings)
    return (
        ", ".join(f"{count:,} {words}" for words, count in counts.most_common())
        or "none stands out by colours, sharpness, size or file"
    )


def _learned(found: Audit) -> str:
    return "numbers" if found.task == REGRESSION else f"{len(found.classes) or 'no'} classes"


def _threshold(found: Audit) -> str:
    if found.calibration.pixels is None:
        return f"{found.calibration.threshold:.3f}, guessed from labels"
    return f"{found.calibration.threshold:.3f} and pixels that agree, as altered copies do"


_RIGHT = {
    CLASSIFY: "is right on {:.0%}",
    MULTILABEL: "has all labels right of {:.0%}",
    REGRESSION: "explains {:.0%} of the variance",
}


def _label_issues(found: Audit) -> str:
    if found.labels_accuracy is None or found.labels_found is None:
        return "cannot be judged: too few groups"
    right = f"a linear head {_RIGHT[found.task].format(found.labels_accuracy)} of images it has not seen"
    if not found.labels_judged:
        return f"cannot be judged: {right}, and only {found.labels_found:.0%} of wrong labels would stand out"
    return f"wrong or hard: {found.labels_found:.0%} of labels changed at random would be among them; {right}"
