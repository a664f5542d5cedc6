"""Do two files hold one picture? Small grey thumbnails, laid on each other as copies are cropped and mirrored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlcache.cache.feature_file import FeatureFile
from tlcache.datasets.dataset import reopen
from tlcache.errors import ImageReadError
from tlcache.heads.rows import Indices, blocks
from tlcache.images import BadImageError, decode
from tlcache.progress import image_bar
from tlcache.threads import in_threads

__all__ = ["Thumbnails", "agreement", "pixels_of_pairs", "thumbnail"]

Array = NDArray[np.float32]
Thumbnails = NDArray[np.uint8]

_FINE = 32  # side of what is kept of an image
_SIDE = 16  # of what is compared; on flowers, scans and CIFAR-10, 32 tells no more apart and takes ten times as long
_KEPT = 0.95  # of either side, after a crop
_FLAT = 2.0  # grey levels: pictures with less contrast than that are all the same one
_BLOCK = 256


def thumbnail(data: bytes) -> Thumbnails:
    """Return an encoded image as uint8 (32, 32), grey, whatever its shape.

    Raises
    ------
    BadImageError
        As `tlcache.images.decode`.
    """
    pixels, _ = decode(data, 2 * _FINE)
    grey = Image.fromarray(np.ascontiguousarray(pixels)).convert("L")
    return np.asarray(grey.resize((_FINE, _FINE), Image.Resampling.BILINEAR))


def agreement(thumbnails: Thumbnails, first: Indices, second: Indices) -> Array:
    """Return how well pairs of pictures agree: float32 (p,), the correlation of their grey levels where they fit best.

    Tried are the whole of one on the whole of the other and on nine crops of it to 95 %, both ways, and all of that
    with one of them mirrored. Correlation does not mind brightness and contrast.

    Parameters
    ----------
    thumbnails
        uint8 (n, 32, 32).
    first, second
        (p,) rows of it.
    """
    found = np.empty(len(first), np.float32)
    order = np.lexsort((second, first))
    for block in blocks(len(first), _BLOCK):
        some = order[block]
        rows, at = np.unique(np.concatenate([first[some], second[some]]), return_inverse=True)
        views = _views(thumbnails[rows])
        whole, mirrored = views[:, 0], _views(thumbnails[rows][:, :, ::-1], crops=False)[:, 0]
        one, other = at[: len(some)], at[len(some) :]
        fits = [
            np.einsum("pvk,pk->pv", views[a], fixed[b])
            for a, b in ((one, other), (other, one))
            for fixed in (whole, mirrored)
        ]
        found[some] = np.concatenate(fits, axis=1).max(axis=1)
    return found


def pixels_of_pairs(file: FeatureFile, first: Indices, second: Indices) -> Array:
    """Return the `agreement` of pairs of a feature file's rows: float32 (p,); NaN where an image is gone or another."""
    rows = np.unique(np.concatenate([first, second]))
    paths, hashes, images = file.paths(), file.hashes().astype(str), reopen(file.attrs["source"])
    images.expect(paths[row] for row in rows)
    seen, known = np.zeros((len(rows), _FINE, _FINE), np.uint8), np.zeros(len(rows), bool)

    def one(at: int) -> bool:
        try:
            seen[at] = thumbnail(images.read(paths[rows[at]], hashes[rows[at]]))
        except (ImageReadError, BadImageError):
            return False
        return True

    with image_bar("comparing pixels", len(rows)) as advance:
        for number, whole in enumerate(in_threads(one, range(len(rows)))):
            known[number] = whole
            advance(1)
    at = np.searchsorted(rows, first), np.searchsorted(rows, second)
    found = agreement(seen, *at)
    found[~(known[at[0]] & known[at[1]])] = np.nan
    return found


def _views(thumbnails: Thumbnails, crops: bool = True) -> Array:
    """Return the whole and nine crops of each as rows of length 1: float32 (n, 10, 257), or (n, 1, 257)."""
    grey = thumbnails.astype(np.float32)
    corners = (0.0, (1 - _KEPT) / 2, 1 - _KEPT)
    boxes = [(0.0, 0.0, 1.0)] + [(top, left, _KEPT) for top in corners for left in corners if crops]
    rows = {(start, share): _shrink(start, share) for _, start, share in boxes}
    seen = np.stack([rows[top, share] @ grey @ rows[left, share].T for top, left, share in boxes], axis=1)
    flat = seen.reshape(*seen.shape[:2], -1)
    flat -= flat.mean(axis=2, keepdims=True)
    floor = np.full((*flat.shape[:2], 1), _FLAT * _SIDE, np.float32)
    full = np.concatenate([flat, floor], axis=2)
    made: Array = full / np.linalg.norm(full, axis=2, keepdims=True)
    return made


def _shrink(start: float, share: float) -> Array:
    """Return float32 (16, 32): what averages that part of 32 pixels down to 16."""
    edges = _FINE * (start + share * np.arange(_SIDE + 1) / _SIDE)
    pixel = np.arange(_FINE)
    low, high = np.maximum(edges[:-1, None], pixel), np.minimum(edges[1:, None], pixel + 1)
    weights = np.maximum(high - low, 0)
    means: Array = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return means
