"""Small pictures of many images on sheets, as large as a number of bytes allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcache.datasets.source import Images
from tlcache.errors import ImageReadError
from tlcache.images import BadImageError, decode
from tlcache.progress import image_bar
from tlcache.report.inline import jpeg_address
from tlcache.threads import in_threads

__all__ = ["ACROSS", "Sheets", "make_sheets"]

ACROSS = 16  # pictures, and as many down
_SIDES = (96, 64, 48, 32, 16)  # multiples of the blocks of JPEG, so that no picture has a rim of its neighbour's
_SAMPLE = 64
_QUALITY = 70

Tile = NDArray[np.uint8]  # (h, w, 3), neither side longer than that of a tile; without pixels where an image is gone


@dataclass(frozen=True)
class Sheets:
    """Pictures.

    Parameters
    ----------
    side
        Pixels of the longer side of each.
    rows
        int64 (m,), which images have one, in the order of the pictures.
    sizes
        uint8 (m, 2), width and height; 0 where an image is gone.
    addresses
        The sheets as data addresses, with 16 x 16 pictures each, the last with fewer.
    """

    side: int
    rows: NDArray[np.int64]
    sizes: NDArray[np.uint8]
    addresses: Sequence[str]


def make_sheets(images: Images, paths: Sequence[str], most: int) -> Sheets:
    """Return pictures of the images that take at most so many bytes: of all, the larger the fewer there are.

    Where even those of 16 pixels have no room for all images, random ones have a picture.
    """
    side, each = _side(images, paths, most)
    count = min(len(paths), int(most / each)) if each else 0
    rows = np.sort(np.random.default_rng(0).permutation(len(paths))[:count])
    addresses, sizes, left = list[str](), list[tuple[int, int]](), most
    with image_bar("drawing", count) as advance:
        for tiles in _read(images, [paths[row] for row in rows.tolist()], side):
            address = _sheet(tiles, side)
            if len(address) > left:
                break
            left -= len(address)
            addresses.append(address)
            sizes += [(tile.shape[1], tile.shape[0]) for tile in tiles]
            advance(len(tiles))
    return Sheets(side, rows[: len(sizes)], np.array(sizes, np.uint8).reshape(-1, 2), addresses)


def _side(images: Images, paths: Sequence[str], most: int) -> tuple[int, float]:
    """Return how large pictures can be, and how many bytes one takes, by some of them."""
    some = np.random.default_rng(1).permutation(len(paths))[:_SAMPLE].tolist()
    read = next(_read(images, [paths[row] for row in some], _SIDES[0]), [])
    tiles = [tile for tile in read if tile.size]
    each = 0.0
    for side in _SIDES if tiles else ():
        each = 1.02 * len(_sheet([_fitted(tile, side) for tile in tiles], side)) / len(tiles)
        if each * len(paths) <= most:
            break
    return (side, each) if tiles else (_SIDES[-1], 0.0)


def _read(images: Images, paths: Sequence[str], side: int) -> Iterator[list[Tile]]:
    """Yield the pictures of a sheet at a time."""
    whole = ACROSS * ACROSS
    for start in range(0, len(paths), whole):
        yield list(in_threads(lambda path: _tile(images, path, side), paths[start : start + whole]))


def _tile(images: Images, path: str, side: int) -> Tile:
    try:
        pixels, _ = decode(images.read(path), side)
    except (ImageReadError, BadImageError):
        return np.zeros((0, 0, 3), np.uint8)
    return _fitted(np.ascontiguousarray(pixels), side)


def _fitted(pixels: NDArray[np.uint8], side: int) -> Tile:
    from PIL import Image

    if not pixels.size:
        return pixels
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    return np.asarray(image)


def _sheet(tiles: Sequence[Tile], side: int) -> str:
    from PIL import Image

    down = -(-len(tiles) // ACROSS)
    sheet = np.full((down * side, ACROSS * side, 3), 128, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = (side * place for place in divmod(number, ACROSS))
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return jpeg_address(Image.fromarray(sheet), _QUALITY)
