"""Rare kinds of files whose pixels are others than they were: caches keep their keys, such rows are computed anew.

Revision 2: TIFF of more than 8 bits with white as zero, values below zero or uncompressed planes; TIFF of 32 bits, of
signed bytes, or that begins with a reduced copy; PNG of 16-bit grey with a transparent value; PFM below zero.
"""

from __future__ import annotations

import warnings

from tlcache.images.tiff import is_deep, is_misread, is_reduced, is_signed, is_white_zero, tags_of

__all__ = ["changed"]

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GREY_16 = b"\x10\0"  # bit depth and colour type of a PNG


def changed(data: bytes) -> bool:
    """Return whether an image is of a kind that looked otherwise in an earlier revision; the header decides."""
    if data.startswith(b"\x89PNG"):
        return data[24:26] == _GREY_16 and b"tRNS" in data[: data.find(b"IDAT")]
    if data[:4] in _TIFF:
        return _changed_tiff(data)
    return data.startswith(b"Pf")


def _changed_tiff(data: bytes) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):  # of tags that are odd
            tags = tags_of(data)
        deep = is_deep(tags) and (is_white_zero(tags) or is_signed(tags))
        return deep or is_deep(tags, 16) or is_misread(tags) or is_reduced(tags)
    except Exception:  # a header that cannot be read is for the decoder to judge
        return True
