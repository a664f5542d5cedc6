"""The command line: each command parses, calls the library, and prints."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
import typer.core

from tlcache.errors import OptionError, TlcacheError
from tlcache.progress import show_progress, warn
from tlcache.version import __version__

if TYPE_CHECKING:
    from tlcache.auditing.leakage import LeakageGap
    from tlcache.runs.record import Run

__all__ = ["app", "main"]


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
        except OSError as error:  # a file that cannot be read or written: the message names it
            _stop(f"error: {error.strerror or error}: {error.filename or 'no file named'}", 1)


app = typer.Typer(
    name="tlcache",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Models = Annotated[
    list[str], typer.Option("--model", "-m", help="Backbone, or an .onnx file; may be repeated. See: tlcache models")
]
Data = Annotated[
    str, typer.Option("--data", "-d", help="Dataset: a built-in name, a folder, a manifest. See: tlcache datasets")
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        "-w",
        help="imagenet, imagenet_v2, embedded, random, or a state dict FILE",
        show_default="the first it has",
    ),
]
Features = Annotated[Path | None, typer.Option("--features", help="Folder of feature files", show_default="features")]
Runs = Annotated[Path | None, typer.Option("--runs", help="Folder of run records", show_default="runs")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the same figures to this file")]
Pool = Annotated[
    str | None,
    typer.Option("--pool", help="avg, max, flatten; cls for transformers; quarters", show_default="the backbone's own"),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda")]
Seed = Annotated[int, typer.Option("--seed", help="Of everything random in training: order, folds, fresh heads")]
SplitSeed = Annotated[int, typer.Option("--split-seed", help="Of splits that are drawn; the same in every command")]
Budget = Annotated[str | None, typer.Option("--budget", help="Time, like 90s, 30m or 2h; a number alone: seconds")]
Force = Annotated[bool, typer.Option("--force", help="Do it even if this very run is recorded")]
ClassWeight = Annotated[str | None, typer.Option("--class-weight", help="balanced: every class counts the same")]
SplitOption = Annotated[
    str, typer.Option("--split", help="given, or group: drawn anew so that no group of tlcache audit is torn apart")
]
Triple = Annotated[str | None, typer.Option(help="Three numbers: only for an .onnx file that does not say")]


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGTERM, _interrupt)
    app()


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
    from rich.console import Console

    Console(stderr=True, soft_wrap=True).print(message, style="bold red", markup=False, highlight=False)
    sys.exit(status)


def _show(item: Any) -> None:
    from rich.console import Console

    Console().print(item)


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        warn(line)


class _Problems(list[str]):
    """Warnings of work that goes on: printed when they are told, and kept for the status at the end."""

    def __call__(self, line: str) -> None:
        warn(line)
        self.append(line)


def _show_runs(done: Sequence[Run], runs: Path | None) -> None:
    """Print what these runs reached, and the leakage gap where they are of the group split."""
    from tlcache.auditing.leakage import leakage_gaps_of
    from tlcache.evaluation.compare import compare_runs
    from tlcache.evaluation.verdict import no_gain
    from tlcache.report.tables import runs_tables

    _show(runs_tables(compare_runs(done)))
    _warn(filter(None, map(no_gain, done)))
    _show_leakage(leakage_gaps_of(done, runs))


def _show_leakage(found: Sequence[LeakageGap]) -> None:
    """Print the leakage gap of the heads that were tested under both splits."""
    from tlcache.report.audits import leakage_table

    if found:
        _show("")
        _show(leakage_table(found))


def _write_json(path: Path | None, figures: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=1) + "\n")


def _numbers(text: str | None, option: str) -> tuple[float, float, float] | None:
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        first, second, third = (float(part) for part in text.split(","))
        return first, second, third
    raise OptionError(f"{option} takes three numbers like 0.485,0.456,0.406; found '{text}'")


def _budget(text: str | None) -> float | None:
    """Return seconds."""
    units = {"s": 1, "m": 60, "h": 3600}
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        seconds = float(text[:-1]) * units[text[-1]] if text[-1:] in units else float(text)
        if 0 < seconds < float("inf"):
            return seconds
    raise OptionError(f"--budget takes a time above 0 like 90s, 30m or 2h (a number alone: seconds); found '{text}'.")


def _weights(given: list[str]) -> str | dict[str, str] | None:
    """Return weights for all backbones, or each backbone's own."""
    own = dict(each.split("=", 1) for each in given if "=" in each)
    common = [each for each in given if "=" not in each]
    if len(common) + bool(own) > 1:
        raise OptionError("--weights are given once for all backbones, or as BACKBONE=FILE for each of some")
    return own or next(iter(common), None)


def _names(text: str | None) -> list[str] | None:
    """Return the names that commas part; None where nothing is given."""
    return None if text is None else [name for part in text.split(",") if (name := part.strip())]


def _shots(text: str) -> list[int | None]:
    with contextlib.suppress(ValueError):
        return [None if part.strip() == "all" else int(part) for part in text.split(",")]
    raise OptionError(f"--shots takes numbers of images per class and 'all', like 1,2,4,all; found '{text}'")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version")] = False) -> None:
    """Find out which pretrained backbone and which head suit a dataset, and whether fine-tuning is worth it.

    Embed every image once, keep the embeddings, compare heads on them in seconds.
    """
    if version:
        typer.echo(f"tlcache {__version__}")
        raise typer.Exit
    show_progress()


@app.command()
def models(
    pattern: Annotated[str | None, typer.Argument(help="Shell pattern of names", show_default="all")] = None,
) -> None:
    """List the backbones: embedding size, parameters, input, accuracy, weights at hand.

    Example: tlcache models "resnet*"
    """
    from tlcache.backbones.sources import list_models
    from tlcache.report.tables import models_table

    _show(models_table(list_models(pattern)))


@app.command()
def heads() -> None:
    """List the heads and the settings that each chooses from.

    Example: tlcache heads
    """
    from tlcache.heads.table import list_heads
    from tlcache.report.tables import heads_table

    _show(heads_table(list_heads()))


@app.command()
def datasets() -> None:
    """Explain the forms of --data, with an example each.

    Example: tlcache datasets
    """
    from tlcache.datasets.dataset import list_datasets
    from tlcache.report.tables import datasets_table

    _show(datasets_table(list_datasets()))


@app.command()
def extract(
    model: Models,
    data: Data = "digits",
    weights: WeightsOption = None,
    pool: Pool = None,
    crop_borders: Annotated[bool, typer.Option("--crop-borders", help="Cut dark borders of scans away first")] = False,
    output: Annotated[str | None, typer.Option(help="Tensor of an .onnx file that is the embedding")] = None,
    resize: Annotated[int | None, typer.Option(help="Short side in pixels", show_default="the backbone's own")] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the centre crop in pixels", show_default="its own")] = None,
    mean: Triple = None,
    std: Triple = None,
    device: Device = "auto",
    engine: Annotated[str, typer.Option(help="What runs the network: onnxruntime or openvino")] = "onnxruntime",
    precision: Annotated[
        str, typer.Option(help="Of the network: fp32; fp16 (onnxruntime on a GPU); bf16 (openvino)")
    ] = "fp32",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per call of the network", show_default="by device and size")
    ] = None,
    max_bad: Annotated[float, typer.Option(min=0, max=1, help="Largest share of unusable images to go on with")] = 0.05,
    name: Annotated[str | None, typer.Option(help="Name of the dataset in files and tables")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait when another process extracts the same")] = True,
    split_seed: SplitSeed = 0,
    features: Features = None,
    json_file: Json = None,
) -> None:
    """Embed every image of a dataset once and keep the embeddings in an HDF5 file.

    What is there already is not computed again; a run that was stopped continues where it was.

    Example: tlcache extract --model mobilenetv3_large --model resnet50 --data photos/
    """
    from tlcache.backbones.sources import find
    from tlcache.extraction.extract import extract as run
    from tlcache.report.tables import extractions_table

    for each in model:  # a slip in the last one shall not wait for the others
        find(each)
    done = []
    for each in model:
        with _stoppable("run the same command to continue"):
            result = run(
                data,
                each,
                weights,
                pool=pool,
                output=output,
                crop_borders=crop_borders,
                resize=resize,
                crop=crop,
                mean=_numbers(mean, "--mean"),
                std=_numbers(std, "--std"),
                device=device,
                engine=engine,
                precision=precision,
                features=features,
                name=name,
                split_seed=split_seed,
                batch_size=batch_size,
                max_bad=max_bad,
                wait=wait,
            )
        done.append(result)
        _write_json(json_file, {"files": [one.as_json() for one in done]})
        typer.echo(f"{result.path}: {'up to date' if result.up_to_date else f'written, {result.provider}'}")
    _warn(dict.fromkeys(line for one in done for line in one.warnings))
    _show(extractions_table(done))


@app.command()
def fit_heads(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Feature files or folders", show_default="all under features/")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help="Of this dataset alone", show_default="all")] = None,
    heads: Annotated[str | None, typer.Option(help="Comma-separated. See: tlcache heads", show_default="all")] = None,
    search: Annotated[str, typer.Option(help="How many settings to try: quick or full")] = "quick",
    folds: Annotated[
        int, typer.Option(help="Choose by cross-validation over train and val; 0: on the validation split")
    ] = 0,
    metric: Annotated[str, typer.Option(help="Choose by accuracy, macro_f1 or log_loss")] = "accuracy",
    one_se: Annotated[
        bool, typer.Option("--one-se", help="Choose the simplest setting within one standard error of the best")
    ] = False,
    class_weight: ClassWeight = None,
    repeats: Annotated[
        int | None, typer.Option(help="Seeds for the last fit [1], or samples for every number of --shots [5]")
    ] = None,
    budget: Budget = None,
    shots: Annotated[
        str | None, typer.Option(help="Labelled images per class, like 1,2,4,8,all: how much data is enough?")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="With --shots: draw the curves (.png, .svg, .pdf)")] = None,
    split: SplitOption = "given",
    seed: Seed = 0,
    split_seed: SplitSeed = 0,
    force: Force = False,
    features: Features = None,
    runs: Runs = None,
    json_file: Json = None,
) -> None:
    """Fit every head on cached embeddings, choose settings on validation, test once, print a table per dataset.

    Example: tlcache fit-heads features/photos --heads logreg,ridge,dense
    """
    from dataclasses import asdict

    from tlcache.probing.protocol import SearchProtocol
    from tlcache.probing.run import fit_heads as run
    from tlcache.report.tables import curves_table

    times = repeats if repeats is not None else 5 if shots else 1
    where: dict[str, Any] = {"data": data, "features": features, "runs": runs, "split": split, "split_seed": split_seed}
    protocol = asdict(SearchProtocol(search, folds, metric, one_se, class_weight, times, seed, _budget(budget)))
    if shots is not None:
        from tlcache.probing.shots import fit_curves
        from tlcache.report.curves import few_shot_curves
        from tlcache.report.plots import check_format, save_figure

        if plot:
            check_format(plot)
        with _stoppable("nothing of this curve is kept"):
            curves = fit_curves(paths, _shots(shots), _names(heads), **where, **protocol)
        _write_json(json_file, {"curves": [curve.as_json() for curve in curves]})
        _show(curves_table(curves))
        if plot:
            save_figure(few_shot_curves(curves), plot)
        return
    if plot:
        raise OptionError("--plot draws the curves of --shots; give both")
    with _stoppable("heads that were finished are recorded"):
        done = run(paths, _names(heads), force=force, **where, **protocol)
    _write_json(json_file, {"runs": [one.as_json() for one in done]})
    _show_runs(done, runs)


@app.command()
def finetune(
    model: Annotated[str, typer.Option("--model", "-m", help="Backbone. See: tlcache models")],
    data: Data = "digits",
    weights: WeightsOption = None,
    head: Annotated[str, typer.Option(help="linear or dense")] = "linear",
    init_head: Annotated[
        str, typer.Option(help="cached: begin with a head fitted on the cached features; scratch: train one first")
    ] = "cached",
    head_epochs: Annotated[int, typer.Option(help="Epochs of a head from scratch, the backbone frozen")] = 10,
    head_lr: Annotated[float, typer.Option(help="Learning rate of that")] = 1e-3,
    epochs: Annotated[int, typer.Option(help="Epochs that train the backbone")] = 15,
    lr: Annotated[float | None, typer.Option(help="Learning rate of that", show_default="by optimizer")] = None,
    unfreeze: Annotated[str, typer.Option(help="all, last:N (layers), or stage:K (from stage K of 4 or 5 on)")] = "all",
    optimizer: Annotated[str, typer.Option(help="sgd, rmsprop, adam, nadam or adamw")] = "adamw",
    weight_decay: Annotated[float, typer.Option(help="Of matrices and kernels")] = 0.01,
    batch_size: Annotated[int, typer.Option(help="Images per step")] = 32,
    schedule: Annotated[str, typer.Option(help="constant, cosine or step")] = "cosine",
    warmup_epochs: Annotated[float, typer.Option(help="Epochs in which the learning rate rises")] = 1.0,
    layer_decay: Annotated[float, typer.Option(help="Factor of the learning rate per stage away from the head")] = 1.0,
    augment: Annotated[str, typer.Option(help="none, light, study or strong")] = "light",
    loss: Annotated[str, typer.Option(help="ce or bce")] = "ce",
    label_smoothing: Annotated[float, typer.Option(help="Share of a label spread over all classes")] = 0.0,
    class_weight: ClassWeight = None,
    batch_norm: Annotated[str, typer.Option(help="Statistics of trained BatchNorms: train, or eval (kept)")] = "train",
    ema: Annotated[float, typer.Option(help="Decay of a moving average of the weights; 0: none")] = 0.0,
    patience: Annotated[int, typer.Option(help="Epochs without a better validation score to stop after")] = 5,
    cached_prefix: Annotated[
        bool, typer.Option("--cached-prefix", help="Compute the frozen layers once, train on their activations")
    ] = False,
    views: Annotated[int, typer.Option(help="Augmented views per image that --cached-prefix keeps")] = 1,
    sweep: Annotated[
        list[str] | None, typer.Option(help="Values to choose from on validation, like lr=1e-3,1e-2; may be repeated")
    ] = None,
    budget: Budget = None,
    refit: Annotated[bool, typer.Option("--refit", help="Then train again on train + val, as fit-heads does")] = False,
    precision: Annotated[str, typer.Option(help="fp32, bf16, or auto: what is faster here")] = "auto",
    layout: Annotated[str, typer.Option(help="contiguous, channels_last, or auto: what is faster here")] = "auto",
    crop_borders: Annotated[bool, typer.Option("--crop-borders", help="Cut dark borders of scans away first")] = False,
    resize: Annotated[int | None, typer.Option(help="Short side in pixels", show_default="the backbone's own")] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the crop in pixels", show_default="its own")] = None,
    device: Device = "auto",
    name: Annotated[str | None, typer.Option(help="Name of the dataset in files and tables")] = None,
    seed: Seed = 0,
    split: SplitOption = "given",
    split_seed: SplitSeed = 0,
    force: Force = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the learning curves to this .png or .svg")] = None,
    features: Features = None,
    runs: Runs = None,
    json_file: Json = None,
) -> None:
    """Train a backbone and its head on the images themselves, choose the epoch on validation, test once.

    Splits are those of `tlcache extract`; a run that was stopped or killed goes on after its last finished epoch.

    Example: tlcache finetune --model mobilenetv2 --data photos/
    """
    settings = {**locals()}  # every option but these is the library's, under the same name
    del settings["json_file"], settings["plot"], settings["budget"]
    from tlcache.finetuning.recipe import read_sweep
    from tlcache.finetuning.run import finetune as run
    from tlcache.machine import is_first
    from tlcache.report.curves import learning_curves
    from tlcache.report.plots import check_format, save_figure

    settings |= {"sweep": read_sweep(sweep or []), "budget_s": _budget(budget)}
    if plot is not None:
        check_format(plot)
    with _stoppable("run the same command to go on after the last finished epoch"):
        done = run(**settings)
    if not is_first():
        return
    _write_json(json_file, {"runs": [done.as_json()]})
    if plot is not None:
        save_figure(learning_curves(done), plot)
    _show_runs([done], runs)


@app.command()
def compare(
    data: Annotated[str | None, typer.Option("--data", "-d", help="Of this dataset alone", show_default="all")] = None,
    runs: Runs = None,
    json_file: Json = None,
) -> None:
    """Compare all recorded runs on accuracy and on cost, and say in a sentence whether fine-tuning is worth it.

    Example: tlcache compare --data photos
    """
    from tlcache.auditing.leakage import leakage_gaps
    from tlcache.auditing.records import read_audits
    from tlcache.evaluation.compare import compare as run
    from tlcache.evaluation.verdict import verdict
    from tlcache.report.compared import comparison_tables
    from tlcache.runs.folder import runs_folder

    problems = _Problems()
    found = run(runs, data, problems)
    gaps = leakage_gaps(found)
    verdicts = [{**one.as_json(), "verdict": verdict(one)} for one in found]
    figures = {"datasets": verdicts, "leakage_gaps": [each.as_json() for each in gaps]}
    _write_json(json_file, figures)
    _show(comparison_tables(found, read_audits(runs_folder(runs))))
    _show_leakage(gaps)
    if problems:
        raise typer.Exit(1)


@app.command()
def audit(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Feature files or folders", show_default="all under features/")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help="Of this dataset alone", show_default="all")] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Backbone to compare images by", show_default="which tells copies best"),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(help="near-duplicates, regex or column", show_default="the manifest's column, else the first"),
    ] = None,
    group_regex: Annotated[
        str | None, typer.Option(help="Group by what the first bracket finds in a path, as in '/(p[0-9]+)_'")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Status 1 when the test split leaks")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the most telling pairs of one dataset (.png, .pdf)")] = None,
    features: Features = None,
    runs: Runs = None,
    json_file: Json = None,
) -> None:
    """Find duplicates, leaks between splits and label issues in cached embeddings, and group what belongs together.

    Example: tlcache audit --data photos --strict
    """
    from tlcache.auditing.run import audit as run
    from tlcache.report.audits import audits_tables, plot_pairs
    from tlcache.report.plots import check_format

    if plot:
        check_format(plot)
    with _stoppable("nothing of this audit is kept"):
        found = run(
            paths, data=data, model=model, group_by=group_by, group_regex=group_regex, features=features, runs=runs
        )
    if plot and len(found) > 1:
        raise OptionError("--plot draws the pairs of one dataset; choose it with --data")
    _write_json(json_file, {"datasets": [one.as_json() for one in found]})
    _show(audits_tables(found))
    if plot:
        plot_pairs(found[0], plot)
    if strict and any(one.leaks for one in found):
        raise typer.Exit(1)


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="The page; .md and .csv are written beside it")] = Path("report.html"),
    data: Annotated[str | None, typer.Option("--data", "-d", help="Of this dataset alone", show_default="all")] = None,
    runs: Runs = None,
) -> None:
    """Write what compare finds as one HTML page: the answer, cost, mistakes, calibration, curves, commands.

    Example: tlcache report --out report.html
    """
    from tlcache.report.page import write_report

    problems = _Problems()
    for path in write_report(out, runs, data, problems):
        typer.echo(path)
    if problems:
        raise typer.Exit(1)


@app.command()
def study(
    data: Annotated[list[str], typer.Option("--data", "-d", help="Dataset; may be repeated. See: tlcache datasets")],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Backbone; may be repeated", show_default="six, MobileNetV3 to ResNet-152"),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option("--weights", "-w", help="For all, or BACKBONE=FILE; may be repeated", show_default="imagenet"),
    ] = None,
    heads: Annotated[str | None, typer.Option(help="Comma-separated. See: tlcache heads", show_default="all")] = None,
    finetune: Annotated[
        bool,
        typer.Option("--finetune/--no-finetune", help="Train every backbone itself, too: most time goes there"),
    ] = True,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each fine-tuning", show_default="15")] = None,
    unfreeze: Annotated[
        str | None, typer.Option(help="What fine-tuning trains: all, last:N (layers), or stage:K", show_default="all")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(help="Another option of tlcache finetune, like lr=1e-3 or batch-norm=eval; may be repeated"),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only print what would be done, and about how long it takes on this machine")
    ] = False,
    budget: Budget = None,
    out: Annotated[Path, typer.Option(help="The report; .md and .csv are written beside it")] = Path("report.html"),
    device: Device = "auto",
    features: Features = None,
    runs: Runs = None,
    json_file: Json = None,
) -> None:
    """Do the whole experiment: extract, fit heads and fine-tune on every dataset and backbone, then write the report.

    What is recorded already is not done again, so the same command goes on where it was stopped. A step that fails is
    told and the others go on; the status is 1 then.

    Example: tlcache study --data photos/ --budget 2h
    """
    from rich.text import Text

    from tlcache.evaluation.verdict import verdict
    from tlcache.finetuning.recipe import read_settings
    from tlcache.studying.run import MODELS, compare_study
    from tlcache.studying.run import study as run
    from tlcache.studying.table import steps_table

    own = {name: value for name, value in {"epochs": epochs, "unfreeze": unfreeze}.items() if value is not None}
    more = read_settings(setting or [])
    for name in own.keys() & more.keys():
        raise OptionError(f"--{name} {own[name]} and --setting {name}={more[name]}: give one of them")
    if not finetune and (own or more):
        given = " and ".join([*(f"--{name}" for name in own), *(["--setting"] if more else [])])
        raise OptionError(f"--no-finetune leaves out what {given} would change: give one or the other")
    with _stoppable("run the same command to continue"):
        steps = run(
            data,
            model or MODELS,
            _weights(weights or []),
            heads=_names(heads),
            finetune=finetune,
            plan=plan,
            budget_s=_budget(budget),
            out=out,
            features=features,
            runs=runs,
            device=device,
            **own,
            **more,
        )
    _write_json(json_file, {"steps": [step.as_json() for step in steps]})
    _show(steps_table(steps))
    done, problems = {step.kind: step.state for step in steps}, list[str]()
    if done["report"] == "done":
        comparisons, others = compare_study(steps, runs, problems.append)  # the report has warned of them
        for found in comparisons:
            _show(Text(f"\n{found.dataset}: {verdict(found)}"))
        typer.echo(f"\n{out}" + (f" (runs in it that are not of this study: {others})" if others else ""))
    if problems or any(step.state == "failed" for step in steps):
        raise typer.Exit(1)


@app.command("ls")
def list_files(features: Features = None, json_file: Json = None) -> None:
    """List what is cached: dataset, backbone, rows, size, age, and whether it is complete.

    Example: tlcache ls
    """
    from tlcache.cache.find import features_folder
    from tlcache.inventory import list_cache
    from tlcache.report.tables import cache_table

    entries = list_cache(features)
    _write_json(json_file, {"files": [entry.as_json() for entry in entries]})
    _show(cache_table(entries, features_folder(features)))


@app.command()
def verify(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Feature files or folders", show_default="all under features/")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Extract again: damaged and new images are computed")
    ] = False,
    features: Features = None,
    json_file: Json = None,
) -> None:
    """Read feature files whole and compare every row with its checksum; the status is 1 when something is damaged.

    Example: tlcache verify --repair
    """
    from tlcache.inventory import verify as run
    from tlcache.report.tables import checks_lines

    with _stoppable("run the same command to continue"):
        checks = run(paths, features, repair=repair)
    _write_json(json_file, {"files": [check.as_json() for check in checks]})
    _warn(dict.fromkeys(line for check in checks for line in check.warnings))
    for line in checks_lines(checks):
        typer.echo(line)
    if not all(check.sound for check in checks):
        raise typer.Exit(1)


@app.command()
def prune(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
    features: Features = None,
    json_file: Json = None,
) -> None:
    """Remove unfinished and unusable files, then what is only kept to be faster: pixels, activations, and the like.

    Each is listed and asked for on its own.

    Example: tlcache prune --yes
    """
    from tlcache.inventory import empty_stores, find_leftovers, find_stores, remove_leftovers
    from tlcache.report.tables import leftovers_table

    found, stores = find_leftovers(features), find_stores(features)
    both = {"leftovers": found, "stores": stores}
    _write_json(json_file, {name: [each.as_json() for each in some] for name, some in both.items()})
    if not found and not stores:
        typer.echo("Nothing to remove.")
    for some, question, act in ((found, "Remove these?", remove_leftovers), (stores, "Empty these too?", empty_stores)):
        if not some:
            continue
        _show(leftovers_table(some))
        if yes or typer.confirm(question):
            act(some)
            typer.echo(f"Removed {len(some)}.")
        else:
            typer.echo("Nothing was removed.")


@app.command()
def export(
    model: Annotated[
        str, typer.Option("--model", "-m", help="Backbone, or the .safetensors of a fine-tuning. See: tlcache models")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .onnx file to write")],
    weights: WeightsOption = None,
    pool: Pool = None,
) -> None:
    """Write a network as an ONNX file: uint8 images in, embeddings out, parity with torch checked.

    A fine-tuned network gives logits as well, whose softmax are calibrated probabilities.

    Example: tlcache export --model squeezenet1_1 --weights squeezenet1_1.pth --out squeezenet1_1.onnx
    """
    from tlcache.finetuning.saved import export as run

    typer.echo(f"{out}: {run(model, out, weights, pool=pool).stat().st_size:,} bytes")


@app.command()
def demo(
    features: Features = None,
    runs: Runs = None,
) -> None:
    """Do the whole job on scikit-learn's digits: extract, fit all heads, fine-tune, one table.

    Takes the MobileNetV3s whose ImageNet weights are here, otherwise the small network that is part of tlcache.

    Example: tlcache demo
    """
    from tlcache.demo import run_demo

    with _stoppable("run the same command to continue"):
        run_demo(features, runs, _show)
