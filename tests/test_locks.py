"""Locks on disks that have them and on disks that have none: work is done, and nobody waits for nobody."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import Timeout

from tlcache.cache.feature_file import open_features
from tlcache.errors import CacheError
from tlcache.extraction.extract import extract
from tlcache.extraction.target import lock_of
from tlcache.locks import Lock

MISSING = {"Lustre": errno.ENOSYS, "NFS without lockd": errno.ENOLCK, "some FUSE": errno.EOPNOTSUPP}
WORK = """
import sys, tlcache
photos, model, others = sys.argv[1:]
assert [entry.state for entry in tlcache.list_cache()] == ["complete"]
assert [check.sound for check in tlcache.verify()] == [True]
assert tlcache.find_leftovers() == []
assert tlcache.extract(photos, model, wait=False).up_to_date
assert tlcache.extract(others, model, wait=False).rows == 24
assert len(tlcache.fit_heads(heads=["ridge"], data="photos")) == 1
"""


@pytest.fixture(params=MISSING.values(), ids=list(MISSING))
def lockless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process believe that no disk has locks."""

    def refuse(*_: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.skipif(not shutil.which("gcc") or sys.platform != "linux", reason="needs gcc and Linux")
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK])
def test_what_was_made_with_locks_is_used_and_added_to_without(
    code: int, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    extract(photos, str(tiny_model))  # it leaves an empty lock file
    others = shutil.copytree(photos, tmp_path / "others")
    library = tmp_path / "nolocks.so"
    source = Path(__file__).with_name("nolocks.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    env = {**os.environ, "LD_PRELOAD": str(library), "NO_LOCKS": str(code)}
    command = [sys.executable, "-c", WORK, photos, tiny_model, others]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert list((tmp_path / "features").glob("*/.*.held")) == []


@pytest.mark.usefixtures("lockless")
def test_a_lock_without_the_kernel_holds_and_ends(tmp_path: Path) -> None:
    path = tmp_path / ".work.lock"
    path.touch()
    held, other = Lock(path), Lock(path)
    with held:
        with pytest.raises(Timeout):
            other.acquire(0)
        assert other.advice == f" This disk has no locks: if that process is gone, remove '{path}.held'."
    other.acquire(0)
    other.release()
    assert [each.name for each in tmp_path.iterdir()] == [".work.lock"]


@pytest.mark.usefixtures("lockless")
def test_a_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    code = "import filelock, os, sys; lock = filelock.SoftFileLock(sys.argv[1]); lock.acquire(); os._exit(9)"
    lock = Lock(tmp_path / ".work.lock")
    subprocess.run([sys.executable, "-c", code, lock.marker], check=False)
    assert lock.marker.exists()
    lock.acquire(5)
    lock.release()


@pytest.mark.usefixtures("lockless")
def test_who_waits_for_another_host_knows_what_to_do(photos: Path, tiny_model: Path) -> None:
    made = extract(photos, str(tiny_model)).path
    lock = lock_of(made.with_name(f".{made.stem}.parts"))
    lock.marker.write_text("4242\nelsewhere\n")
    with pytest.raises(CacheError, match=r"extracts the same features\..* This disk has no locks: if .* remove '"):
        extract(photos, str(tiny_model), wait=False)


def test_where_there_are_locks_nothing_else_is_asked(tmp_path: Path) -> None:
    lock = Lock(tmp_path / ".work.lock")
    lock.marker.touch()
    lock.acquire(0)
    assert lock.advice == ""
    lock.release()


def test_reading_needs_no_lock(photos: Path, tiny_model: Path) -> None:
    made = extract(photos, str(tiny_model)).path
    with made.open("rb+") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        with open_features(made) as file:
            assert len(file.split("train")) > 0
