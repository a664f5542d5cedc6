"""Images in parquet files, as Hugging Face writes data sets."""

import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlcache.cache.feature_file import open_features
from tlcache.datasets import parquet_rows
from tlcache.datasets.dataset import load_dataset, reopen
from tlcache.datasets.layout import Layout
from tlcache.errors import DataError, ImageReadError, OptionError
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune
from tlcache.probing.fit import fit_heads

CLASSES = ("dog", "cat")


def write(path: Path, images: Sequence[bytes], plain: bool = False, classes: Any = CLASSES, **columns: Any) -> Path:
    """Write a file as `datasets` does, in groups of three rows; `plain` leaves out what it says of its columns."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(exist_ok=True, parents=True)
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    rows = [{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(images)]
    column = arrow.array(images, arrow.binary()) if plain else arrow.array(rows, kind)
    features = {"image": {"_type": "Image"}} | {
        name: {"_type": "ClassLabel", "names": list(classes)}
        for name, values in columns.items()
        if not all(isinstance(value, str) for value in values)
    }
    table = arrow.table({"image": column, **columns})
    said = {} if plain else {"huggingface": json.dumps({"info": {"features": features}})}
    parquet.write_table(table.replace_schema_metadata(said), path, row_group_size=3)
    return path


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [b"image %d" % (first + number) for number in range(count)]


def test_names_of_classes_are_those_that_the_file_says(tmp_path: Path) -> None:
    path = write(tmp_path / "pets.parquet", numbered(8), label=[0, 1, 1, 0, -1, 1, 0, 1])
    data = load_dataset(path)
    assert (data.name, data.classes) == ("pets", ("cat", "dog"))
    assert data.labels.tolist() == [1, 0, 0, 1, 0, 1, 0]  # in the order of the alphabet
    assert data.paths[:2] == ("0000000/0.png", "0000001/1.png")
    assert "0000004/4.png" not in data.paths  # -1 is no label
    assert [data.read(row) for row in (0, 3, 6)] == [b"image 0", b"image 3", b"image 7"]
    assert any("1 of 8 rows left out" in warning for warning in data.warnings)
    moved = path.rename(tmp_path / "other.parquet")
    assert load_dataset(moved).paths == data.paths


@pytest.mark.parametrize("given", ["set", "set/*.parquet", "hf:org/pets"])
def test_files_that_are_called_as_splits_are_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "datasets--org--pets"
    folder = cached / "snapshots" / "abc" / "data" if given.startswith("hf:") else tmp_path / "set"
    for number, name in enumerate(("test-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002")):
        write(folder / f"{name}.parquet", numbered(4, 4 * number), label=[0, 1, 0, 1])
    data = load_dataset(given)
    assert data.splits == ("train",) * 8 + ("test",) * 4
    assert data.paths[7:9] == ("train/0000007/3.png", "test/0000000/0.png")
    assert [data.read(row) for row in (0, 7, 8)] == [b"image 4", b"image 11", b"image 0"]
    assert reopen(data.source).read("train/0000004/0.png") == b"image 8"
    if given.startswith("hf:"):
        assert data.name == "pets"
        only = load_dataset("hf:org/pets:train")
        assert len(only) == 8
        with pytest.raises(DataError, match=r"no parquet files of the split 'val' in .*: hf download --repo-ty"):
            load_dataset("hf:org/pets:val")
        with pytest.raises(DataError, match="datasets--nobody--none'. Nothing is downloaded here"):
            load_dataset("hf:nobody/none")


def test_columns_are_named_as_those_of_manifests(tmp_path: Path) -> None:
    fine, coarse = [0, 1, 0, 1], [1, 1, 0, 0]
    path = write(tmp_path / "a.parquet", numbered(4), fine_kind=fine, coarse_kind=coarse, patient=list("abcd"))
    with pytest.raises(DataError, match="several columns of classes: fine_kind, coarse_kind. Say which"):
        load_dataset(path)
    data = load_dataset(path, layout=Layout(label_column="coarse_kind"))
    assert (data.classes, data.labels.tolist()) == (("cat", "dog"), [0, 0, 1, 1])
    assert data.groups == ("a", "b", "c", "d")
    only = load_dataset(write(tmp_path / "b.parquet", numbered(4), digit=fine))
    assert only.labels.tolist() == [1, 0, 1, 0]


def test_a_column_of_bytes_and_one_of_texts_will_do(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path / "a.parquet", numbered(4), plain=True, species=["a", "b", "a", "b"]))
    assert (data.paths[1], data.labels.tolist()) == ("0000001", [0, 1, 0, 1])
    assert data.read(3) == b"image 3"


def test_categories_are_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", numbered(3), plain=True, label=["x", "y", "x"], age=["3", "4", "5"])
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(path)
    places = [table.column_names.index(name) for name in ("label", "age")]
    for place in places:
        table = table.set_column(place, table.column_names[place], table.column(place).dictionary_encode())
    parquet.write_table(table, path)
    data = load_dataset(path)
    assert (data.classes, data.labels.tolist()) == (("x", "y"), [0, 1, 0])
    assert {name: list(cells) for name, cells in data.columns.items()} == {"age": ["3", "4", "5"]}


def test_parquet_embeds_and_trains_as_the_folder(photos: Path, tinynet: None) -> None:
    del tinynet
    plain = extract(photos, "tinynet", "random")
    files = sorted(photos.rglob("*.png"))
    names = ("blue", "green", "red")
    labels = [names.index(file.parent.name) for file in files]
    path = write(photos.parent / "set.parquet", [file.read_bytes() for file in files], classes=names, label=labels)
    done = extract(path, "tinynet", "random")
    assert (plain.embedded, done.rows, done.embedded) == (24, 24, 0)
    with open_features(plain.path) as one, open_features(done.path) as other:
        found = [file.split("train", "val", "test").features for file in (one, other)]
        order = [np.argsort(file.hashes()) for file in (one, other)]
    assert np.array_equal(found[0][order[0]], found[1][order[1]])
    (frozen,) = fit_heads(data=str(path), heads=["ridge"])
    tuned = finetune(path, "tinynet", "random", epochs=1, precision="fp32", layout="contiguous")
    assert frozen.source == tuned.source == f"parquet:{path}"


@pytest.mark.parametrize(
    "name",
    ["0000003/3.png", "train/0000002/2.png", "train/0000000", "train/0000009/9.png", "train/-000001/0.png", "cat", ""],
)
def test_a_name_that_no_row_has_is_no_image(tmp_path: Path, name: str) -> None:
    """Numbers in names are those of a split: rows 0 and 1 of train are in its first file, 2 to 4 in its third."""
    for part, count in (("train-00000", 2), ("train-00001", 0), ("train-00002", 3), ("test-00000", 2)):
        label = ["ant", "bee", "ant"][:count]
        write(tmp_path / "set" / f"{part}-of-00003.parquet", numbered(count), plain=not count, label=label)
    images = load_dataset(tmp_path / "set").images
    assert [images.read(f"train/000000{row}/{path}.png") for row, path in ((1, 1), (4, 2))] == [b"image 1", b"image 2"]
    with pytest.raises(ImageReadError, match="no such image"):
        images.read(name)


def test_rows_and_a_column_of_labels_are_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [], label=[])
    with pytest.raises(DataError, match=r"a\.parquet' has no rows\.$"):
        load_dataset(path)
    write(path, numbered(2), plain=True)
    with pytest.raises(DataError, match=r"there is no other\. To take images without labels: --unlabelled"):
        load_dataset(path)
    write(path, numbered(2), plain=True, age=["3", "4"])
    with pytest.raises(DataError, match=r"no column is the label by its name; there are 'age'\. Say which it is"):
        load_dataset(path)


def test_columns_that_a_file_lacks_are_empty_in_its_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", numbered(2), plain=True, label=["x", "y"], site=["north", "south"])
    write(tmp_path / "b.parquet", numbered(2, 2), plain=True, label=["y", "x"], age=["3", "4"])
    rows = load_dataset(tmp_path / "*.parquet")
    assert {name: list(cells) for name, cells in rows.columns.items()} == {
        "site": ["north", "south", "", ""],
        "age": ["", "", "3", "4"],
    }


def test_threads_and_forks_read_a_file_at_once(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path / "a.parquet", numbered(30), label=[0, 1] * 15))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda row: data.read(row * 7 % 30), range(300))) == [
            b"image %d" % (row * 7 % 30) for row in range(300)
        ]
    good = [b"image %d" % row for row in range(30)]
    child = get_context("fork").Process(target=lambda: os._exit([data.read(row) for row in range(30)] != good))
    child.start()
    child.join(60)
    assert child.exitcode == 0


def test_a_file_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", numbered(4), label=[0, 1, 0, 1])
    before = load_dataset(path)
    assert before.read(2) == b"image 2"
    write(path, numbered(3, 10), label=[0, 1, 0])
    assert before.read(2) == b"image 12"
    with pytest.raises(ImageReadError, match="no such image in the parquet files"):
        before.read(3)
    write(path, numbered(5, 20), label=[0, 1, 0, 1, 0])
    assert load_dataset(path).read(3) == b"image 23"  # a row that there was none of


def test_a_file_that_is_added_renamed_or_gone_is_seen_when_data_are_listed_again(tmp_path: Path) -> None:
    def read() -> list[bytes]:
        data = load_dataset(tmp_path)
        return [data.read(row) for row in range(len(data))]

    first = write(tmp_path / "a.parquet", numbered(2), label=[0, 1])
    write(tmp_path / "c.parquet", numbered(2, 20), label=[0, 1])
    assert read() == [*numbered(2), *numbered(2, 20)]
    write(tmp_path / "b.parquet", numbered(2, 10), label=[0, 1])
    assert read() == [*numbered(2), *numbered(2, 10), *numbered(2, 20)]
    first.rename(tmp_path / "d.parquet")
    assert read() == [*numbered(2, 10), *numbered(2, 20), *numbered(2)]
    images = load_dataset(tmp_path).images
    assert images.read("0000000/0.png") == b"image 10"
    (tmp_path / "b.parquet").unlink()
    assert images.read("0000000/0.png") == b"image 20"  # of the files as they are now


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = [arrow.array(numbered(2), arrow.binary()), ["x", "y"], ["x", "y"]]
    parquet.write_table(arrow.table(columns, names=["image", "label", "label"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"several columns of one name: label\. Give each a name of its own\.$"):
        load_dataset(tmp_path)


def test_what_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", numbered(4), label=[0, 1, 0, 1])
    whole = path.read_bytes()
    for kept in (0, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=r"a\.parquet' is no whole parquet file .* cut off or damaged. Copy"):
            load_dataset(path)
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"x": [1], "label": ["a"]}), path)
    with pytest.raises(DataError, match="no column is the path by its name; there are 'x', 'label'"):
        load_dataset(path)
    path.write_bytes(whole)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OptionError, match=r"need pyarrow, which is not .* pip install 'tlcache\[parquet\]'"):
        load_dataset(path)


@pytest.mark.parametrize(("most_bytes", "at_least", "at_most"), [(1 << 20, 20, 20), (1, 100, 180)])
def test_groups_are_read_once_while_they_fit_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_bytes: int, at_least: int, at_most: int
) -> None:
    path = write(tmp_path / "pets.parquet", numbered(60), label=[0, 1] * 30)  # 20 groups
    groups, read = parquet_rows._Groups(most_bytes), list[int]()
    real = parquet_rows._Column.group
    monkeypatch.setattr(parquet_rows, "_GROUPS", groups)
    monkeypatch.setattr(parquet_rows._Column, "group", lambda own, group: read.append(group) or real(own, group))
    data = load_dataset(path)
    order = np.random.default_rng(0).permutation(np.tile(np.arange(60), 3)).tolist()
    for row in order:
        assert data.read(row) == b"image %d" % int(data.paths[row].split("/")[0])
    assert at_least <= len(read) <= at_most
    assert groups._bytes == sum(values.nbytes for values in groups._kept.values())
    assert len(groups._kept) == (20 if at_least == 20 else 8)


def test_a_table_of_paths_is_a_manifest(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"file": ["0.png", "1.png", "2.png"], "label": [3, 7, None], "split": ["train", "valid", "train"]}
    for name in columns["file"]:
        (tmp_path / name).touch()
    parquet.write_table(arrow.table(columns), tmp_path / "list.parquet")
    found = load_dataset(tmp_path / "list.parquet")
    assert (found.paths, found.splits, found.classes) == (("0.png", "1.png"), ("train", "val"), ("3", "7"))
    assert any("1 of 3 rows left out, as they have no label (empty): line 3" in line for line in found.warnings)
