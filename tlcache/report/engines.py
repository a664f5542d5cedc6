"""What each engine and precision costs, as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.backbones.paces import Way
from tlcache.probing.costs import EngineCost
from tlcache.report.plain import plain_table

__all__ = ["engines_table"]


def engines_table(found: Sequence[EngineCost]) -> RenderableType:
    """Return what was measured, and below it why other ways cannot be had."""
    judged, labelled = (any(getattr(each, name) is not None for each in found) for name in ("differs", "accuracy"))
    columns = ["Images/s", "Times", *["Differs"] * judged, *["Accuracy", "Points (95 %)"] * labelled]
    table = plain_table("Engine", *columns, numbers=slice(1, 9))
    for each in found:
        if not each.why_not:
            table.add_row(_name(each), *_figures(each))
    whys = [Text(f"{_name(each)}: {each.why_not}", style="dim") for each in found if each.why_not]
    return Group(table, *([Text(), *whys] if whys else []))


def _name(cost: EngineCost) -> str:
    return str(Way(cost.engine, cost.precision, cost.device))


def _figures(cost: EngineCost) -> Iterator[str]:
    yield f"{cost.images_per_s:,.{0 if (cost.images_per_s or 0) >= 100 else 1}f}"
    yield f"{cost.times:.2f}"
    if cost.differs is not None:
        yield f"{cost.differs:.1%}" if cost.differs >= 5e-4 else f"{cost.differs:.0e}" if cost.differs else "0"
    if cost.accuracy is not None:
        yield f"{cost.accuracy:.3f}"
        if (against := cost.against_first) is None:
            yield ""
        else:
            points = (against.difference, against.low, against.high)
            yield "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * each for each in points))
