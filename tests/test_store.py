"""Parts and the feature file: what is written is what is read, and what is damaged is never used."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from tlcache.cache.feature_file import FILES_VERSION, FORMAT_VERSION, QUARANTINE, FeatureFile, open_features
from tlcache.cache.plan import Plan
from tlcache.cache.publish import publish
from tlcache.cache.shards import Shard, read_shard, write_shard
from tlcache.errors import CacheError, UnknownNameError
from tlcache.extraction.extract import extract


def part(seed: int = 0, n: int = 5, dim: int = 4) -> Shard:
    random = np.random.default_rng(seed)
    return Shard(
        np.array([f"{seed * 100 + row:064x}" for row in range(n)], "S64"),
        random.normal(size=(n, dim)).astype(np.float32),
        random.integers(1, 99, (n, 3), dtype=np.int32),
        [("f" * 64, "damaged", "bad news")],
        np.arange(4.0),
        "CPUExecutionProvider",
    )


def test_parts_come_back_as_they_were(tmp_path: Path) -> None:
    original = part()
    found = read_shard(write_shard(tmp_path, original))
    assert found is not None
    for name, array in vars(original).items():
        assert np.array_equal(getattr(found, name), array)


def test_a_damaged_part_is_none(tmp_path: Path) -> None:
    path = write_shard(tmp_path, part())
    data = path.read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert read_shard(path) is None
    start = data.index(part().features.tobytes())
    for offset in range(start, start + part().features.nbytes, 7):
        flipped = bytearray(data)
        flipped[offset] ^= 1
        path.write_bytes(flipped)
        assert read_shard(path) is None


def test_a_stranger_reads_the_file_with_plain_h5py(made: Path) -> None:
    with h5py.File(made) as file:
        assert file["features"].shape == (24, 8)
        assert file["features"].dtype == np.float32
        assert file["features"].fletcher32
        assert file["labels"].shape == (24,)
        assert [name.decode() for name in file["classes"]] == ["blue", "green", "red"]
        assert file["rows/path"].asstr()[0].endswith(".png")
        assert len(file["rows/sha256"][0]) == 64
        assert sorted(set(file["rows/split"][:])) == [0, 1, 2]
        assert file["rows/width"][0] == file["rows/height"][0] == 20
        assert set(file["quarantine"]) == {"path", "sha256", "code", "message"}
        attrs = dict(file.attrs)
    expected = """format format_version state key key_json dataset dataset_digest source arguments backbone weights
        preprocess dim train_rows val_rows test_rows provider decode_s infer_s write_s wall_s created generated_by
        decoder drawn passed_over licence header_sha256"""
    assert set(expected.split()) == set(attrs)
    assert attrs["state"].decode() == "complete"


def test_splits_are_contiguous_and_whole(made: Path) -> None:
    with open_features(made) as file:
        parts = [file.split(name) for name in ("train", "val", "test")]
        together = file.split("train", "val", "test")
        assert [len(one) for one in parts] == [12, 6, 6]
        assert np.array_equal(np.concatenate([one.features for one in parts]), together.features)
        assert len(file) == len(together) == len(set(together.paths)) == 24
        assert file.dim == 8
        for path, label in zip(together.paths, together.labels, strict=True):
            assert path.startswith(file.classes[label])
        with pytest.raises(UnknownNameError, match="Unknown split 'valid'"):
            file.split("valid")


def test_a_reader_keeps_the_old_data_while_a_new_file_is_published(made: Path, photos: Path, tiny_model: Path) -> None:
    with open_features(made) as old:
        before = old.split("train").features
        (photos / "red" / "0.png").unlink()
        extract(photos, str(tiny_model))
        assert len(old) == 24
        assert np.array_equal(old.split("train").features, before)
    with open_features(made) as new:
        assert len(new) == 23


def test_what_is_not_a_feature_file_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no such file"):
        open_features(tmp_path / "gone.h5")
    cut = tmp_path / "cut.h5"
    cut.write_bytes(made.read_bytes()[:3000])
    with pytest.raises(CacheError, match=r"cut\.h5' is damaged .*verify --repair"):
        open_features(cut)
    for start in (0, 20, 100):
        odd = bytearray(made.read_bytes())
        odd[start : start + 200] = bytes(each ^ 255 for each in odd[start : start + 200])
        cut.write_bytes(odd)
        with pytest.raises(
            CacheError, match=r"damaged \(it was cut off, or its header cannot be read\)\. Extract again"
        ):
            open_features(cut)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = 1
    with pytest.raises(CacheError, match="not a feature file of tlcache"):
        open_features(other)
    for name, value, words in (
        ("format_version", FILES_VERSION + 1, f"version {FILES_VERSION + 1}; this tlcache reads version"),
        ("format_version", FORMAT_VERSION - 1, f"version {FORMAT_VERSION - 1}; this .* Extract again"),
        ("backbone", "resnet50", "its header is not what was written"),
        ("format", "tlcache-heatures", "its header is not what was written"),
    ):
        other.write_bytes(made.read_bytes())
        with h5py.File(other, "r+") as file:
            file.attrs[name] = value
        with pytest.raises(CacheError, match=words):
            open_features(other)


def test_hostile_datasets_are_refused_before_they_are_read(made: Path, tmp_path: Path) -> None:
    def hostile(change: object) -> FeatureFile:
        path = tmp_path / "hostile.h5"
        path.write_bytes(made.read_bytes())
        with h5py.File(path, "r+") as file:
            del file["labels"]
            change(file)  # type: ignore[operator]
        return open_features(path)

    changes = {
        "external link": lambda file: file.__setitem__("labels", h5py.ExternalLink("/etc/passwd", "/x")),
        "soft link": lambda file: file.__setitem__("labels", h5py.SoftLink("/features")),
        "external storage": lambda file: file.create_dataset("labels", (24,), "i8", external=[("/etc/passwd", 0, 192)]),
        "group": lambda file: file.create_group("labels"),
        "size": lambda file: file.create_dataset("labels", (10**12,), "i8", chunks=(1000,)),
    }
    for change in changes.values():
        with hostile(change) as file, pytest.raises(CacheError, match="labels"):
            file.split("train")


def whole(file: FeatureFile) -> bool:
    return all(good.all() for _, good in file.intact())


def test_flipped_bits_in_features_are_noticed(made: Path, photos: Path, tiny_model: Path) -> None:
    data = made.read_bytes()
    with open_features(made) as file:
        original = file.split("train", "val", "test").features
    start = data.index(original[3].tobytes())
    flipped = bytearray(data)
    flipped[start + 5] ^= 16
    made.write_bytes(flipped)
    with open_features(made) as file:
        assert not whole(file)
        with pytest.raises(CacheError, match="is damaged .*Extract again"):
            file.split("train", "val", "test")
    again = extract(photos, str(tiny_model))
    assert not again.up_to_date
    with open_features(made) as file:
        assert whole(file)
        assert np.array_equal(file.split("train", "val", "test").features, original)


def test_a_failed_publication_keeps_the_old_file_and_leaves_nothing_behind(made: Path, tmp_path: Path) -> None:
    before = made.read_bytes()
    texts = ["path", "group", "sha256", "classes", *(f"quarantine_{name}" for name in QUARANTINE)]
    columns = {name: np.array([b"x"]) for name in texts}
    columns |= {"label": np.zeros(1, np.int64), "split": np.zeros(1, np.uint8)}
    columns |= {name: np.ones(1, np.int32) for name in ("width", "height", "frames")}
    columns |= {"source": np.zeros(1, np.int64), "index": np.zeros(1, np.int64)}
    missing = tmp_path / "missing.safetensors"
    with pytest.raises(CacheError, match="damaged in the meantime"):
        publish(Plan(made, 8, columns, [missing], {}))
    assert made.read_bytes() == before
    assert [path.name for path in made.parent.iterdir() if path.suffix == ".tmp"] == []
