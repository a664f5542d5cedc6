import errno
import os
from pathlib import Path
from typing import Any

import pytest
from fakes import write_image, write_photos

from tlcache.datasets import folder
from tlcache.datasets.builtin import data_folder
from tlcache.datasets.dataset import load_dataset
from tlcache.datasets.folder import open_folder
from tlcache.datasets.overview import Overview
from tlcache.errors import DataError, ImageReadError, OptionError


def test_a_folder_of_classes(photos: Path) -> None:
    found = load_dataset(photos)
    assert found.name == "photos"
    assert found.classes == ("blue", "green", "red")
    assert len(found) == 24
    assert found.paths[0] == "blue/0.png"
    assert found.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert set(found.splits) == {"train"}
    assert load_dataset(photos, name="../mine").name == "mine"


def test_a_folder_of_splits(tmp_path: Path) -> None:
    for split in ("train", "Validation", "test"):
        write_photos(tmp_path / "set" / split, 2)
    found = load_dataset(tmp_path / "set")
    assert [found.splits.count(split) for split in ("train", "val", "test")] == [6, 6, 6]
    assert found.splits == tuple(sorted(found.splits, key=("train", "val", "test").index))
    write_photos(tmp_path / "set" / "extra", 1)
    with pytest.raises(DataError, match="others beside it that are no split: extra"):
        load_dataset(tmp_path / "set")


def test_a_class_called_test_is_a_class_when_there_is_no_train(tmp_path: Path) -> None:
    for name in ("test", "control"):
        write_image(tmp_path / "study" / name / "1.png", 0, 0)
    assert load_dataset(tmp_path / "study").classes == ("control", "test")


def test_clutter_is_ignored_and_counted(photos: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", ".hidden.png", "notes.txt", "labels.csv"):
        (photos / "red" / name).write_bytes(b"x")
    (photos / "README.md").write_bytes(b"x")
    (photos / "red" / ".cache").mkdir()
    write_image(photos / "red" / "deeper" / "down.png", 0, 2)
    (photos / "empty").mkdir()
    found = load_dataset(photos)
    assert len(found) == 25
    assert "red/deeper/down.png" in found.paths
    assert sum(found.passed_over.values()) == 7  # the hidden folder is one
    assert found.warnings == ("No images in empty; these are not classes here.",)
    assert "empty" not in found.classes


def test_links_and_pipes(photos: Path, tmp_path: Path) -> None:
    outside = write_image(tmp_path / "outside.png", 1, 1)
    (photos / "red" / "link.png").symlink_to(outside)
    (photos / "red" / "dangling.png").symlink_to(tmp_path / "gone.png")
    (photos / "red" / "loop").symlink_to(photos / "red")
    os.mkfifo(photos / "red" / "pipe.png")
    found = load_dataset(photos)
    assert {"red/link.png", "red/dangling.png"} < set(found.paths)
    assert len(found) == 26
    assert sum(found.passed_over.values()) == 2  # the loop and the pipe


def open_files() -> set[str]:
    return {path.name for path in Path("/dev/fd").iterdir()}


def test_files_that_are_read_side_by_side_are_those_that_are_read_alone(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [f"{name}/{number}.png" for name in ("red", "green", "blue") for number in range(8)]
    os.mkfifo(photos / "red" / "pipe.png")
    (photos / "red" / "link.png").symlink_to(photos / "nowhere.png")
    paths[3:3] = ["red/pipe.png", "red/none.png", "red/link.png", "red", "red/\0.png"]
    images, asked, before = open_folder(photos), list[int](), open_files()
    monkeypatch.setattr(folder.os, "posix_fadvise", lambda descriptor, *_: asked.append(descriptor), raising=False)
    for path, found in zip(paths, images.read_several(paths), strict=True):
        assert len(asked) > 8  # before the first is read
        assert len(open_files()) <= len(before) + 16
        if isinstance(found, bytes):
            assert found == images.read(path)
            continue
        with pytest.raises(ImageReadError) as refused:
            images.read(path)
        assert (str(found), found.reason) == (str(refused.value), refused.value.reason)
    assert len(asked) == 26  # all but what is not there
    assert open_files() == before
    some = images.read_several(paths)
    next(some)
    del some  # work that ends early
    assert open_files() == before


def test_a_folder_that_cannot_be_read_is_no_empty_class(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = os.scandir

    def refuse(folder: Path) -> Any:
        if Path(folder).name == "blue":
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return read(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"Cannot read the folder '.*blue': Permission denied"):
        load_dataset(photos)


def test_names_of_every_kind_are_kept_apart(photos: Path) -> None:
    names = [b"caf\xc3\xa9.png", b"cafe\xcc\x81.png", b"bad\xff.png", b"new\nline.png", b"\x1b[31mred.png"]
    content = (photos / "red" / "0.png").read_bytes()
    for name in names:
        Path(os.fsdecode(os.fsencode(photos / "red") + b"/" + name)).write_bytes(content)
    found = load_dataset(photos)
    assert {os.fsencode(path).removeprefix(b"red/") for path in found.paths} >= set(names)
    assert sum(Overview.expected(found).splits.values()) == len(found)  # some of which are drawn by their names


def test_a_link_that_leads_to_itself_is_dangling(photos: Path) -> None:
    before = load_dataset(photos)
    (photos / "red" / "self").symlink_to("self")
    found = load_dataset(photos)
    assert found.paths == before.paths
    assert found.passed_over == {**before.passed_over, "dangling link": 1}


@pytest.mark.usefixtures("few_digits")
def test_a_folder_of_digits_shows_nothing_but_its_classes() -> None:
    root = data_folder() / "digits"
    root.mkdir(parents=True)
    (root / "complete").touch()  # of an earlier version, which wrote it
    load_dataset("digits")
    assert {path.name for path in root.iterdir() if not path.name.startswith(".")} <= set("0123456789")
    assert load_dataset(root).passed_over == {"hidden file": 1}


def test_digits_are_made_once() -> None:
    found = load_dataset("digits")
    assert len(found) == 1797
    assert found.classes == tuple("0123456789")
    first = Path(found.source) / found.paths[0]
    stamp = first.stat().st_mtime_ns
    assert load_dataset("digits").paths == found.paths
    assert first.stat().st_mtime_ns == stamp


def test_flowers102_has_torchvisions_splits_and_says_what_to_do_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    from scipy.io import savemat
    from torchvision.datasets import Flowers102

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Name or service not known")

    monkeypatch.setenv("TLCACHE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(Flowers102, "download", refuse)
    with pytest.raises(DataError, match=r"could not be downloaded \(Name or service not known\). Put 102flowers.tgz"):
        load_dataset("flowers102")
    root = tmp_path / "data" / "flowers-102"
    for number in range(1, 7):
        write_image(root / "jpg" / f"image_{number:05d}.jpg", number, number)
    savemat(root / "imagelabels.mat", {"labels": np.array([[1, 2, 1, 2, 1, 102]])})
    savemat(root / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[5, 6]]})
    monkeypatch.setattr(Flowers102, "download", lambda _: None)
    monkeypatch.setattr(Flowers102, "_check_integrity", lambda _: True)
    found = load_dataset("flowers102")
    assert found.splits == ("train", "train", "val", "val", "test", "test")
    assert found.classes == ("001 pink primrose", "002 hard-leaved pocket orchid", "102 blackberry lily")
    assert found.paths[5] == "jpg/image_00006.jpg"


@pytest.mark.real
def test_flowers102_reads_the_official_lists(real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the original lists: 1020 / 1020 / 6149, ten images of every class in train and in val."""
    import shutil

    monkeypatch.setenv("TLCACHE_DATA", str(tmp_path))
    root = tmp_path / "flowers-102"
    (root / "jpg").mkdir(parents=True)
    for name in ("imagelabels.mat", "setid.mat"):
        shutil.copy(real / "data" / "flowers102_small" / name, root)
    found = load_dataset("flowers102")
    assert [found.splits.count(split) for split in ("train", "val", "test")] == [1020, 1020, 6149]
    assert len(found.classes) == 102
    train = [label for label, split in zip(found.labels.tolist(), found.splits, strict=True) if split == "train"]
    assert {train.count(label) for label in range(102)} == {10}


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_manifest(tmp_path: Path, delimiter: str) -> None:
    rows = [["Path", "label", "split", "group"], ["a/1.png", "cat", "train", "p1"], ["./a/2.png", "dog", "Valid", ""]]
    path = tmp_path / ("list.csv" if delimiter == "," else "list.tsv")
    text = "\n".join(delimiter.join(row) for row in rows)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\n\n")
    for number in (1, 2):
        write_image(tmp_path / "a" / f"{number}.png", 0, 0)
    found = load_dataset(path)
    assert found.name == "list"
    assert found.source == str(tmp_path.resolve())
    assert list(zip(found.paths, found.splits, found.groups, strict=True)) == [
        ("a/1.png", "train", "p1"),
        ("a/2.png", "val", ""),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"where,label\n",
            ":1: no column is the path by its name; there are 'where', 'label'. Say .* --path-column NAME",
        ),
        (b"", "list.csv' has no header. Its first line names the columns, as in path,label"),
        (b"path,label\na.png,x\nb.png\n", ":3: 1 cells where the header has 2 columns"),
        (b"path,label\na.png,x\nb.png,y\na.png,x\n", ":4: 'a.png' is listed already, on line 2"),
        (b"path,label\na.png,\n", "list.csv: no row has a label"),
        (b"path,label\n../a.png,x\n", ":2: '../a.png' leads out of '/.*'. Give the folder .*: --images DIR"),
        (b"path,label\na/../../b.png,x\n", ":2: 'a/../../b.png' leads out"),
        (b"path,label\n/etc/passwd,x\n", ":2: '/etc/passwd' leads out"),
        (b"path,label,split\na.png,x,spare\n", ":2: unknown split 'spare'. Known: train, val, test"),
        (b"path,label\na.png,x\n\xff.png,y\n", ":3: not UTF-8 .byte 0xff"),
        (b"path,label\na.png,x\n", "has one class, 'x'"),
        (b"path,label\n", "has a header and no rows"),
    ],
)
def test_manifests_with_faults_name_the_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    for name in "ab":
        write_image(tmp_path / f"{name}.png", 0, 0)
    with pytest.raises(DataError, match=words):
        load_dataset(path)


def test_places_without_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no built-in dataset of that name \(digits, flowers102\)"):
        load_dataset(tmp_path / "gone")
    with pytest.raises(DataError, match=r"No class folders with images in .*Expected one for every class"):
        load_dataset(tmp_path)
    write_image(tmp_path / "only" / "1.png", 0, 0)
    with pytest.raises(DataError, match="has one class, 'only'; telling classes apart needs 2"):
        load_dataset(tmp_path)
    (tmp_path / "file.xlsx").write_text("x")
    with pytest.raises(OptionError, match="--data is empty"):
        load_dataset("")
    with pytest.raises(DataError, match=r"not a manifest \(.csv, .tsv, .txt, .jsonl\)"):
        load_dataset(tmp_path / "file.xlsx")
