"""Locks between processes: the kernel's, which end with their holder, or where a disk has none, a file."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Self

from filelock import BaseFileLock, FileLock, SoftFileLock

__all__ = ["Lock"]

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}  # Lustre without flock, NFS without lockd, some FUSE


class Lock:
    """A lock by the name of a file.

    Where the disk has no locks, a second file, `marker`, says that it is held, and by which process of which host; on
    the same host it is taken over from a process that is gone. That the first file is there says nothing: it stays.
    """

    def __init__(self, path: Path) -> None:
        self.marker = path.with_name(f"{path.name}.held")
        self._lock: BaseFileLock = FileLock(path, fallback_to_soft=False)

    def acquire(self, timeout_s: float = -1) -> None:
        """Take the lock, for which there are so many seconds; negative: wait for it.

        Raises
        ------
        filelock.Timeout, OSError
            Somebody else holds it; its file cannot be made.
        """
        try:
            self._lock.acquire(timeout_s)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self._lock = SoftFileLock(self.marker)
            self._lock.acquire(timeout_s)

    def release(self) -> None:
        """Give it back."""
        self._lock.release()

    @property
    def advice(self) -> str:
        """What to do when its holder is gone for good; empty where the kernel sees to that."""
        if not isinstance(self._lock, SoftFileLock):
            return ""
        return f" This disk has no locks: if that process is gone, remove '{self.marker}'."

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
