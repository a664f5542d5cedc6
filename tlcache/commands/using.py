"""The use of a run: predictions, what to label next, one file to deploy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from tlcache.arguments import DATA, GIVEN, Best, CardsPage, Thumbnail
from tlcache.commands.base import app, stoppable
from tlcache.deploying.export import export as _export
from tlcache.deploying.predict import predict as _predict
from tlcache.errors import OptionError
from tlcache.flags import Output, command
from tlcache.options import Option, parameters
from tlcache.progress import say, warn
from tlcache.suggesting.suggest import suggest as _suggest

__all__ = ["export", "predict", "suggest"]

PANEL = "Use"


@command(app, parameters(_predict), panel=PANEL)
def predict(
    output: Output,
    run_images: Annotated[
        Sequence[str] | None,
        Option(
            "A run, unless --best is given; then files, folders, archives, tables, patterns, or -",
            GIVEN,
            DATA,
            "RUN IMAGES",
        ),
    ] = None,
    best: Best = False,
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
    with stoppable("nothing of it is kept"):
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


@command(app, parameters(_suggest), panel=PANEL)
def suggest(
    output: Output,
    page: CardsPage = None,
    thumbnails: Thumbnail = 20_000_000,
    **options: Any,
) -> None:
    """Say which images to label next: what a run is unsure of, of all kinds there are, and nothing nearly twice.

    Without a run, before anything is labelled, it names what is typical. The dataset has been extracted before; labels
    that it has are not looked at.

    Example: tlcache suggest --data pool --run mobilenetv2-svm-1c9be2c3dd5e --out next.csv --page next.html
    """
    from tlcache.report.cards import check_cards
    from tlcache.report.suggestions import suggestions_table, write_page
    from tlcache.suggesting.suggest import suggest as run

    if page:
        check_cards(page)
    say("choosing images ...")
    found = run(**options)
    output.write(found.as_json())
    if page:
        write_page(found, page, thumbnails)
    output.show(suggestions_table(found))


@command(app, parameters(_export), panel=PANEL)
def export(output: Output, /, **options: Any) -> None:
    """Write a run as one ONNX file that classifies images, or with --model a network alone that embeds them.

    The file takes uint8 images; a run's gives calibrated probabilities, the label and the embedding. What it answers is
    compared with what the run answers before it is written.

    Example: tlcache export --best --data photos --out photos.onnx
    """
    from tlcache.deploying.export import export as run

    written = run(**options)
    output.write(written.as_json())
    for line in written.lines():
        output.say(line)
