"""Embeddings out and in: what is dumped comes back, what others have made is read, what is wrong is told."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import tlcache
from tlcache.cache.feature_file import STAGES
from tlcache.cli import app
from tlcache.datasets.dataset import reopen
from tlcache.datasets.splits import SPLITS
from tlcache.errors import DataError, ModelError, OptionError
from tlcache.exchange.matching import places_of

ROWS, DIM = 12, 5
X = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
IDS = [f"{'ab'[row % 2]}/{row}.png" for row in range(ROWS)]
LABELS = [each[0] for each in IDS]
SHUFFLED = np.random.default_rng(1).permutation(ROWS)


def manifest(ids: list[str], labels: list[str] | None = None) -> Path:
    """Write a table of images that are not here."""
    with Path("list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *zip(ids, labels or LABELS, strict=False)])
    return Path("list.csv")


def rows_of(path: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """Return the embedding and the label of each path of a feature file."""
    with tlcache.open_features(path) as file:
        rows = file.split(*SPLITS)
        names = [file.classes[label] if file.classes else "" for label in rows.labels]
        return dict(zip(rows.paths, rows.features, strict=True)), dict(zip(rows.paths, names, strict=True))


def is_as_made(path: Path, values: NDArray[Any] = X) -> bool:
    found, _ = rows_of(path)
    return sorted(found) == sorted(IDS) and all((found[each] == values[row]).all() for row, each in enumerate(IDS))


@pytest.mark.parametrize("ending", ["parquet", "npz", "csv"])
@pytest.mark.parametrize("unlabelled", [False, True])
def test_what_is_dumped_comes_back_bit_for_bit(photos: Path, tiny_model: Path, ending: str, unlabelled: bool) -> None:
    made = tlcache.extract(photos, tiny_model, unlabelled=unlabelled).path
    done = CliRunner().invoke(app, ["dump", str(made), "--to", f"out.{ending}"])
    assert done.exit_code == 0, done.output
    found = tlcache.adopt(f"out.{ending}", features="others")
    with tlcache.open_features(made) as one, tlcache.open_features(found.path) as other:
        first, second = one.split(*SPLITS), other.split(*SPLITS)
        assert first.features.tobytes() == second.features.tobytes()
        assert (first.paths, first.groups, one.classes) == (second.paths, second.groups, other.classes)
        assert (one.hashes() == other.hashes()).all()
        assert (one.stored() == other.stored()).all()
        for name in ("dataset", "dataset_digest", "source", "backbone", "drawn", "train_rows", "val_rows", "test_rows"):
            assert one.attrs[name] == other.attrs[name], name
        assert (other.attrs["weights"], other.attrs["provider"]) == ("given", "given")
        assert other.attrs["key"] != one.attrs["key"]  # it is not known that tlcache has computed them


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["b.png,dog,1,x"], "emb.csv:3: 'x' in column 'e1' is no number."),
        (["b.png,dog,1"], "emb.csv:3: 3 cells where the header has 4 columns."),
        (['"b', '.png",dog,1,2', "", "c.png,cow,,3"], "emb.csv:6: '' in column 'e0' is no number."),
        (['b.png,dog,1,"3'], "'emb.csv' is no whole .csv file of numbers: unexpected end of data. Copy it again."),
    ],
)
def test_a_fault_in_a_table_has_its_line_and_column(lines: list[str], words: str) -> None:
    Path("emb.csv").write_text("\n".join(["path,label,e0,e1", "a.png,cat,1,2", *lines, ""]))
    with pytest.raises(DataError) as told:
        tlcache.adopt("emb.csv", "uni")
    assert str(told.value) == words


def test_what_is_said_of_a_damaged_file_ends_once(tmp_path: Path) -> None:
    (tmp_path / "emb.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"[^.]\. Copy it again\.$"):
        tlcache.adopt("emb.parquet", "uni")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_cells_are_parted_as_the_header_is(separator: str) -> None:
    lines = [["path", "label", "e0", "e1"], *([f"{row}.png", "ab"[row % 2], "1", str(row)] for row in range(8))]
    Path("emb.csv").write_text("\n".join(map(separator.join, lines)))
    found, labels = rows_of(tlcache.adopt("emb.csv", "uni").path)
    assert found["5.png"].tolist() == [1, 5]
    assert labels["5.png"] == "b"


def test_a_manifest_of_images_that_are_not_here_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from tlcache.exchange import images

    read, real = [], images.read_table
    monkeypatch.setattr(images, "read_table", lambda path: read.append(path) or real(path))
    monkeypatch.setattr("tlcache.datasets.manifest.read_table", images.read_table)
    tlcache.adopt(npz(X), "uni", data=manifest(IDS))
    assert len(read) == 1


def npy(values: NDArray[Any]) -> Path:
    np.save("emb.npy", values)
    return Path("emb.npy")


def thingsvision(values: NDArray[Any]) -> Path:
    Path("file_names.txt").write_text("".join(f"{each}\n" for each in IDS))
    return npy(values)


def npz(values: NDArray[Any], save: Callable[..., None] = np.savez, **others: Any) -> Path:
    save("emb.npz", embeddings=values, filenames=np.array(IDS), **others)
    return Path("emb.npz")


def h5(values: NDArray[Any]) -> Path:
    with h5py.File("emb.h5", "w") as file:
        file["deep/features"] = values[None]  # with an axis of one slide
        file["paths"] = [each.encode() for each in IDS]
    return Path("emb.h5")


def lists(values: NDArray[Any]) -> Path:
    pq.write_table(pa.table({"image_id": IDS, "emb": pa.array(values.tolist(), pa.list_(pa.float64()))}), "emb.parquet")
    return Path("emb.parquet")


def fixed(values: NDArray[Any]) -> Path:
    array = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), DIM)
    pq.write_table(pa.table({"path": IDS, "emb": array, "weight": np.ones(ROWS)}), "emb.parquet")
    return Path("emb.parquet")


def dinotool(values: NDArray[Any]) -> Path:
    columns = {f"feature_{number}": values[:, number] for number in reversed(range(DIM))}
    pq.write_table(pa.table({**columns, "__index_level_0__": IDS}), "emb.parquet", row_group_size=5)
    return Path("emb.parquet")


def table(values: NDArray[Any]) -> Path:
    with Path("emb.csv").open("w", newline="") as file:
        header = ["filename", "age", *(f"dim{number}" for number in range(DIM))]
        csv.writer(file).writerows([header, *([each, 7, *row] for each, row in zip(IDS, values.tolist(), strict=True))])
    return Path("emb.csv")


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(thingsvision, id="thingsvision"),
        pytest.param(npz, id="npz"),
        pytest.param(lambda values: npz(values, np.savez_compressed), id="npz_compressed"),
        pytest.param(lambda values: npz(np.asfortranarray(values), np.savez_compressed), id="npz_fortran"),
        pytest.param(h5, id="h5"),
        pytest.param(lists, id="parquet_lists"),
        pytest.param(fixed, id="parquet_fixed"),
        pytest.param(dinotool, id="dinotool"),
        pytest.param(table, id="csv"),
    ],
)
def test_embeddings_are_read_as_others_write_them(write: Callable[[NDArray[Any]], Path]) -> None:
    ids = [IDS[row] for row in SHUFFLED]
    found = tlcache.adopt(write(X), "mine", manifest(ids, [each[0] for each in ids]))
    assert is_as_made(found.path)
    assert rows_of(found.path)[1] == dict(zip(IDS, LABELS, strict=True))
    assert (found.dataset, found.backbone, found.rows, found.dim) == ("list", "mine", ROWS, DIM)
    assert [check.sound for check in tlcache.verify()] == [True]


@pytest.mark.parametrize("kind", [np.float16, np.float64, ">f4"])
def test_other_numbers_become_float32(kind: Any) -> None:
    values = X.astype(kind)
    assert is_as_made(tlcache.adopt(npz(values), "mine", manifest(IDS)).path, values.astype(np.float32))


def test_a_slide_of_trident_is_a_dataset_without_labels() -> None:
    with h5py.File("slide.h5", "w") as file:
        file["features"], file["coords"] = X, np.arange(2 * ROWS).reshape(ROWS, 2)
    found = tlcache.adopt("slide.h5", "uni")
    assert list(rows_of(found.path)[0])[:2] == ["slide/0_1", "slide/10_11"]
    assert found.overview == f"{ROWS} images; no labels"


def test_a_file_may_have_the_labels_itself() -> None:
    split = ["train", "val", "test"] * 4
    found = tlcache.adopt(npz(X, y=[row % 2 for row in range(ROWS)], classes=["a", "b"], split=split), "mine")
    assert is_as_made(found.path)
    assert rows_of(found.path)[1] == dict(zip(IDS, LABELS, strict=True))
    assert found.overview == "12 images: train 4, val 4, test 4; 2 classes (a 6, b 6)"


def test_a_bare_array_is_taken_in_the_order_of_the_list_which_is_told() -> None:
    ids = [IDS[row] for row in SHUFFLED]
    found = tlcache.adopt(npy(X[SHUFFLED]), "mine", manifest(ids, [each[0] for each in ids]))
    assert is_as_made(found.path)
    first = f"Its first row is taken as {ids[0]}, its last as {ids[-1]}"
    assert any(first in line for line in found.warnings)
    bare = tlcache.adopt(npy(X), "mine")
    assert list(rows_of(bare.path)[0]) == [f"{row:02d}" for row in range(ROWS)]
    assert any("called by their numbers" in line for line in bare.warnings)


def test_images_that_are_here_are_hashed_and_others_are_told_by_their_embeddings(photos: Path) -> None:
    paths = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    values = np.random.default_rng(0).normal(size=(len(paths), DIM)).astype(np.float32)
    found = tlcache.adopt(npy(values), "mine", photos)
    with tlcache.open_features(found.path) as file:
        images = reopen(file.attrs["source"])
        assert images.read(file.paths()[3], file.hashes()[3].decode())
    twins = X[[0, 1, 2, 3, 4, 5, 0, 7, 8, 9, 10, 11]]
    with tlcache.open_features(tlcache.adopt(npz(twins), "mine", manifest(IDS)).path) as file:
        digests = dict(zip(file.paths(), file.hashes().tolist(), strict=True))
    assert digests[IDS[0]] == digests[IDS[6]] != digests[IDS[2]]


@pytest.mark.parametrize(
    ("ids", "paths", "expected"),
    [
        (["b.png", "a.png"], ["x/a.png", "x/b.png"], [1, 0]),
        (["b", "a"], ["x/a.png", "y/b.jpg"], [1, 0]),
        (["./x\\b.png", "x/a.png"], ["x/a.png", "x/b.png"], [1, 0]),
        (["/far/1.png", "/far/2.png"], ["1.png", "2.png"], [0, 1]),
        (["/far/off/b/1.png", "/far/off/a/1.png"], ["a/1.png", "b/1.png"], [1, 0]),
        (["b/1", "a/1"], ["a/1.png", "b/1.jpg"], [1, 0]),
        (["a/1.png", "a/2.png"], ["a/2.png", "a/1.png"], [1, 0]),
    ],
)
def test_ids_are_paths_names_or_stems(ids: list[str], paths: list[str], expected: list[int]) -> None:
    assert places_of(ids, paths, "emb", "data") == expected


def with_(value: float) -> NDArray[np.float32]:
    values = X.copy()
    values[[3, 7], 2] = value
    return values


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda: (npz(with_(np.nan)), manifest(IDS)), r"NaN.*: b/3.png, b/7.png\. ", id="nan"),
        pytest.param(lambda: (npz(with_(np.inf)), manifest(IDS)), r"infinite .*: b/3.png, b/7.png\. ", id="inf"),
        pytest.param(lambda: (npz(X.astype(float) * 1e300), manifest(IDS)), "larger ones", id="too_large"),
        pytest.param(lambda: (npy(X[:5]), manifest(IDS)), "has 5 rows without ids, and .* has 12 images", id="count"),
        pytest.param(
            lambda: (npz(X), manifest([*IDS[:-2], "b/x.png", "a/y.png"])),
            r"2 of 12 rows have no image there: a/10.png, b/11.png; 2 of 12 images have no row: a/y.png, b/x.png",
            id="unmatched",
        ),
        pytest.param(lambda: (npz(X), manifest(IDS[:9])), "3 of 12 rows have no image there: b/9.png", id="too_few"),
        pytest.param(lambda: (npy(X.astype(int)), None), "numbers of type int64; embeddings are", id="whole_numbers"),
        pytest.param(lambda: (npy(X.reshape(3, 4, 5)), None), r"has the shape \(3, 4, 5\)", id="three_axes"),
        pytest.param(lambda: (npy(X[:0]), None), r"has the shape \(0, 5\)", id="empty"),
        pytest.param(lambda: (npz(X, other=X), None), "several arrays .* --features-key NAME", id="several"),
        pytest.param(lambda: (npy(np.array([{}], object)), None), "no whole .npy file of numbers", id="objects"),
        pytest.param(lambda: (npz(X).rename("emb.npy"), None), "no whole .npy file", id="no_npy"),
        pytest.param(lambda: (npy(X).rename("emb.h5"), None), "no whole .h5 file", id="no_h5"),
        pytest.param(lambda: (npy(X).rename("emb.parquet"), None), "no whole .parquet file", id="no_parquet"),
        pytest.param(lambda: (npy(X).rename("emb.npz"), None), "no whole .npz file", id="no_npz"),
        pytest.param(lambda: (manifest(IDS).rename("emb.csv"), None), "there is none", id="no_numbers"),
    ],
)
def test_what_is_wrong_with_embeddings_is_told(make: Callable[[], tuple[Path, Path | None]], words: str) -> None:
    embeddings, data = make()
    with pytest.raises(DataError, match=words):
        tlcache.adopt(embeddings, "mine", data)
    assert not list(Path("features").glob("**/*.h5"))
    assert not list(Path("features").glob(".adopted-*"))


@pytest.mark.parametrize(
    "write", [npy, npz, lambda values: npz(values, np.savez_compressed), h5, lists, fixed, dinotool, table]
)
def test_damaged_files_are_told_and_nothing_else_happens(write: Callable[[NDArray[Any]], Path]) -> None:
    path, random = write(X), np.random.default_rng(0)
    whole, told = path.read_bytes(), 0
    for _ in range(12):
        data = bytearray(whole[: random.integers(1, len(whole))] if random.random() < 0.3 else whole)
        for at in random.integers(0, len(data), 6):
            data[at] = random.integers(256)
        path.write_bytes(data)
        try:
            assert tlcache.adopt(path, "mine").rows > 0
        except (DataError, OptionError):
            told += 1
    assert told


def test_ids_that_come_twice_are_told() -> None:
    np.savez("emb.npz", X=X, path=[*IDS[:-1], IDS[0]])
    with pytest.raises(DataError, match=r"several rows of one id: a/0\.png"):
        tlcache.adopt("emb.npz", "mine")
    Path("file_names.txt").write_text("a\n")
    with pytest.raises(DataError, match="has 1 lines for 12 embeddings"):
        tlcache.adopt(npy(X), "mine")


def test_options_that_are_wrong_are_told(photos: Path, tiny_model: Path) -> None:
    with pytest.raises(OptionError, match="does not say what made its embeddings. Give a name: --name"):
        tlcache.adopt(npz(X))
    with pytest.raises(OptionError, match="--features-key no: 'emb.npz' has no such array. It has"):
        tlcache.adopt(npz(X), "mine", features_key="no")
    assert is_as_made(tlcache.adopt(npz(X, other=X + 1), "mine", features_key="embeddings").path)
    with pytest.raises(OptionError, match="is of no kind known here. Known: .parquet"):
        tlcache.adopt("emb.pt", "mine")
    made = tlcache.extract(photos, tiny_model).path
    with pytest.raises(OptionError, match="--to 'x.mat' is of no kind known here"):
        tlcache.dump(made, "x.mat")
    with pytest.raises(DataError, match="is a feature file already"):
        tlcache.adopt(made, "mine")


@pytest.fixture
def adopted(photos: Path, tiny_model: Path) -> Path:
    """The feature file of embeddings that are said to be made elsewhere."""
    return tlcache.adopt(tlcache.dump(tlcache.extract(photos, tiny_model).path, "mine.npz"), "mine", features="f").path


def test_all_that_works_on_embeddings_takes_those_that_were_adopted(adopted: Path) -> None:
    (run,) = tlcache.fit_heads(adopted, heads=["ridge"])
    assert (run.backbone, run.weights, run.test.n) == ("mine", "given", 6)
    (found,) = tlcache.compare()
    assert found.entries[0].images_per_s == 0
    (audit,) = tlcache.audit(adopted)
    assert (audit.images, audit.backbone, audit.calibration.images) == (24, "mine", 0)
    page, *_ = tlcache.write_report("report.html")
    assert "tlcache adopt mine.npz --name mine" in page.read_text()
    (entry,) = tlcache.list_cache("f")
    assert (entry.state, entry.weights) == ("complete", "given")
    assert tlcache.find_leftovers("f") == []
    with tlcache.open_features(adopted) as file:
        assert [file.attrs[stage] for stage in STAGES] == [0, 0, 0, 0]
        assert json.loads(file.attrs["key_json"])["backbone"] == {"dim": 8, "given": "mine"}


def test_what_needs_the_network_or_the_images_says_that_they_are_not_here(adopted: Path, photos: Path) -> None:
    (run,) = tlcache.fit_heads(adopted, heads=["ridge"])
    for act in (
        lambda: tlcache.predict(run, photos),
        lambda: tlcache.export(out="out.onnx", run=run.path),
        lambda: tlcache.extract(photos, "given:mine"),
    ):
        with pytest.raises(
            ModelError, match="'mine' made embeddings that were adopted. The network itself is not here"
        ):
            act()
    tlcache.adopt(npz(X, labels=LABELS), "mine", features="f")
    with pytest.raises(DataError, match="'emb' is embeddings that were adopted, without images. Say where"):
        tlcache.finetune("emb", "squeezenet1_1", "random", features="f")
    damaged = bytearray(adopted.read_bytes())
    damaged[-100] ^= 1
    adopted.write_bytes(damaged)
    (check,) = tlcache.verify(adopted, repair=True)
    assert not check.sound
    assert "adopted. Do that again: tlcache adopt" in check.problem


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_a_flipped_bit_in_a_dumped_file_is_found(photos: Path, tiny_model: Path, ending: str) -> None:
    made = tlcache.extract(photos, tiny_model).path
    path = tlcache.dump(made, Path(f"out.{ending}"))
    with tlcache.open_features(made) as file:
        number = file.split("test").features[0, :1].tobytes()
    data = bytearray(path.read_bytes())
    data[bytes(data).index(number)] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="Copy it again"):
        tlcache.adopt(path, features="damaged")


def test_names_of_another_number_than_rows_are_an_error() -> None:
    np.savez("x.npz", features=np.ones((4, 3), np.float32), path=["a/1.png", "a/2.png", "b/1.png"])
    with pytest.raises(DataError, match="path, the path of each row, has 3 entries for 4 rows"):
        tlcache.adopt("x.npz", "mine")
