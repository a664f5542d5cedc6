"""The machine and the versions at hand: what runs are made with, for records."""

from __future__ import annotations

import contextlib
import datetime
import gc
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tlcache.threads import available_cpus
from tlcache.version import __version__

__all__ = [
    "Energy",
    "cpu_flags",
    "forget_peak_rss",
    "free_memory_bytes",
    "hardware",
    "has_vnni",
    "is_first",
    "keeping_memory",
    "loading",
    "now",
    "peak_rss_bytes",
    "provenance",
    "uncollected",
    "versions",
]

_POWERCAP = Path("/sys/class/powercap")
_MOST_WATTS = 600  # of a processor: a counter of less than so many seconds' worth may go round unnoticed
# M_MMAP_MAX and M_TRIM_THRESHOLD of mallopt(3): while memory is kept, and what glibc has after large blocks
_MALLOC = ((-4, 0, 65_536), (-1, -1, 64 << 20))
_PACKAGES = ("h5py", "lightgbm", "numpy", "onnx", "pillow", "scikit-learn", "scipy", "torch", "torchvision")


def is_first() -> bool:
    """Return whether this is the first of the processes that torchrun started, or was not started by it: it talks."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Keep the garbage collector from what is loaded meanwhile and before, here and in forked children.

    For a process of our own. Looking through all that again and again takes a fifth of the time of the imports, and
    looking for new garbage as often as Python does, 2 % of the time of decoding, which makes none.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(10_000)
        gc.enable()


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector from going through the many small objects of long lists again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextlib.contextmanager
def keeping_memory() -> Iterator[None]:
    """Keep freed memory for what is allocated next, where the C library is glibc, and give it back in the end.

    It gives large blocks back to the system at once, which clears each page again that the next step of a training
    asks for: a third of the processor time of MobileNetV3-Small. What the user has set (`MALLOC_...`) stays.
    """
    import ctypes

    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim") or any(name.startswith("MALLOC_") for name in os.environ):
        yield
        return
    for option, keeping, _ in _MALLOC:
        libc.mallopt(option, keeping)
    try:
        yield
    finally:
        for option, _, usual in _MALLOC:
            libc.mallopt(option, usual)
        libc.malloc_trim(0)


def peak_rss_bytes() -> int:
    """Return the largest memory this process has had, in bytes."""
    with contextlib.suppress(OSError, StopIteration):  # what getrusage says includes the process that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def forget_peak_rss() -> None:
    """Let `peak_rss_bytes` count from now on, on Linux; elsewhere it counts from the beginning."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class Energy:
    """Energy that processors take from now on, where the machine tells it (RAPL, Linux): of all that runs on it."""

    def __init__(self) -> None:
        self._began, self._since = _counters(), time.monotonic()

    def joules(self) -> float | None:
        """Return what they took; None where it is not told, or a counter may have gone round more than once."""
        now, seconds, spent = _counters(), time.monotonic() - self._since, 0
        for zone, (count, limit) in self._began.items():
            if zone not in now or seconds * _MOST_WATTS > limit / 1e6:
                return None
            spent += (now[zone][0] - count) % (limit + 1)
        return spent / 1e6 if self._began else None


def _counters() -> dict[str, tuple[int, int]]:
    """Return micro-joules of each processor that may be read, and where its counter begins anew."""
    found = {}
    for zone in _POWERCAP.glob("intel-rapl:*"):
        if zone.name.count(":") == 1:  # parts of a processor have another
            with contextlib.suppress(OSError, ValueError):
                count, limit = (int((zone / name).read_text()) for name in ("energy_uj", "max_energy_range_uj"))
                found[zone.name] = count, limit
    return found


def free_memory_bytes() -> int:
    """Return how much memory this process may still take: what is available, bounded by the control group's limit."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:")))
    except (OSError, StopIteration):  # not Linux
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, max(0, limit - used))
    return free


def versions() -> dict[str, str]:
    """Return the versions of tlcache, of Python and of the packages that decide results."""
    from importlib.metadata import PackageNotFoundError, version  # takes as long to load as all else here together

    found = {"tlcache": __version__, "python": platform.python_version()}
    for package in (*_PACKAGES, "onnxruntime-gpu", "onnxruntime", "openvino"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Return the processor's name, the CPUs this process may use, and the operating system."""
    return {"cpu": _cpu_name(), "cpus": available_cpus(), "system": platform.platform()}


def has_vnni() -> bool:
    """Return whether products of 8-bit integers are exact here: by AVX2 alone, pairs of them overflow 16 bits."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(cpu_flags())


def cpu_flags() -> frozenset[str]:
    """Return what the processor can do, by Linux's names; none where that is not told."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return frozenset(next(line for line in lines if line.startswith(("flags", "Features"))).split())
    return frozenset()


def now() -> str:
    """Return the time: UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def provenance() -> dict[str, Any]:
    """Return what a record says of its making: `versions`, `hardware` and when it was `created`."""
    return {"versions": versions(), "hardware": hardware(), "created": now()}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
