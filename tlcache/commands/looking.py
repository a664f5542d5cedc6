"""What a person would rather look at than read: a map of all images, similar ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tlcache.arguments import DATA, GIVEN, OUTPUT, CardsPage, Thumbnail
from tlcache.commands.base import app, stoppable
from tlcache.flags import Output, command
from tlcache.kinds import PATH
from tlcache.options import Option, parameters
from tlcache.pictures.explain import explain as _explain
from tlcache.pictures.similar import similar as _similar
from tlcache.progress import say, warn
from tlcache.report.map import write_map as _write_map

__all__ = ["draw_map", "explain", "similar"]

PANEL = "Look"


@command(app, parameters(_similar), panel=PANEL)
def similar(
    output: Output,
    images: Annotated[
        Sequence[str],
        Option("Images, as for tlcache predict, or paths of the dataset's own", GIVEN, DATA, "IMAGES"),
    ],
    page: CardsPage = None,
    thumbnails: Thumbnail = 20_000_000,
    **options: Any,
) -> None:
    """Find the images of a cached dataset that are most similar to others: all are compared, by their embeddings.

    Images that are not cached go through the network of the dataset. The cosines are those that tlcache audit goes by.

    Example: tlcache similar new/1.jpg --data photos -n 20 --page similar.html
    """
    from tlcache.pictures.similar import similar as run
    from tlcache.report.cards import check_cards
    from tlcache.report.similar import errors_line, similar_tables, write_similar

    if page:
        check_cards(page)
    found = run(images, **options)
    output.write(found.as_json())
    if page:
        write_similar(found, page, thumbnails)
    output.show(similar_tables(found))
    if found.errors:
        warn(errors_line(found.errors, len(found.asked)))
    if not found.asked:
        raise typer.Exit(1)


@command(app, parameters(_explain), panel=PANEL)
def explain(
    output: Output,
    run_images: Annotated[
        Sequence[str],
        Option(
            "A run; then images as for tlcache predict, or paths of the run's own test images",
            GIVEN,
            DATA,
            "RUN IMAGES",
        ),
    ],
    out: Annotated[
        Path | None,
        Option("Write the maps over the images: a page (.html) or a picture (.png)", PATH, OUTPUT, "--out", "-o"),
    ] = None,
    **options: Any,
) -> None:
    """Say which places of images speak for what a run says of them, by which method, and what that cannot show.

    Exact for linear heads on embeddings that are a mean over places; Grad-CAM for fine-tuned networks; for the rest
    patches of the image are covered.

    Example: tlcache explain mobilenetv2-ridge-86f155aef3dd new/1.jpg --out explained.html
    """
    from tlcache.pictures.explain import explain as run
    from tlcache.report.heat import check_out, explained_table, write_explained
    from tlcache.report.similar import errors_line

    if out:
        check_out(out)
    say("explaining ...")
    found = run(run_images[0], run_images[1:], **options)
    if "mistakes" in options:
        output.say("The report has the maps of these mistakes from now on: tlcache report")
    output.write(found.as_json())
    if out and found.images:
        write_explained(found, out)
    if found.images:
        output.show(explained_table(found))
    if found.errors:
        warn(errors_line(found.errors, len(found.images)))
    if not found.images:
        raise typer.Exit(1)


@command(app, parameters(_write_map), name="map", panel=PANEL)
def draw_map(output: Output, /, **options: Any) -> None:
    """Write a page that shows every image of a cached dataset as a point, close to those with similar embeddings.

    Point at one to see it, colour them by label, split, prediction, audit or a column of the table, zoom, and select
    some with a lasso to copy their paths. openTSNE makes a better map than PCA: pip install "tlcache[map]".

    Example: tlcache map --data photos --thumbnails 40MB
    """
    from tlcache.report.map import write_map as run

    say("drawing a map ...")
    with stoppable("nothing was written"):
        made = run(**options)
    output.write(made.as_json())
    output.say(f"{made.path}: {made.line}")
