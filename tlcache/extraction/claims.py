"""Who works on what: a small file that only one process can make, and that its maker keeps young."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["Claimant", "claimed", "is_held"]

BEAT_S = 30.0  # how often the file is made young
GONE_S = 600.0  # older than that, its maker is gone; clocks may differ, and a disk may stall
_NAME = "claim-"


@dataclass(frozen=True)
class Claimant:
    """Who claims: one command, whose workers do not take shards from each other.

    Parameters
    ----------
    share
        The share that it was given, such as `3/16`; empty where it takes what is left.
    """

    share: str = ""
    process: int = field(default_factory=os.getpid)
    host: str = field(default_factory=platform.node)
    command: str = field(default_factory=lambda: uuid.uuid4().hex)

    def outlives(self, other: Claimant) -> bool:
        """Return whether a claim of that one is void, whatever its age.

        It is when its process is gone from this host, and when this is the same share begun again on another.
        """
        if other.command == self.command:
            return False
        if other.host != self.host:
            return bool(self.share) and other.share == self.share
        return other.process == self.process or not _runs(other.process)


@contextmanager
def claimed(folder: Path, me: Claimant) -> Iterator[bool]:
    """Have what a folder is of to oneself, by a file in it that is kept young; False where somebody else does."""
    if not (path := _make(folder, me)):
        yield False
        return
    ended = threading.Event()
    beat = threading.Thread(target=_keep_young, args=(path, ended), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        ended.set()
        beat.join()
        for each in _claims(folder):
            if each.name <= path.name:
                each.unlink(missing_ok=True)


def is_held(folder: Path, me: Claimant | None = None) -> bool:
    """Return whether whoever claimed what a folder is of may still be at work."""
    return any(_is_valid(path, me or Claimant()) for path in _claims(folder)[-1:])


def _is_valid(path: Path, me: Claimant) -> bool:
    try:
        young = time.time() - path.stat().st_mtime < GONE_S
        text = path.read_bytes()
    except FileNotFoundError:
        return False
    with suppress(ValueError, TypeError):  # it is being written
        return young and not me.outlives(Claimant(**json.loads(text)))
    return young


def _make(folder: Path, me: Claimant) -> Path | None:
    """Make a claim; after one that is void comes one with the next number, which only one process can make."""
    folder.mkdir(parents=True, exist_ok=True)
    last = max(_claims(folder), default=None)
    if last and _is_valid(last, me):
        return None
    path = folder / f"{_NAME}{1 + int(last.name.removeprefix(_NAME)) if last else 1:06d}"
    with suppress(FileExistsError), path.open("xb") as file:
        file.write(json.dumps(asdict(me)).encode())
        return path
    return None


def _claims(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_NAME}*"))


def _keep_young(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with suppress(OSError):
            os.utime(path)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
