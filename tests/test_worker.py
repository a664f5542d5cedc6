"""Images that kill or hang their decoder, and workers that die: one image is lost, or none, and a sentence says so."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import doom

from tlcache.cache.feature_file import open_features
from tlcache.errors import CacheError
from tlcache.extraction.extract import extract

pytestmark = pytest.mark.worker


@pytest.mark.slow
@pytest.mark.usefixtures("sabotaged")
def test_images_that_kill_or_hang_their_decoder_cost_themselves_alone(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLCACHE_DECODE_LIMIT_S", "4")
    doom(photos / "red" / "crash.png", "crash")
    doom(photos / "blue" / "crash too.png", "crash")
    doom(photos / "green" / "hang.png", "hang")
    done = extract(photos, str(tiny_model), max_bad=0.2, batch_size=4)
    assert (done.rows, done.quarantined) == (24, 3)
    with open_features(done.path) as file:
        why = {path: (code, message) for path, _, code, message in file.quarantine}
    assert why["red/crash.png"] == ("crashes", "its decoder dies of SIGSEGV")
    assert why["blue/crash too.png"][0] == "crashes"
    assert why["green/hang.png"] == ("hangs", "its decoder was not done after 4 s")
    assert extract(photos, str(tiny_model), max_bad=0.2).up_to_date


@pytest.mark.slow
@pytest.mark.usefixtures("sabotaged")
def test_an_image_that_is_innocent_when_alone_is_not_rejected(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLCACHE_DECODE_LIMIT_S", "3")
    doom(photos / "red" / "stalls.png", "stall once")
    with pytest.raises(CacheError, match="took more than 3 s, but not when it was tried alone"):
        extract(photos, str(tiny_model))
    assert extract(photos, str(tiny_model)).rows == 25


def workers_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, owner = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if (
                int(owner) == parent
                and state != "Z"
                and "tlcache.extraction.sandbox" in (entry / "cmdline").read_text()
            ):
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
@pytest.mark.parametrize("victim", ["parent", "worker", "child"])
def test_a_kill_of_any_process_ends_all_and_loses_nothing(slow_set: tuple[Path, Path], victim: str) -> None:
    photos, model = slow_set
    command = [sys.executable, "-m", "tlcache", "extract", "-m", model, "-d", photos, "--batch-size", "8"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(Path(os.environ["TLCACHE_FEATURES"]).glob("many/.*/*.safetensors")):
        time.sleep(0.02)
        assert process.poll() is None
    (worker,) = workers_of(process.pid)
    children = workers_of(worker)
    if victim == "child" and not children:
        pytest.skip("a single core, or a system that does not fork")
    os.kill({"parent": process.pid, "worker": worker, "child": (children or [0])[-1]}[victim], signal.SIGKILL)
    _, message = process.communicate(timeout=30)
    if victim != "parent":
        assert process.returncode == 1
        assert "was killed, perhaps because memory ran out. Finished images are kept" in " ".join(message.split())
    for _ in range(100):
        left = [each for each in (worker, *children) if Path(f"/proc/{each}").exists()]
        if not left:
            break
        time.sleep(0.05)
    assert not left
    rest = extract(photos, str(model), wait=False)
    assert 0 < rest.reused < 600
    assert rest.rows == 600


@pytest.mark.slow
def test_a_second_process_may_refuse_to_wait(slow_set: tuple[Path, Path]) -> None:
    photos, model = slow_set
    first = subprocess.Popen([sys.executable, "-m", "tlcache", "extract", "-m", model, "-d", photos])
    while not list(Path(os.environ["TLCACHE_FEATURES"]).glob("many/.*/*.safetensors")):
        time.sleep(0.02)
        assert first.poll() is None
    with pytest.raises(CacheError, match=r"Process \d+ on .* extracts the same features\. .*--no-wait"):
        extract(photos, str(model), wait=False)
    assert first.wait(60) == 0


@pytest.mark.slow
def test_a_process_that_exported_a_network_ends_without_a_word(photos: Path, tmp_path: Path) -> None:
    """Libraries that the exporter loads complain when they are unloaded."""
    command = [sys.executable, "-m", "tlcache", "extract", "--data", str(photos), "--model", "resnet20_cifar"]
    done = subprocess.run([*command, "--quiet"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "24" in done.stdout
