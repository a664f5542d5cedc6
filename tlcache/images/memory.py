"""Pictures that are in memory already -> upright RGB, as their files would be."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tlcache.errors import first_line
from tlcache.images.decoding import Window, rgb_of
from tlcache.images.formats import BadImageError

__all__ = ["checked", "upright"]


def upright(image: Any, window: Window = None) -> NDArray[np.uint8]:
    """Return a picture as uint8 (H, W, 3 or 4), turned as it says; a fourth channel means nothing.

    Parameters
    ----------
    image
        A PIL image of any mode, or uint8 (H, W), (H, W, 3) or (H, W, 4).
    window
        As in `Preprocess`.

    Raises
    ------
    BadImageError
        `not-an-image`, or `damaged`.
    """
    try:
        picture = image if isinstance(image, Image.Image) else Image.fromarray(checked(image))
        if 0 in picture.size:
            raise ValueError(f"has no pixels: {picture.height} rows of {picture.width}")
        picture.load()  # some are turned by that
        return rgb_of(ImageOps.exif_transpose(picture), window)
    except (TypeError, ValueError) as error:
        raise BadImageError("not-an-image", first_line(error)) from None
    except OSError as error:
        raise BadImageError("damaged", first_line(error)) from None


def checked(image: Any) -> NDArray[np.uint8]:
    """Return what is uint8 (H, W), (H, W, 3) or (H, W, 4) as an array; raises ValueError for anything else."""
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise ValueError(
            "expected a path, bytes, a PIL image or uint8 (H, W), (H, W, 3), (H, W, 4); "
            f"found {pixels.dtype} {pixels.shape}"
        )
    return pixels
