"""Pixels -> the square, or the rectangle, that a network takes."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from math import ceil

import numpy as np
from numpy.typing import NDArray

from tlcache.images.corruptions import corrupt
from tlcache.images.decoding import decode_padded
from tlcache.images.formats import Stored
from tlcache.images.kernels import Kernel, Placed, by_torch, by_whole, kernel_for
from tlcache.images.notes import ONE_COLOUR
from tlcache.images.preprocessing import Preprocess

__all__ = ["OneTorchThread", "Resizing", "cut_borders", "fit", "prepare"]

_BORDER_LEVEL = 16
_BORDER_SHARE = 0.01
_LONGEST = 4


def prepare(
    data: bytes,
    preprocess: Preprocess,
    out: NDArray[np.uint8] | None = None,
    notes: set[str] | None = None,
    kernel: Kernel | None = None,
) -> tuple[NDArray[np.uint8], Stored]:
    """Decode, cut dark borders if asked, resize and crop one image.

    Parameters
    ----------
    out
        Where to put the pixels, an array like them; None: into a new one.
    notes
        Where to add what a user should know of the image; its words are those of `tlcache.images.notes`.
    kernel
        What resizes, of a `Resizing` where there are many images; None: what a single one is resized by soonest.

    Returns
    -------
    pixels
        uint8 (3, *preprocess.size), RGB.
    stored
        What the file's header says.

    Raises
    ------
    BadImageError
        As `decode`.
    """
    notes = set() if notes is None else notes
    pixels, stored = decode_padded(data, preprocess.at_least, preprocess.window, preprocess.max_pixels, notes)
    out = np.empty((3, *preprocess.size), np.uint8) if out is None else out
    fit(pixels, preprocess, out, kernel)
    if _is_flat(out):
        notes.add(ONE_COLOUR)
    if preprocess.corruption is not None:
        corrupt(out, preprocess.corruption, data)
    return out, stored


def fit(
    pixels: NDArray[np.uint8], preprocess: Preprocess, out: NDArray[np.uint8], kernel: Kernel | None = None
) -> None:
    """Do to uint8 (H, W, 3 or 4) `pixels` what `prepare` does to those of a file; a fourth channel means nothing."""
    if preprocess.crop_borders:
        pixels = cut_borders(pixels)
    pixels = _cut_long(pixels, preprocess)
    size = _resized(pixels.shape[0], pixels.shape[1], preprocess)
    (top, bottom, above), (left, right, before) = map(_centre, size, preprocess.size)
    inside = out[:, above : above + bottom - top, before : before + right - left]
    if inside.shape != out.shape:
        out[:] = np.array(preprocess.fill, np.uint8)[:, None, None]
    kernel = by_whole if preprocess.crop_mode is not None else kernel or kernel_for(1)
    kernel(pixels, Placed(size, (top, left), (bottom, right), preprocess.interpolation), inside)


def _is_flat(pixels: NDArray[np.uint8]) -> bool:
    step = max(1, pixels.shape[1] // 4)
    if len(set(pixels[0, ::step, ::step].tobytes())) > 1:  # as nearly always: half a microsecond
        return False
    return not (pixels != pixels[:, :1, :1]).any()


def cut_borders(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a view of uint8 (H, W, 3) `pixels` without its dark outer rows and columns; an all-dark image stays."""
    bright = pixels[:, :, :3].max(axis=2) > _BORDER_LEVEL
    rows = np.flatnonzero(bright.mean(axis=1) >= _BORDER_SHARE)
    columns = np.flatnonzero(bright.mean(axis=0) >= _BORDER_SHARE)
    if not len(rows) or not len(columns):
        return pixels
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _cut_long(pixels: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.uint8]:
    if preprocess.crop_mode is not None:
        return pixels
    height, width = pixels.shape[:2]
    longest = max(_LONGEST, ceil(max(preprocess.size) / preprocess.crop)) * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return pixels[top : top + longest, left : left + longest]


def _resized(height: int, width: int, preprocess: Preprocess) -> tuple[int, int]:
    """Return height and width of an image before the centre is cut out."""
    rows, columns = preprocess.covered
    if preprocess.crop_mode == "squash":
        return rows, columns
    if preprocess.crop_mode == "border":
        ratio = max(height / rows, width / columns)
        return max(1, round(height / ratio)), max(1, round(width / ratio))
    by_height = rows * width >= columns * height  # else that would leave columns uncovered
    return (rows, rows * width // height) if by_height else (columns * height // width, columns)


def _centre(length: int, wanted: int) -> tuple[int, int, int]:
    """Return where the middle of a side begins and ends, and what is missing before it."""
    if length < wanted:
        return 0, length, (wanted - length) // 2
    start = round((length - wanted) / 2)
    return start, start + wanted, 0


class OneTorchThread:
    """A context that keeps torch to one thread; resizing one image is no work for two."""

    def __enter__(self) -> None:
        import torch

        self._before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        import torch

        torch.set_num_threads(self._before)


class Resizing:
    """What resizes so many images, from the first `start` to `stop`; torch, if it is that, has one thread meanwhile.

    Torch is imported by `start`, so that a run with nothing to decode does not pay for it. Where there is something to
    decode for sure, it is a context.

    Parameters
    ----------
    images
        How many there are to resize.
    """

    def __init__(self, images: int) -> None:
        self._kernel = kernel_for(images)
        self._limited = ExitStack()
        self._started = False
        self._lock = threading.Lock()

    def __enter__(self) -> Kernel:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Kernel:
        """Return the kernel, loaded if that is not done yet; any thread may call."""
        with self._lock:
            if not self._started and self._kernel is by_torch:
                self._limited.enter_context(OneTorchThread())
            self._started = True
        return self._kernel

    def stop(self) -> None:
        """Give torch its threads back."""
        self._limited.close()
