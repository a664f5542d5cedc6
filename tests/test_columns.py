"""What a table says of images beside their labels: kept in feature files, and never a reason to embed again."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
from fakes import write_photos
from test_parquet import numbered, write

from tlcache.cache.columns import values_of
from tlcache.cache.feature_file import open_features
from tlcache.datasets.dataset import Dataset, load_dataset
from tlcache.extraction.extract import extract
from tlcache.inventory.checks import verify


def table(folder: Path, columns: Mapping[str, Sequence[object]], name: str = "photos.csv") -> Path:
    """Write a table of the images of a folder of classes."""
    images = sorted(folder.glob("*/*.png"))
    rows = zip(
        (path.relative_to(folder.parent).as_posix() for path in images),
        (path.parent.name for path in images),
        *columns.values(),
        strict=True,
    )
    path = folder.parent / name
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["path", "label", *columns], *rows])
    return path


SITES = ["Köln", "", "Aachen"] * 8
AGES = [*map(str, range(20, 42)), "", "nan"]


@pytest.fixture
def made(photos: Path, tiny_model: Path) -> Path:
    return extract(table(photos, {"site": SITES, "age": AGES, "mg/l": ["0.5"] * 24}), str(tiny_model)).path


def by_path(path: Path, name: str) -> dict[str, object]:
    with open_features(path) as file:
        return dict(zip(file.paths(), file.column(name).tolist(), strict=True))


def test_other_columns_are_kept_beside_the_rows(made: Path, photos: Path) -> None:
    with open_features(made) as file:
        assert file.columns == ("site", "age", "mg/l")
    names = [f"photos/{path.relative_to(photos).as_posix()}" for path in sorted(photos.glob("*/*.png"))]
    assert by_path(made, "site") == dict(zip(names, [site.encode() for site in SITES], strict=True))
    ages = by_path(made, "age")
    assert [ages[name] for name in names[:22]] == list(range(20, 42))
    assert np.isnan([ages[name] for name in names[22:]]).all()
    with h5py.File(made) as file:
        assert file["columns/mg%2Fl"][:].tolist() == [0.5] * 24


def test_a_changed_column_is_read_again_and_nothing_embedded(made: Path, photos: Path, tiny_model: Path) -> None:
    with open_features(made) as file:
        before = {name: file.attrs[name] for name in ("key", "dataset_digest")}
    assert extract("photos.csv", str(tiny_model)).up_to_date
    again = extract(table(photos, {"site": ["Bonn"] * 24}), str(tiny_model))
    assert (again.path, again.embedded, again.up_to_date) == (made, 0, False)
    with open_features(made) as file:
        assert file.columns == ("site",)
        assert {name: file.attrs[name] for name in before} == before
    assert set(by_path(made, "site").values()) == {b"Bonn"}


def test_a_table_without_others_gives_the_file_that_it_always_gave(photos: Path, tiny_model: Path) -> None:
    path = extract(table(photos, {}), str(tiny_model)).path
    with open_features(path) as file:
        assert file.columns == ()
        assert "columns" not in file.attrs
    with h5py.File(path) as file:
        assert "columns" not in file


@pytest.mark.parametrize("place", ["columns/site", "columns/age"])
def test_a_damaged_column_is_found_and_mended(made: Path, place: str) -> None:
    with h5py.File(made, "r+") as file:
        file[place][3] = b"Bonn" if place.endswith("site") else 99.0
    (check,) = verify([made])
    assert not check.sound
    assert f"its column '{place.partition('/')[2]}' is not what was written" in check.problem
    assert verify([made], repair=True)[0].sound
    assert verify([made])[0].sound


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "2.50", "1e-3"], [1.0, 2.5, 0.001]),
        (["-1", "+.5", "3."], [-1.0, 0.5, 3.0]),
        (["1", "007", "2"], [b"1", b"007", b"2"]),  # a number of a ward has its zeros
        (["0", "0.5", "-0"], [0.0, 0.5, 0.0]),
        (["1", "unknown", "2"], [b"1", b"unknown", b"2"]),
        (["True", "False", "True"], [b"True", b"False", b"True"]),
        (["60,5", "-61,25", "7"], [60.5, -61.25, 7.0]),
        (["1,234", "5,678", "9"], [b"1,234", b"5,678", b"9"]),  # may be thousands
        (["1,5", "2.5", "3"], [b"1,5", b"2.5", b"3"]),
        (["inf", "1", "2"], [b"inf", b"1", b"2"]),
        (["", "NaN", "null"], [b"", b"", b""]),
        (["日本", "", "a\tb"], ["日本".encode(), b"", b"a\tb"]),
    ],
)
def test_a_column_is_numbers_or_texts(cells: list[str], expected: list[object]) -> None:
    values = values_of(cells)
    assert values is not None
    assert values.tolist() == expected


def test_long_texts_are_left_out_and_said(photos: Path, tiny_model: Path) -> None:
    done = extract(table(photos, {"caption": ["x" * 300] * 24, "site": SITES}), str(tiny_model))
    assert any("are not kept beside the embeddings: caption" in warning for warning in done.warnings)
    with open_features(done.path) as file:
        assert file.columns == ("site",)


def of_objects(folder: Path) -> Dataset:
    write_photos(folder / "photos", 2)
    lines = [{"path": str(path), "label": path.parent.name, "age": 3} for path in sorted(folder.glob("photos/*/*"))]
    (folder / "photos.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return load_dataset(folder / "photos.jsonl")


def of_metadata(folder: Path) -> Dataset:
    for split in ("train", "test"):
        write_photos(folder / "set" / split, 2)
        lines = [
            {"file_name": f"{path.parent.name}/{path.name}", "label": path.parent.name, "age": 3}
            for path in sorted((folder / "set" / split).glob("*/*"))
        ]
        (folder / "set" / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return load_dataset(folder / "set")


def of_parquet(folder: Path) -> Dataset:
    return load_dataset(write(folder / "pets.parquet", numbered(4), label=[0, 1, 1, 0], age=["3"] * 4))


def of_flags(folder: Path) -> Dataset:
    write_photos(folder / "photos", 2)
    lines = [f"{path},{int('red' in str(path))},{int('red' not in str(path))},3" for path in folder.glob("photos/*/*")]
    (folder / "flags.csv").write_text("\n".join(["path,red,other,age", *lines]))
    return load_dataset(folder / "flags.csv")


@pytest.mark.parametrize("made_by", [of_objects, of_metadata, of_parquet, of_flags])
def test_whatever_lists_images_keeps_its_other_columns(made_by: object, tmp_path: Path) -> None:
    data = made_by(tmp_path)  # type: ignore[operator]
    assert {name: list(cells) for name, cells in data.columns.items()} == {"age": ["3"] * len(data)}
