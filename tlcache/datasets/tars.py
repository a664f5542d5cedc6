"""Tar archives that are not compressed: where their members lie, by the header before each, and the bytes of one."""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

from tlcache.datasets.container import Container
from tlcache.datasets.contents import Contents, Member, gathered
from tlcache.errors import DataError

__all__ = ["TAR"]

_COMPRESSED = re.compile(rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd


def _contents(file: BinaryIO, path: str) -> Contents:
    passed_over = Counter[str]()
    if _COMPRESSED.match(file.read(8)):
        raise DataError(
            f"'{path}' is compressed as a whole: no image in it can be read by itself. Unpack it and give the folder, "
            "or take the compression off: gunzip, bunzip2, unxz or zstd -d leave a .tar that is read as it is."
        )
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            found = gathered(_members(archive, passed_over), passed_over)
            _check_end(file, archive.offset, path)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(
            f"'{path}' is no whole tar archive ({error}): it is cut off, damaged or of another kind. Copy it again."
        ) from None
    return found


def _members(archive: tarfile.TarFile, passed_over: Counter[str]) -> Iterator[Member]:
    files: dict[str, Member] = {}
    while (entry := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # which it collects
        if entry.isdir():
            yield Member(f"{entry.name}/")
        elif entry.isreg() and not entry.issparse():
            files[entry.name] = Member(entry.name, entry.offset_data, entry.size, entry.size)
            yield files[entry.name]
        elif (entry.islnk() or entry.issym()) and (target := files.get(_target(entry))):
            files[entry.name] = target._replace(name=entry.name)
            yield files[entry.name]
        else:
            passed_over["link" if entry.islnk() or entry.issym() else "special file"] += 1


def _target(link: tarfile.TarInfo) -> str:
    """Return the member that a link leads to: hard ones have its name, symbolic ones the way to it."""
    if link.islnk():
        return link.linkname
    return posixpath.normpath(posixpath.join(posixpath.dirname(link.name), link.linkname))


def _check_end(file: BinaryIO, end: int, path: str) -> None:
    """Raise DataError where an archive does not end as one does, with zeros alone: what follows would be lost."""
    file.seek(end)
    first = rest = file.read(tarfile.BLOCKSIZE)
    while rest and not rest.strip(b"\0"):
        rest = file.read(1 << 20)
    if len(first) < tarfile.BLOCKSIZE or rest:
        what = "something that is no member of it follows" if rest else "its end is not there"
        raise DataError(
            f"'{path}' is no whole tar archive: after {end:,} bytes {what}. It is cut off or damaged, or several are "
            "joined to one. Copy it again, or give each by itself."
        )


def _read(file: BinaryIO, member: Member) -> bytes:
    file.seek(member.offset)
    return file.read(member.packed)


TAR = Container("tar", _contents, _read)
