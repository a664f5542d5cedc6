"""Maps of what speaks for an answer, laid over the images: as a page, a picture, and a table."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path, PurePath
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
from tlcache.report.inline import jpeg_address
from tlcache.report.plain import plain_table
from tlcache.report.thumbnails import Picture

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["check_out", "explained_table", "heat_address", "overlay", "write_explained"]

_FOR, _AGAINST = (213, 94, 0), (0, 114, 178)  # orange and blue of `tlcache.report.plots.PALETTE`
_STRENGTH = 0.8  # of the colour where a map is strongest
_SIDE = 224  # pixels to the longer side of an image, at least
_COLUMNS = 4  # pairs in a row of a picture
_GAP, _LINE, _FONT = 8, 20, 15  # between pairs, of a line of text and of its letters, pixels
_SHOWN = 20
_QUALITY = 85  # of pictures in a page


def check_out(out: Path) -> None:
    """Raise OptionError where this is neither a page nor a picture, CacheError where it cannot be written."""
    if out.suffix.lower() not in (".html", ".htm", ".png"):
        raise OptionError(f"--out '{out}' is neither an .html page nor a .png picture.")
    check_folder(out.expanduser().parent, "--out")


def overlay(pixels: NDArray[np.uint8], heat: NDArray[np.float32], least: float = 0.0) -> NDArray[np.uint8]:
    """Return an image in grey with a map over it, uint8 (H, W, 3): orange is for the class, blue against.

    Parameters
    ----------
    pixels
        uint8 (3, H, W).
    heat
        float32 (h, w).
    least
        The smallest value that is painted at full strength.
    """
    from PIL import Image

    scaled = heat / max(float(np.abs(heat).max()), least, 1e-30)
    smooth = Image.fromarray(scaled).resize((pixels.shape[2], pixels.shape[1]), Image.Resampling.BILINEAR)
    values = np.asarray(smooth)[:, :, None]
    grey = pixels.mean(axis=0)[:, :, None]
    share = _STRENGTH * np.abs(values)
    mixed = (1 - share) * grey + share * np.where(values > 0, _FOR, _AGAINST)
    made: NDArray[np.uint8] = mixed.astype(np.uint8)
    return made


def heat_address(pixels: NDArray[np.uint8], heat: NDArray[np.float32], side: int, least: float = 0.0) -> str:
    """Return such a picture of so many pixels in height as a data address."""
    from PIL import Image

    image = Image.fromarray(overlay(pixels, heat, least))
    image.thumbnail((2 * side, side))
    return jpeg_address(image, _QUALITY)


def _pair(each: Explanation, least: float) -> Image.Image:
    """Return an image beside its map; small ones larger, so that the longer side of each is of 224 pixels."""
    from PIL import Image

    seen, height, width = each.pixels, *each.pixels.shape[1:]
    times = max(1.0, _SIDE / max(height, width))
    size = round(times * width), round(times * height)
    large = np.asarray(Image.fromarray(seen.transpose(1, 2, 0)).resize(size, Image.Resampling.NEAREST))
    painted = overlay(large.transpose(2, 0, 1), each.heat, least)
    return Image.fromarray(np.concatenate([large, painted], axis=1))


def write_explained(found: Explained, out: Path) -> None:
    """Write a page that needs no other file, or a picture."""
    if out.suffix.lower() == ".png":
        buffer = io.BytesIO()
        _sheet(found).save(buffer, "PNG")
        write_whole(out.expanduser(), buffer.getvalue())
        return
    shown = ((each, jpeg_address(_pair(each, found.least), _QUALITY)) for each in found.images)
    cards = [Card(each.path, Picture(seen), [_said(each), _effect(each, found.least)]) for each, seen in shown]
    title = f"what speaks for the answers of {found.run}"
    write_cards(out, title, f"{found.method[0].upper()}{found.method[1:]}. {_legend(found)}", [Part(cards)], wide=True)


def explained_table(found: Explained) -> RenderableType:
    """Return what is said of each image, where what speaks for it is strongest, and how that is known."""
    table = plain_table("Image", "Says", "Map of", "Probability", "Effect", "Strongest at", numbers=slice(3, 5))
    for each in found.images[:_SHOWN]:
        table.add_row(
            printable(each.path),
            printable(each.predicted),
            printable(each.label),
            f"{each.probability:.3f}",
            f"{each.effect:+.2g}",
            _faint(each, found.least) or _place(each),
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


def _said(each: Explanation) -> str:
    said = f"{printable(each.label)}: {each.probability:.3f}"
    return said if each.label == each.predicted else f"{said}; the run says {printable(each.predicted)}"


def _faint(each: Explanation, least: float) -> str:
    return "covering changes next to nothing" if np.abs(each.heat).max() < least else ""


def _effect(each: Explanation, least: float) -> str:
    return f"largest effect {each.effect:+.2g}" + (f": {faint}" if (faint := _faint(each, least)) else "")


def _sheet(found: Explained) -> Image.Image:
    """Return pairs with captions, and below them the method."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT)
    pairs = [_pair(each, found.least) for each in found.images]
    width, height = max(each.width for each in pairs), max(each.height for each in pairs)
    tall, columns = height + 3 * _LINE, min(_COLUMNS, len(pairs))
    sheet = Image.new("RGB", (columns * (width + _GAP), -(-len(pairs) // columns) * tall + 2 * _LINE), "white")
    draw = ImageDraw.Draw(sheet)

    def write(x: int, y: int, text: str, room: int) -> None:
        draw.text((x, y), _cut(text, room, font.getlength), "black", font)

    for number, (each, pair) in enumerate(zip(found.images, pairs, strict=True)):
        y, x = (at * side for at, side in zip(divmod(number, columns), (tall, width + _GAP), strict=True))
        sheet.paste(pair, (x, y))
        for line, text in enumerate([PurePath(each.path).name, _said(each), _effect(each, found.least)]):
            write(x, y + height + line * _LINE, text, width)
    about = [f"{found.method}, {found.run}", _legend(found).partition(";")[0]]
    for line, text in enumerate(about):
        write(0, sheet.height - (2 - line) * _LINE, text, sheet.width)
    return sheet


def _cut(text: str, room: int, length: Callable[[str], float]) -> str:
    """Return a text as it fits so many pixels, its end left out."""
    text = printable(text)
    if length(text) <= room:
        return text
    while text and length(f"{text}...") > room:
        text = text[:-1]
    return f"{text}..."
