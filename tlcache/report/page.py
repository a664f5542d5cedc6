"""Comparisons -> one HTML page that needs nothing else, the same in Markdown, and the figures as CSV."""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlcache.arguments import At, By, Margin, OnlyDatasets, Page, Positive, Runs, Thumbnail
from tlcache.auditing.findings import Audit
from tlcache.auditing.leakage import LeakageGap, leakage_gaps
from tlcache.auditing.records import read_audits
from tlcache.deploying.best import best_of
from tlcache.errors import CacheError, OptionError
from tlcache.evaluation.compare import compare
from tlcache.evaluation.comparison import Comparison, Entry
from tlcache.evaluation.operating import Wanted, operating_points
from tlcache.evaluation.screening import Screening, latest, read_screenings
from tlcache.evaluation.verdict import verdict
from tlcache.files import check_folder, relative, write_whole
from tlcache.keys import printable
from tlcache.options import described
from tlcache.probing.columns import read_column_comparisons
from tlcache.probing.shots import read_curves
from tlcache.progress import step_bar, warn
from tlcache.report.audits import QUOTE
from tlcache.report.compared import (
    COSTS,
    LEGEND,
    columns,
    costs,
    figures,
    group_figures,
    leak_line,
    mark,
    marks,
    title,
)
from tlcache.report.contents import OF_CLASS, Chapter, chapter
from tlcache.report.inline import rendered
from tlcache.report.plain import interval
from tlcache.report.rates import RATES, rates_notes, rates_rows, rates_title
from tlcache.report.reproduce import commands, uses
from tlcache.report.robustness import GAINS, RUNS, worse
from tlcache.report.tables import (
    baseline_line,
    group_name,
    groups_lines,
    held_out_lines,
    learned,
    per_group_lines,
    tested,
)
from tlcache.report.thumbnails import Thumbnails
from tlcache.report.tried import FOLDS, folds_rows
from tlcache.robustness.records import read_robustness
from tlcache.runs.folder import runs_folder
from tlcache.version import __version__

__all__ = ["check_page", "write_report"]

_PARTS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[_.-])(?=\w)")  # where the name of a class may go on in the next line


@described()
def write_report(
    out: Page = "report.html",
    runs: Runs = None,
    data: OnlyDatasets = None,
    on_warning: Callable[[str], None] = warn,
    by: By = "accuracy",
    thumbnails: Thumbnail = 20_000_000,
    margin: Margin = None,
    positive: Positive = None,
    at: At = None,
) -> list[Path]:
    """Write what `compare` finds as a page, with `.md` and `.csv` beside it.

    The page needs no network and no other file. It has the answer first, then accuracy against cost, all runs, where
    the best ones go wrong, calibration, learning curves, few-shot curves and the audit where there are some, and the
    commands that make every run again. Mistakes, and all that an audit lists, are pictures while the images are where
    they were, each mistake beside the most similar images of training.

    Parameters
    ----------
    on_warning
        As for `tlcache.compare`.

    Returns
    -------
    list of Path
        The page, the Markdown, the CSV.

    Raises
    ------
    CacheError, OptionError
        No runs, or nothing can be written there; another ending.

    Examples
    --------
    >>> runs = fit_heads([feature_file], heads=["ridge", "knn"], runs=folder)
    >>> [path.name for path in write_report(folder / "report.html", runs=folder)]
    ['report.html', 'report.md', 'report.csv']
    """
    page = check_page(out)
    wanted = Wanted.of(positive, at)
    folder, found = runs_folder(runs), compare(runs, data, on_warning, by, margin)
    curves, audits = read_curves(folder, on_warning), read_audits(folder, on_warning)
    beside, robustness = read_column_comparisons(folder, on_warning), read_robustness(folder, on_warning)
    gaps, screenings = leakage_gaps(found), read_screenings(folder, on_warning)
    chapters, rooms = [], [Thumbnails(thumbnails // len(found)) for _ in found]
    with step_bar("drawing", len(found)) as advance:
        for each, room in zip(found, rooms, strict=True):
            made = chapter(each, curves, beside, audits, gaps, screenings, room)
            rates, (torn, _) = operating_points(each, wanted) if wanted else None, leak_line(each, audits, gaps)
            judged = worse(made.slug, robustness, each.digest)
            chapters.append(replace(made, rates=rates, torn="" if made.leaks else torn, worse=judged))
            advance(1)
    texts = {
        page: _html(chapters, sum(room.left_out for room in rooms)),
        page.with_suffix(".md"): _markdown(chapters, audits, gaps, screenings),
        page.with_suffix(".csv"): _csv(found, page.parent),
    }
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode("utf-8", "replace"))
    return list(texts)


def check_page(out: str | Path) -> Path:
    """Return where the page goes; raises OptionError or CacheError when that is no page or cannot be written."""
    page = Path(out).expanduser()
    if page.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"A report is an .html page, with .md and .csv beside it; asked: '{out}'.")
    if page.is_dir():
        raise CacheError(f"Cannot write to '{page}': it is a folder. Give the name of a page with --out.")
    check_folder(page.parent, "--out")
    return page


def _html(chapters: Sequence[Chapter], left_out: int) -> str:
    from markupsafe import Markup, escape

    filters = {
        "svg": Markup,  # ours: everything else is escaped
        "breakable": lambda name: Markup(_PARTS.sub("<wbr>", escape(printable(name)))),
    }
    return rendered(
        "page.html.j2",
        filters,
        chapters=chapters,
        left_out=left_out,
        figures=figures,
        group_figures=group_figures,
        group_name=group_name,
        held_out_lines=held_out_lines,
        per_group_lines=per_group_lines,
        interval=interval,
        learned=learned,
        tested=tested,
        fold_columns=FOLDS,
        folds_rows=folds_rows,
        rate_columns=RATES,
        rates_notes=rates_notes,
        rates_rows=rates_rows,
        rates_title=rates_title,
        of_worse=RUNS,
        of_gains=GAINS,
        mark=mark,
        marks=marks,
        all_costs=COSTS,
        of_class=[name.replace("_", " ") for name in OF_CLASS],
        uses=uses,
        costs=costs,
        columns=columns,
        legend=LEGEND,
        quote=QUOTE,
        today=datetime.datetime.now(datetime.UTC).date().isoformat(),
        version=__version__,
    )


def _markdown(
    chapters: Sequence[Chapter],
    audits: Sequence[Audit],
    gaps: Sequence[LeakageGap],
    screenings: Sequence[Screening],
) -> str:
    lines, comparisons = [], [each.found for each in chapters]
    for found, rates in ((each.found, each.rates) for each in chapters):
        lines += [f"## {title(found, comparisons).plain}", ""]
        line, matters = leak_line(found, audits, gaps)
        lines += [f"**{line}**" if matters else line, ""] if line else []
        lines += [verdict(found), ""]
        heads = (*columns(found.by, found.task), *COSTS)
        lines += ["|".join(["", "", "Backbone", "Head", *heads, ""])]
        lines += ["|---" * 4 + "|--:" * (len(heads) - 1) + "|"]
        for entry in found.entries:
            cells = (mark(entry, found), entry.backbone, entry.head, *figures(entry, found.by), *costs(entry))
            rows = [cells]
            if one := entry.per_group:
                blank = ("",) * len(COSTS)
                of_groups = group_figures(one, found.by)
                rows.append(("", entry.backbone, f"{entry.head}, {group_name(one)}", *of_groups, *blank))
            lines += map(_row, rows)
        told = (*held_out_lines(found), *groups_lines(found.groups), *per_group_lines(found))
        notes = (baseline_line(found.baseline), *(line.plain for line in told))
        lines += ["", " ".join(notes), "", f"\\{marks(found)} {LEGEND}", ""]
        if rates:
            lines += [f"**{rates_title(rates)}**", "", _row(RATES), "|---" * 2 + "|--:" * 3 + "|"]
            lines += [*map(_row, rates_rows(rates)), "", " ".join(rates_notes(rates)), ""]
        if screening := latest(screenings, found.dataset):
            lines += ["```", str(screening), "```", ""]
        use, again = best_of(found), dict.fromkeys(line for entry in found.entries for line in commands(entry.run))
        for what, block in ((f"To use {use.name}:", uses(use.run)), ("To make all again:", again)):
            lines += [what, "", "```sh", *block, "```", ""]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "|".join(["", *(text.replace("|", "\\|").replace("*", "\\*") for text in cells), ""])


def _flat(entry: Entry) -> dict[str, Any]:
    """Return the figures of a run, those of one answer for each group with names of their own."""
    nested = ("per_class", "per_group")
    groups = entry.per_group.test.as_json() if entry.per_group else {}
    own = {name: value for name, value in entry.as_json().items() if name not in nested}
    return {**own, **{f"per_group_{name}": value for name, value in groups.items()}}


def _csv(comparisons: Sequence[Comparison], folder: Path) -> str:
    rows = [
        {
            "dataset": found.dataset,
            "digest": found.digest,
            **_flat(entry),
            "record": relative(entry.run.path, folder),
        }
        for found in comparisons
        for entry in found.entries
    ]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, dict.fromkeys(name for row in rows for name in row))  # of few classes no top-5
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
