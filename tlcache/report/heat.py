"""Maps of what speaks for an answer, laid over the images: as a page, a picture, and a table."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.text import Text

from tlcache.errors import OptionError
from tlcache.files import check_folder, write_whole
from tlcache.keys import printable
from tlcache.pictures.explain import Explained, Explanation
from tlcache.report.cards import Card, Part, write_cards
from tlcache.report.plain import plain_table
from tlcache.report.thumbnails import Picture

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["check_out", "explained_table", "heat_address", "overlay", "write_explained"]

_FOR, _AGAINST = (213, 94, 0), (0, 114, 178)  # orange and blue of `tlcache.report.plots.PALETTE`
_STRENGTH = 0.8  # of the colour where a map is strongest
_COLUMNS = 4  # pairs in a row of a picture
_SHOWN = 20


def check_out(out: Path) -> None:
    """Raise OptionError where this is neither a page nor a picture, CacheError where it cannot be written."""
    if out.suffix.lower() not in (".html", ".htm", ".png"):
        raise OptionError(f"--out '{out}' is neither an .html page nor a .png picture.")
    check_folder(out.expanduser().parent, "--out")


def overlay(pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return an image in grey with a map over it, uint8 (H, W, 3): orange is for the class, blue against.

    Parameters
    ----------
    pixels
        uint8 (3, H, W).
    heat
        float32 (h, w).
    """
    from PIL import Image

    scaled = heat / max(float(np.abs(heat).max()), 1e-30)
    smooth = Image.fromarray(scaled).resize((pixels.shape[2], pixels.shape[1]), Image.Resampling.BILINEAR)
    values = np.asarray(smooth)[:, :, None]
    grey = pixels.mean(axis=0)[:, :, None]
    share = _STRENGTH * np.abs(values)
    mixed = (1 - share) * grey + share * np.where(values > 0, _FOR, _AGAINST)
    made: NDArray[np.uint8] = mixed.astype(np.uint8)
    return made


def heat_address(pixels: NDArray[np.uint8], heat: NDArray[np.float32], side: int) -> str:
    """Return such a picture of so many pixels in height as a data address."""
    from PIL import Image

    image = Image.fromarray(overlay(pixels, heat))
    image.thumbnail((2 * side, side))
    return _address(image)


def _pair(each: Explanation) -> NDArray[np.uint8]:
    """Return an image beside its map, uint8 (H, 2 W, 3)."""
    return np.concatenate([each.pixels.transpose(1, 2, 0), overlay(each.pixels, each.heat)], axis=1)


def write_explained(found: Explained, out: Path) -> None:
    """Write a page that needs no other file, or a picture."""
    from PIL import Image

    if out.suffix.lower() == ".png":
        write_whole(out.expanduser(), _as_bytes(_sheet(found), "PNG"))
        return
    cards = [Card(each.path, Picture(_address(Image.fromarray(_pair(each)))), _lines(each)) for each in found.images]
    title = f"what speaks for the answers of {found.run}"
    write_cards(out, title, f"{found.method[0].upper()}{found.method[1:]}. {_legend(found)}", [Part(cards)], wide=True)


def explained_table(found: Explained) -> RenderableType:
    """Return what is said of each image, where what speaks for it is strongest, and how that is known."""
    table = plain_table("Image", "Says", "Map of", "Probability", "Strongest at", numbers=slice(3, 4))
    for each in found.images[:_SHOWN]:
        table.add_row(
            printable(each.path),
            printable(each.predicted),
            printable(each.label),
            f"{each.probability:.3f}",
            _place(each),
        )
    more = len(found.images) - _SHOWN
    rest = [Text(f"and {more:,} images more: --json FILE or --out FILE.html")] if more > 0 else []
    about = Text(f"{found.method}: {found.shows}", style="dim")
    return Group(table, *rest, about)


def _place(each: Explanation) -> str:
    """Return where the strongest cell is, by rows and columns that are counted from the upper left."""
    row, column = np.unravel_index(int(each.heat.argmax()), each.heat.shape)
    return f"row {row + 1} of {each.heat.shape[0]}, column {column + 1} of {each.heat.shape[1]}"


def _legend(found: Explained) -> str:
    against = ", blue against it" if any((each.heat < 0).any() for each in found.images) else ""
    return f"Orange speaks for the class{against}; each map by its own strongest place. {found.shows}"


def _lines(each: Explanation) -> list[str]:
    said = f"{each.label}: {each.probability:.3f}"
    return [said if each.label == each.predicted else f"{said}; the run says {each.predicted}"]


def _address(image: Image.Image) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(_as_bytes(image, 'JPEG')).decode()}"


def _sheet(found: Explained) -> Image.Image:
    from PIL import Image

    pairs = [_pair(each) for each in found.images]
    height, width, _ = pairs[0].shape
    columns = min(_COLUMNS, len(pairs))
    sheet = np.full((-(-len(pairs) // columns) * height, columns * width, 3), 255, np.uint8)
    for number, pair in enumerate(pairs):
        row, column = divmod(number, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = pair
    return Image.fromarray(sheet)


def _as_bytes(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=85)
    return buffer.getvalue()
