"""Forked workers and what they share: each image is taken once, whoever dies is noticed, and nobody outlives us."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from fakes import write_photos
from numpy.typing import NDArray

from tlcache.backbones.engines import OnnxRuntimeNetwork
from tlcache.backbones.load import load_model
from tlcache.datasets.dataset import load_dataset
from tlcache.datasets.folder import FileImages
from tlcache.errors import DataError, ImageReadError, ModelError
from tlcache.extraction import local, worker
from tlcache.extraction.board import Board
from tlcache.extraction.extract import extract
from tlcache.extraction.forks import DiedError, can_fork, forked, own_bytes, shared_lock
from tlcache.extraction.inflight import InFlight
from tlcache.extraction.job import Job, Sink
from tlcache.extraction.local import run_workers
from tlcache.images import Stored, prepare

forks = pytest.mark.skipif(not can_fork(), reason="this system forks no processes that end with their parent")


def take_all(board: Board) -> list[int]:
    """Take, hash and claim images until none is left: numbers of those that were the first of their content."""
    first = []
    while batch := board.take(3):
        for number in batch:
            board.hashed(number, hashlib.sha256(bytes([number % 50])).digest())
            if board.claim(number):
                first.append(number)
        board.count(len(batch))
    return first


@forks
def test_processes_take_each_image_once_and_each_content_once() -> None:
    board = Board(1000, 4, shared_lock())
    results = [forked(partial(take_all, board)) for _ in range(4)]
    first = [number for result in results for number in result()]
    assert sorted(number % 50 for number in first) == list(range(50))
    assert board.done == 1000
    assert board.hashes() == [hashlib.sha256(bytes([number % 50])).hexdigest() for number in range(1000)]


def test_contents_whose_hashes_begin_alike_are_told_apart() -> None:
    board = Board(3, 1, threading.Lock())
    for number, digest in enumerate((bytes(32), bytes(31) + b"1", bytes(31) + b"1")):
        board.hashed(number, digest)
    assert [board.claim(number) for number in range(3)] == [True, True, False]


def test_what_is_taken_shrinks_to_one_batch_near_the_end() -> None:
    board = Board(101, 2, threading.Lock())
    taken = []
    while images := board.take(4, 8):
        taken.append(images)
    assert [number for images in taken for number in images] == list(range(101))
    assert [len(images) for images in taken] == [24, 16, 12, 12, 8, 4, 4, 4, 4, 4, 4, 4, 1]


@pytest.mark.parametrize(("share", "batches"), [(1e9, {1, 2, 4, 8, 16}), (1e-9, {1})])
def test_a_worker_decodes_as_many_batches_at_a_stretch_as_its_time_allows(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, share: float, batches: set[int]
) -> None:
    asked, sizes = set(), set()

    class Watched(Board):
        def take(self, size: int, batches: int = 1) -> range:
            asked.add(batches)
            return super().take(size, batches)

    def watched(self: OnnxRuntimeNetwork, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        sizes.add(len(images))
        return run(self, images)

    run = OnnxRuntimeNetwork._run
    monkeypatch.setattr(local, "available_cpus", lambda: 1)
    monkeypatch.setattr(worker, "Board", Watched)
    monkeypatch.setattr(worker, "STRETCH_SHARE", share)
    monkeypatch.setattr(OnnxRuntimeNetwork, "_run", watched)
    data, model = load_dataset(write_photos(tmp_path / "photos", 20)), load_model(str(tiny_model))
    job = Job(data, (Sink(model, (), {}, tmp_path),), "cpu", "onnxruntime", 4, 0.0)
    (harvest,) = run_workers(job)
    assert harvest.embedded == 60
    assert asked == batches
    assert max(sizes) == 4
    asked.clear()
    known = Sink(model, set(harvest.sha256), {}, tmp_path)
    (again,) = run_workers(replace(job, sinks=(known,)))
    assert again.embedded == 0
    assert asked == {1}  # though known images take no time: those after them may be new


@pytest.mark.parametrize(("read_bytes", "ahead"), [(1, 1), (1 << 30, 12)])
def test_a_worker_holds_as_many_encoded_images_as_it_may(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int, ahead: int
) -> None:
    held, read_images = [0], FileImages.read_several

    def read(images: FileImages, paths: Sequence[str]) -> Iterator[bytes | ImageReadError]:
        for data in read_images(images, paths):
            held.append(held[-1] + 1)
            yield data

    def decode(*arguments: Any) -> tuple[NDArray[np.uint8], Stored]:
        held.append(held[-1] - 1)
        return prepare(*arguments)

    monkeypatch.setattr(local, "available_cpus", lambda: 1)
    monkeypatch.setattr(worker, "READ_BYTES", read_bytes)
    monkeypatch.setattr(FileImages, "read_several", read)
    monkeypatch.setattr(worker, "prepare", decode)
    data, model = load_dataset(write_photos(tmp_path / "photos", 4)), load_model(str(tiny_model))
    (harvest,) = run_workers(Job(data, (Sink(model, (), {}, tmp_path),), "cpu", "onnxruntime", 12, 0.0))
    assert harvest.embedded == 12
    assert (max(held), held[-1]) == (ahead, 0)


def test_a_batch_that_memory_cannot_hold_is_refused(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def empty(shape: tuple[int, ...], dtype: type) -> NoReturn:
        raise MemoryError(f"{shape} of {dtype}")

    data, model = load_dataset(write_photos(tmp_path / "photos", 4)), load_model(str(tiny_model))
    job = Job(data, (Sink(model, (), {}, tmp_path),), "cpu", "onnxruntime", 10**9, 0.0)
    monkeypatch.setattr(np, "empty", empty)
    with pytest.raises(ModelError, match="No memory for 12 images at a time. Try a smaller --batch-size"):
        run_workers(job)


def test_nobody_takes_more_once_somebody_says_stop() -> None:
    board = Board(10, 1, threading.Lock())
    assert board.take(4) == range(4)
    board.stop()
    assert not board.take(4)
    assert Board(0, 1, threading.Lock()).take(4) == range(0)


def fail(how: str) -> NoReturn:
    if how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exits":
        os._exit(3)
    raise DataError("no images")


@forks
@pytest.mark.parametrize(("how", "status"), [("dies", -signal.SIGKILL), ("exits", 3)])
def test_a_child_without_an_answer_leaves_its_status(how: str, status: int) -> None:
    with pytest.raises(DiedError) as died:
        forked(partial(fail, how))()
    assert died.value.status == status


@forks
def test_an_error_of_a_child_is_raised_here() -> None:
    with pytest.raises(DataError, match="no images"):
        forked(partial(fail, "raises"))()


@forks
def test_what_a_child_writes_to_is_its_own() -> None:
    def grow() -> int:
        before = own_bytes()
        kept = bytearray(50_000_000)
        return own_bytes() - before + 0 * len(kept)

    assert 45_000_000 < forked(grow)() < 60_000_000


ORPHAN = """
import os, signal, time
from tlcache.extraction.forks import forked

def work():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(os.getpid(), flush=True)
    time.sleep(600)

forked(work)
time.sleep(600)
"""


@forks
def test_a_child_does_not_outlive_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = Path("/proc", parent.stdout.readline().strip())
        assert child.exists()
        parent.kill()
    for _ in range(100):
        if not child.exists() or "Z" in (child / "stat").read_text().rpartition(")")[2].split()[:1]:
            return
        time.sleep(0.05)
    pytest.fail("the child lives on")


@pytest.mark.worker
@pytest.mark.slow
def test_copies_are_embedded_once_by_all_workers_together(photos: Path, tiny_model: Path) -> None:
    for path in sorted(photos.rglob("*.png")):
        for copy in range(10):
            (path.parent / f"{copy} of {path.name}").write_bytes(path.read_bytes())
    done = extract(photos, str(tiny_model), batch_size=2)
    assert (done.rows, done.embedded) == (264, 24)


@forks
def test_a_note_of_another_process_is_seen_whole_or_not_at_all() -> None:
    with tempfile.TemporaryFile() as shared:
        journal = InFlight(shared.fileno())

        def note() -> None:
            for number in range(1_000_000):
                with journal.decoding(number % 2, "/photos/dog.jpg", 224):
                    pass

        child = threading.Thread(target=forked(note))
        child.start()
        seen = []
        while child.is_alive():
            seen += journal.entries()
        child.join()
        assert seen
        assert {(entry.path, entry.at_least, entry.age_s < 30) for entry in seen} == {("/photos/dog.jpg", 224, True)}
