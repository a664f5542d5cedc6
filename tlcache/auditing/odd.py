"""Images that look odd among the others: placeholders, dark, bright or blurred ones, odd sizes, formats and files.

Embeddings do not tell these. An image is odd where a measure is beyond a limit and far outside what is usual in its set
(Tukey's outer fences, 1977): scans are dark by nature. Measures and limits follow cleanvision (dark, bright, ratio) and
fastdup (sharpness); they were chosen on generated images, flowers and scans, see docs/audit.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import log2
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlcache.cache.feature_file import FeatureFile
from tlcache.datasets.dataset import reopen
from tlcache.errors import ImageReadError
from tlcache.images import BadImageError, decode
from tlcache.images.formats import kind_of
from tlcache.progress import image_bar
from tlcache.threads import in_threads

__all__ = ["Look", "find_odd", "look", "looks_of"]

_SIDE = 128  # pixels of the short side that is looked at: small enough to be quick, large enough to see blur
_FENCE = 3.0  # distances between the quartiles
_RARE = 0.02  # share of a format that is odd where another one has nearly all images
_FEW = 20  # images, of which nothing is usual


class Look(NamedTuple):
    """What an image looks like, in numbers.

    Parameters
    ----------
    flat
        Share of the pixels that have one of the two commonest colours, of 8 x 8 x 8.
    dark, bright
        Grey level that 99 % and 5 % of the pixels do not exceed: 0 to 255.
    sharp
        Base-2 logarithm of the variance of the Laplacian over that of the grey levels.
    side, ratio
        Base-2 logarithms of the geometric mean of width and height, and of the longer over the shorter.
    density
        Base-2 logarithm of bytes in a pixel.
    kind
        Its format; `animated` is said where it has several frames.
    """

    flat: float
    dark: float
    bright: float
    sharp: float
    side: float
    ratio: float
    density: float
    kind: str


class Check(NamedTuple):
    """What is odd: a measure beyond a limit, and at least so far outside the quartiles of the set.

    `relative` limits are of the distance to the set's median.
    """

    words: str
    measure: str
    limit: float
    apart: float
    above: bool
    relative: bool = False


CHECKS = (
    Check("few colours", "flat", 0.92, 0.05, True),
    Check("dark", "dark", 64, 24, False),
    Check("bright", "bright", 208, 24, True),
    Check("blurred", "sharp", log2(0.02), 1, False),
    Check("small", "side", -2, 1, False, relative=True),
    Check("large", "side", 2, 1, True, relative=True),
    Check("long", "ratio", log2(3), 0.5, True),
    Check("few bytes for its size", "density", -3, 1, False, relative=True),
    Check("many bytes for its size", "density", 3, 1, True, relative=True),
)


def look(data: bytes) -> Look:
    """Return what an encoded image looks like.

    Raises
    ------
    BadImageError
        As `tlcache.images.decode`.
    """
    pixels, (width, height, frames) = decode(data, _SIDE)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image = image.reduce(max(1, min(image.size) // _SIDE))
    grey, colours = np.asarray(image.convert("L")), np.asarray(image.convert("RGB")) >> 5
    counts = np.bincount((colours[..., 0].astype(np.int16) << 6 | colours[..., 1] << 3 | colours[..., 2]).ravel())
    up_to = np.cumsum(np.bincount(grey.ravel(), minlength=256)) / grey.size
    return Look(
        flat=float(np.sort(counts)[-2:].sum() / grey.size),
        dark=float(np.searchsorted(up_to, 0.99)),
        bright=float(np.searchsorted(up_to, 0.05)),
        sharp=log2(_sharpness(grey.astype(np.float32))),
        side=log2(width * height) / 2,
        ratio=abs(log2(width / height)),
        density=log2(len(data) / (width * height)),
        kind=f"animated {kind_of(data)}" if frames > 1 else kind_of(data),
    )


def _sharpness(grey: NDArray[np.float32]) -> float:
    if min(grey.shape) < 3 or grey.var() < 1:
        return 1.0  # there is nothing that could be sharp
    middle = grey[1:-1, 1:-1]
    edges = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
    return float(edges.var() / grey.var()) + 1e-9


def looks_of(file: FeatureFile) -> list[Look | None]:
    """Return what every row's image looks like; None where it is gone or another now."""
    paths, hashes, images = file.paths(), file.hashes().astype(str), reopen(file.attrs["source"])
    images.expect(paths)

    def one(row: int) -> Look | None:
        try:
            return look(images.read(paths[row], hashes[row]))
        except (ImageReadError, BadImageError):
            return None

    found = []
    with image_bar("looking at images", len(paths)) as advance:
        for each in in_threads(one, range(len(paths))):
            found.append(each)
            advance(1)
    return found


def find_odd(looks: Sequence[Look | None]) -> dict[int, tuple[str, ...]]:
    """Return the rows whose images are odd, and what is odd of each; those with the most first."""
    rows = [row for row, each in enumerate(looks) if each is not None]
    if len(rows) < _FEW:
        return {}
    known = [each for each in looks if each is not None]
    odd: dict[int, list[str]] = {}
    for check in CHECKS:
        values = np.array([getattr(each, check.measure) for each in known])
        for at in np.flatnonzero(_beyond(values, check)):
            odd.setdefault(rows[at], []).append(check.words)
    kinds = Counter(each.kind for each in known)
    usual, most = kinds.most_common(1)[0]
    for row, each in zip(rows, known, strict=True):
        if most >= (1 - _RARE) * len(known) and each.kind != usual:
            odd.setdefault(row, []).append(f"{each.kind} among {usual}")
    return {row: tuple(words) for row, words in sorted(odd.items(), key=lambda item: (-len(item[1]), item[0]))}


def _beyond(values: NDArray[np.float64], check: Check) -> NDArray[np.bool_]:
    """Return which values are beyond the limit, and far outside what is usual."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    measured, reach = values - middle if check.relative else values, max(check.apart, _FENCE * (high - low))
    above: NDArray[np.bool_] = (measured > check.limit) & (values > high + reach)
    below: NDArray[np.bool_] = (measured < check.limit) & (values < low - reach)
    return above if check.above else below
