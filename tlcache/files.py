"""Files that are there whole or not at all, and the folder for those that can be made again."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tlcache.errors import CacheError, meant

__all__ = ["cache_folder", "check_folder", "check_room", "first_line_of", "folder_meant", "hash_file", "hub_folder",
           "naming", "relative", "reserve", "sync_folder", "whole", "write_whole", "writing_to"]  # fmt: skip


def cache_folder() -> Path:
    """Return the folder for exported networks and other things that can be made again (`TLCACHE_CACHE` overrides)."""
    if given := os.environ.get("TLCACHE_CACHE"):
        return Path(given)
    import platformdirs  # which deployed models do without

    return Path(platformdirs.user_cache_dir("tlcache"))


def hub_folder() -> Path:
    """Return the cache of the Hugging Face Hub as its own library finds it, by what the environment says now."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.path.expandvars(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")).expanduser()


def check_folder(folder: Path, option: str) -> Path:
    """Return `folder`, which `option` names; raises CacheError when nothing could be written there. Nothing is made."""
    there = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK) and _takes_files(there)):
        what, why = (
            "it" if there == folder else f"'{there}'",
            "may not be written" if there.is_dir() else "is no folder",
        )
        raise CacheError(f"Cannot write to '{folder}': {what} {why}. Give another folder with {option}.")
    return folder


def _takes_files(folder: Path) -> bool:
    """Return whether a file can be made in a folder: of /proc and the like its permissions promise what it refuses."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def folder_meant(folder: Path) -> str:
    """Return the question whether a folder beside one that is not there was meant, as `tlcache.errors.meant` does."""
    with suppress(OSError):  # of a name that is none, or a folder that cannot be read
        if not folder.exists() and folder.parent.is_dir():
            names = (each.name for each in sorted(folder.parent.iterdir()) if each.is_dir())
            return meant(folder.name, names, str(folder)[: -len(folder.name)])
    return ""


def first_line_of(path: Path) -> bytes:
    """Return the first line of a file, up to a million bytes of it; nothing where there is no file, but a pipe say."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.readline(1_000_000)


def check_room(folder: Path, size: int) -> None:
    """Raise CacheError when `size` bytes more cannot fit on the disk that holds `folder`."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise CacheError(
            f"This needs {size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free in '{folder}'. What is finished is "
            "kept: make room, or give another folder with --features, and run the same command again."
        )


@contextmanager
def writing_to(
    folder: Path, advice: str = "What is finished is kept; mend that and run the same command again."
) -> Iterator[None]:
    """Let an OSError of what is written into `folder` be a CacheError that says so, and what to do."""
    try:
        yield
    except OSError as error:
        raise CacheError(f"Cannot write to '{folder}': {error.strerror}. {advice}") from None


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def relative(path: str | Path, folder: Path) -> str:
    """Return the way to `path` from `folder`, or from the home folder (`~`) where `path` alone is in it.

    Pages and records have that in place of absolute paths, which name their user and do not survive a move.
    """
    place, start, home = Path(path).absolute(), folder.resolve(), Path.home()
    if place.is_relative_to(home) and not start.is_relative_to(home):
        return str("~" / place.relative_to(home))
    return os.path.relpath(place, start)


def reserve(descriptor: int, size: int) -> None:
    """Make sure that a file can grow to `size` bytes; raises OSError when the disk has no room for it."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(descriptor, 0, size)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` so that no reader and no crash ever meets half of it; makes missing folders."""
    with whole(path) as unfinished:
        unfinished.write_bytes(data)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Make an empty file beside `path`, to be written; it takes the place of `path` when that is done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent)
        os.close(descriptor)
        unfinished = Path(name)
        try:
            yield unfinished
            with unfinished.open("rb+") as written:
                os.fsync(written.fileno())
            unfinished.chmod(0o666 & ~_umask())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError name `path` where it names none, or the hidden file that is to become it."""
    try:
        yield
    except OSError as error:
        hidden = error.filename is None or Path(str(error.filename)).name.startswith(f".{path.name}-")
        if error.errno is None or not hidden:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
