"""What is asked of the machine itself."""

import os
import subprocess
import sys

import pytest

# Blocks of 80 MB, which glibc gives back to the system when they are freed: pages that are new, and what stays.
SCRIPT = """
import resource
from pathlib import Path
from tlcache.machine import keeping_memory

def faults(blocks):
    began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(blocks):
        bytearray(b"1") * 80_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - began

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

usual = faults(6)
with keeping_memory():
    faults(1)
    kept, held = faults(6), resident()
print(kept / usual, (held - resident()) / 80_000_000, faults(6) / usual)
"""


def measured(**environment: str) -> list[float]:
    """Return the share of pages that is new still, how many blocks are given back, and the share thereafter."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command, environment = [sys.executable, "-c", SCRIPT], {**inherited, **environment}
    return [float(each) for each in subprocess.check_output(command, env=environment, text=True).split()]


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_is_used_again_meanwhile_and_given_back_in_the_end() -> None:
    new, given_back, new_then = measured()
    assert new < 0.25
    assert given_back == pytest.approx(1, abs=0.1)
    assert new_then > 0.5


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_what_the_user_has_set_of_the_allocator_stays() -> None:
    new, _, _ = measured(MALLOC_TRIM_THRESHOLD_="131072")
    assert new > 0.5
