"""`--dtype float16`: embeddings rounded once, kept apart, and everywhere the same, whatever they were made from."""

from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from fakes import tiny_network, write_image
from numpy.typing import NDArray
from onnx import numpy_helper
from test_inventory import flip, tlcache, unfinished

from tlcache.backbones.load import load_model
from tlcache.cache.feature_file import open_features
from tlcache.cache.rounding import rounded
from tlcache.cache.shards import find_shards, read_shard
from tlcache.errors import OptionError
from tlcache.exchange.adopt import adopt
from tlcache.exchange.dump import dump
from tlcache.extraction.embed import Block, embed
from tlcache.extraction.extract import extract
from tlcache.inventory.checks import verify
from tlcache.probing.fit import fit_heads

HALF = np.dtype(np.float16)


def features(path: Path) -> NDArray[np.float32]:
    with open_features(path) as file:
        return file.split("train", "val", "test").features


def scaled(path: Path, factor: float) -> Path:
    """Write the tiny network with embeddings that are larger by a factor."""
    model = tiny_network()
    kernel = numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel * np.float32(factor), "kernel"))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("first", ["float32", "float16"])
def test_rows_are_those_of_the_network_rounded_once(photos: Path, tiny_model: Path, first: str) -> None:
    done = {kind: extract(photos, tiny_model, dtype=kind) for kind in dict.fromkeys((first, "float32", "float16"))}
    plain, half = done["float32"], done["float16"]
    assert (half.embedded, plain.embedded) == (24 if first == "float16" else 0, 24)  # float32 is rounded
    assert np.array_equal(features(half.path), features(plain.path).astype(HALF).astype(np.float32))
    assert not np.array_equal(features(half.path), features(plain.path))
    with h5py.File(half.path) as file:
        assert (file["features"].dtype, file["features"].id.get_storage_size() > 0) == (np.dtype("<f2"), True)
    assert extract(photos, tiny_model, dtype="float16").up_to_date
    assert [check.sound for check in verify()] == [True, True]


def test_its_key_says_so_and_other_keys_are_what_they_were(tiny_model: Path) -> None:
    plain, half = load_model(str(tiny_model)), load_model(str(tiny_model), dtype="float16")
    assert half.identity == {**plain.identity, "dtype": "float16"}
    assert (half.unrounded.key, plain.unrounded.key, half.key == plain.key) == (plain.key, plain.key, False)


def test_parts_take_half_the_room_and_are_continued_from(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("test_inventory.extract", lambda *given: extract(*given, dtype="float16"))
        parts = unfinished(photos, tiny_model, monkeypatch)
    found = [read_shard(path) for path in find_shards(parts)]
    assert {part.features.dtype for part in found if part} == {HALF}
    assert extract(photos, tiny_model, dtype="float16").embedded == 0


def test_shares_give_the_same_file(photos: Path, tiny_model: Path) -> None:
    alone = extract(photos, tiny_model, name="alone", dtype="float16", features="others")
    for share in ("1/2", "2/2"):
        shared = extract(photos, tiny_model, name="shared", shard=share, dtype="float16")
    assert (shared.path.name, shared.rows) == (alone.path.name, 24)
    assert np.array_equal(features(shared.path), features(alone.path))


def test_a_flipped_bit_is_noticed_and_mended(photos: Path, tiny_model: Path) -> None:
    path = extract(photos, tiny_model, dtype="float16").path
    before = features(path)
    with open_features(path) as file:
        name = file.split("train").paths[3]
    flip(path, before[3].astype(HALF).tobytes(), 1)
    (check,) = verify()
    assert (check.damaged, check.sound) == ((name,), False)
    assert [each.repaired for each in verify(repair=True)] == [True]
    assert np.array_equal(features(path), before)


def test_what_a_head_is_asked_with_is_rounded_as_what_it_was_fitted_on(photos: Path, tiny_model: Path) -> None:
    made = extract(photos, tiny_model, dtype="float16")
    (run,) = fit_heads([made.path], ["ridge"])
    assert run.extract_arguments["dtype"] == "float16"
    new = write_image(photos.parent / "new.png", 999, 1)
    blocks = list[Block]()
    embed([str(new), str(photos / "red" / "0.png")], run.extract_arguments, run.key, blocks.append)
    embed([str(new)], {**run.extract_arguments, "dtype": "float32"}, None, blocks.append)
    asked, (exact,) = blocks[0].rows, blocks[-1].rows
    assert np.array_equal(asked[0], exact.astype(HALF).astype(np.float32))
    assert (features(made.path) == asked[1]).all(axis=1).sum() == 1


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1e6, r"6\.1e-05 to 65,504, and .* largest is [\d.e+]+\. Leave --dtype out"),
        (1e-9, r"largest is [\d.]+e-0[789]\."),
    ],
)
def test_numbers_that_it_cannot_hold_are_told(
    photos: Path, tmp_path: Path, factor: float, message: str, before: bool
) -> None:
    model = scaled(tmp_path / "scaled.onnx", factor)
    if before:
        extract(photos, model)
    with pytest.raises(OptionError, match=message):
        extract(photos, model, dtype="float16")
    assert extract(photos, model).rows == 24


def test_a_row_of_small_numbers_among_others_is_none_of_those() -> None:
    rows = np.array([[1e-7, 0], [1, 2.0001]], np.float32)
    assert rounded(rows, HALF).tolist() == [[np.float16(1e-7), 0], [1, 2]]
    assert rounded(np.zeros((2, 3), np.float32), HALF).tolist() == [[0] * 3] * 2
    assert rounded(rows, rows.dtype) is rows


@pytest.mark.parametrize("ending", ["parquet", "npz", "csv"])
def test_other_programs_get_the_numbers_as_they_are_kept(photos: Path, tiny_model: Path, ending: str) -> None:
    half = extract(photos, tiny_model, dtype="float16").path
    found = adopt(dump(half, f"half.{ending}"), features="others")
    assert np.array_equal(features(found.path), features(half))


def test_ls_and_runs_tell_it_apart(photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    extract(photos, tiny_model)
    tlcache("extract", "-m", tiny_model, "-d", photos, "--dtype", "float16")
    assert "tiny dtype float16 onnx:tiny.onnx" in (shown := tlcache("ls"))
    assert "tiny onnx:tiny.onnx" in shown
