"""Encoded image bytes -> uint8 pixels; nothing else in the package decodes or resizes.

The rules below decide the pixels, so they carry a version, `RULES_VERSION`, that is part of every cache key. Where only
rare kinds of files are concerned, `REVISION` counts instead: see `changed`.

- Formats: AVIF, BMP, DICOM, GIF, HEIC, JPEG (and MPO), JPEG 2000, PNG, PPM, TIFF, WebP. Of an animation or a
  multi-page file, the first frame; of a TIFF that begins with a reduced copy, the first page that is none.
- EXIF orientation is applied; colour profiles are ignored.
- Transparency is composed on white.
- More than 8 bits per sample in grey: divided by the largest value of the smallest of 8, 10, 12, 14 and 16 bits that
  holds the image's maximum, so that 12-bit scans stored in 16 bits are not nearly black. With values below zero, the
  smallest signed range of 8 to 16 bits that holds them becomes 0 to 255 (-1024 to 1023 for most CT). 16-bit RGB keeps
  its high bytes. Floating point: values within [0, 1] are scaled by 255, those within [-1, 1] likewise, others follow
  the rule for integers. With `window`, its two values become 0 and 255 instead, in grey of more than 8 bits alone.
- Grey that is stored with white as zero (MinIsWhite) is inverted after that.
- Grey of DICOM is rescaled as the file says, and its first window, or its table of grey levels, becomes 0 to 255
  (PS3.3, C.11); without any it follows the rules above, and `window` takes the place of both in more than 8 bits.
- Dark borders (only with `crop_borders`): outer rows and columns are cut while fewer than 1 % of their pixels have a
  channel above 16 of 255.
- Images longer than 4:1 are first cut to their central 4:1.
- Large JPEGs are decoded at a reduced size by the JPEG decoder itself, never below twice the size needed; with
  `jpeg_size`, never below the size needed, or never at a reduced one.
- The short side is resized to `resize` with an antialiased filter, the centre `crop` x `crop` is taken.
- Damage that leaves every pixel readable is no damage: see `damage`.
"""

from tlcache.images.changed import changed
from tlcache.images.decoding import decode, rgb_of
from tlcache.images.formats import FORMATS, BadImageError, Stored
from tlcache.images.kernels import Kernel, by_numpy, by_torch, kernel_for
from tlcache.images.memory import checked, upright
from tlcache.images.preprocessing import MAX_PIXELS, REVISION, RULES_VERSION, Preprocess
from tlcache.images.resizing import OneTorchThread, Resizing, cut_borders, fit, prepare

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "REVISION",
    "RULES_VERSION",
    "BadImageError",
    "Kernel",
    "OneTorchThread",
    "Preprocess",
    "Resizing",
    "Stored",
    "by_numpy",
    "by_torch",
    "changed",
    "checked",
    "cut_borders",
    "decode",
    "fit",
    "kernel_for",
    "prepare",
    "rgb_of",
    "upright",
]
