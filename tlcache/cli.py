"""The command line: each command parses, calls the library, and prints."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
import typer.core

from tlcache.arguments import (
    CHOOSING,
    DATA,
    OUTPUT,
    TRAINING,
    Against,
    BackboneWeights,
    By,
    ComparedBy,
    Crop,
    Datasets,
    Drop,
    Features,
    GroupBy,
    GroupRegex,
    Layers,
    MaybeShots,
    Model,
    Models,
    OneRun,
    OnlyDatasets,
    Overwrite,
    Page,
    Paths,
    Pools,
    Regroup,
    Repair,
    Runs,
    Seed,
)
from tlcache.deploying.export import export as _export
from tlcache.deploying.predict import predict as _predict
from tlcache.errors import CacheError, OptionError, TlcacheError
from tlcache.exchange.adopt import adopt as _adopt
from tlcache.exchange.dump import dump as _dump
from tlcache.extraction.extract import extract as _extract
from tlcache.finetuning.finetune import finetune as _finetune
from tlcache.finetuning.recipe import Recipe, read_settings
from tlcache.flags import Output, command
from tlcache.kinds import PATH, RATE, SWITCH, Kind, listing, several, text
from tlcache.options import Option, parameters
from tlcache.probing.fit import fit_curves as _fit_curves
from tlcache.probing.fit import fit_heads as _fit_heads
from tlcache.progress import say, warn
from tlcache.studying.study import study as _study
from tlcache.suggesting.suggest import suggest as _suggest
from tlcache.version import __version__

if TYPE_CHECKING:
    from tlcache.auditing.leakage import LeakageGap
    from tlcache.runs.record import Run

__all__ = ["app", "main"]

Yes = Annotated[bool, Option("Do not ask", SWITCH, OUTPUT, short="-y")]
_DIGITS = ("digits",)
_OF_RECIPE = ("epochs", "unfreeze")
_EXTRACT = {name: each for name, each in parameters(_extract).items() if name != "output"}  # there are several layers
_OF_ALL = ("coverage", "per_class")  # of heads and fine-tunings
_STUDY = {
    name: each
    for name, each in parameters(_study).items()
    if name in (*_OF_RECIPE, *_OF_ALL) or name not in parameters(Recipe)
}
_PATTERN = text("PATTERN")
_GIVEN = Kind("paths", "PATH", "paths", str, lambda value: bool(listing(value)), gather=list)
_SETTING = Kind("NAME=VALUE like lr=1e-3", "NAME=X", "dict", str, bool, gather=read_settings)


class _Commands(typer.core.TyperGroup):
    """The commands: a known error is one message and a status, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; 2: what was typed is wrong, 1: the work failed, 130: it was stopped."""
        try:
            return super().invoke(ctx)
        except TlcacheError as error:
            _stop(f"error: {error}", 2 if isinstance(error, OptionError) else 1)
        except _StoppedError as stopped:
            _stop(str(stopped), 130)
        except BrokenPipeError:  # see `main`
            raise
        except OSError as error:  # a file that cannot be read or written: the message names it
            _stop(f"error: {error.strerror or error}: {error.filename or 'no file named'}", 1)


app = typer.Typer(
    name="tlcache",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; 141: whoever read had enough, as a shell says of any program that ends so."""
    signal.signal(signal.SIGTERM, _interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error has it: no letter ends a command
    try:
        app()
    except SystemExit as ended:
        if not isinstance(ended.__context__, BrokenPipeError):  # of which typer and rich make an exit with status 1
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where what is still in buffers goes
        sys.exit(141)


class _StoppedError(Exception):
    """Ctrl-C or SIGTERM in work that can be continued; Typer would end on KeyboardInterrupt without a word."""


@contextlib.contextmanager
def _stoppable(then: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stopped:
        raise _StoppedError(f"{stopped if str(stopped) else 'stopped'}; {then}") from None


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _stop(message: str, status: int) -> NoReturn:
    from tlcache.display import plain_console

    plain_console(stderr=True).print(message, style="bold red", soft_wrap=True)
    sys.exit(status)


class _Problems(list[str]):
    """Warnings of work that goes on: printed when they are told, and kept for the status at the end."""

    def __call__(self, line: str) -> None:
        warn(line)
        self.append(line)


def _end(problems: _Problems) -> None:
    if problems:
        raise typer.Exit(1)


def _show_runs(output: Output, done: Sequence[Run], runs: str | Path | None) -> None:
    """Print what these runs reached, where they are, and the leakage gap where they are of the group split."""
    from tlcache.auditing.leakage import leakage_gaps_of
    from tlcache.evaluation.compare import compare_runs
    from tlcache.evaluation.verdict import layer_choices, no_gain
    from tlcache.report.tables import runs_tables
    from tlcache.report.uncertainty import uncertainty_table

    compared = compare_runs(done)
    output.show(runs_tables(compared))
    for line in filter(None, map(layer_choices, compared)):
        output.say(f"\n{line}")
    if any(run.uncertainty for run in done):
        output.show()
        output.show(uncertainty_table(done))
    for line in filter(None, map(no_gain, done)):
        warn(line)
    _say_where(output, done)
    _show_leakage(output, leakage_gaps_of(done, runs))


def _show_leakage(output: Output, found: Sequence[LeakageGap]) -> None:
    """Print the leakage gap of the heads that were tested under both splits."""
    from tlcache.report.audits import leakage_table

    if found:
        output.show()
        output.show(leakage_table(found))


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", "-V", help="Print the version")] = False) -> None:
    """Find out which pretrained backbone and which head suit a dataset, and whether fine-tuning is worth it.

    Embed every image once, keep the embeddings, compare heads on them in seconds.
    """
    if version:
        typer.echo(f"tlcache {__version__}")
        raise typer.Exit


@command(app)
def models(
    output: Output,
    pattern: Annotated[str | None, Option("Shell pattern of names, study or modern", _PATTERN, DATA, "PATTERN")] = None,
    timm: Annotated[
        str | None, Option("Shell pattern of names of timm, which are listed instead", _PATTERN, DATA)
    ] = None,
) -> None:
    """List the backbones, or those of a group: embedding size, parameters, input, accuracy, licence, weights at hand.

    Example: tlcache models "resnet*"
    """
    from tlcache.backbones.sources import list_models
    from tlcache.report.tables import models_table

    found = list_models(pattern if timm is None else f"timm/{timm}")
    output.write({"models": [row.as_json() for row in found]})
    output.show(models_table(found))


@command(app)
def layers(output: Output, model: Model, crop: Crop = None) -> None:
    """List the layers of a network that --layers takes: what leaves them, and how long embeddings are by pooling.

    Example: tlcache layers --model resnet50
    """
    from tlcache.backbones.sources import list_layers
    from tlcache.report.layers import layers_table

    found = list_layers(model, crop)
    output.write({"layers": [each.as_json() for each in found]})
    output.show(layers_table(found))


@command(app)
def heads(output: Output) -> None:
    """List the heads and the settings that each chooses from.

    Example: tlcache heads
    """
    from tlcache.heads.table import list_heads
    from tlcache.records import as_json
    from tlcache.report.tables import heads_table

    found = list_heads()
    output.write({"heads": as_json(found)})
    output.show(heads_table(found))


@command(app)
def datasets(output: Output) -> None:
    """Explain the forms of --data, with an example each.

    Example: tlcache datasets
    """
    from tlcache.datasets.dataset import list_datasets
    from tlcache.records import as_json
    from tlcache.report.tables import datasets_table

    found = list_datasets()
    output.write({"datasets": as_json(found)})
    output.show(datasets_table(found))


@command(app, _EXTRACT)
def extract(
    output: Output,
    /,
    model: Models,
    data: Datasets = _DIGITS,
    weights: BackboneWeights = None,
    layers: Layers = None,
    pool: Pools = None,
    **options: Any,
) -> None:
    """Embed every image of a dataset once and keep the embeddings in an HDF5 file.

    What is there already is not computed again; a run that was stopped continues where it was.

    Example: tlcache extract --model mobilenetv3_large,resnet50 --data photos/
    """
    from tlcache.backbones.groups import ungrouped
    from tlcache.backbones.own_weights import weights_of
    from tlcache.backbones.sources import find
    from tlcache.extraction.extract import extract_layers as run
    from tlcache.report.tables import extractions_table, provider_words

    names = ungrouped(map(str, listing(model)))
    for each in names:  # a slip in the last one shall not wait for the others
        find(each)
    own, done = weights_of(weights, names), []
    if data is _DIGITS:
        say("digits, which is built in, as no --data is given")
    for place, each in product(listing(data), names):
        say(f"reading {place} for {each} ...")
        with _stoppable("run the same command to continue"):
            found = run(place, each, layers, pool, weights=own[each], **options)
        done += found
        for one in found:
            output.say(f"{one.path}: {'up to date' if one.up_to_date else provider_words(one)}")
    output.write({"files": [one.as_json() for one in done]})
    for line in dict.fromkeys(line for one in done for line in one.warnings):
        warn(line)
    output.show(extractions_table(done, output.verbose))


@command(app, parameters(_fit_heads), parameters(_fit_curves))
def fit_heads(
    output: Output,
    shots: MaybeShots = None,
    plot: Annotated[Path | None, Option("With --shots: draw the curves (.png, .svg, .pdf)", PATH, OUTPUT)] = None,
    **options: Any,
) -> None:
    """Fit every head on cached embeddings, choose settings on validation, test once, print a table per dataset.

    What is recorded is read; only what is missing is fitted, unless --force is given. A head that cannot be fitted is
    told and the others go on; the status is 1 then.

    Example: tlcache fit-heads features/photos --heads logreg,ridge,dense
    """
    say("fitting heads ...")
    from tlcache.probing.fit import fit_curves
    from tlcache.probing.fit import fit_heads as run
    from tlcache.report.curves import few_shot_curves
    from tlcache.report.plots import check_format, save_figure
    from tlcache.report.tables import curves_table

    if plot:
        check_format(plot)
    problems = _Problems()
    if shots is None:
        if plot or "samples" in options:
            raise OptionError(f"--{'plot' if plot else 'samples'} is of the curves of --shots; give both.")
        with _stoppable("heads that were finished are recorded"):
            done = run(**options, on_warning=problems)
        output.write({"runs": [one.as_json() for one in done]})
        _show_runs(output, done, options.get("runs"))
        _end(problems)
        return
    if "layers" in options:
        raise OptionError("--shots is of each file by itself; leave --layers out.")
    with _stoppable("curves that were finished are recorded"):
        curves = fit_curves(options.pop("paths", None), shots, **options, on_warning=problems)
    output.write({"curves": [curve.as_json() for curve in curves]})
    output.show(curves_table(curves))
    if plot:
        save_figure(few_shot_curves(curves), plot)
    _end(problems)


@command(app)
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
    say("leaving out classes ...")
    from tlcache.deploying.unknown import unknown as measure
    from tlcache.report.uncertainty import unknown_table

    found = measure(run, against=against, features=features, runs=runs, seed=seed)
    output.write(found.as_json())
    output.show(unknown_table(found))


@command(app, parameters(_finetune))
def finetune(
    output: Output,
    plot: Annotated[Path | None, Option("Draw the learning curves to this .png or .svg", PATH, OUTPUT)] = None,
    **options: Any,
) -> None:
    """Train a backbone and its head on the images themselves, choose the epoch on validation, test once.

    Splits are those of `tlcache extract`; a run that was stopped or killed goes on after its last finished epoch.

    Example: tlcache finetune --model mobilenetv2 --data photos/
    """
    from tlcache.finetuning.finetune import finetune as run
    from tlcache.machine import is_first
    from tlcache.report.plots import check_format, save_figure

    if plot is not None:
        check_format(plot)
    say(f"fine-tuning {options['model']} on {options['data']} ...")
    with _stoppable("run the same command to go on after the last finished epoch"):
        done = run(**options)
    if not is_first():
        return
    from tlcache.report.curves import learning_curves

    output.write({"runs": [done.as_json()]})
    if plot is not None:
        save_figure(learning_curves(done), plot)
    _show_runs(output, [done], options.get("runs"))


def _say_where(output: Output, done: Iterable[Run]) -> None:
    """Say where runs are recorded, and what lies beside the records."""
    by_folder: dict[Path, list[Run]] = {}
    for run in done:
        by_folder.setdefault(run.path.parent, []).append(run)
    for folder, own in by_folder.items():
        if len(own) > 1:
            output.say(f"Recorded in {folder}: {len(own)} runs, with their heads (.safetensors) and predictions.")
            continue
        what = "network, for --weights and tlcache export" if own[0].strategy == "finetune" else "head"
        output.say(f"Recorded as {own[0].path}; beside it the {what}: {own[0].head_path.name}")


@command(app, parameters(_predict))
def predict(
    output: Output,
    run_images: Annotated[
        Sequence[str] | None,
        Option(
            "A run, unless --best is given; then files, folders, archives, tables, patterns, or -",
            _GIVEN,
            DATA,
            "RUN IMAGES",
        ),
    ] = None,
    best: Annotated[bool, Option("Take the best run of --data, which compare has first", SWITCH, DATA)] = False,
    **options: Any,
) -> None:
    """Classify images with a recorded run, at the pace of extract; what is cached of them is used.

    RUN is a record (.json), what lies beside it (.safetensors), the name of both, or an .onnx file of tlcache export.
    Images that cannot be used are told, with the reason; where folders or tables label images, so is the accuracy.

    Example: tlcache predict --best --data photos new/ --out predictions.csv
    """
    from tlcache.deploying.predict import predict as run
    from tlcache.report.predictions import predictions_lines, predictions_table, unusable_line

    given = list(run_images or ())
    if not (best or given):
        raise OptionError("No run is given. Name one before the images, or let --best choose it.")
    streams = str(options.get("out", "")) == "-"
    if streams and str(output.json) == "-":
        raise OptionError("--out - and --json - cannot both be standard output. Give one of them a file.")
    with _stoppable("nothing of it is kept"):
        found = run(None if best else given[0], given if best else given[1:], **options)
    output.write(found.as_json(rows="out" not in options))
    tell = say if streams else output.say
    if not (streams or "out" in options):
        output.show(predictions_table(found))
    for line in predictions_lines(found):
        tell(line)
    if found.errors:
        warn(unusable_line(found))
    if len(found.errors) == len(found):
        raise typer.Exit(1)


@command(app, parameters(_suggest))
def suggest(
    output: Output,
    page: Annotated[Path | None, Option("Write the list as a page with pictures, .html", PATH, OUTPUT)] = None,
    **options: Any,
) -> None:
    """Say which images to label next: what a run is unsure of, of all kinds there are, and nothing nearly twice.

    Without a run, before anything is labelled, it names what is typical. The dataset has been extracted before; labels
    that it has are not looked at.

    Example: tlcache suggest --data pool --run mobilenetv2-svm-1c9be2c3dd5e --out next.csv --page next.html
    """
    from tlcache.report.suggestions import check_page, suggestions_table, write_page
    from tlcache.suggesting.suggest import suggest as run

    if page:
        check_page(page)
    say("choosing images ...")
    found = run(**options)
    output.write(found.as_json())
    if page:
        write_page(found, page)
    output.show(suggestions_table(found))


@command(app)
def compare(
    output: Output,
    data: OnlyDatasets = None,
    by: By = "accuracy",
    positive: Annotated[
        str | None, Option("With --at: the class to be found, all others being the rest", text("CLASS"), CHOOSING)
    ] = None,
    at: Annotated[
        tuple[str, float] | None,
        Option(
            "With --positive: hold specificity=0.9 or sensitivity=0.9, by a threshold from validation",
            RATE,
            CHOOSING,
        ),
    ] = None,
    pairs: Annotated[bool, Option("Show every two runs, too", SWITCH, OUTPUT)] = False,
    runs: Runs = None,
) -> None:
    """Compare all recorded runs on accuracy and on cost, and say in a sentence whether fine-tuning is worth it.

    Example: tlcache compare --data photos
    """
    from tlcache.auditing.leakage import leakage_gaps
    from tlcache.auditing.records import read_audits
    from tlcache.evaluation.compare import compare as run
    from tlcache.evaluation.operating import Wanted, operating_points
    from tlcache.evaluation.verdict import verdict
    from tlcache.report.compared import comparison_tables
    from tlcache.report.rates import rates_table
    from tlcache.runs.folder import runs_folder

    problems, wanted = _Problems(), Wanted.of(positive, at)
    found = run(runs, data, problems, by)
    gaps = leakage_gaps(found)
    verdicts = [{**one.as_json(), "verdict": verdict(one)} for one in found]
    rates = [operating_points(one, wanted) for one in found] if wanted else []
    for one, rate in zip(verdicts, rates, strict=False):
        one["operating_points"] = [each.as_json() for each in rate.points]
    output.write({"datasets": verdicts, "leakage_gaps": [each.as_json() for each in gaps]})
    output.show(comparison_tables(found, read_audits(runs_folder(runs)), gaps, output.verbose, pairs))
    for rate in rates:
        output.show(rates_table(rate))
    _show_leakage(output, gaps)
    _end(problems)


@command(app)
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
    with _stoppable("nothing of this audit is kept"):
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


@command(app)
def report(
    output: Output,
    out: Page = "report.html",
    data: OnlyDatasets = None,
    by: By = "accuracy",
    runs: Runs = None,
) -> None:
    """Write what compare finds as one HTML page: the answer, cost, mistakes, calibration, curves, commands.

    Example: tlcache report --out report.html
    """
    from tlcache.report.page import write_report

    problems = _Problems()
    paths = write_report(out, runs, data, problems, by)
    output.write({"files": [str(path) for path in paths]})
    for path in paths:
        output.say(path)
    _end(problems)


@command(app, _STUDY)
def study(
    output: Output,
    setting: Annotated[
        Mapping[str, Any] | None,
        Option("Another option of tlcache finetune, like lr=1e-3; may be repeated", _SETTING, TRAINING),
    ] = None,
    **options: Any,
) -> None:
    """Do the whole experiment: extract, fit heads and fine-tune on every dataset and backbone, then write the report.

    What is recorded already is not done again, so the same command goes on where it was stopped. A step that fails is
    told and the others go on; the status is 1 then.

    Example: tlcache study --data photos/ --budget 2h
    """
    from rich.text import Text

    from tlcache.evaluation.verdict import verdict
    from tlcache.studying.run import compare_study
    from tlcache.studying.study import study as run
    from tlcache.studying.table import steps_table

    own, more = {name: options[name] for name in _OF_RECIPE if name in options}, dict(setting or {})
    for name in (options.keys() & {*_OF_RECIPE, *_OF_ALL}) & more.keys():
        given = f"--{name.replace('_', '-')} {options[name]}"
        raise OptionError(f"{given} and --setting {name}={more[name]}: give one of them.")
    if not options.get("finetune", True) and (own or more):
        given = " and ".join([*(f"--{name}" for name in own), *(["--setting"] if more else [])])
        raise OptionError(f"--no-finetune leaves out what {given} would change: give one or the other.")
    with _stoppable("run the same command to continue"):
        steps = run(**options, **more)
    output.write({"steps": [step.as_json() for step in steps]})
    output.show(steps_table(steps))
    done, problems = {step.kind: step.state for step in steps}, list[str]()
    if done["report"] == "done":
        comparisons, others = compare_study(
            steps, options.get("runs"), problems.append
        )  # the report has warned of them
        for found in comparisons:
            output.show(Text(f"\n{found.dataset}: {verdict(found)}"))
        _say_where(output, [entry.run for found in comparisons for entry in found.entries])
        page = options.get("out", parameters(_study)["out"].default)
        output.say(f"\n{page}" + (f" (runs in it that are not of this study: {others})" if others else ""))
    if problems or any(step.state == "failed" for step in steps):
        raise typer.Exit(1)


@command(app, name="runs")
def list_recorded(
    output: Output,
    data: OnlyDatasets = None,
    remove: Annotated[
        Sequence[str] | None,
        Option("Remove these runs, by name or shell pattern, with all their files", several(_PATTERN), OUTPUT),
    ] = None,
    yes: Yes = False,
    runs: Runs = None,
) -> None:
    """List the recorded runs by the names of their files, or remove some of them.

    Example: tlcache runs --remove "mobilenetv2-linear-*"
    """
    from tlcache.report.tables import recorded_table
    from tlcache.runs.folder import list_runs, remove_runs, runs_folder
    from tlcache.runs.naming import named_runs

    problems = _Problems()
    found: list[Run] = []
    with contextlib.suppress(CacheError):  # there are none
        found = list_runs(runs, data, problems)
    chosen = named_runs(found, remove) if remove else found
    output.write({"runs": [one.as_json() for one in chosen]})
    if not found:
        output.say(f"No runs are recorded in '{runs_folder(runs)}' yet. Begin with: tlcache fit-heads")
    else:
        output.show(recorded_table(chosen, runs_folder(runs)))
    if remove:
        done = yes or output.confirm("Remove these, with their predictions and heads?")
        output.say(f"Removed {len(remove_runs(chosen) if done else ())} files.")
    _end(problems)


@command(app, name="ls")
def list_files(output: Output, features: Features = None) -> None:
    """List what is cached: dataset, backbone, rows, size, age, and whether it is complete.

    Example: tlcache ls
    """
    from tlcache.cache.find import features_folder
    from tlcache.inventory import list_cache
    from tlcache.report.tables import cache_table

    entries = list_cache(features)
    output.write({"files": [entry.as_json() for entry in entries]})
    output.show(cache_table(entries, features_folder(features)))


@command(app)
def verify(output: Output, paths: Paths = None, repair: Repair = False, features: Features = None) -> None:
    """Read feature files whole and compare every row with its checksum; the status is 1 when something is damaged.

    Example: tlcache verify --repair
    """
    from tlcache.inventory import verify as run
    from tlcache.report.tables import checks_lines

    with _stoppable("run the same command to continue"):
        checks = run(paths, features, repair=repair)
    output.write({"files": [check.as_json() for check in checks]})
    for line in dict.fromkeys(line for check in checks for line in check.warnings):
        warn(line)
    for line in checks_lines(checks):
        output.say(line)
    if not all(check.sound for check in checks):
        raise typer.Exit(1)


@command(app)
def prune(
    output: Output,
    yes: Yes = False,
    features: Features = None,
) -> None:
    """Remove unfinished and unusable files, then what is only kept to be faster: pixels, activations, and the like.

    Each is listed and asked for on its own.

    Example: tlcache prune --yes
    """
    from tlcache.inventory import empty_stores, find_leftovers, find_stores, remove_leftovers
    from tlcache.report.tables import leftovers_table

    found, stores = find_leftovers(features), find_stores(features)
    both = {"leftovers": found, "stores": stores}
    output.write({name: [each.as_json() for each in some] for name, some in both.items()})
    if not found and not stores:
        output.say("Nothing to remove.")
    steps = (
        (found, "Remove these?", remove_leftovers),
        (stores, "Empty these, which are made again when needed?", empty_stores),
    )
    for some, question, act in steps:
        if not some:
            continue
        output.show(leftovers_table(some))
        if yes or output.confirm(question):
            act(some)
            output.say(f"Removed {len(some)}.")
        else:
            output.say("Nothing was removed.")


@command(app, parameters(_export))
def export(output: Output, /, **options: Any) -> None:
    """Write a run as one ONNX file that classifies images, or with --model a network alone that embeds them.

    The file takes uint8 images; a run's gives calibrated probabilities, the label and the embedding. What it answers is
    compared with what the run answers before it is written.

    Example: tlcache export runs/photos/mobilenetv2-logreg-2543acb3fa32.json --out photos.onnx
    """
    from tlcache.deploying.export import export as run

    written = run(**options)
    output.write(written.as_json())
    for line in written.lines():
        output.say(line)


@command(app, parameters(_dump))
def dump(output: Output, /, **options: Any) -> None:
    """Write the embeddings of a feature file, and all that is known of its rows, for other programs.

    Example: tlcache dump features/photos/mobilenetv2-ce7c131cda64.h5 --to photos.parquet
    """
    from tlcache.exchange.dump import dump as run

    written = run(**options)
    output.write({"file": str(written)})
    output.say(written)


@command(app, parameters(_adopt))
def adopt(output: Output, /, **options: Any) -> None:
    """Turn embeddings that were made elsewhere into a feature file: fit-heads, audit, suggest, compare work on it.

    What needs the images or the network, such as fine-tuning or predictions for new images, does not.

    Example: tlcache adopt embeddings.parquet --name uni --data slides.csv
    """
    from tlcache.exchange.adopt import adopt as run

    found = run(**options)
    output.write(found.as_json())
    for line in found.warnings:
        warn(line)
    output.say(f"{found.path}: {found.rows:,} embeddings of {found.dim:,} features, marked as given")


@command(app)
def demo(output: Output, features: Features = None, runs: Runs = None) -> None:
    """Do the whole job on scikit-learn's digits: extract, fit all heads, fine-tune, one table.

    Takes the MobileNetV3s whose ImageNet weights are here, otherwise the small network that is part of tlcache.

    Example: tlcache demo
    """
    from tlcache.demo import next_step, run_demo

    with _stoppable("run the same command to continue"):
        found = run_demo(features, runs, output.show)
    output.write({"datasets": [one.as_json() for one in found]})
    output.say(next_step(found[0]))


@command(app)
def doctor(output: Output, features: Features = None, runs: Runs = None) -> None:
    """Say what tlcache finds here: versions, processor, engines, GPU, folders, locks; and try it on a few made images.

    The status is 1 where there is a problem. The output belongs into a report of a fault.

    Example: tlcache doctor
    """
    from tlcache.doctor import findings_table, run_doctor

    found = run_doctor(features, runs)
    output.write({"findings": [each.as_json() for each in found]})
    output.show(findings_table(found))
    if any(each.state == "problem" for each in found):
        raise typer.Exit(1)
