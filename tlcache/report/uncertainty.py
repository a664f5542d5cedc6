"""What runs promise of new images, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from statistics import fmean

from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.deploying.unknown import UnknownCheck, UnknownImages
from tlcache.keys import printable, some
from tlcache.report.fitting import FittedTable
from tlcache.runs.naming import backbone_label, head_label
from tlcache.runs.record import Run
from tlcache.runs.uncertainty import Abstention, UncertaintyFigures

__all__ = ["uncertainty_table", "unknown_table"]

_NOTE = (
    "Coverage: test images whose set holds their class (95 % interval). Classes: in a set, on average. "
    "One: sets of a single class. 95 % and so on, the answers that are to be right: images answered, and right of "
    "these. Unusual: test images called so at 5 % false alarms."
)


def uncertainty_table(runs: Sequence[Run]) -> RenderableType:
    """Return what each of the runs that promises anything was asked, and what the test images show.

    Of sets one table, of answers and unusual images another, as both are too wide for one.
    """
    promised = [(run, run.uncertainty) for run in runs if run.uncertainty]
    shares = [f"{each.right * 100:g} %" for _, found in promised[:1] for each in found.abstention]
    sets = FittedTable(("Backbone", "Head"), ("Asked", "Coverage", "Classes", "One"))
    answers = FittedTable(("Backbone", "Head"), (*shares, "Unusual"))
    for run, found in promised:
        names = backbone_label(run, runs), head_label(run, runs)
        reached = f"{found.test_coverage:.3f} ({found.test_coverage_low:.3f}-{found.test_coverage_high:.3f})"
        asked = f"{found.coverage:g}{' each' if found.per_class else ''}"
        sets.add_row(*names, asked, reached, f"{found.test_set_size:.2f}", f"{found.test_single:.2f}")
        unusual = "-" if found.test_unusual is None else f"{found.test_unusual:.3f}"
        answers.add_row(*names, *(_answered(each) for each in found.abstention), unusual)
    notes = dict.fromkeys(line for run, found in promised for line in _limits(head_label(run, runs), found))
    return Group(sets, Text(), answers, *(Text(note, style="dim") for note in (_NOTE, *notes)))


def _answered(found: Abstention) -> str:
    return f"{found.test_answered:.2f}: " + ("-" if found.test_right is None else f"{found.test_right:.3f}")


def _limits(head: str, found: UncertaintyFigures) -> Iterator[str]:
    """Yield what the figures of a run do not hold, or cannot."""
    few = [each.name for each in found.classes if not each.own]
    if few:
        yield f"Too few images for a threshold of their own, so that of all classes is taken: {some(few)}."
    if found.test_coverage_high < found.coverage:
        yield (
            f"The sets of {head} hold less of test than was asked for: its images are unlike those that the promise is "
            "from, and new ones may be, too."
        )


_UNKNOWN_NOTE = (
    "Told from test images of what the head knows: AUROC (0.5 is guessing), and found where 5 % of these are called "
    "unknown, too; by one minus the largest probability, and by the distance to the training images. "
    "Unusual: p-value below 0.05, of unknown and of test images."
)


def unknown_table(found: UnknownCheck) -> RenderableType:
    """Return one row for each class that was left out and each dataset, and the mean over the classes."""
    figures = ("Images", "Prob. AUROC", "Prob. found", "Dist. AUROC", "Dist. found", "Unusual", "of test")
    table = FittedTable(("Unknown",), figures, ("of test",))
    classes = [each for each in found.images if each.kind == "class"]
    rows = [(f"class {printable(each.name)}", [each]) for each in classes]
    rows += [(f"{len(classes)} classes, mean", classes)] if len(classes) > 1 else []
    rows += [(f"dataset {printable(each.name)}", [each]) for each in found.images if each not in classes]
    for name, images in rows:
        table.add_row(name, f"{sum(each.n for each in images):,}", *_told(images))
    return Group(table, Text(_UNKNOWN_NOTE, style="dim"))


def _told(images: Sequence[UnknownImages]) -> Iterator[str]:
    """Return the cells of some rows, the mean of each column."""
    for score in (attrgetter("confidence"), attrgetter("distance")):
        yield from (f"{fmean(getattr(score(each), name) for each in images):.3f}" for name in ("auroc", "found"))
    yield from (f"{fmean(getattr(each, name) for each in images):.3f}" for name in ("unusual", "false_alarms"))
