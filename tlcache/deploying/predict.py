"""New images -> what a run says of them: at extraction's pace, in order, whatever lies among them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

from tlcache.arguments import OUTPUT, BatchSize, BestOf, Device, Features, Runs
from tlcache.errors import OptionError
from tlcache.keys import some
from tlcache.kinds import PATH, SWITCH, number, whole
from tlcache.options import Option, described
from tlcache.progress import warn

if TYPE_CHECKING:
    from tlcache.deploying.predicted import Predicted
    from tlcache.deploying.rows import Columns, Write
    from tlcache.extraction.embed import Block

__all__ = ["predict"]

Given = str | PathLike[str] | Iterable[str | PathLike[str]]

_ADVICE = "Fit the head again with: tlcache fit-heads --coverage 0.9 (docs/uncertainty.md)"


class Recorded(Protocol):
    """A run, as `tlcache.list_runs` and `tlcache.fit_heads` return them."""

    @property
    def path(self) -> Path:
        """Its record."""


@described()
def predict(
    run: Recorded | str | Path | None,
    images: Given,
    *,
    data: BestOf = None,
    top: Annotated[int, Option("So many of the likeliest classes of each image", whole(1), OUTPUT)] = 1,
    sets: Annotated[
        bool, Option("The classes that may be right, as often as fit-heads --coverage promised", SWITCH, OUTPUT)
    ] = False,
    right: Annotated[
        float | None,
        Option("Answer unsure, save where this share of the answers is right", number(above=0, below=1), OUTPUT),
    ] = None,
    reject: Annotated[
        float | None,
        Option(
            "Answer unknown where an image is unlike those of training, as this share of usual ones is",
            number(above=0, below=1),
            OUTPUT,
            more="Heads of fit-heads --coverage know that, fine-tuned networks do not",
        ),
    ] = None,
    out: Annotated[
        str | Path | None,
        Option(
            "Write every prediction to this .csv, .jsonl or .parquet; - is standard output, as CSV",
            PATH,
            OUTPUT,
            "--out",
            "-o",
            more="A file is there whole or not at all; standard output, a pipe or a device has rows as they come",
        ),
    ] = None,
    features: Features = None,
    runs: Runs = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
) -> Predicted:
    """Classify images with a recorded run.

    They are embedded as those that the run was fitted on, in a process of its own, and whatever is cached of them is
    used; nothing is added to the cache. An image that cannot be used costs itself alone.

    Parameters
    ----------
    run
        As `list_runs` returns it, or its record (`.json`), the `.safetensors` beside it, the name of both, or the
        `.onnx` that was exported of it. None: the best of `data`, as `tlcache.compare` has it, of those as accurate the
        cheapest.
    images
        Files, folders, archives of them (`.zip`, `.tar`), tables of paths (`.csv`, `.txt`, ...), patterns such as
        `photos/**/*.jpg`, or `-` for paths on standard input, mixed as you like. Folders of classes and tables may
        label images.

    Raises
    ------
    OptionError, DataError
        There is no such run, or nothing at a place where images are said to be.
    HeadError, ModelError, WeightsError, DeviceError
        The run's files are damaged, or its network cannot be had or run.

    Examples
    --------
    >>> run = fit_heads([feature_file], heads=["ridge"], runs=folder)[0]
    >>> found = predict(run, photos / "red" / "0.png", features=feature_file.parents[1])
    >>> found.labels, found.confidences.shape, found.embedded
    (['red'], (1, 1), 0)
    """
    from tlcache.deploying.answers import find_answers
    from tlcache.deploying.inputs import list_images
    from tlcache.deploying.judging import Judge
    from tlcache.deploying.predicted import Predicted, check
    from tlcache.extraction.several import embed_several
    from tlcache.heads.rows import blocks as row_blocks

    answers = find_answers(_chosen(run, images, data, runs), runs)
    listed = list_images(images, answers.classes)
    judge = Judge(answers.uncertainty(), sets=sets, right=right, reject=reject, advice=_ADVICE)
    if same := judge.ambiguous(answers.classes):
        warn(f"A class is called {some(same)}, as images are that are not answered: labels do not tell these apart.")
    if judge.answers_nothing:
        warn(f"No confidence is enough for {right:g} right answers: all images are unsure.")
    if least := judge.least_unusual:
        warn(f"With so few training images no p-value is below {least:.3g}: --reject {reject:g} rejects nothing.")
    if answers.answering and top != 1:
        raise OptionError(f"--top is of classes, and '{answers.name}' is of --task {answers.answering.task}.")
    found = Predicted.of(answers.name, answers.classes, listed.paths, top, judge, answers.answering)
    with _writer(out, found.columns) as write:

        def take(block: Block) -> None:
            for some in row_blocks(len(block.rows)):  # probabilities of all classes are never there for all images
                probabilities, distances = answers.answer(block.rows[some])
                found.fill(block.good[some], probabilities, judge.judge(probabilities, distances))
            found.errors.update(block.bad)
            write(list(found.rows(block.start, block.stop)))

        how = {"features": features, "device": device, "batch_size": batch_size}
        done = embed_several(listed.paths, answers.networks, take, **how)
    found.checked = check(found, listed.labels)
    found.embedded, found.reused, found.seconds = done.embedded, done.reused, done.seconds
    return found


def _chosen(
    run: Recorded | str | Path | None, images: Given, data: str | Path | None, runs: str | Path | None
) -> str | Path:
    from tlcache.deploying.best import refuse_runs, say_best

    if run is None:
        refuse_runs(images, runs)
        return say_best(data, runs)
    if data is not None:
        raise OptionError(f"--data {data} is of --best, which chooses a run; '{run}' is one. Give one of them.")
    return run if isinstance(run, str | Path) else run.path


def _writer(out: str | Path | None, columns: Columns) -> AbstractContextManager[Write]:
    from tlcache.deploying.rows import open_writer

    if out is None:
        return nullcontext(lambda _: None)
    return open_writer(Path(out), columns)
