"""`ls`, `verify`, `prune`: what is cached, whether it is whole, and what can go."""

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from fakes import write_image, write_photos
from typer.testing import CliRunner

from tlcache.cache.feature_file import open_features
from tlcache.cli import app
from tlcache.errors import CacheError
from tlcache.extraction.embedder import ImageEmbedder
from tlcache.extraction.extract import extract
from tlcache.finetuning.stored import StoredArray
from tlcache.inventory.checks import verify
from tlcache.inventory.entries import list_cache
from tlcache.inventory.leftovers import find_leftovers, remove_leftovers
from tlcache.probing.fit import fit_heads


def tlcache(*arguments: str | Path, answer: str = "", status: int = 0) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)), input=answer)
    assert done.exit_code == status, done.output
    return " ".join((done.stdout + done.stderr).split())


def everything(path: Path) -> list[tuple[str, bytes, int]]:
    with open_features(path) as file:
        rows = file.split("train", "val", "test")
    return [
        (name, row.tobytes(), int(label))
        for name, row, label in zip(rows.paths, rows.features, rows.labels, strict=True)
    ]


def flip(path: Path, where: bytes, offset: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(where) + offset] ^= 4
    path.write_bytes(data)


def unfinished(photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Extract up to the moment of publishing, and return the folder of parts."""
    with monkeypatch.context() as patch:
        patch.setattr("tlcache.extraction.target.publish", lambda _: (_ for _ in ()).throw(CacheError("stopped")))
        with pytest.raises(CacheError, match="stopped"):
            extract(photos, str(model))
    (parts,) = photos.parent.glob("features/*/.*.parts")
    return parts


def fresh_photos(folder: Path) -> Path:
    for number in range(27):
        write_image(folder / "abc"[number % 3] / f"{number}.png", 1000 + number, number)
    return folder


def test_ls_tells_what_is_there(made: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.with_name("other-000000000000.h5").write_bytes(made.read_bytes()[:50])
    unfinished(fresh_photos(tmp_path / "more"), tiny_model, monkeypatch)
    found = {(entry.dataset, entry.backbone): entry for entry in list_cache()}
    complete = found["photos", "tiny"]
    assert (complete.rows, complete.images, complete.dim, complete.state) == (24, 24, 8, "complete")
    assert complete.size_bytes == made.stat().st_size
    assert found["photos", "other"].state == "damaged"
    parts = found["more", "tiny"]
    assert (parts.rows, parts.images, parts.state) == (27, 27, "unfinished")
    shown = tlcache("ls", "--json", tmp_path / "ls.json")
    assert "27 of 27" in shown
    assert "unfinished" in shown
    listed = json.loads((tmp_path / "ls.json").read_text())["files"]
    assert [entry["state"] for entry in listed] == [entry.state for entry in list_cache()]
    assert f"Nothing is cached in '{tmp_path / 'nowhere'}' yet" in tlcache("ls", "--features", tmp_path / "nowhere")


def test_ls_tells_variants_of_one_backbone_apart(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    extract(photos, str(tiny_model))
    assert "tiny onnx:tiny.onnx" in tlcache("ls")
    extract(photos, str(tiny_model), crop_borders=True)
    shown = tlcache("ls")
    assert "tiny crop-borders onnx:tiny.onnx" in shown
    assert "tiny onnx:tiny.onnx" in shown


def test_verify_names_the_damaged_row_and_repair_computes_that_row_alone(made: Path, tmp_path: Path) -> None:
    before = everything(made)
    name, features, _ = before[5]
    flip(made, features, 3)
    (check,) = verify()
    assert (check.rows, check.damaged, check.sound) == (24, (name,), False)
    assert f"1 of 24 rows is damaged: {name}" in tlcache("verify", status=1)
    with pytest.raises(CacheError, match=r"verify --repair.*To leave it out, name the others: tlcache fit-heads PATH"):
        fit_heads()
    report = tmp_path / "verify.json"
    assert "repaired" in tlcache("verify", "--repair", "--json", report)
    (figures,) = json.loads(report.read_text())["files"]
    assert (figures["damaged"], figures["repaired"], figures["sound"]) == ([name], True, True)
    assert everything(made) == before
    assert "24 rows, all as written" in tlcache("verify", made)
    assert "24 rows, all as written" in tlcache("verify", made.parent)


@pytest.mark.parametrize("column", ["label", "path", "crc32", "sha256"])
def test_damage_beside_the_features_is_noticed_and_repaired(made: Path, column: str) -> None:
    before = everything(made)
    with h5py.File(made) as file:
        stored = {
            "label": file["labels"][:].tobytes(),
            "path": file["rows/path"][:].tobytes(),
            "crc32": file["integrity/crc32"][:].tobytes(),
            "sha256": file["rows/sha256"][:].tobytes(),
        }[column]
    flip(made, stored, len(stored) // 2)
    (check,) = verify()
    assert len(check.damaged) == 1
    with pytest.raises(CacheError, match=r"rows that are not what was written: 1.*verify --repair"):
        everything(made)
    (check,) = verify(repair=True)
    assert check.repaired
    assert everything(made) == before


def test_a_chunk_of_zeros_passes_hdf5_and_not_us(made: Path) -> None:
    with h5py.File(made) as file:
        where = file["labels"].id.get_chunk_info(0)
    data = bytearray(made.read_bytes())
    data[where.byte_offset : where.byte_offset + where.size] = bytes(where.size)
    made.write_bytes(data)
    with h5py.File(made) as file:
        assert (file["labels"][:] == 0).all()  # HDF5's checksum of zeros is zero
    (check,) = verify()
    assert len(check.damaged) > 10
    assert verify(repair=True)[0].sound


def test_a_wrong_checksum_over_right_rows_is_repaired_too(made: Path) -> None:
    before = everything(made)
    with h5py.File(made) as file:
        where = file["rows/split"].id.get_chunk_info(0)
    data = bytearray(made.read_bytes())
    data[where.byte_offset + where.size - 1] ^= 1
    made.write_bytes(data)
    assert everything(made) == before
    (check,) = verify()
    assert (check.damaged, check.sound) == ((), False)
    assert "all rows are as written, but a checksum of HDF5's own is not" in check.problem
    assert verify(repair=True)[0].repaired
    with h5py.File(made) as file:
        assert len(file["rows/split"][:]) == 24


def test_a_file_that_lost_its_end_lost_rows_and_no_more(tmp_path: Path, tiny_model: Path) -> None:
    from tlcache.cache import feature_file as store

    folder, whole = write_photos(tmp_path / "set", 40), store._CHUNK_BYTES
    store._CHUNK_BYTES = 1024
    try:
        path = extract(folder, str(tiny_model)).path
        before = everything(path)
        with h5py.File(path) as file:
            chunks = [file["features"].id.get_chunk_info(n).byte_offset for n in range(4)]
        path.write_bytes(path.read_bytes()[: chunks[2]])
        (check,) = verify()
        assert 0 < len(check.damaged) < 120
        assert set(check.damaged) == {name for name, _, _ in before[64:]}
        again = extract(folder, str(tiny_model))
        assert again.embedded == len(check.damaged)
        assert any("Damaged parts or rows in the cache, made good now: 56" in line for line in again.warnings)
        assert everything(path) == before
    finally:
        store._CHUNK_BYTES = whole


def test_a_file_of_which_nothing_is_left_is_made_anew(made: Path, photos: Path, tiny_model: Path) -> None:
    before = everything(made)
    made.write_bytes(bytes(len(made.read_bytes())))
    (check,) = verify(repair=True)
    assert not check.sound
    assert "cannot be repaired: its header is lost" in check.problem
    assert [(leftover.path, leftover.why) for leftover in find_leftovers()] == [
        (made, "damaged beyond repair: its header is lost")
    ]
    again = extract(photos, str(tiny_model))
    assert again.embedded == 24
    assert any("It is made anew" in line for line in again.warnings)
    assert everything(made) == before


def test_files_of_other_versions(made: Path, photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    with h5py.File(made, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(CacheError, match="has format version 99; this tlcache reads version 2"):
        extract(photos, str(tiny_model))
    with h5py.File(made, "r+") as file:
        file.attrs["format_version"] = 1
    assert list_cache()[0].state == "outdated"
    assert [leftover.path for leftover in find_leftovers()] == [made]
    assert extract(photos, str(tiny_model)).rows == 24
    assert list_cache()[0].state == "complete"
    with h5py.File(made, "w") as file:
        file["x"] = np.arange(3)
    with pytest.raises(CacheError, match="is not a feature file of tlcache"):
        extract(photos, str(tiny_model))
    assert tmp_path.exists()


def test_what_cannot_be_repaired_says_why(made: Path, photos: Path) -> None:
    flip(made, everything(made)[0][1])
    shutil.move(photos, photos.with_name("moved"))
    (check,) = verify(repair=True)
    assert not check.sound
    assert "It cannot be repaired: No folder or manifest at" in check.problem
    assert "datasets. If the data have moved: tlcache extract --model " in check.problem
    assert check.problem.endswith("--data THERE --name photos")


def test_prune_asks_and_removes_what_nobody_works_on(
    made: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = unfinished(fresh_photos(tmp_path / "more"), tiny_model, monkeypatch)
    half = made.with_name(f".{made.name}-abc.tmp")
    half.write_bytes(b"half a file")
    assert {leftover.path for leftover in find_leftovers()} == {parts, half}
    said = tlcache("prune", answer="n\n")
    assert "27 of 27 images" in said
    assert parts.exists()
    from tlcache.extraction.target import lock_of

    with lock_of(parts):
        assert [leftover.path for leftover in find_leftovers()] == [half]
        assert {entry.state for entry in list_cache()} == {"complete", "running"}
        remove_leftovers(find_leftovers())
    assert not half.exists()
    assert "Removed 1" in tlcache("prune", "--yes", "--json", tmp_path / "prune.json")
    assert len(json.loads((tmp_path / "prune.json").read_text())["leftovers"]) == 1
    assert not parts.exists()
    assert made.exists()
    assert tlcache("prune") == "Nothing to remove."


def test_prune_asks_for_what_is_made_again_on_its_own(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    ImageEmbedder(str(tiny_model)).transform([photos / "red" / "0.png"])
    stores = [tmp_path / "cache" / name for name in ("pixels", "activations")]
    for store in stores:
        StoredArray(store / "some.npy", (3, 2), np.float32, lambda array: array.fill(2))
    stores.append(tmp_path / "features" / ".embedder")
    being_written, abandoned = (stores[0] / f".{name}.npy-x.tmp" for name in ("new", "old"))
    for path in (being_written, abandoned):
        path.write_bytes(b"half")
    os.utime(abandoned, (0, 0))
    (tmp_path / "features" / "set").mkdir()
    half = tmp_path / "features" / "set" / ".tiny-0.h5-x.tmp"
    half.write_bytes(b"half")
    said = tlcache("prune", "--json", tmp_path / "prune.json", answer="y\nn\n")
    assert "images that fine-tuning has decoded, 4 files; made again when needed" in said
    assert not half.exists()
    assert [Path(each["path"]) for each in json.loads((tmp_path / "prune.json").read_text())["stores"]] == stores
    reader = StoredArray(stores[0] / "some.npy", (3, 2), np.float32, lambda _: None)
    assert "Removed 3." in tlcache("prune", "--yes")
    assert reader[np.array([0, 2])].sum() == 8
    assert [path for store in stores for path in store.rglob("*") if path.is_file()] == [being_written]
    assert tlcache("prune") == "Nothing to remove."


def test_an_empty_cache_is_named(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"No feature files under .*nothing"):
        verify(features=tmp_path / "nothing")
    with pytest.raises(CacheError, match=r"gone\.h5': no such file"):
        verify([tmp_path / "gone.h5"])
