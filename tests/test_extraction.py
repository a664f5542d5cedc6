"""The whole of `extract`: reuse, resume, quarantine, and who may write."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from fakes import infinite_network, write_image, write_photos
from onnx import numpy_helper

from tlcache.cache.feature_file import open_features
from tlcache.errors import CacheError, DataError
from tlcache.extraction.embedder import ImageEmbedder
from tlcache.extraction.extract import extract
from tlcache.files import check_folder


def features_by_path(path: Path) -> dict[str, np.ndarray]:
    with open_features(path) as file:
        everything = file.split("train", "val", "test")
    return dict(zip(everything.paths, everything.features, strict=True))


def test_embeddings_are_those_of_the_network(photos: Path, tiny_model: Path) -> None:
    from tlcache.backbones.engines import open_network
    from tlcache.images import Preprocess, prepare

    done = extract(photos, str(tiny_model))
    network = open_network(tiny_model.read_bytes(), "cpu")
    for name, row in features_by_path(done.path).items():
        pixels, _ = prepare((photos / name).read_bytes(), Preprocess(16, 16))
        assert np.array_equal(network.embed(pixels[None])[0], row)


def test_images_between_those_that_are_passed_over_keep_their_own_pixels(photos: Path, tiny_model: Path) -> None:
    from tlcache.backbones.engines import open_network
    from tlcache.images import Preprocess, prepare

    paths = sorted(photos.glob("*/*"))
    for number, path in enumerate(paths):
        if number % 3 == 1:
            path.write_bytes(f"no image {number}".encode())
        elif number % 6 == 2:
            path.write_bytes(paths[number - 2].read_bytes())
    done = extract(photos, str(tiny_model), batch_size=4, max_bad=0.5)
    assert (done.rows, done.quarantined, done.embedded) == (16, 8, 12)
    network = open_network(tiny_model.read_bytes(), "cpu")
    for name, row in features_by_path(done.path).items():
        pixels, _ = prepare((photos / name).read_bytes(), Preprocess(16, 16))
        assert np.array_equal(network.embed(pixels[None])[0], row)


def test_the_second_call_is_up_to_date_and_does_not_touch_the_network(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extract(photos, str(tiny_model))
    before = first.path.read_bytes()
    monkeypatch.setattr("tlcache.extraction.worker.open_networks", None)
    second = extract(photos, str(tiny_model))
    assert second.up_to_date
    assert (second.embedded, second.reused) == (0, 24)
    assert second.path.read_bytes() == before
    assert {entry.suffix for entry in second.path.parent.iterdir()} == {".h5", ".lock"}


def test_only_what_is_new_is_embedded(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    original = extract(photos, str(tiny_model))
    old = features_by_path(original.path)
    for number in range(10):
        write_image(photos / "red" / f"new{number}.png", 900 + number, 2)
    grown = extract(photos, str(tiny_model))
    assert (grown.embedded, grown.reused, grown.rows) == (10, 24, 34)
    new = features_by_path(grown.path)
    assert all(np.array_equal(new[name], row) for name, row in old.items())

    for path in list((photos / "red").iterdir()):
        path.rename(path.with_name("renamed_" + path.name))
    assert extract(photos, str(tiny_model)).embedded == 0
    (photos / "red").rename(photos / "crimson")  # labels edited
    relabelled = extract(photos, str(tiny_model))
    assert (relabelled.embedded, relabelled.up_to_date) == (0, False)
    with open_features(relabelled.path) as file:
        assert file.classes == ("blue", "crimson", "green")
    photos.rename(tmp_path / "elsewhere")
    moved = extract(tmp_path / "elsewhere", str(tiny_model))
    assert moved.embedded == 0
    assert moved.path.parent.name == "elsewhere"
    write_image(tmp_path / "elsewhere" / "blue" / "0.png", 5555, 0)  # content changed
    assert extract(tmp_path / "elsewhere", str(tiny_model)).embedded == 1


def test_other_settings_make_a_new_file_and_keep_the_old_one(photos: Path, tiny_model: Path) -> None:
    plain = extract(photos, str(tiny_model))
    cropped = extract(photos, str(tiny_model), crop_borders=True)
    assert cropped.path != plain.path
    assert cropped.embedded == 24
    assert plain.path.exists()
    faster = extract(photos, str(tiny_model), batch_size=5)
    assert (faster.path, faster.up_to_date) == (plain.path, True)


def test_batch_size_does_not_change_features(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = [extract(photos, str(tiny_model), batch_size=n, features=tmp_path / f"b{n}") for n in (1, 7, 32)]
    first, *others = (features_by_path(each.path) for each in done)
    for other in others:
        assert list(other) == list(first)
        assert all(np.array_equal(other[name], first[name]) for name in first)


def test_equal_bytes_are_embedded_once_and_leaks_are_named(tmp_path: Path, tiny_model: Path) -> None:
    root = tmp_path / "set"
    for split in ("train", "val", "test"):
        write_photos(root / split, 2)
        for number, name in enumerate(("blue", "green", "red")):
            for image in range(2):
                write_image(root / split / name / f"{image}.png", hash((split, number, image)) % 10_000, number)
    shutil.copy(root / "train" / "red" / "0.png", root / "test" / "red" / "copy.png")
    shutil.copy(root / "train" / "red" / "1.png", root / "train" / "blue" / "wrong.png")
    done = extract(root, str(tiny_model))
    assert (done.rows, done.embedded) == (20, 18)
    assert any("different splits" in line and "test/red/copy.png" in line for line in done.warnings)
    assert any("different labels" in line and "train/blue/wrong.png" in line for line in done.warnings)


def spoil(photos: Path) -> None:
    good = (photos / "red" / "0.png").read_bytes()
    (photos / "red" / "empty.png").write_bytes(b"")
    (photos / "red" / "page.jpg").write_bytes(b"<html>404</html>")
    (photos / "blue" / "cut.png").write_bytes(good[: len(good) // 2])
    (photos / "blue" / "gone.png").symlink_to(photos / "nowhere")


def test_unusable_images_are_listed_and_the_rest_goes_on(photos: Path, tiny_model: Path) -> None:
    before = features_by_path(extract(photos, str(tiny_model)).path)
    spoil(photos)
    done = extract(photos, str(tiny_model), max_bad=0.2)
    assert (done.rows, done.quarantined, done.embedded) == (24, 4, 0)
    assert "4 of 28 images cannot be used" in done.warnings[0]
    with open_features(done.path) as file:
        listed = {path: (code, message) for path, _, code, message in file.quarantine}
    assert listed["red/empty.png"] == ("empty", "empty file")
    assert listed["red/page.jpg"][0] == "not-an-image"
    assert listed["blue/cut.png"][0] == "truncated"
    assert listed["blue/gone.png"][0] == "unreadable"
    after = features_by_path(done.path)
    assert all(np.array_equal(after[name], row) for name, row in before.items())
    again = extract(photos, str(tiny_model), max_bad=0.2)
    assert again.up_to_date
    assert again.quarantined == 4


def test_splits_that_cannot_be_judged_are_named(tmp_path: Path, tiny_model: Path) -> None:
    lines = ["path,label,split,group"]
    for number in range(12):
        label, split = "ab"[number % 2], ("train", "val", "test")[number // 4]
        write_image(tmp_path / f"{number}.png", number, number)
        label = {11: "c", 7: "d", 10: "d"}.get(number, label)
        lines.append(f"{number}.png,{label},{split},p{number % 5}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    warnings = extract(tmp_path / "list.csv", str(tiny_model)).warnings
    assert "Classes in test without an image in train can never be recognised: c." in warnings
    assert (
        "Classes in val and test without an image in train can be recognised only after the refit on train + val: d."
        in warnings
    )
    assert any(
        line.startswith("Groups that lie in several of the given splits leak; 5 of them: p0") for line in warnings
    )


def test_copies_of_one_bad_file_count_as_often_as_they_occur(photos: Path, tiny_model: Path) -> None:
    for number in range(4):
        (photos / "red" / f"empty{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match="more than --max-bad"):
        extract(photos, str(tiny_model))
    assert extract(photos, str(tiny_model), max_bad=0.2).quarantined == 4


def test_a_damaged_row_elsewhere_does_not_matter(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    other = extract(write_photos(tmp_path / "other", 9), str(tiny_model)).path
    extract(photos, str(tiny_model))
    with open_features(other) as file:
        row = file.split("test").features[-1].tobytes()
    other.write_bytes(other.read_bytes().replace(row, bytes(len(row))))
    assert extract(photos, str(tiny_model)).up_to_date
    mended = extract(tmp_path / "other", str(tiny_model))
    assert not mended.up_to_date
    assert any("Damaged" in line for line in mended.warnings)


def test_a_full_disk_is_a_sentence_and_loses_nothing(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")  # noqa: PYI024
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: usage(100, 100, 0))
        with pytest.raises(CacheError, match=r"needs 0\.00 GB, and 0\.00 GB are free in .*What is finished is kept"):
            extract(photos, str(tiny_model))
    again = extract(photos, str(tiny_model))
    assert again.rows == 24  # foreseen, so nothing had been embedded


def test_too_many_unusable_images_stop_the_run_and_lose_nothing(photos: Path, tiny_model: Path) -> None:
    spoil(photos)
    with pytest.raises(DataError, match=r"of 28 images are unusable, more than --max-bad 0\.05 allows"):
        extract(photos, str(tiny_model), batch_size=4)
    assert extract(photos, str(tiny_model), max_bad=1).rows == 24


def test_a_class_without_a_usable_image_stops_the_run(photos: Path, tiny_model: Path) -> None:
    for path in (photos / "red").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="No usable image is left in class red"):
        extract(photos, str(tiny_model), max_bad=1)


def test_embeddings_that_are_not_finite_are_never_kept(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "infinite.onnx"
    onnx.save(infinite_network(), path)
    with pytest.raises(DataError, match="the last one: .*the network gives numbers that are not finite"):
        extract(photos, str(path))
    with pytest.raises(DataError, match=r"blue/0\.png' cannot be used: the network gives numbers that are not finite"):
        ImageEmbedder(str(path)).transform([photos / "blue" / "0.png"])


def test_a_class_too_small_for_a_split_is_named_before_the_network_runs(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlcache.extraction.worker.open_networks", None)
    write_image(photos / "owl" / "1.png", 1, 1)
    with pytest.raises(DataError, match="too few in: owl"):
        extract(photos, str(tiny_model))


def test_two_datasets_of_one_name_are_kept_apart(tmp_path: Path, tiny_model: Path) -> None:
    first, second = write_photos(tmp_path / "a" / "photos"), write_photos(tmp_path / "b" / "photos", 9)
    extract(first, str(tiny_model))
    with pytest.raises(DataError, match=r"holds features of the dataset in .*a/photos.*--name"):
        extract(second, str(tiny_model))
    assert extract(second, str(tiny_model), name="others").path.parent.name == "others"


def test_a_folder_that_cannot_be_written_is_named(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match=r"Cannot write to .*file': it is no folder\. .*--features"):
        extract(photos, str(tiny_model), features=tmp_path / "file")


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_a_folder_is_tried_whatever_its_permissions_promise() -> None:
    with pytest.raises(CacheError, match=r"^Cannot write to '/proc/nope': '/proc' may not be written\. .* --runs"):
        check_folder(Path("/proc/nope"), "--runs")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "tlcache", "extract", *map(str, arguments)]


@pytest.mark.slow
def test_killed_at_random_moments_and_finished_bit_for_bit(slow_set: tuple[Path, Path], tmp_path: Path) -> None:
    photos, model = slow_set
    chance, kills, report = random.Random(0), 0, tmp_path / "report.json"
    whole = command("-m", model, "-d", photos, "--batch-size", "8")
    began = time.monotonic()
    subprocess.run([*whole, "--features", tmp_path / "reference"], stderr=subprocess.DEVNULL, check=True)
    took = time.monotonic() - began
    (reference,) = (tmp_path / "reference").rglob("*.h5")
    expected = features_by_path(reference)
    for _ in range(5):
        process = subprocess.Popen(whole, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.1 * took, 0.35 * took))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills >= 3
    subprocess.run(command("-m", model, "-d", photos, "--json", report), check=True)
    (file,) = json.loads(report.read_text())["files"]
    found = features_by_path(Path(file["path"]))
    assert list(found) == list(expected)
    assert all(np.array_equal(found[name], row) for name, row in expected.items())
    assert extract(photos, str(model)).up_to_date


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_far_it_came_and_continues(slow_set: tuple[Path, Path], number: int) -> None:
    photos, model = slow_set
    process = subprocess.Popen(
        command("-m", model, "-d", photos, "--batch-size", "8"),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which background jobs ignore
    )
    workspace = Path(os.environ["TLCACHE_FEATURES"]) / "many"
    while not list(workspace.glob(".*/*.safetensors")):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130
    rest = extract(photos, str(model))
    assert 0 < rest.reused < 600
    assert f"stopped at {rest.reused} of 600 images; run the same command to continue" in " ".join(message.split())
    assert rest.rows == 600


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_run_that_is_stopped_before_it_begins_is_no_crash(slow_set: tuple[Path, Path]) -> None:
    photos, model = slow_set
    process = subprocess.Popen(
        command("-m", model, "-d", photos),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    children = Path("/proc", str(process.pid), "task", str(process.pid), "children")

    def works() -> bool:
        lines = [Path("/proc", child, "cmdline") for child in children.read_text().split()]
        return any(line.exists() and b"extraction.sandbox" in line.read_bytes() for line in lines)

    while not works():
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)  # the worker loads what it needs and has no handler yet
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; run the same command to continue" in " ".join(message.split())


@pytest.mark.slow
def test_two_processes_make_one_file(slow_set: tuple[Path, Path], tmp_path: Path) -> None:
    photos, model = slow_set
    both = [
        subprocess.Popen(
            command("-m", model, "-d", photos, "--json", tmp_path / f"{number}.json"), stderr=subprocess.PIPE, text=True
        )
        for number in range(2)
    ]
    messages = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert (
        sum(
            bool(re.search(r"Waiting for (process \d+ on \S+|another process), which", message)) for message in messages
        )
        == 1
    )
    embedded = [json.loads((tmp_path / f"{number}.json").read_text())["files"][0]["embedded"] for number in range(2)]
    assert sorted(embedded) == [0, 600]


def test_memory_of_what_rows_cost_survives_resuming(photos: Path, tiny_model: Path) -> None:
    first = extract(photos, str(tiny_model))
    with open_features(first.path) as file:
        once = file.seconds()
    write_image(photos / "red" / "more.png", 77, 2)
    extract(photos, str(tiny_model))
    with open_features(first.path) as file:
        twice = file.seconds()
    assert once.tolist()[2] == 0  # one part: it cannot say what writing it cost
    assert (once[[0, 1, 3]] > 0).all()
    assert (twice[[0, 1, 3]] > once[[0, 1, 3]]).all()


def test_embeddings_that_are_all_equal_are_told(photos: Path, tmp_path: Path, tiny_model: Path) -> None:
    dead = onnx.load(tiny_model)
    for weights in dead.graph.initializer:
        weights.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(weights), weights.name))
    onnx.save(dead, tmp_path / "dead.onnx")
    message = "All embeddings are equal, whatever the image. Is the network trained?"
    assert message in extract(photos, str(tmp_path / "dead.onnx")).warnings
    assert message not in extract(photos, str(tiny_model)).warnings
