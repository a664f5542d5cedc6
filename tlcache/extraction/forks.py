"""Child processes that begin with everything this one has loaded, without a copy of it in memory."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from tlcache.errors import TlcacheError

__all__ = ["DiedError", "can_fork", "forked", "own_bytes", "shared_lock"]

T = TypeVar("T")
_SET_PDEATHSIG = 1  # of prctl(2)


class DiedError(Exception):
    """A child process ended without an answer; `status` as `subprocess` has it: below zero, the signal."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def can_fork() -> bool:
    """Return whether this system has child processes that share memory and end with their parent."""
    return sys.platform == "linux"


def shared_lock() -> Any:
    """Return a lock for this process and its children."""
    return multiprocessing.get_context("fork").Lock()


def forked(act: Callable[[], T]) -> Callable[[], T]:
    """Begin `act` in a child process, and return what waits for its result or raises its error.

    The child ends when this process does, however it does.

    Raises
    ------
    DiedError
        The child gave no answer.
    """
    here, there = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_act, args=(act, there, os.getpid()), daemon=True)
    child.start()
    there.close()

    def result() -> T:
        try:
            done, answer = here.recv()
        except EOFError:
            child.join()
            raise DiedError(child.exitcode or 0) from None
        child.join()
        if not done:
            raise answer
        return answer  # type: ignore[no-any-return]

    return result


def _act(act: Callable[[], object], there: Connection, parent: int) -> None:
    ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        there.send((True, act()))
    except (TlcacheError, OSError) as error:
        there.send((False, error))


def own_bytes() -> int:
    """Return how much memory this process shares with no other, in bytes."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
