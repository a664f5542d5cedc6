"""What to label next: dataset without labels, and a run or none -> a ranked list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tlcache.arguments import CHOOSING, OUTPUT, AskedRun, Features, MaybeModel, OneDataset, Runs
from tlcache.errors import DataError, OptionError
from tlcache.files import check_folder, first_line_of, write_whole
from tlcache.kinds import PATH, chosen_from, whole
from tlcache.options import Option, described
from tlcache.text import as_csv

if TYPE_CHECKING:
    from tlcache.datasets.source import Images

__all__ = ["Suggestion", "Suggestions", "suggest"]

_MORE = (
    "combined: what the run is unsure of and is unlike what is labelled, without a run typicality: what is typical of "
    "images without labels; margin: what the run is least sure of; k-centre: what is unlike all others"
)
COLUMNS = ("path", "rank", "score", "predicted", "why")
_HEADER = ",".join(COLUMNS).encode()


@dataclass(frozen=True)
class Suggestion:
    """An image to label.

    Parameters
    ----------
    path
        As in the feature file.
    rank
        From 1 on.
    score
        How much speaks for it, by the strategy's own measure: only within one list, and one strategy, it says anything.
    predicted
        The likeliest class by the run; empty without one.
    why
        In words.
    sha256
        Of its bytes.
    """

    path: str
    rank: int
    score: float
    predicted: str
    why: str
    sha256: str


@dataclass(frozen=True)
class Suggestions:
    """Images to label next, the most wanted first.

    Parameters
    ----------
    dataset, backbone, strategy
        Which images, what compared them, and how they were chosen.
    run
        What was asked for its doubts; empty where nothing was.
    asked, images
        How many were asked for, and of how many.
    rows
        The suggestions.
    source
        Where the images are.
    """

    dataset: str
    backbone: str
    strategy: str
    run: str
    asked: int
    images: int
    rows: tuple[Suggestion, ...]
    source: Images

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        names = ("dataset", "backbone", "strategy", "run", "asked", "images")
        rows = [dict(zip(COLUMNS, cells, strict=True)) for cells in self.cells()]
        return {**{name: getattr(self, name) for name in names}, "suggestions": rows}

    def cells(self) -> Iterator[tuple[str, int, float, str, str]]:
        """Yield the cells of each row, in the order of `COLUMNS`."""
        for row in self.rows:
            yield row.path, row.rank, round(row.score, 6), row.predicted, row.why


@described()
def suggest(
    data: OneDataset,
    run: AskedRun = None,
    n: Annotated[int, Option("How many images", whole(1), CHOOSING, "--number", "-n")] = 50,
    *,
    strategy: Annotated[
        str,
        Option("How they are chosen", chosen_from("tlcache.suggesting.strategies:STRATEGIES"), CHOOSING, more=_MORE),
    ] = "combined",
    model: MaybeModel = None,
    out: Annotated[str | Path | None, Option("Write the list to this .csv file", PATH, OUTPUT, "--out", "-o")] = None,
    features: Features = None,
    runs: Runs = None,
) -> Suggestions:
    """Say which images of a cached dataset to label next.

    None of them is nearly the same as another one, or as one that the run was fitted on. Any labels that the dataset
    has are not looked at.

    Raises
    ------
    CacheError, DataError, OptionError
        The dataset is not embedded, or not by the network of the run; nothing is left to label; another ending.

    Examples
    --------
    >>> found = suggest("photos", n=3, features=feature_file.parents[1], runs=folder)
    >>> [row.rank for row in found.rows], found.strategy
    ([1, 2, 3], 'typicality')
    """
    if run is None and strategy == "margin":
        raise OptionError("--strategy margin goes by what a model is unsure of. Name one with --run, or take another.")
    if out is not None and Path(out).suffix.lower() != ".csv":
        raise OptionError(f"--out '{out}' is no .csv file.")
    if out is not None and first_line_of(Path(out)).strip() not in (b"", _HEADER):
        raise OptionError(f"'{out}' is there and is no such list, which would replace it. Give another --out.")
    from tlcache.runs.folder import runs_folder
    from tlcache.suggesting.candidates import find_candidates
    from tlcache.suggesting.strategies import choose

    found = find_candidates(data, run, model, features, check_folder(runs_folder(runs), "--runs"))
    picks = choose(found.pool, n, strategy)
    if not picks:
        raise DataError(f"'{data}' has no image that is not nearly one that the run was fitted on: all are labelled.")
    images = found.images
    rows = (
        Suggestion(images.paths[row], rank, score, str(found.predicted[row]), why, images.hashes[row])
        for rank, (row, score, why) in enumerate(picks, 1)
    )
    made = Suggestions(
        found.dataset,
        found.backbone,
        "typicality" if run is None and strategy == "combined" else strategy,
        "" if run is None else Path(run).stem,
        n,
        len(images.paths),
        tuple(rows),
        images.images,
    )
    if out is not None:
        write_whole(Path(out), as_csv([COLUMNS, *made.cells()]).encode("utf-8", "surrogateescape"))
    return made
