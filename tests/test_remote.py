"""Images in object stores: the same dataset as on a disk, and what goes wrong on the way to it."""

import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from fakes import write_photos
from stores import Store, serving
from test_containers import deflated, stored, tarred
from test_parquet import write

from tlcache.cache.feature_file import open_features
from tlcache.datasets import container, remote
from tlcache.datasets.dataset import load_dataset, reopen
from tlcache.datasets.layout import Layout
from tlcache.deploying.predict import predict
from tlcache.errors import DataError, ImageReadError, OptionError, UnreachableError
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune
from tlcache.inventory.leftovers import find_stores
from tlcache.probing.fit import fit_heads

pytest.importorskip("obstore")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store whose bucket `b` is the folder `store/b`."""
    for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("TLCACHE_RETRY_S", "2")
    (tmp_path / "store" / "b").mkdir(parents=True)
    forget()
    with serving(tmp_path / "store") as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL", served.url)
        monkeypatch.setenv("GOOGLE_BASE_URL", served.url)
        monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
        yield served


@pytest.fixture
def bucket(store: Store, photos: Path) -> Path:
    """The photos, as objects of the bucket and as a folder."""
    shutil.copytree(photos, store.root / "b" / "photos")
    return photos


def forget() -> None:
    """Forget what this process knows of containers, as another one would not know it."""
    container._listed.cache_clear()
    remote._LOOKED.clear()


def put(store: Store, pack: Callable[[Path], Path], photos: Path) -> str:
    """Put an archive of photos in the bucket and return its key."""
    packed = pack(photos)
    return packed.replace(store.root / "b" / packed.name).name


@pytest.mark.parametrize("given", ["s3://b/photos", "s3://b/photos/", "s3://b", "gs://b/photos"])
def test_a_bucket_is_understood_as_its_folder(store: Store, bucket: Path, given: str) -> None:
    for name in ("notes.txt", "red/.hidden.png", "red/åä #1%20{x}?.png"):
        (bucket / name).write_text("x")
        (store.root / "b" / "photos" / name).write_text("x")
    data, folder = load_dataset(given), load_dataset(bucket)
    above = "" if "photos" in given else "photos/"
    assert data.paths == tuple(f"{above}{path}" for path in folder.paths)
    assert (data.labels.tolist(), data.passed_over) == (folder.labels.tolist(), folder.passed_over)
    assert (data.name, data.source) == (("photos" if "photos" in given else "b"), given.rstrip("/"))
    images = reopen(data.source)
    assert images.exists()
    assert [images.read(path) for path in data.paths] == [folder.read(row) for row in range(len(folder))]
    assert not reopen(f"{given.partition('b')[0]}b/nothing").exists()


@pytest.mark.parametrize("pack", [stored, deflated, tarred])
@pytest.mark.parametrize("scheme", ["s3", "gs", "http"])
def test_an_archive_in_a_store_is_read_by_ranges(
    store: Store, photos: Path, pack: Callable[[Path], Path], scheme: str
) -> None:
    (photos / "red" / "large.png").write_bytes(bytes(9 << 20))
    key = put(store, pack, photos)
    given = f"{store.url}/b/{key}" if scheme == "http" else f"{scheme}://b/{key}"
    data, folder = load_dataset(given), load_dataset(photos)
    assert (data.name, data.paths, data.labels.tolist()) == ("photos", folder.paths, folder.labels.tolist())
    assert data.source == f"{key[-3:]}:{given}"
    before = store.requests["GET"]
    assert [data.read(row) for row in range(len(data))] == [folder.read(row) for row in range(len(folder))]
    assert store.requests["GET"] - before == len(data)
    assert reopen(data.source).exists()
    assert not reopen(data.source.replace("photos", "others")).exists()


@pytest.mark.parametrize("given", ["s3://b/set/*.tar", "s3://b/set/{00..01}.tar", "http://STORE/b/set/{00..01}.tar"])
def test_shards_in_a_store_are_one_dataset(store: Store, photos: Path, given: str) -> None:
    given = given.replace("http://STORE", store.url)
    halves = store.root / "b" / "set"
    for number in range(2):
        part = photos.with_name("part")
        shutil.copytree(photos, part)
        for path in part.rglob("*.png"):
            if int(path.stem) % 2 == number:
                path.unlink()
        halves.mkdir(exist_ok=True)
        tarred(part).rename(halves / f"0{number}.tar")
        shutil.rmtree(part)
    data, folder = load_dataset(given), load_dataset(photos)
    assert data.paths == folder.paths
    assert [data.read(row) for row in range(24)] == [folder.read(row) for row in range(24)]
    assert load_dataset(data.data).paths == data.paths


def test_parquet_files_in_a_store_are_read_by_groups(store: Store) -> None:
    images = [b"image %d" % number for number in range(8)]
    write(store.root / "b" / "pets.parquet", images, label=[0, 1] * 4)
    for given in ("s3://b/pets.parquet", f"{store.url}/b/pets.parquet", "s3://b/*.parquet"):
        data = load_dataset(given)
        assert data.classes == ("cat", "dog")
        assert [data.read(row) for row in range(8)] == images
        before = store.requests["GET"]
        assert [data.read(row) for row in range(8)] == images
        assert store.requests["GET"] == before


def test_all_forms_have_the_same_embeddings_and_none_is_computed_twice(
    store: Store, bucket: Path, tinynet: None
) -> None:
    del tinynet
    done = extract("s3://b/photos", "tinynet", "random")
    assert (done.rows, done.embedded) == (24, 24)
    forms = [str(bucket), f"s3://b/{put(store, stored, bucket)}", f"{store.url}/b/{put(store, tarred, bucket)}"]
    with open_features(done.path) as file:
        expected = dict(zip(file.hashes(), file.split("train", "val", "test").features, strict=True))
    for form in forms:
        again = extract(form, "tinynet", "random", name=form[-3:])
        assert (again.rows, again.embedded) == (24, 0)
        with open_features(again.path) as file:
            found = dict(zip(file.hashes(), file.split("train", "val", "test").features, strict=True))
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[each], expected[each]) for each in found)


def test_what_has_not_changed_by_the_word_of_the_store_is_not_read(store: Store, bucket: Path, tinynet: None) -> None:
    del tinynet
    extract("s3://b/photos", "tinynet", "random")
    before = store.requests["GET"]
    assert extract("s3://b/photos", "tinynet", "random").up_to_date
    assert store.requests["GET"] == before
    shutil.copy(bucket / "blue" / "1.png", store.root / "b" / "photos" / "red" / "1.png")
    (store.root / "b" / "photos" / "red" / "9.png").write_bytes(b"no image")
    done = extract("s3://b/photos", "tinynet", "random")
    assert (done.rows, done.embedded, done.quarantined) == (24, 0, 1)
    assert store.requests["GET"] == before + 2
    with open_features(done.path) as file:
        at = file.paths().index("red/1.png")
        assert file.hashes()[at].decode() == hashlib.sha256((bucket / "blue" / "1.png").read_bytes()).hexdigest()
    assert extract("s3://b/photos", "tinynet", "random").up_to_date
    assert store.requests["GET"] == before + 2
    (kept,) = Path("cache/hashes").iterdir()
    assert [each.path.name for each in find_stores()] == ["hashes"]
    kept.write_bytes(kept.read_bytes().replace(b"red", b"rad"))
    assert extract("s3://b/photos", "tinynet", "random").up_to_date
    assert store.requests["GET"] == before + 2 + 25


def test_hashes_of_a_whole_dataset_are_read_once(store: Store, bucket: Path) -> None:
    (store.root / "b" / "photos" / "red" / "0.png").unlink()
    dataset = load_dataset("s3://b/photos")
    (store.root / "b" / "photos" / "red" / "1.png").unlink()  # after it was listed
    found = dict(zip(dataset.paths, dataset.hashes(), strict=True))
    assert found.pop("red/1.png") == ""
    assert found == {path: hashlib.sha256((bucket / path).read_bytes()).hexdigest() for path in found}
    assert len(found) == 22
    before = store.requests["GET"]
    assert load_dataset("s3://b/photos").hashes() == list(found.values())
    assert store.requests["GET"] == before


@pytest.mark.parametrize("form", ["bucket", "archive"])
def test_a_table_here_lists_images_there(store: Store, bucket: Path, form: str) -> None:
    there = "s3://b/photos" if form == "bucket" else f"s3://b/{put(store, stored, bucket)}"
    Path("list.csv").write_text("path,label\nred/1.png,warm\nblue/1.png,cold\nblue/gone.png,cold\n")
    data = load_dataset("list.csv", layout=Layout(images=there))
    assert (data.paths, data.classes) == (("blue/1.png", "blue/gone.png", "red/1.png"), ("cold", "warm"))
    assert data.read(2) == (bucket / "red" / "1.png").read_bytes()
    with pytest.raises(ImageReadError, match="no such"):
        data.read(1)
    assert reopen(data.source).read("blue/1.png") == data.read(0)


def test_networks_are_trained_on_a_bucket(store: Store, bucket: Path, tinynet: None) -> None:
    del tinynet, bucket
    extract("s3://b/photos", "tinynet", "random")
    (frozen,) = fit_heads(data="s3://b/photos", heads=["ridge"])
    tuned = finetune("s3://b/photos", "tinynet", "random", epochs=1, precision="fp32", layout="contiguous")
    assert (frozen.source, tuned.source) == ("s3://b/photos",) * 2
    assert store.requests["GET"] == 48


def test_images_in_a_store_are_classified_as_those_on_a_disk(store: Store, bucket: Path, tinynet: None) -> None:
    del tinynet
    extract("s3://b/photos", "tinynet", "random")
    (run,) = fit_heads(data="photos", heads=["ridge"])
    here = predict(run, bucket)
    for given in (
        "s3://b/photos",
        f"s3://b/{put(store, stored, bucket)}",
        f"{store.url}/b/{put(store, tarred, bucket)}",
    ):
        found = predict(run, given)
        assert [*found.paths] == [path.replace(str(bucket), given) for path in here.paths]
        assert (found.labels, found.checked) == (here.labels, here.checked)
        assert found.embedded == 0
    mixed = ["s3://b/photos/red/1.png", str(bucket / "blue" / "1.png"), f"{store.url}/b/photos/red/gone.png"]
    found = predict(run, mixed)
    assert found.labels[:2] == ["red", "blue"]
    assert list(found.errors) == [2]
    store.fault, store.times = "403", 1_000
    with pytest.raises(UnreachableError, match="access is denied"):
        predict(run, mixed)


def test_many_requests_are_under_way_at_a_time(store: Store, bucket: Path) -> None:
    del bucket
    write_photos(store.root / "b" / "photos", 30)
    data = load_dataset("s3://b/photos")
    store.delay_s = 0.05
    data.images.expect(data.paths)
    assert [hashlib.sha256(data.read(row)).digest() for row in range(len(data))] == [
        hashlib.sha256((store.root / "b" / "photos" / path).read_bytes()).digest() for path in data.paths
    ]
    assert 16 <= store.most_at_once <= 32
    assert store.requests["GET"] == 90


def test_an_index_is_kept_and_made_again_where_it_is_damaged_or_stale(store: Store, photos: Path) -> None:
    given = f"s3://b/{put(store, tarred, photos)}"
    paths = load_dataset(given).paths
    (index,) = Path("cache/indexes").iterdir()
    before = store.requests["GET"]
    forget()
    assert load_dataset(given).paths == paths
    assert store.requests["GET"] == before
    whole = index.read_bytes()
    for damaged in (b"", whole[:-1], whole[:40] + b"?" + whole[41:], whole + b"?"):
        index.write_bytes(damaged)
        forget()
        assert load_dataset(given).paths == paths
        assert index.read_bytes() == whole
    (photos / "red" / "0.png").unlink()
    put(store, tarred, photos)
    assert load_dataset(given).paths == tuple(path for path in paths if path != "red/0.png")


def test_an_index_of_a_large_archive_on_a_disk_is_kept(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlcache.datasets.indexes._LEAST", 24)
    archive = tarred(photos)
    data = load_dataset(archive)
    forget()
    monkeypatch.setattr(container.Container, "contents", None, raising=False)
    again = load_dataset(archive)
    assert [again.read(row) for row in range(24)] == [data.read(row) for row in range(24)]
    assert len([*Path("cache/indexes").iterdir()]) == 1


@pytest.mark.parametrize(("fault", "times"), [("500", 3), ("503", 1), ("429", 2), ("cut", 2), ("slow", 1)])
def test_a_fault_that_passes_is_not_seen(store: Store, bucket: Path, fault: str, times: int) -> None:
    data = load_dataset("s3://b/photos")
    store.fault, store.times = fault, times
    assert data.images.read("red/1.png") == (bucket / "red" / "1.png").read_bytes()
    assert store.times == 0


FAULTS = {
    "500": "the server failed, several times .*500",
    "403": r"access is denied .*403 .*Look at the credentials",
    "cut": "the answers were cut off, several times",
    "silent": "there was no answer in time",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_is_told_by_its_kind(
    store: Store, bucket: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    del bucket
    monkeypatch.setenv("TLCACHE_RETRY_S", "0.2")
    data = load_dataset("s3://b/photos")
    store.fault, store.times = fault, 1_000
    with pytest.raises(UnreachableError, match=rf"Cannot read 's3://b/photos/red/1\.png': {FAULTS[fault]}"):
        data.images.read("red/1.png")
    asked = store.requests["GET"]
    with pytest.raises(UnreachableError, match=rf"Cannot read 's3://b/photos/red/2\.png': {FAULTS[fault]}"):
        data.images.read("red/2.png")  # at once: the store is known to fail
    assert store.requests["GET"] == asked
    with pytest.raises(UnreachableError, match=rf"Cannot read 's3://b/photos': {FAULTS[fault]}"):
        load_dataset("s3://b/photos")
    store.times = 0
    assert load_dataset("s3://b/photos").images.read("red/2.png")


def test_an_answer_that_never_comes_is_not_waited_for_long(
    store: Store, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del bucket
    monkeypatch.setattr(remote, "_SILENT", timedelta(seconds=0.2))
    monkeypatch.setenv("TLCACHE_RETRY_S", "9.5")
    data = load_dataset("s3://b/photos")
    asked, began = store.requests["GET"], time.perf_counter()
    store.fault, store.times = "silent", 2
    assert data.images.read("red/1.png")
    assert store.requests["GET"] == asked + 3
    assert time.perf_counter() - began < 8


def test_a_fault_that_stays_ends_the_run_and_the_next_one_goes_on(
    store: Store, bucket: Path, tinynet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No image of a store that fails is listed as unusable."""
    del bucket, tinynet
    monkeypatch.setenv("TLCACHE_RETRY_S", "1.5")
    read = remote.get

    def failing(url: str) -> bytes:
        if store.requests["GET"] == 23:
            store.fault, store.times = "500", 1_000
        return read(url)

    monkeypatch.setattr("tlcache.datasets.bucket.get", failing)
    monkeypatch.setattr("tlcache.datasets.far._AT_ONCE", 1)
    with pytest.raises(
        UnreachableError, match=r"the server failed.*What is finished is kept: run the same command agai"
    ):
        extract("s3://b/photos", "tinynet", "random", batch_size=2)
    store.times = 0
    done = extract("s3://b/photos", "tinynet", "random")
    assert (done.rows, done.quarantined) == (24, 0)
    assert done.reused >= 12


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("s3://b/nothing", "There are no objects below 's3://b/nothing'"),
        ("s3://b/nothing.zip", "Cannot read 's3://b/nothing.zip': no such object"),
        ("s3://b/nothing.parquet", "Cannot read 's3://b/nothing.parquet': no such object"),
        ("s3://b/none/*.tar", "'s3://b/none/\\*.tar': 1 of 1 are not there"),
        ("http://127.0.0.1:9/a.zip", "nothing answers at its address"),
        ("http://STORE/b/photos", "cannot be listed. Give a file of many images"),
        ("http://STORE/b/*.tar", "cannot be searched. Give a range"),
        ("http://STORE/b/a.zip?download=1", "Leave that out"),
        ("s3://b/photos/list.csv", "--data list.csv --images s3://b/photos"),
        ("s3://b/photos.tgz", "Unpack them"),
        ("s3://b/photos/red/0.zip", "is no whole zip archive"),
    ],
)
def test_what_is_not_there_is_told(store: Store, bucket: Path, given: str, words: str) -> None:
    del bucket
    (store.root / "b" / "photos" / "red" / "0.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=words):
        load_dataset(given.replace("http://STORE", store.url))


def test_a_prefix_of_nothing_but_containers_is_what_is_in_them(store: Store, bucket: Path) -> None:
    (store.root / "b" / "tars").mkdir()
    tarred(bucket).rename(store.root / "b" / "tars" / "1.tar")
    write(
        store.root / "b" / "pets" / "train-0.parquet", [b"image %d" % number for number in range(8)], label=[0, 1] * 4
    )
    write(store.root / "b" / "pets" / "test-0.parquet", [b"other %d" % number for number in range(4)], label=[0, 1] * 2)
    for prefix, ending in (("tars", "tar"), ("pets", "parquet")):
        alone, pattern = (load_dataset(f"s3://b/{prefix}{more}") for more in ("", f"/*.{ending}"))
        assert (alone.paths, alone.splits, alone.source) == (pattern.paths, pattern.splits, pattern.source)
        assert alone.name == prefix
    assert set(alone.splits) == {"train", "test"}


def test_an_object_that_is_gone_is_an_image_that_cannot_be_read(store: Store, bucket: Path) -> None:
    del bucket
    data = load_dataset("s3://b/photos")
    (store.root / "b" / "photos" / "red" / "1.png").unlink()
    with pytest.raises(ImageReadError, match=r"Cannot read 's3://b/photos/red/1\.png': no such object") as caught:
        data.images.read("red/1.png")
    assert not isinstance(caught.value, UnreachableError)


@pytest.mark.parametrize("pack", [stored, tarred])
def test_an_archive_that_changes_while_it_is_read_is_told(
    store: Store, photos: Path, pack: Callable[[Path], Path]
) -> None:
    key = put(store, pack, photos)
    data = load_dataset(f"s3://b/{key}")
    data.read(0)
    write_photos(photos, 9)
    put(store, pack, photos)
    with pytest.raises(UnreachableError, match=rf"'s3://b/{key}' has changed while it was read"):
        data.read(1)
    again = load_dataset(f"s3://b/{key}")
    assert len(again) == 27
    (store.root / "b" / key).unlink()
    with pytest.raises(UnreachableError, match=rf"'s3://b/{key}' was removed while it was read"):
        again.read(1)


def test_what_to_install_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(OptionError, match=r"need obstore, which is not installed.*pip install 'tlcache\[remote\]'"):
        load_dataset("s3://b/photos")
