"""The experiment: embeddings, heads on them, fine-tuning, and all of it in one study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlcache.arguments import (
    OUTPUT,
    TRAINING,
    BackboneWeights,
    Datasets,
    Features,
    Layers,
    MaybeColumns,
    MaybeShots,
    Models,
    Pools,
)
from tlcache.commands.base import Problems, app, fail_after, stoppable
from tlcache.commands.shown import say_where, show_runs
from tlcache.errors import OptionError
from tlcache.extraction.extract import extract as _extract
from tlcache.finetuning.finetune import finetune as _finetune
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.typed import read_settings
from tlcache.flags import Output, command
from tlcache.kinds import PATH, Kind, choice, listing
from tlcache.options import Option, parameters
from tlcache.probing.fit import fit_columns as _fit_columns
from tlcache.probing.fit import fit_curves as _fit_curves
from tlcache.probing.fit import fit_heads as _fit_heads
from tlcache.progress import say, warn
from tlcache.studying.study import study as _study
from tlcache.tracking.track import TRACKERS

if TYPE_CHECKING:
    from tlcache.extraction.job import Extraction

__all__ = ["extract", "finetune", "fit_heads", "merge", "study"]

PANEL = "The experiment"
_DIGITS = ("digits",)
_EXTRACT = {name: each for name, each in parameters(_extract).items() if name != "output"}  # there are several layers
_OF_RECIPE = ("epochs", "unfreeze")
_OF_ALL = ("coverage", "per_class")  # of heads and fine-tunings
_SETTING = Kind("NAME=VALUE like lr=1e-3", "NAME=X", "dict", str, bool, gather=read_settings)
_STUDY = {
    name: each
    for name, each in parameters(_study).items()
    if name in (*_OF_RECIPE, *_OF_ALL) or name not in parameters(Recipe)
}


@command(app, _EXTRACT, panel=PANEL)
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

    What is there already is reused; a run that was stopped goes on where it was.

    Example: tlcache extract --model mobilenetv3_large,resnet50 --data photos/
    """
    from tlcache.backbones.groups import ungrouped
    from tlcache.backbones.own_weights import weights_of
    from tlcache.backbones.sources import find
    from tlcache.extraction.extract import extract_layers as run

    names = ungrouped(map(str, listing(model)))
    for each in names:  # a slip in the last one shall not wait for the others
        find(each)
    weights_of(weights, names)
    done = []
    if data is _DIGITS:
        say("digits, which is built in, as no --data is given")
    for place in listing(data):
        say(f"reading {place} for {', '.join(names)} ...")
        with stoppable("run the same command to continue"):
            found = run(place, names, layers, pool, weights=weights, **options)
        done += found
        _say_files(output, found)
    _show_files(output, done, done)


@command(app, panel=PANEL)
def merge(output: Output, features: Features = None) -> None:
    """Publish what jobs of extract --shard have finished, without reading an image; 1: shards are missing.

    The last of the jobs does it by itself. This is for where it was stopped before that.

    Example: tlcache merge --features /shared/features
    """
    from tlcache.extraction.merge import merge as run
    from tlcache.report.tables import missing_words

    if not (done := run(features)):
        output.write({"files": []})
        output.say("Nothing is in shards: what was is published. See: tlcache ls")
        return
    _say_files(output, done)
    _show_files(output, done, [one for one in done if not one.shards])
    if unfinished := [one for one in done if one.shards]:
        for one in unfinished:
            output.say(f"{one.path}: {missing_words(one)}")
        raise typer.Exit(1)


def _say_files(output: Output, done: Iterable[Extraction]) -> None:
    from tlcache.report.tables import provider_words

    for one in done:
        output.say(f"{one.path}: {provider_words(one)}")


def _show_files(output: Output, done: Sequence[Extraction], shown: Sequence[Extraction]) -> None:
    """Write what was done, say what a user should know of it, and show a table of some."""
    from tlcache.report.tables import extractions_table

    output.write({"files": [one.as_json() for one in done]})
    for line in dict.fromkeys(line for one in done for line in one.warnings):
        warn(line)
    if shown:
        output.show(extractions_table(shown, output.verbose))


@command(app, parameters(_fit_heads), parameters(_fit_curves), parameters(_fit_columns), panel=PANEL)
def fit_heads(
    output: Output,
    shots: MaybeShots = None,
    columns: MaybeColumns = None,
    plot: Annotated[Path | None, Option("With --shots: draw the curves (.png, .svg, .pdf)", PATH, OUTPUT)] = None,
    **options: Any,
) -> None:
    """Fit every head on cached embeddings, choose settings on validation, test once, print a table per dataset.

    What is recorded is read; only what is missing is fitted, unless --force is given. A head that cannot be fitted is
    told and the others go on; the status is 1 then.

    Example: tlcache fit-heads features/photos --heads logreg,ridge,dense
    """
    say("fitting heads ...")
    from tlcache.probing.fit import fit_columns, fit_curves
    from tlcache.probing.fit import fit_heads as run
    from tlcache.report.columns import columns_tables
    from tlcache.report.curves import few_shot_curves
    from tlcache.report.plots import check_format, save_figure
    from tlcache.report.tables import curves_table

    if plot:
        check_format(plot)
    problems = Problems()
    if columns is not None:
        given = {"shots": shots, "plot": plot, **options}
        if odd := [each for each in ("shots", "plot", "samples", "layers", "cv") if given.get(each) is not None]:
            raise OptionError(f"--columns compares heads on one split of each file; leave --{odd[0]} out.")
        with stoppable("heads that were finished are recorded"):
            beside = fit_columns(options.pop("paths", None), columns, **options, on_warning=problems)
        output.write({"columns": [each.as_json() for each in beside]})
        output.show(columns_tables(beside))
        fail_after(problems)
        return
    if shots is None:
        if plot or "samples" in options:
            raise OptionError(f"--{'plot' if plot else 'samples'} is of the curves of --shots; give both.")
        with stoppable("heads that were finished are recorded"):
            done = run(**options, on_warning=problems)
        output.write({"runs": [one.as_json() for one in done]})
        show_runs(output, done, options.get("runs"))
        fail_after(problems)
        return
    if "layers" in options:
        raise OptionError("--shots is of each file by itself; leave --layers out.")
    with stoppable("curves that were finished are recorded"):
        curves = fit_curves(options.pop("paths", None), shots, **options, on_warning=problems)
    output.write({"curves": [curve.as_json() for curve in curves]})
    output.show(curves_table(curves))
    if plot:
        save_figure(few_shot_curves(curves), plot)
    fail_after(problems)


@command(app, parameters(_finetune), panel=PANEL)
def finetune(
    output: Output,
    plot: Annotated[Path | None, Option("Draw the learning curves to this .png or .svg", PATH, OUTPUT)] = None,
    track: Annotated[str | None, Option("Tell this tracker of every epoch", choice(list(TRACKERS)), OUTPUT)] = None,
    **options: Any,
) -> None:
    """Train a backbone and its head on the images themselves, choose the epoch on validation, test once.

    Where no setting that decides the training is given, several recipes are tried and the best is trained, in a time
    that is told before. Splits are those of `tlcache extract`; a run that was stopped goes on after its last epoch.

    Example: tlcache finetune --model mobilenetv2 --data photos/
    """
    from tlcache.finetuning.finetune import finetune as run
    from tlcache.machine import is_first
    from tlcache.report.plots import check_format, save_figure
    from tlcache.tracking.live import LiveRun

    if plot is not None:
        if "cv" in options:
            raise OptionError("--plot draws the curves of one training, --cv has several; leave one of them out.")
        check_format(plot)
    live = LiveRun(track) if track else None
    say(f"fine-tuning {options['model']} on {options['data']} ...")
    with stoppable("run the same command to go on after the last finished epoch"):
        done = run(**options, on_epoch=live.on_epoch if live else None)
    if not is_first():
        return
    if live:
        live.done(done)
    from tlcache.report.curves import learning_curves

    output.write({"runs": [done.as_json()]})
    if plot is not None:
        save_figure(learning_curves(done), plot)
    show_runs(output, [done], options.get("runs"))


@command(app, _STUDY, panel=PANEL)
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
    from tlcache.studying.seeds import spreads
    from tlcache.studying.study import study as run
    from tlcache.studying.table import steps_table

    own, more = {name: options[name] for name in _OF_RECIPE if name in options}, dict(setting or {})
    for name in (options.keys() & {*_OF_RECIPE, *_OF_ALL}) & more.keys():
        given = f"--{name.replace('_', '-')} {options[name]}"
        raise OptionError(f"{given} and --setting {name}={more[name]}: give one of them.")
    if not options.get("finetune", True) and (own or more):
        given = " and ".join([*(f"--{name}" for name in own), *(["--setting"] if more else [])])
        raise OptionError(f"--no-finetune leaves out what {given} would change: give one or the other.")
    with stoppable("run the same command to continue"):
        steps = run(**options, **more)
    spread = spreads(steps, options.get("runs"))
    more_said = {"seeds": [each.as_json() for each in spread]} if spread else {}
    output.write({"steps": [step.as_json() for step in steps], **more_said})
    output.show(steps_table(steps))
    done, problems = {step.kind: step.state for step in steps}, list[str]()
    if done["report"] == "done":
        comparisons, others = compare_study(
            steps, options.get("runs"), problems.append
        )  # the report has warned of them
        for found in comparisons:
            output.show(Text(f"\n{found.dataset}: {verdict(found)}"))
        for each in spread:
            output.show(Text(f"\n{each.dataset}: {each}"))
        say_where(output, [entry.run for found in comparisons for entry in found.entries])
        page = options.get("out", parameters(_study)["out"].default)
        output.say(f"\n{page}" + (f" (runs in it that are not of this study: {others})" if others else ""))
    if problems or any(step.state == "failed" for step in steps):
        raise typer.Exit(1)
