"""Faults of storage and of files that come and go, provoked for real; the random ones are in torture.py."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import write_image, write_photos
from PIL import Image
from test_images import JPEG, PNG, bomb, encode, sixteen_bit_rgb, with_bad_crc

import tlcache.extraction.steps
from tlcache.auditing.run import audit
from tlcache.cache.feature_file import open_features
from tlcache.datasets.dataset import Dataset
from tlcache.errors import CacheError
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune
from tlcache.probing.fit import fit_curves, fit_heads
from tlcache.report.page import write_report


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "tlcache", "extract", *map(str, arguments)]


def everything(path: Path) -> dict[str, bytes]:
    with open_features(path) as file:
        rows = file.split("train", "val", "test")
    return {name: row.tobytes() for name, row in zip(rows.paths, rows.features, strict=True)}


def before_embedding(monkeypatch: pytest.MonkeyPatch, act: Callable[[Dataset], None]) -> None:
    """Let something happen between the look at the dataset and the reading of its images."""
    real = tlcache.extraction.steps.load_dataset

    def load(*arguments: str) -> Dataset:
        dataset = real(*arguments)
        act(dataset)
        return dataset

    monkeypatch.setattr("tlcache.extraction.steps.load_dataset", load)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("unshare") or os.geteuid() != 0, reason="mounts a file system")
def test_a_real_full_file_system(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    small, kept = tmp_path / "small", tmp_path / "kept"
    small.mkdir()
    rest = " ".join(command("-m", tiny_model, "-d", photos, "--features", small))
    script = f"mount -t tmpfs -o size=64k tmpfs {small} && {rest}; status=$?; cp -a {small} {kept}; exit $status"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "mount:" in done.stderr:
        pytest.skip("may not mount")
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in " ".join(done.stderr.split())
    assert not list(kept.glob("*/*.h5"))
    again = extract(photos, str(tiny_model), features=kept)
    assert (again.embedded, again.reused) == (0, 24)


def test_a_damaged_part_is_computed_again(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = everything(extract(photos, str(tiny_model), features=tmp_path / "whole").path)
    monkeypatch.setattr("tlcache.extraction.worker.SHARD_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr("tlcache.extraction.target.publish", lambda _: (_ for _ in ()).throw(CacheError("stopped")))
        with pytest.raises(CacheError, match="stopped"):
            extract(photos, str(tiny_model), batch_size=6)
    parts = sorted(tmp_path.glob("features/*/.*.parts/*.safetensors"))
    assert len(parts) == 4
    parts[0].write_bytes(parts[0].read_bytes()[:-1])
    flipped = bytearray(parts[1].read_bytes())
    flipped[len(flipped) // 2] ^= 1
    parts[1].write_bytes(flipped)
    done = extract(photos, str(tiny_model), batch_size=6)
    assert (done.embedded, done.reused) == (12, 12)
    assert any("Damaged parts or rows in the cache, made good now: 2." in line for line in done.warnings)
    assert everything(done.path) == expected


@pytest.mark.slow
def test_a_cache_folder_that_vanishes_is_named(slow_set: tuple[Path, Path], tmp_path: Path) -> None:
    photos, model = slow_set
    process = subprocess.Popen(command("-m", model, "-d", photos), stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("features/many/.*/*.safetensors")):
        time.sleep(0.02)
        assert process.poll() is None
    (tmp_path / "features").rename(tmp_path / "away")  # at once: somebody is writing there
    _, message = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: " in message
    assert "features/many" in " ".join(message.split()) or "vanished from the cache" in " ".join(message.split())
    assert "Traceback" not in message
    assert extract(photos, str(model)).rows == 600


@pytest.mark.parametrize(
    ("act", "option"),
    [
        (lambda _, file: extract("photos", "nowhere.onnx", features=file), "--features"),
        (lambda made, file: fit_heads([made], runs=file), "--runs"),
        (lambda made, file: fit_curves([made], [1], runs=file / "runs"), "--runs"),
        (lambda made, file: audit([made], runs=file), "--runs"),
        (lambda _, file: finetune("nowhere", "squeezenet1_1", runs=file), "--runs"),
        (lambda _, file: write_report(file / "report.html", file), "--out"),
    ],
    ids=["extract", "fit-heads", "shots", "audit", "finetune", "report"],
)
def test_a_file_where_a_folder_should_be_is_told_before_any_work(
    photos: Path, tiny_model: Path, act: Callable[[Path, Path], object], option: str
) -> None:
    made, file = extract(photos, str(tiny_model)).path, photos / "red" / "0.png"
    with pytest.raises(CacheError, match=rf"Cannot write to '.*0\.png.*': .* is no folder\. Give another .*{option}"):
        act(made, file)


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("chattr"), reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o500)
    if os.geteuid() == 0 and subprocess.run(["chattr", "+i", closed], capture_output=True, check=False).returncode:
        pytest.skip("cannot make a folder that root may not write")
    try:
        with pytest.raises(CacheError, match=r"Cannot write to .*closed.*--features"):
            extract(photos, str(tiny_model), features=closed)
    finally:
        subprocess.run(["chattr", "-i", closed], capture_output=True, check=False)


def test_files_that_change_or_vanish_during_the_run(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(_: Dataset) -> None:
        (photos / "red" / "0.png").unlink()
        write_image(photos / "red" / "1.png", 4711, 0)

    before_embedding(monkeypatch, act)
    done = extract(photos, str(tiny_model))
    assert (done.rows, done.quarantined) == (23, 1)
    with open_features(done.path) as file:
        ((path, sha256, code, message),) = file.quarantine
        hashes = dict(zip(file.paths(), file.hashes().astype(str), strict=True))
    assert (path, sha256, code, message) == ("red/0.png", "", "unreadable", "No such file or directory")
    monkeypatch.undo()
    from tlcache.files import hash_file

    assert hashes["red/1.png"] == hash_file(photos / "red" / "1.png")


def test_links_planted_in_the_cache_are_not_written_through(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    target = extract(photos, str(tiny_model)).path
    expected = everything(target)
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("precious")
    folder.mkdir()
    lock, parts = target.with_name(f".{target.stem}.lock"), target.with_name(f".{target.stem}.parts")
    for planted, to in ((target, victim), (lock, victim), (parts, folder)):
        planted.unlink(missing_ok=True)
        planted.symlink_to(to)
        try:
            again = extract(photos, str(tiny_model))
            assert everything(again.path) == expected
        except CacheError as error:
            assert planted.name in str(error) or str(planted.parent) in str(error)  # noqa: PT017
        assert victim.read_text() == "precious"
        assert list(folder.iterdir()) == []
        planted.unlink(missing_ok=True)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_and_batches_do_not_change_a_row(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    expected = everything(extract(photos, str(tiny_model), features=tmp_path / "one").path)
    monkeypatch.setattr("tlcache.extraction.local.available_cpus", lambda: threads)
    found = everything(extract(photos, str(tiny_model), features=tmp_path / "two", batch_size=7).path)
    assert list(found) == list(expected)
    assert found == expected


def test_images_of_several_pages_are_counted(photos: Path, tiny_model: Path) -> None:
    pages = [Image.new("RGB", (16, 16), (level, 0, 0)) for level in (10, 200)]
    (photos / "red" / "stack.tif").write_bytes(encode(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    line = "Images with several frames or pages, of which the first is used: red/stack.tif."
    assert line in extract(photos, str(tiny_model)).warnings
    assert line in extract(photos, str(tiny_model)).warnings


def bad_files() -> dict[str, bytes]:
    half = len(JPEG) // 2
    return {
        "empty.jpg": b"",
        "text.jpg": b"hello",
        "page.jpg": b"<html>404</html>",
        "random.jpg": np.random.default_rng(0).bytes(900),
        "half.jpg": JPEG[:half],
        "99.jpg": JPEG[: len(JPEG) * 99 // 100],
        "minus3.jpg": JPEG[:-3],
        "crc.png": with_bad_crc(PNG),
        "bomb.png": bomb(),
        "phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0",
        "layers.psd": b"8BPS\0\x01" + bytes(20),
        "print.eps": b"%!PS-Adobe-3.0 EPSF-3.0",
        "paper.jpg": b"%PDF-1.4",
    }


def odd_files() -> dict[str, bytes]:
    image = Image.open(__import__("io").BytesIO(PNG))
    return {
        "named.png": JPEG,
        "trailing.jpg": JPEG + b"garbage",
        "no_end.jpg": JPEG[:-2],
        "icc.jpg": encode(image, "JPEG", icc_profile=b"garbage"),
        "exif.jpg": encode(image, "JPEG", exif=b"Exif\0\0MM\0*garbage"),
        "deep.png": sixteen_bit_rgb(1, 2, 3),
        "print.jpg": encode(image.convert("CMYK"), "JPEG"),
        "tiny.png": encode(Image.new("RGB", (1, 1)), "PNG"),
        "long.png": encode(Image.new("RGB", (20_000, 1)), "PNG"),
    }


@pytest.mark.slow
def test_every_kind_of_damage_in_one_folder_ends_well(tmp_path: Path, tiny_model: Path) -> None:
    root, bad, odd = tmp_path / "set", bad_files(), odd_files()
    write_photos(root, 90)
    for name, data in {**bad, **odd}.items():
        (root / "red" / name).write_bytes(data)
    (root / "red" / "dangling.jpg").symlink_to(root / "nowhere")
    os.mkfifo(root / "red" / "pipe.jpg")
    report = tmp_path / "report.json"
    done = subprocess.run(
        command("-m", tiny_model, "-d", root, "--json", report), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (file,) = json.loads(report.read_text())["files"]
    assert (file["rows"], file["quarantined"]) == (270 + len(odd), len(bad) + 1)
    (line,) = [line for line in file["warnings"] if "cannot be used" in line]
    assert f"{len(bad) + 1} of {270 + len(odd) + len(bad) + 1} images cannot be used (" in line
    with open_features(file["path"]) as opened:
        assert {path for path, *_ in opened.quarantine} == {f"red/{name}" for name in (*bad, "dangling.jpg")}
        assert all(code and message for _, _, code, message in opened.quarantine)
