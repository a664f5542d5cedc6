"""A map of a dataset as one page: every image a point, which can be looked at, coloured and selected."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tlcache.arguments import NETWORK, OUTPUT, Features, LookedAtBy, MapRun, OneDataset, Runs, Thumbnail
from tlcache.errors import CacheError, OptionError
from tlcache.files import check_folder, write_whole
from tlcache.kinds import PATH, SWITCH
from tlcache.options import Option, described
from tlcache.progress import say
from tlcache.text import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tlcache.pictures.atlas import Atlas, Column
    from tlcache.report.sheets import Sheets

__all__ = ["WrittenMap", "page_of", "write_map"]

_WIDEST = 65_535  # what 16 bits tell apart: places on a map, values of a column


@dataclass(frozen=True)
class WrittenMap:
    """A map that was written.

    Parameters
    ----------
    path, size
        The page, and how many bytes it has.
    dataset, backbone, run
        What it shows, by whose embeddings, and by what run predicted labels are; empty without one.
    images, pictures, side
        How many images there are, how many of them have a picture, and the longer side of that in pixels.
    trusted
        Trustworthiness of each projection by its name.
    columns
        What points can be coloured by.
    """

    path: Path
    size: int
    dataset: str
    backbone: str
    run: str
    images: int
    pictures: int
    side: int
    trusted: dict[str, float]
    columns: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        trusted = {name: None if isnan(value) else value for name, value in self.trusted.items()}
        return {**vars(self), "path": str(self.path), "trusted": trusted, "columns": list(self.columns)}

    @property
    def line(self) -> str:
        """What it shows, in a sentence or two."""
        trusted = ", ".join(f"{name} {value:.2f}" for name, value in self.trusted.items())
        have = "all of them" if self.pictures == self.images else f"{self.pictures:,} of them"
        pictures = f"pictures of {self.side} pixels of {have}" if self.pictures else "no pictures"
        by = f" Predictions are those of {self.run}." if self.run else ""
        return (
            f"{counted(self.images, 'image')} of {self.dataset} by {self.backbone}, {pictures}. Trustworthiness of the "
            f"15 nearest neighbours: {trusted}.{by}"
        )


@described()
def write_map(
    data: OneDataset,
    out: Annotated[str | Path | None, Option("The page", PATH, OUTPUT, "--out", "-o", "map-DATASET.html")] = None,
    *,
    model: LookedAtBy = None,
    run: MapRun = None,
    tsne: Annotated[bool, Option("Make a map by t-SNE, too, where openTSNE is installed", SWITCH, NETWORK)] = True,
    thumbnails: Thumbnail = 20_000_000,
    features: Features = None,
    runs: Runs = None,
) -> WrittenMap:
    """Write a page that shows every image of a cached dataset as a point, close to those with similar embeddings.

    Points are coloured by label, split, what a run predicts, what an audit found, and the columns of the dataset's
    table. The page needs no network and no other file.

    Raises
    ------
    CacheError, DataError, OptionError
        The dataset is not embedded, or the run is of another one; another ending.

    Examples
    --------
    >>> made = write_map("photos", folder / "map.html", features=feature_file.parents[1], runs=folder)
    >>> made.images, made.pictures, made.columns
    (24, 24, ('label', 'split'))
    """
    page = None if out is None else _check(Path(out).expanduser())
    from tlcache.cache.find import find_file
    from tlcache.keys import slug
    from tlcache.pictures.atlas import make_atlas
    from tlcache.report.sheets import make_sheets
    from tlcache.runs.folder import runs_folder

    atlas = make_atlas(find_file(data, model, features), run, runs_folder(runs), tsne)
    page = page or _check(Path(f"map-{slug(atlas.dataset)}.html"))
    sheets = make_sheets(atlas.images, atlas.paths, thumbnails)
    text = page_of(atlas, sheets).encode("utf-8", "replace")
    write_whole(page, text)
    return WrittenMap(page, len(text), *_about(atlas, sheets))


def page_of(atlas: Atlas, sheets: Sheets) -> str:
    """Return the page of an atlas, with these pictures."""
    from tlcache.report.inline import rendered

    about = WrittenMap(Path(), 0, *_about(atlas, sheets))
    return rendered("map.html.j2", about=about, data=_packed(atlas, sheets))


def _about(atlas: Atlas, sheets: Sheets) -> tuple[Any, ...]:
    pictures = int(sheets.sizes[:, 0].astype(bool).sum())
    trusted = {each.name: each.trusted for each in atlas.projections}
    known = atlas.dataset, atlas.backbone, atlas.run, len(atlas.paths), pictures, sheets.side
    return *known, trusted, tuple(each.name for each in atlas.columns)


def _check(page: Path) -> Path:
    if page.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"A map is an .html page; asked: '{page}'.")
    if page.is_dir():
        raise CacheError(f"Cannot write to '{page}': it is a folder. Give the name of a page with --out.")
    check_folder(page.parent, "--out")
    return page


def _packed(atlas: Atlas, sheets: Sheets) -> dict[str, Any]:
    """Return what the script of the page reads; arrays are little-endian, in base64."""
    from tlcache.keys import printable

    return {
        "name": atlas.dataset,
        "paths": [printable(path) for path in atlas.paths],
        "projections": [
            {"name": each.name, "note": each.note, "trusted": f"{each.trusted:.2f}", "points": _placed(each.points)}
            for each in atlas.projections
        ],
        "columns": [packed for each in atlas.columns if (packed := _column(each))],
        "sheets": {
            "side": sheets.side,
            "rows": _text(sheets.rows.astype("<u4")),
            "sizes": _text(sheets.sizes),
            "addresses": list(sheets.addresses),
        },
    }


def _placed(points: NDArray[np.float32]) -> str:
    """Return points (n, 2) as uint16 within a square, in their proportions, in its middle."""
    low, high = points.min(axis=0), points.max(axis=0)
    side = max(float((high - low).max()), 1e-30)
    placed = (points - (low + high) / 2) / side + 0.5
    return _text((placed * _WIDEST).round().clip(0, _WIDEST).astype("<u2"))


def _column(column: Column) -> dict[str, Any]:
    """Return a column: of texts each different one, the most frequent first and nothing last, and their numbers."""
    import numpy as np

    if isinstance(column.values, np.ndarray):
        low, high = float(np.nanmin(column.values)), float(np.nanmax(column.values))
        return {"name": column.name, "numbers": _text(column.values.astype("<f4")), "low": low, "high": high}
    counts = sorted(Counter(column.values).items(), key=lambda each: (each[0] == "", -each[1], each[0]))
    if len(counts) > _WIDEST:
        say(f"'{column.name}' has {len(counts):,} different values: it is left out.")
        return {}
    number = {name: at for at, (name, _) in enumerate(counts)}
    codes = np.array([number[value] for value in column.values], "<u2")
    return {
        "name": column.name,
        "names": [name for name, _ in counts],
        "counts": [count for _, count in counts],
        "codes": _text(codes),
    }


def _text(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()
