"""Zip archives: where their members lie, by the directory at their end, and the bytes of one."""

from __future__ import annotations

import stat
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from tlcache.datasets.container import Container
from tlcache.datasets.contents import Contents, Member, gathered
from tlcache.errors import DataError

__all__ = ["ZIP"]

_ENCRYPTED, _UTF_8 = 0x1, 0x800  # bits of a member's flags
_DAMAGE = (BadZipFile, EOFError, NotImplementedError, ValueError, OverflowError, struct.error)  # that zipfile raises
_HEADER = struct.Struct("<4s4xH16xHH")  # of a member: signature, method, lengths of its name and of what is extra
_AROUND = 512  # bytes of a header with its name and what is extra, nearly always


def _contents(file: BinaryIO, path: str) -> Contents:
    passed_over = Counter[str]()
    try:
        with ZipFile(file) as archive:
            return gathered(_members(path, archive.infolist(), passed_over), passed_over)
    except _DAMAGE as error:
        raise DataError(
            f"'{path}' is no whole zip archive ({error}): it is cut off, damaged or of another kind. Copy it again."
        ) from None


def _check(path: str, entry: ZipInfo) -> None:
    locked = entry.flag_bits & _ENCRYPTED
    if locked or entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        how = "encrypted" if locked else f"compressed by method {entry.compress_type}"
        raise DataError(
            f"'{entry.filename}' in '{path}' is {how}; stored and deflated images are read. Unpack the archive and "
            "give the folder, or pack that again: zip -0 -r photos.zip photos"
        )


def _members(path: str, entries: list[ZipInfo], passed_over: Counter[str]) -> Iterator[Member]:
    for entry in entries:
        _check(path, entry)
        if stat.S_ISLNK(entry.external_attr >> 16):
            passed_over["link"] += 1
        else:
            mark = zlib.crc32(entry.orig_filename.encode("utf-8" if entry.flag_bits & _UTF_8 else "cp437"))
            yield Member(_name(entry), entry.header_offset, entry.compress_size, entry.file_size, entry.CRC, mark)


def _name(entry: ZipInfo) -> str:
    """Return a member's name, as UTF-8 where it is that and does not say so, as those that a Mac has packed."""
    name = entry.filename
    if not entry.flag_bits & _UTF_8:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/") if entry.create_system == 0 else name


def _read(file: BinaryIO, member: Member) -> bytes:
    file.seek(member.offset)
    found = file.read(_AROUND + member.packed)  # at once: of a store each is a request
    if len(found) < _HEADER.size or not found.startswith(b"PK\x03\x04"):
        raise OSError("where it should lie in the zip file is something else; the archive is damaged")
    _, method, name, extra = _HEADER.unpack_from(found)
    start = _HEADER.size + name + extra
    if zlib.crc32(found[_HEADER.size : _HEADER.size + name]) != member.mark:
        raise OSError("it has two names in the zip file; the archive is damaged")
    if (missing := start + member.packed - len(found)) > 0:
        found += file.read(missing)
    data = found[start : start + member.packed]
    if method == ZIP_STORED:
        return data
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.size + 1)  # no more than it says
    except zlib.error as error:
        raise OSError(f"its bytes in the zip file are damaged ({error})") from None


ZIP = Container("zip", _contents, _read)
