"""Images in archives: the same dataset as in a folder, read from one file by many at once."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from fakes import write_photos

from tlcache.cache.feature_file import open_features
from tlcache.datasets.dataset import load_dataset, reopen
from tlcache.datasets.layout import Layout
from tlcache.errors import DataError, ImageReadError, OptionError
from tlcache.extraction.embedder import ImageEmbedder
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune
from tlcache.probing.fit import fit_heads

Pack = Callable[[Path], Path]


def _below(folder: Path) -> list[tuple[Path, str]]:
    return [(path, path.relative_to(folder).as_posix()) for path in sorted(folder.rglob("*"))]


def stored(folder: Path, method: int = zipfile.ZIP_STORED) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", method) as archive:
        for file, name in _below(folder):
            archive.write(file, name)
    return path


def deflated(folder: Path) -> Path:
    return stored(folder, zipfile.ZIP_DEFLATED)


def tarred(folder: Path, form: int = tarfile.PAX_FORMAT, prefix: str = "") -> Path:
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w", format=form) as archive:
        for file, name in _below(folder):
            archive.add(file, prefix + name, recursive=False)
    return path


def gnu(folder: Path) -> Path:
    return tarred(folder, tarfile.GNU_FORMAT, "./")


PACKS = pytest.mark.parametrize("pack", [stored, deflated, tarred, gnu])


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """A folder of splits, with what is passed over, an empty class, and names that archives write in many ways."""
    root = tmp_path / "set"
    for split in ("train", "test"):
        write_photos(root / split, 3)
    long = root / "train" / "red" / f"{'långt ' * 20}.png"
    long.write_bytes(b"no image, but it may be one")
    for name in ("train/.hidden/1.png", "train/red/.DS_Store", "notes.txt", "train/red/0.png:Zone.Identifier"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")
    (root / "train" / "masks").mkdir()
    (root / "train" / "masks" / "7.png").touch()
    (root / "val" / "red").mkdir(parents=True)
    return root


@PACKS
def test_an_archive_is_understood_as_the_folder_that_was_packed(splits: Path, pack: Pack) -> None:
    layout = Layout(ignore=["masks"])
    folder = load_dataset(splits, layout=layout)
    found = load_dataset(pack(splits), layout=layout)
    assert len(found) == 19
    assert (found.name, found.paths, found.classes) == ("set", folder.paths, ("blue", "green", "red"))
    assert (found.splits, found.labels.tolist()) == (folder.splits, folder.labels.tolist())
    assert found.passed_over == folder.passed_over
    assert found.warnings == folder.warnings
    assert [found.read(row) for row in range(len(found))] == [folder.read(row) for row in range(len(folder))]


@PACKS
def test_an_archive_embeds_as_its_folder_and_is_opened_again(photos: Path, tinynet: None, pack: Pack) -> None:
    del tinynet
    archive = pack(photos)
    first = extract(archive, "tinynet", "random")
    assert (first.dataset, first.rows, first.embedded) == ("photos", 24, 24)
    with open_features(first.path) as file:
        source, paths, features = file.attrs["source"], file.paths(), file.split("train", "val", "test").features
        hashes = file.hashes().astype(str)
    assert source == f"{archive.suffix[1:]}:{archive}"
    images = reopen(source)
    assert images.exists()
    for path, sha256 in zip(paths, hashes, strict=True):
        assert images.read(path, sha256) == (photos / path).read_bytes()
    again = extract(photos, "tinynet", "random", name="plain")
    assert (again.rows, again.embedded, again.reused) == (24, 0, 24)
    with open_features(again.path) as file:
        assert file.paths() == paths
        assert np.array_equal(file.split("train", "val", "test").features, features)
    data = load_dataset(archive)
    expected = dict(zip(paths, features, strict=True))
    embedded = ImageEmbedder("tinynet", "random", cache=False).transform(map(data.read, range(len(data))))
    assert np.array_equal(embedded, [expected[path] for path in data.paths])


def test_heads_and_networks_are_trained_on_an_archive(photos: Path, tinynet: None) -> None:
    del tinynet
    archive = deflated(photos)
    extract(archive, "tinynet", "random")
    (frozen,) = fit_heads(data=str(archive), heads=["ridge"])
    tuned = finetune(archive, "tinynet", "random", epochs=1, precision="fp32", layout="contiguous")
    assert (frozen.source, tuned.source) == (f"zip:{archive}",) * 2


@PACKS
def test_names_stay_when_an_archive_is_renamed(photos: Path, pack: Pack) -> None:
    archive = pack(photos)
    paths = load_dataset(archive).paths
    moved = archive.rename(archive.with_name(f"other{archive.suffix.upper()}"))
    assert load_dataset(moved).paths == paths
    assert load_dataset(moved).name == "other"


@PACKS
def test_threads_and_forks_read_an_archive_at_once(photos: Path, pack: Pack) -> None:
    data = load_dataset(pack(photos))
    expected = [hashlib.sha256((photos / path).read_bytes()).hexdigest() for path in data.paths]

    def hashed(row: int) -> str:
        return hashlib.sha256(data.read(row % len(data))).hexdigest()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(hashed, range(240))) == expected * 10
    child = get_context("fork").Process(target=lambda: os._exit(int([hashed(row) for row in range(24)] != expected)))
    child.start()
    assert [hashed(row) for row in range(24)] == expected
    child.join()
    assert child.exitcode == 0


@PACKS
def test_an_archive_that_is_written_anew_is_listed_anew(photos: Path, pack: Pack) -> None:
    archive = pack(photos)
    before = load_dataset(archive)
    shutil.rmtree(photos / "blue")
    write_photos(photos, 4)
    pack(photos)
    after = load_dataset(archive)
    assert after.paths != before.paths
    assert after.read(0) == (photos / after.paths[0]).read_bytes()
    with pytest.raises(ImageReadError, match=r"Cannot read '.*/blue/7\.png': no such image in the (zip|tar) file"):
        before.images.read("blue/7.png")
    archive.unlink()
    assert not before.images.exists()
    with pytest.raises(ImageReadError, match="No such file"):
        before.images.read("red/0.png")


@PACKS
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7])
def test_an_archive_that_is_cut_is_named(photos: Path, pack: Pack, kept: float) -> None:
    archive = pack(photos)
    os.truncate(archive, int(archive.stat().st_size * kept))
    with pytest.raises(DataError, match=rf"'{archive}' is no whole (zip|tar) archive.* Copy it again"):
        load_dataset(archive)


def test_a_tar_that_is_cut_between_members_or_joined_or_damaged_loses_nothing_silently(photos: Path) -> None:
    archive = tarred(photos)
    whole = archive.read_bytes()
    with tarfile.open(archive) as file:
        third = file.getmembers()[3].offset
    for damaged in (whole[:third], whole * 2, whole[:third] + b"\x01" * 512 + whole[third + 512 :]):
        archive.write_bytes(damaged)
        with pytest.raises(DataError, match=r"no whole tar archive: after [\d,]+ bytes .* cut off or damaged, or seve"):
            load_dataset(archive)


@pytest.mark.parametrize("pack", [stored, deflated])
def test_bytes_that_are_damaged_in_a_zip_are_no_image(photos: Path, pack: Pack) -> None:
    archive = pack(photos)
    data = load_dataset(archive)
    with zipfile.ZipFile(archive) as file:
        place = file.getinfo("red/3.png").header_offset + 150
    whole = bytearray(archive.read_bytes())
    whole[place] ^= 0xFF
    archive.write_bytes(whole)
    with pytest.raises(ImageReadError, match=r"Cannot read 'zip:.*/red/3\.png': its bytes in the zip file are .*damag"):
        data.images.read("red/3.png")
    assert data.images.read("red/2.png") == (photos / "red" / "2.png").read_bytes()


@pytest.mark.parametrize(
    ("was", "now"),
    [(b"red/3.png", b"rod/3.png"), (b"red/3.png", b"red/9.png"), (b"red/3.png", b"red/3.pn/")],
    ids=["class", "number", "folder"],
)
@pytest.mark.parametrize("at", ["directory", "header"])
def test_an_image_that_has_two_names_in_a_zip_is_unusable(photos: Path, was: bytes, now: bytes, at: str) -> None:
    """Else damage in the directory of an archive would change labels."""
    archive = stored(photos)
    whole = archive.read_bytes()
    directory = whole.index(b"PK\x01\x02")
    places = {"directory": whole.index(was, directory), "header": whole.index(was)}
    archive.write_bytes(whole[: places[at]] + now + whole[places[at] + len(was) :])
    data = load_dataset(archive)
    read = dict[str, bytes]()
    for row, path in enumerate(data.paths):
        with contextlib.suppress(ImageReadError):
            read[path] = data.read(row)
    assert len(read) == 23
    assert all(content == (photos / path).read_bytes() for path, content in read.items())


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("ending", [".tar.{}", ".tar"])
def test_a_compressed_tar_says_what_to_do(tmp_path: Path, mode: str, ending: str) -> None:
    path = tmp_path / f"photos{ending.format(mode[2:])}"
    with tarfile.open(path, mode) as archive:
        archive.addfile(tarfile.TarInfo("cat/1.jpg"))
    with pytest.raises(DataError, match=r"Unpack (it|them) and give the folder"):
        load_dataset(path)


def test_links_in_a_tar_are_what_they_lead_to(photos: Path) -> None:
    (photos / "red" / "hard.png").hardlink_to(photos / "red" / "0.png")
    (photos / "red" / "soft.png").symlink_to(Path("..", "blue", "0.png"))
    (photos / "red" / "gone.png").symlink_to("nowhere.png")
    data = load_dataset(tarred(photos))
    assert len(data) == 26
    assert data.images.read("red/soft.png") == (photos / "blue" / "0.png").read_bytes()
    assert data.images.read("red/hard.png") == (photos / "red" / "0.png").read_bytes()
    assert data.passed_over == {"link": 1}


def test_the_last_member_of_a_name_counts_and_names_are_plain(photos: Path) -> None:
    archive = tarred(photos)
    with tarfile.open(archive, "a") as file:
        for name in ("red/0.png", "//red/./new.png"):
            info = tarfile.TarInfo(name)
            info.size = 4
            file.addfile(info, io.BytesIO(b"last"))
    data = load_dataset(archive)
    assert len(data) == 25
    assert [data.images.read(f"red/{name}.png") for name in ("0", "new")] == [b"last", b"last"]


def test_names_that_zips_of_macs_and_of_windows_have(tmp_path: Path) -> None:
    path, raw = tmp_path / "photos.zip", "kråka/1.png".encode()
    placeholder = "k" * len(raw)  # in place of UTF-8 that no flag declares, which zipfile does not write
    with zipfile.ZipFile(path, "w") as archive:
        for name, system in ((placeholder, 3), ("säl\\1.png", 0), ("__MACOSX/._1.png", 3)):
            info = zipfile.ZipInfo("x")
            info.filename, info.create_system = name, system
            archive.writestr(info, b"1")
    path.write_bytes(path.read_bytes().replace(placeholder.encode(), raw))
    data = load_dataset(path)
    assert data.passed_over == {"__MACOSX folder": 1}
    assert data.paths == ("kråka/1.png", "säl/1.png")
    assert data.read(0) == b"1"


def test_what_a_zip_cannot_give_is_told_before_the_work(photos: Path) -> None:
    archive = stored(photos, zipfile.ZIP_LZMA)
    with pytest.raises(DataError, match=r"'blue/0\.png' in '.*photos\.zip' is compressed by method 14; stored and"):
        load_dataset(archive)
    stored(photos)
    whole = archive.read_bytes()
    at = whole.index(b"PK\x01\x02", whole.index(b"PK\x01\x02") + 4) + 8
    archive.write_bytes(whole[:at] + b"\x01" + whole[at + 1 :])
    with pytest.raises(DataError, match="is encrypted; stored and deflated images are read. Unpack the archive"):
        load_dataset(archive)


def test_options_of_tables_are_refused(photos: Path) -> None:
    with pytest.raises(OptionError, match="--label-column is for manifests, and '.*photos.tar' is none"):
        load_dataset(tarred(photos), layout=Layout(label_column="label"))


def test_an_archive_without_class_folders_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as file:
        file.writestr("1.png", b"1")
    flat = load_dataset(tmp_path / "flat.zip")
    assert (flat.paths, flat.classes, flat.unlabelled) == (("1.png",), (), flat.warnings[0])
    assert "flat.zip' holds 1 image and no folders of classes" in flat.unlabelled
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(DataError, match=r"No class folders with images in '.*empty\.zip'"):
        load_dataset(tmp_path / "empty.zip")


def shard(path: Path, members: dict[str, bytes | str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def keyed(folder: Path, names: Sequence[str] = ("000", "001"), first: int = 0) -> Path:
    """Two shards of three images each, with labels in `.cls`; keys go on in the second, or begin anew."""
    for number, name in enumerate(names):
        members: dict[str, bytes | str] = {}
        for key in range(3):
            place = f"{key + 3 * number * first:04d}"
            members |= {f"{place}.png": f"image {number} {key}".encode(), f"{place}.cls": "cat\n" if key else "dog"}
        shard(folder / f"{name}.tar", members)
    return folder


@pytest.mark.parametrize("given", ["set/{000..001}.tar", "set/*.tar", "set", "set/00[01].tar", "s?t/{0..1}*.tar"])
def test_shards_are_one_dataset_by_any_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.chdir(tmp_path)
    keyed(tmp_path / "set", first=1)
    if given.startswith("s?t"):
        for number in range(2):
            (tmp_path / "set" / f"00{number}.tar").rename(tmp_path / "set" / f"{number}.tar")
    data = load_dataset(given)
    assert data.paths == tuple(f"{key:04d}.png" for key in range(6))
    assert (data.classes, data.labels.tolist()) == (("cat", "dog"), [1, 0, 0, 1, 0, 0])
    assert [data.read(row) for row in (2, 3)] == [b"image 0 2", b"image 1 0"]
    again = reopen(data.source)
    assert again.exists()
    assert again.read("0005.png") == b"image 1 2"
    assert os.path.isabs(data.data)  # noqa: PTH117
    assert load_dataset(data.data).paths == data.paths


def test_shards_embed_train_and_are_found_by_their_pattern(photos: Path, tinynet: None) -> None:
    del tinynet
    plain = extract(photos, "tinynet", "random")
    members = {f"{file.parent.name}-{file.name}": file.read_bytes() for file in sorted(photos.rglob("*.png"))}
    labels = {f"{Path(name).stem}.cls": name.partition("-")[0] for name in members}
    for number in range(2):
        names = sorted(members)[number::2]
        own = {each: content for each, content in (members | labels).items() if f"{Path(each).stem}.png" in names}
        shard(photos.parent / "set" / f"flowers-{number:03d}.tar", own)
    given = "set/flowers-{000..001}.tar"
    done = extract(given, "tinynet", "random")
    assert (plain.embedded, done.dataset, done.rows, done.embedded) == (24, "flowers", 24, 0)
    with open_features(plain.path) as one, open_features(done.path) as other:
        assert sorted(one.hashes().tolist()) == sorted(other.hashes().tolist())
    (frozen,) = fit_heads(data=given, heads=["ridge"])
    tuned = finetune(given, "tinynet", "random", epochs=1, precision="fp32", layout="contiguous")
    assert frozen.source == tuned.source == f"tar:{photos.parent}/{given}"


def test_keys_that_begin_anew_in_every_shard_have_its_name(tmp_path: Path) -> None:
    data = load_dataset(keyed(tmp_path / "set"))
    assert data.paths[:4] == ("000/0000.png", "000/0001.png", "000/0002.png", "001/0000.png")
    assert data.read(3) == b"image 1 0"


@pytest.mark.parametrize(
    "names", [("train-000", "val-000", "test-000"), ("a-train-0", "a-valid-0", "a-test-0")], ids=["plain", "named"]
)
def test_shards_that_are_called_as_splits_are_these(tmp_path: Path, names: Sequence[str]) -> None:
    data = load_dataset(keyed(tmp_path / "set", names, first=1))
    assert data.splits == ("train",) * 3 + ("val",) * 3 + ("test",) * 3
    assert [data.read(row)[:7] for row in (0, 3, 6)] == [b"image 0", b"image 1", b"image 2"]


def test_labels_splits_and_groups_of_json_are_columns(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {}
    for number in range(6):
        about = {"species": "ab"[number % 2], "colour": "rg"[number // 3], "split": "test" if number > 3 else "train"}
        members |= {f"{number}.jpg": b"%d" % number, f"{number}.json": json.dumps(about | {"patient": f"p{number}"})}
    path = shard(tmp_path / "set.tar", members)
    data = load_dataset(path)
    assert data.classes == ("a", "b")
    assert data.splits == ("train",) * 4 + ("test",) * 2
    assert data.groups[:2] == ("p0", "p1")
    coloured = load_dataset(path, layout=Layout(label_column="colour"))
    assert coloured.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert load_dataset(path, layout=Layout(ignore=["5.*"])).paths[-1] == "4.jpg"


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ("[1, 2]", r"what lies beside the image '0\.jpg' cannot be read: '0\.json' is no object of JSON\."),
        ("null", r"'0\.json' is no object of JSON"),
        ('{"label": "\\ud800"}', "cannot be read: .*surrogates not allowed"),
    ],
)
def test_json_beside_an_image_that_is_no_object_or_no_text_is_told(tmp_path: Path, about: str, message: str) -> None:
    path = shard(tmp_path / "set.tar", {"0.jpg": b"0", "0.json": about, "1.jpg": b"1", "1.cls": "b"})
    with pytest.raises(DataError, match=message):
        load_dataset(path)


def test_captions_are_labels_where_nothing_else_is_known(tmp_path: Path) -> None:
    path = shard(tmp_path / "set.tar", {f"{n}.{e}": "ab"[n % 2] for n in range(4) for e in ("png", "txt")})
    assert load_dataset(path).labels.tolist() == [0, 1, 0, 1]


def test_files_beside_images_that_have_no_label_leave_folders_the_classes(tmp_path: Path) -> None:
    names = [f"{label}/{number}" for label in ("cat", "dog") for number in range(3)]
    path = shard(tmp_path / "set.tar", {f"{n}.{e}": '{"width": 3}' for n in names for e in ("png", "json")})
    data = load_dataset(path)
    assert (data.classes, len(data)) == (("cat", "dog"), 6)
    assert data.passed_over == {".json": 6}


def test_folders_of_classes_may_lie_in_several_shards(photos: Path) -> None:
    for number, label in enumerate(("blue", "green", "red")):
        members = {f"{label}/{file.name}": file.read_bytes() for file in sorted((photos / label).iterdir())}
        shard(photos.parent / "set" / f"{number}.tar", members)
    data, folder = load_dataset(photos.parent / "set"), load_dataset(photos)
    assert (data.paths, data.classes) == (folder.paths, folder.classes)
    assert [data.read(row) for row in range(24)] == [folder.read(row) for row in range(24)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("set/{000..003}.tar", r"2 of 4 are not there: .*002\.tar, .*003\.tar"),
        ("set/x*.tar", "1 of 1 are not there"),
        ("set/{000..001}.zip", "2 of 2 are not there"),
    ],
)
def test_shards_that_are_missing_are_named(tmp_path: Path, given: str, words: str) -> None:
    keyed(tmp_path / "set")
    with pytest.raises(DataError, match=words):
        load_dataset(tmp_path / given)


def test_a_key_with_two_images_says_how_one_is_left_out(tmp_path: Path) -> None:
    members = {f"{n}.{e}": "ab"[n % 2] for n in range(4) for e in ("cls", "jpg", "seg.png")}
    path = shard(tmp_path / "set.tar", members)
    with pytest.raises(DataError, match=r"has 2 images of the key '0': 0\.jpg, 0\.seg\.png\..* --ignore '\*\.seg\.p"):
        load_dataset(path)
    assert load_dataset(path, layout=Layout(ignore=["*.seg.png"])).paths == ("0.jpg", "1.jpg", "2.jpg", "3.jpg")


def test_a_shard_that_changes_is_listed_anew_and_one_that_is_gone_is_told(tmp_path: Path) -> None:
    keyed(tmp_path / "set", first=1)
    before = load_dataset(tmp_path / "set")
    shard(tmp_path / "set" / "001.tar", {"9.png": b"new", "9.cls": "dog"})
    after = load_dataset(tmp_path / "set")
    assert after.paths == ("0000.png", "0001.png", "0002.png", "9.png")
    assert after.read(3) == b"new"
    with pytest.raises(ImageReadError, match="no such image in the tar files"):
        before.images.read("0005.png")
    (tmp_path / "set" / "001.tar").unlink()
    with pytest.raises(ImageReadError, match="No such file"):
        after.read(3)


def test_a_table_inside_an_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(6):
            archive.writestr(f"images/{number}.png", b"png %d" % number)
        archive.writestr("labels.csv", "image,label\n0.png,a\n")
    words = f"It holds labels.csv: .* --data labels.csv --images {path}$"
    with pytest.raises(DataError, match=words):
        load_dataset(path)
    for form in ("images/{}.png", "{}.png", "{}", "old/{}.png"):
        rows = (f"{form.format(number)},{'ab'[number % 2]}\n" for number in range(6))
        (tmp_path / "labels.csv").write_text("".join(["image,label\n", *rows]))
        found = load_dataset(tmp_path / "labels.csv", layout=Layout(images=str(path)))
        assert (found.classes, found.read(3)) == (("a", "b"), b"png 3")
        assert any("'0' is 'images/0.png'" in line for line in found.warnings) == (form == "{}")


@pytest.mark.parametrize(
    ("name", "words"), [("a.arrow", r"to_parquet\(FILE\)"), ("one/a.parquet", r"--data 'photos/\*\.parquet'")]
)
def test_data_sets_of_hugging_face_that_are_not_read_have_a_way_out(tmp_path: Path, name: str, words: str) -> None:
    for folder in ("small", "full"):
        (tmp_path / "set" / folder / name).parent.mkdir(parents=True)
        (tmp_path / "set" / folder / name).touch()
    with pytest.raises(DataError, match=words):
        load_dataset(tmp_path / "set")
