"""Damage: what of it leaves every pixel readable, and what a decoder would not notice."""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Iterator

from PIL import Image, JpegImagePlugin

from tlcache.images.formats import BadImageError

__all__ = ["check_png", "mended", "unusual_jpeg"]

_DECIDES = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}  # the pixels of a PNG; what else there is may be damaged
_TURNED = b"eXIf"
_END = b"\xff\xd9"
_FILLERS = (b"", b"\x55" * 64, b"\xaa" * 64, b"\x0f" * 64)
_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
_BASELINE = {0xC0, 0xC1}
_NO_LENGTH = {0x01, *range(0xD0, 0xDA)}
_SOS = 0xDA


def check_png(data: bytes) -> None:
    """Compare the checksums of a PNG's critical chunks; Pillow does not look at those of the pixels."""
    for kind, chunk in _chunks(data):
        if kind[:1].isupper() and not _is_sound(chunk):
            raise BadImageError("damaged", f"damaged PNG (the checksum of its {kind.decode('latin-1')} is wrong)")


def mended(kind: str, data: bytes) -> bytes | None:
    """Return a file with the same pixels and without what a decoder stumbled over; None where there is no telling."""
    if kind == "PNG":
        return _bare_png(data)
    return _ended_jpeg(data) if kind == "JPEG" else None


def unusual_jpeg(data: bytes) -> str:
    """Return what kind of JPEG it is, if it is one that hardly any program reads; else nothing."""
    frame, bits = _frame(data)
    lossless = "lossless JPEG" if frame in _LOSSLESS else ""
    deep = f"{bits}-bit JPEG" if bits > 8 else ""
    return f"{lossless or deep} (SOF{frame - 0xC0}), as DICOM files hold" if lossless or deep else ""


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind of every whole chunk of a PNG and the chunk, up to its end."""
    at, kind = 8, b""
    while at + 12 <= len(data) and kind != b"IEND":
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end <= len(data):
            yield kind, data[at:end]
        at = end


def _is_sound(chunk: bytes) -> bool:
    return zlib.crc32(memoryview(chunk)[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _bare_png(data: bytes) -> bytes | None:
    chunks = list(_chunks(data))
    cut = data[8 + sum(len(chunk) for _, chunk in chunks) :]
    kept = (chunk for kind, chunk in chunks if kind in _DECIDES or (kind == _TURNED and _is_sound(chunk)))
    bare = data[:8] + b"".join(kept) + cut
    return bare if bare != data else None


def _ended_jpeg(data: bytes) -> bytes | None:
    """Return a JPEG with its last marker, if it is all that was missing.

    Then, whatever comes after the data makes no difference; where pixels are missing, a decoder makes them of it. That
    is not so for progressive ones, which may lack a whole scan.
    """
    if _frame(data)[0] not in _BASELINE:
        return None
    with contextlib.suppress(Exception):  # of a decoder; then it is not whole
        if len({_decoded(data + filler + _END) for filler in _FILLERS}) == 1:
            return data + _END
    return None


def _decoded(data: bytes) -> bytes:
    with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
        return Image.Image.tobytes(image)


def _frame(data: bytes) -> tuple[int, int]:
    """Return the marker of a JPEG's frame and its bits per sample; zeros where there is none before the first scan."""
    at = 2
    while at + 5 <= len(data) and data[at] == 0xFF and data[at + 1] != _SOS:
        marker = data[at + 1]
        if marker in _SOF:
            return marker, data[at + 4]
        at += 1 if marker == 0xFF else 2 if marker in _NO_LENGTH else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 0
