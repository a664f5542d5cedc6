"""What data and runs are worth: comparison, report, audit, robustness, what a head does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tlcache.arguments import (
    OUTPUT,
    Against,
    At,
    By,
    ComparedBy,
    Drop,
    Features,
    GroupBy,
    GroupRegex,
    Margin,
    OneRun,
    OnlyDatasets,
    Overwrite,
    Page,
    Paths,
    Positive,
    Regroup,
    Runs,
    Seed,
    Thumbnail,
)
from tlcache.commands.base import Problems, app, fail_after, stoppable
from tlcache.commands.shown import show_leakage
from tlcache.errors import OptionError
from tlcache.flags import Output, command
from tlcache.kinds import PATH, SWITCH
from tlcache.options import Option, parameters
from tlcache.progress import say, warn
from tlcache.robustness.robust import robust as _robust

__all__ = ["audit", "compare", "report", "robust", "unknown"]

PANEL = "What it is worth"


@command(app, panel=PANEL)
def compare(
    output: Output,
    data: OnlyDatasets = None,
    by: By = "accuracy",
    positive: Positive = None,
    at: At = None,
    margin: Margin = None,
    pairs: Annotated[bool, Option("Show every two runs, too", SWITCH, OUTPUT)] = False,
    runs: Runs = None,
) -> None:
    """Compare all recorded runs on accuracy and on cost, and say in a sentence whether fine-tuning is worth it.

    Example: tlcache compare --data photos
    """
    from tlcache.auditing.leakage import leakage_gaps
    from tlcache.auditing.records import read_audits
    from tlcache.evaluation.across import across
    from tlcache.evaluation.compare import compare as run
    from tlcache.evaluation.operating import Wanted, operating_points
    from tlcache.evaluation.verdict import verdict
    from tlcache.report.compared import comparison_tables
    from tlcache.report.rates import rates_table
    from tlcache.runs.folder import runs_folder

    problems, wanted = Problems(), Wanted.of(positive, at)
    found = run(runs, data, problems, by, margin)
    gaps = leakage_gaps(found)
    verdicts = [{**one.as_json(), "verdict": verdict(one)} for one in found]
    rates = [operating_points(one, wanted) for one in found] if wanted else []
    for one, rate in zip(verdicts, rates, strict=False):
        one["operating_points"] = [each.as_json() for each in rate.points]
    over = across(found)
    more = {"over_datasets": over.as_json()} if over else {}
    output.write({"datasets": verdicts, "leakage_gaps": [each.as_json() for each in gaps], **more})
    output.show(comparison_tables(found, read_audits(runs_folder(runs)), gaps, output.verbose, pairs, over))
    for rate in rates:
        output.show(rates_table(rate))
    show_leakage(output, gaps)
    fail_after(problems)


@command(app, panel=PANEL)
def report(
    output: Output,
    out: Page = "report.html",
    data: OnlyDatasets = None,
    by: By = "accuracy",
    runs: Runs = None,
    margin: Margin = None,
    positive: Positive = None,
    at: At = None,
    thumbnails: Thumbnail = 20_000_000,
) -> None:
    """Write what compare finds as one HTML page: the answer, cost, mistakes, calibration, curves, commands.

    Example: tlcache report --out report.html
    """
    from tlcache.report.page import write_report

    problems = Problems()
    paths = write_report(out, runs, data, problems, by, thumbnails, margin, positive, at)
    output.write({"files": [str(path) for path in paths]})
    for path in paths:
        output.say(path)
    fail_after(problems)


@command(app, panel=PANEL)
def audit(
    output: Output,
    paths: Paths = None,
    data: OnlyDatasets = None,
    model: ComparedBy = None,
    group_by: GroupBy = None,
    group_regex: GroupRegex = None,
    strict: Annotated[
        bool, Option("Status 1 when the test split leaks, or when that cannot be told", SWITCH, OUTPUT)
    ] = False,
    plot: Annotated[
        Path | None, Option("Draw the most telling pairs of one dataset (.png, .svg, .pdf)", PATH, OUTPUT)
    ] = None,
    write: Annotated[
        Path | None, Option("Write one dataset as a .csv manifest, without what --drop names", PATH, OUTPUT)
    ] = None,
    drop: Drop = (),
    regroup: Regroup = False,
    overwrite: Overwrite = False,
    features: Features = None,
    runs: Runs = None,
) -> None:
    """Find duplicates, leaks between splits and label issues in cached embeddings, and group what belongs together.

    Example: tlcache audit --data photos --write clean.csv --drop leaks
    """
    say("comparing images ...")
    from tlcache.auditing.clean import check_clean, write_clean
    from tlcache.auditing.run import audit as run
    from tlcache.report.audits import audits_tables, clean_lines, plot_pairs, telling
    from tlcache.report.plots import check_format

    if plot:
        check_format(plot)
    check_clean(write, drop, regroup=regroup, overwrite=overwrite)
    with stoppable("nothing of this audit is kept"):
        found = run(
            paths, data=data, model=model, group_by=group_by, group_regex=group_regex, features=features, runs=runs
        )
    if (plot or write) and len(found) > 1:
        what = "--plot draws the pairs" if plot else "--write writes the manifest"
        raise OptionError(f"{what} of one dataset; choose it with --data.")
    cleaned = write and write_clean(
        found[0],
        write,
        drop=drop,
        regroup=regroup,
        overwrite=overwrite,
        paths=paths,
        features=features,
        runs=runs,
    )
    output.write({"datasets": [one.as_json() for one in found], **({"written": cleaned.as_json()} if cleaned else {})})
    output.show(audits_tables(found))
    for line in clean_lines(cleaned) if cleaned else ():
        output.say(line)
    if plot and telling(found[0]):
        plot_pairs(found[0], plot)
    elif plot:
        output.say(f"There are no pairs to draw: '{plot}' is not written.")
    for one in found if strict else ():
        if not (one.leaks or one.judged):
            warn(
                f"Whether the test split of '{one.dataset}' leaks could not be told, which --strict does not let pass."
            )
    if strict and any(one.leaks or not one.judged for one in found):
        raise typer.Exit(1)


@command(app, panel=PANEL)
def unknown(
    output: Output,
    run: OneRun,
    against: Against = None,
    features: Features = None,
    runs: Runs = None,
    seed: Seed = 0,
) -> None:
    """Measure how well a head tells what it does not know: each class left out in turn, and other datasets.

    Beside the distance of the embedding, which `unusual` and --reject go by, stands the usual way: a low probability.

    Example: tlcache unknown mobilenetv2-svm-1c9be2c3dd5e --against holidays
    """
    from tlcache.deploying.unknown import unknown as measure
    from tlcache.report.uncertainty import unknown_table

    found = measure(run, against=against, features=features, runs=runs, seed=seed)
    output.write(found.as_json())
    output.show(unknown_table(found))


@command(app, parameters(_robust), panel=PANEL)
def robust(output: Output, /, **options: Any) -> None:
    """Judge recorded runs on test images that are made worse: blurred, noisy, dark, turned, compressed and others.

    The images are embedded once for each kind and severity, whatever the number of heads, and every fine-tuning sees
    the same ones. The tables are in tlcache report afterwards.

    Example: tlcache robust --data photos --kinds blur,noise,jpeg --severity 1,3,5
    """
    from tlcache.report.robustness import robustness_tables
    from tlcache.robustness.robust import robust as run

    problems = Problems()
    with stoppable("what is embedded is kept: the same command goes on"):
        found = run(**options, on_warning=problems)
    output.write({"datasets": [each.as_json() for each in found]})
    output.show(robustness_tables(found))
    fail_after(problems)
