"""How many threads compute, and how they wait: one policy for BLAS, OpenMP (torch, LightGBM) and the engines.

Threads of a library that wait for work spin, unless told otherwise, and take the cores from whoever has work, our own
other libraries among them. Here they sleep. How many there are follows from what this process may use, so that a
command gives the same numbers whatever else runs; from the load only where results do not depend on it (`team_for`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

__all__ = ["available_cpus", "blas_for", "in_threads", "set_waiting", "team_for"]

_BEGAN = time.monotonic()
SMALL = 8_000_000  # numbers: 6,250 rows of 1,280

T = TypeVar("T")
R = TypeVar("R")

# Libraries read them when they are loaded: OpenMP of GNU, of LLVM and of Intel, and OpenBLAS (2^4 cycles, the least).
_SLEEPING = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", "OPENBLAS_THREAD_TIMEOUT": "4"}


def set_waiting() -> None:
    """Have the threads of libraries that are loaded later sleep while they wait, here and in processes begun here.

    Where a quota allows fewer CPUs than this process sees, libraries have no thread for each that they see. What the
    user has set stays.
    """
    cpus = available_cpus()
    fewer = {"OMP_NUM_THREADS": str(cpus)} if cpus < _seen_cpus() else {}
    for name, value in {**_SLEEPING, **fewer}.items():
        os.environ.setdefault(name, value)


def available_cpus() -> int:
    """Return how many CPUs this process may use: its affinity, bounded by the control groups' quotas."""
    return max(1, min([_seen_cpus(), *_quotas()]))


def team_for(numbers: int) -> int:
    """Return how many threads a team should have whose results do not depend on that, for a problem of `numbers`.

    Of few numbers a step takes less than waking a thread does. A team goes at the pace of its slowest member, which has
    half of a CPU where another process computes. So the CPUs that others used in the last minute are left to them, but
    for one.
    """
    if numbers <= SMALL:
        return 1
    cpus = available_cpus()
    try:
        load = os.getloadavg()[0] * cpus / (os.cpu_count() or cpus)  # the whole machine's
    except OSError:
        return cpus
    own = time.process_time() / max(1.0, time.monotonic() - _BEGAN)
    return max(1, cpus - max(0, round(load - own)))


@contextmanager
def blas_for(numbers: int) -> Iterator[None]:
    """Have products of matrices computed on one thread meanwhile if a problem has few `numbers`.

    Its products take some milliseconds each, as long as a thread waits for its turn on a CPU that others use. Solved on
    one thread, it also has the same result on every machine with such processors.
    """
    if numbers > SMALL:
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


def in_threads(act: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield what `act` returns for each item, in their order, with a thread for each CPU; its first error ends it."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(available_cpus()) as pool:
        yield from pool.map(act, items)


def _seen_cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _quotas(groups: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> Iterator[int]:
    """Yield how many CPUs the control groups that this process is in, and those around them, allow: version 2, and 1.

    In a container the paths may be the host's; its own group is then the root here.
    """
    try:
        lines = [line.split(":", 2) for line in _read(groups).splitlines()]
    except OSError:  # not on Linux
        return
    for _, kinds, path in lines:
        if not kinds or "cpu" in kinds.split(","):
            names = [root, *(["cpu"] if kinds else []), *filter(None, path.split("/"))]
            for count in range(len(names), 0, -1):
                yield from _quota("/".join(names[:count]))


def _quota(folder: str) -> Iterator[int]:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with suppress(OSError, ValueError):  # not there, or "max"
            quota, period = " ".join(_read(f"{folder}/{name}") for name in names).split()
            if int(quota) > 0:
                yield round(int(quota) / int(period))


def _read(path: str) -> str:
    with open(path) as file:  # noqa: PTH123  # `import tlcache` reads, and imports no pathlib
        return file.read()
