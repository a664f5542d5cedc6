"""Feature files beyond one file: read as one, checked, mended and replaced file by file."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
import pytest
from fakes import change_features, write_image
from test_inventory import flip, tlcache

from tlcache.auditing.run import audit
from tlcache.cache import plan, publish
from tlcache.cache.feature_file import open_features, open_remains
from tlcache.deploying.export import export
from tlcache.deploying.predict import predict
from tlcache.errors import CacheError, DamagedError
from tlcache.evaluation.compare import compare
from tlcache.exchange.adopt import adopt
from tlcache.exchange.dump import dump
from tlcache.extraction.extract import extract
from tlcache.inventory.checks import verify
from tlcache.inventory.entries import list_cache
from tlcache.inventory.leftovers import find_leftovers, remove_leftovers
from tlcache.pictures.explain import explain
from tlcache.pictures.similar import similar
from tlcache.probing.fit import fit_heads
from tlcache.report.kept import checks_lines

ROW = 8 * 4 + 8 + 11 + 64 + 1 + 1 + 12 + 4  # bytes: features, label, path, hash, split, group, sizes, checksum
FIVE = 5 * ROW + 20  # five rows, also where paths are a bit longer
SPLITS = ("train", "val", "test")


@pytest.fixture
def made(photos: Path, tiny_model: Path) -> Path:
    """A feature file of 24 rows, of which 5 are in a file."""
    return extract(photos, tiny_model, file_size=FIVE).path


def files_of(path: Path) -> list[Path]:
    return sorted(path.with_suffix(".rows").iterdir())


def rows_of(path: Path) -> tuple[object, ...]:
    with open_features(path) as file:
        rows = file.split(*SPLITS)
        said = (file.attrs["dataset_digest"], file.attrs["key"], file.classes, file.stored().tolist())
        return (*said, rows.features.tobytes(), rows.labels.tolist(), tuple(rows.paths), file.hashes().tolist())


def test_it_is_what_a_single_file_is(made: Path, photos: Path, tiny_model: Path) -> None:
    alone = extract(photos, tiny_model, features="alone").path
    assert (rows_of(made), alone.with_suffix(".rows").exists()) == (rows_of(alone), False)
    assert ([len(open_features(each)) for each in files_of(made)], len(open_features(made))) == ([5, 5, 5, 5, 4], 24)
    with open_features(made) as file, open_features(alone) as other:
        picked = np.array([23, 0, 7, 7])
        assert np.array_equal(file.features(picked), other.features(picked))
        assert (file.split("val").paths, len(file.split()), file.dim) == (other.split("val").paths, 0, 8)
        assert file.files == [made, *files_of(made)]
    assert [check.sound for check in verify(made)] == [True]
    assert extract(photos, tiny_model, file_size=FIVE).up_to_date
    assert (
        fit_heads([made], ["ridge"])[0].test.accuracy == fit_heads([alone], ["ridge"], runs="others")[0].test.accuracy
    )
    assert rows_of(adopt(dump(made, "out.npz"), features="adopted").path)[4] == rows_of(alone)[4]
    (entry,) = list_cache()
    assert (entry.rows, entry.size_bytes) == (24, sum(each.stat().st_size for each in (made, *files_of(made))))


MADE = {"created", "extract", "extract_arguments", "images", "asked", "seconds"}  # differ, or are where images are read


def plain(value: Any) -> Any:
    """Return what a result says as JSON does, without when, how fast and how large it was made."""
    if isinstance(value, dict):
        kept = {name for name in value if name not in MADE and not name.endswith(("_s", "_bytes"))}
        return {name: plain(value[name]) for name in kept}
    return list(map(plain, value)) if isinstance(value, list | tuple) else value


def as_builtin(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else sorted(value) if isinstance(value, frozenset) else str(value)


def used(photos: Path, model: Path, folder: str, **options: int) -> dict[str, Any]:
    """Return what all that reads a feature file makes of it."""
    Path(folder).mkdir()
    features, runs, image = Path(folder) / "features", Path(folder) / "runs", photos / "red" / "3.png"
    path = extract(photos, model, features=features, **options).path
    fit_heads([path], ["knn", "ridge"], runs=runs)
    found = {"audit": audit([path], runs=runs), "compare": compare(runs)}
    record = next(runs.rglob("*-ridge-*.json"))
    found["similar"] = similar([image], "photos", 5, features=features)
    found["predict"] = predict(record, [photos], features=features, runs=runs)
    found["explain"] = explain(record, [image], runs=runs)
    found["export"] = export(record, out=Path(folder) / "model.onnx", runs=runs)
    found["onnx"] = (Path(folder) / "model.onnx").read_bytes().hex()
    with np.load(dump(path, Path(folder) / "out.npz")) as dumped:
        found["dump"] = {name: dumped[name].tolist() for name in dumped.files}
    last = files_of(path)[-1] if options else path
    last.write_bytes(last.read_bytes()[:-200])
    assert verify([path])[0].damaged
    found["repaired"] = [(check.rows, check.repaired) for check in verify([path], repair=True)]
    found["left"], found["listed"] = find_leftovers(features), list_cache(features)
    return {name: plain(msgspec.to_builtins(each, enc_hook=as_builtin)) for name, each in found.items()}


def test_all_that_reads_it_gives_what_it_gives_of_a_single_file(photos: Path, tiny_model: Path) -> None:
    alone, several = used(photos, tiny_model, "alone"), used(photos, tiny_model, "several", file_size=FIVE)
    assert (alone["repaired"], alone["left"]) == ([[24, True]], [])
    for name, found in alone.items():
        told = json.dumps(found, sort_keys=True).replace("alone/", "several/")
        assert told == json.dumps(several[name], sort_keys=True), name


def test_others_read_it_with_plain_h5py_wherever_it_lies(made: Path, tmp_path: Path) -> None:
    before = rows_of(made)
    moved = Path(shutil.move(made.parent, tmp_path / "elsewhere")) / made.name
    assert rows_of(moved) == before
    with h5py.File(moved) as file:
        assert (file["features"][:].tobytes(), file["labels"][:].tolist()) == before[4:6]
        assert tuple(file["rows/path"].asstr()[:]) == before[6]


def damage(pieces: list[Path], how: str) -> None:
    """Do something to the second of five files."""
    piece = pieces[1]
    if how == "missing":
        piece.unlink()
    elif how == "cut":
        piece.write_bytes(piece.read_bytes()[:-2000])
    elif how == "flipped":
        with open_features(piece) as file:
            row = file.split(*SPLITS).features[2].tobytes()
        flip(piece, row, 3)
    else:
        shutil.copy(pieces[0] if how == "another" else pieces[4], piece)  # the last has 4 rows


SAYS = {
    "missing": "' is missing: rows 5 to 9)",
    "cut": "' is damaged: rows 5 to 9)",
    "another": "' has been replaced by another file: rows 5 to 9)",
}
HOW = {"missing": 5, "cut": 5, "flipped": 1, "another": 5, "shorter": 5}  # rows that are lost


@pytest.mark.parametrize(("how", "lost"), HOW.items())
def test_a_damaged_file_is_named_and_mended_alone(made: Path, how: str, lost: int) -> None:
    before, pieces = rows_of(made), files_of(made)
    damage(pieces, how)
    untouched = [each.stat().st_ino for each in pieces if each != pieces[1]]
    told = pieces[1].name if how != "flipped" else "rows that are not what was written: 1"
    with pytest.raises(DamagedError, match=told), open_features(made) as file:
        file.split(*SPLITS)
    with open_remains(made) as file:
        assert sum(int((~good).sum()) for _, good in file.intact()) == lost
    (check,) = verify(made)
    assert (check.sound, len(check.damaged)) == (False, lost)
    shown = tlcache("verify", made, status=1)
    assert ("damaged" in shown, pieces[1].name in shown) == (True, how != "flipped")
    assert SAYS.get(how, "") in shown
    (mended,) = verify(made, repair=True)
    assert (mended.repaired, rows_of(made)) == (True, before)
    (said,) = checks_lines([mended])
    assert said.endswith("(repaired: extracted again from the dataset as it is now)")
    assert [each.stat().st_ino for each in pieces if each != pieces[1]] == untouched


def test_all_that_are_missing_are_named(made: Path) -> None:
    pieces = files_of(made)
    pieces[0].unlink()
    pieces[4].unlink()
    (check,) = verify(made)
    assert f"{pieces[0].name}' is missing: rows 0 to 4; " in check.problem
    assert f"{pieces[4].name}' is missing: rows 20 to 23)" in check.problem
    (entry,) = list_cache()
    assert (entry.detail, entry.size_bytes) == (
        check.problem,
        sum(each.stat().st_size for each in (made, *files_of(made))),
    )


@pytest.mark.parametrize("how", ["alone", "both"])
def test_a_folder_that_is_not_beside_it_is_said(made: Path, how: str) -> None:
    folder = made.with_suffix(".rows")
    other = made.rename(made.with_name("other-0123.h5"))
    folder.rename(made.with_name("other-0123.rows") if how == "both" else made.parents[1] / "far")
    told = f"'{other}' has its rows in the folder '{folder.name}', which is missing beside it. "
    told += {
        "alone": "Copy or move that folder here, too; where it is gone, extract again.",
        "both": f"Give '{other.name}' and 'other-0123.rows' their names back: '{made.name}' and '{folder.name}'.",
    }[how]
    with pytest.raises(DamagedError) as caught:
        open_features(other)
    (check,) = verify(other)
    assert (str(caught.value), check.problem, check.damaged, check.sound) == (told, told, (), False)


def test_files_that_are_not_used_any_more_go(made: Path, photos: Path, tiny_model: Path) -> None:
    first = {*files_of(made)}
    write_image(photos / "blue" / "more.png", 77, 0)
    assert extract(photos, tiny_model, file_size=FIVE).embedded == 1
    assert (len(files_of(made)), {*files_of(made)} == first, verify(made)[0].sound) == (5, False, True)
    write_image(photos / "blue" / "another.png", 78, 0)
    assert extract(photos, tiny_model).embedded == 1
    assert (len(open_features(made)), made.with_suffix(".rows").exists()) == (26, False)


def test_prune_takes_what_is_not_used(made: Path) -> None:
    left = made.with_suffix(".rows") / "00009-0123456789abcdef.hdf5"
    left.write_bytes(b"rows")
    (found,) = find_leftovers()
    assert (found.path, found.size_bytes, made.name in found.why) == (left, 4, True)
    remove_leftovers([found])
    assert (find_leftovers(), verify(made)[0].sound) == ([], True)
    other = made.rename(made.with_name("renamed-01.h5"))
    assert (find_leftovers(), [entry.path for entry in list_cache()]) == ([], [other])
    other.unlink()
    assert [(each.path, "may be the only copy" in each.why) for each in find_leftovers()] == [
        (each, True) for each in files_of(made)
    ]


@pytest.mark.parametrize("how", ["missing", "its header is lost"])
def test_files_whose_feature_file_is_lost_are_used(made: Path, photos: Path, tiny_model: Path, how: str) -> None:
    before, pieces = rows_of(made), files_of(made)
    with open_features(made) as file:
        spent = file.seconds()
    numbers = [each.stat().st_ino for each in pieces]
    made.unlink() if how == "missing" else made.write_bytes(b"lost")
    pieces[1].unlink()
    done = extract(photos, tiny_model, file_size=FIVE)
    assert (done.embedded, done.reused, rows_of(made)) == (5, 19, before)
    assert [each.stat().st_ino for each in pieces if each != pieces[1]] == [*numbers[:1], *numbers[2:]]
    with open_features(pieces[0]) as file:
        assert np.allclose(file.seconds(), spent * 5 / 24)


def test_ls_tells_of_rows_whose_feature_file_is_lost(made: Path, photos: Path, tiny_model: Path) -> None:
    pieces = files_of(made)
    made.unlink()
    pieces[1].write_bytes(b"lost")
    (entry,) = list_cache()
    assert (entry.path, entry.dataset, entry.state, entry.rows) == (made.with_suffix(".rows"), "photos", "lost", 19)
    assert entry.detail.startswith(f"'{made.name}' is missing, and these are its rows. Bring it back, or give the same")
    made.with_name(f".{made.stem}.parts").mkdir()  # it is being made
    assert [entry.state for entry in list_cache()] == ["unfinished"]
    made.with_name(f".{made.stem}.parts").rmdir()
    extract(photos, tiny_model, file_size=FIVE)
    assert [entry.state for entry in list_cache()] == ["complete"]


def test_ls_tells_of_rows_that_are_gone(made: Path) -> None:
    pieces = files_of(made)
    pieces[2].unlink()
    (entry,) = list_cache()
    assert (entry.path, entry.state) == (made, "damaged")
    assert f"{pieces[2].name}' is missing: rows 10 to 14" in entry.detail
    assert "run tlcache verify --repair" in entry.detail
    shutil.rmtree(made.with_suffix(".rows"))
    (entry,) = list_cache()
    assert "is missing beside it. Copy or move that folder here, too; where it is gone, extract again" in entry.detail


def test_a_failure_on_the_way_keeps_the_old_file(
    made: Path, photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, write, written = rows_of(made), publish._write, list[Path]()

    def full(path: Path, descriptor: int, given: object) -> None:
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        write(path, descriptor, given)  # type: ignore[arg-type]

    write_image(photos / "red" / "more.png", 77, 2)
    with monkeypatch.context() as patch:
        patch.setattr(publish, "_write", full)
        with pytest.raises(CacheError, match="No space left on device. Nothing is lost"):
            extract(photos, tiny_model, file_size=FIVE)
    assert rows_of(made) == before
    done = extract(photos, tiny_model, file_size=FIVE)
    assert (done.embedded, done.rows, len(files_of(made))) == (0, 25, 5)


def test_shards_are_put_into_files(photos: Path, tiny_model: Path) -> None:
    for share in ("1/2", "2/2"):
        done = extract(photos, tiny_model, shard=share, file_size=FIVE)
    assert ([len(open_features(each)) for each in files_of(done.path)], done.rows) == ([5, 5, 5, 5, 4], 24)
    assert verify(done.path)[0].sound


@pytest.mark.parametrize(
    "place", ["../x.hdf5", "/tmp/a.rows/x.hdf5", "a.rows/../x.hdf5", "a.rows/b.rows/x.hdf5", "x.hdf5"]
)
def test_it_names_nothing_but_files_beside_it(made: Path, place: str) -> None:
    listed = [(place, 5), *([f"{made.stem}.rows/{each.name}", 5] for each in files_of(made)[1:])]
    alone = made.with_name("alone.h5")
    shutil.copy(files_of(made)[0], alone)
    change_features(alone, lambda file: file.attrs.create("files", np.bytes_(json.dumps(listed))))
    with pytest.raises(DamagedError, match="it names .* as one of its files"):
        open_features(alone)


def test_what_a_file_says_beside_its_rows_is_small_and_comes_first(made: Path, photos: Path, tiny_model: Path) -> None:
    for path in (files_of(made)[0], extract(photos, tiny_model, features="alone").path):
        with h5py.File(path) as file:
            first = file["features"].id.get_chunk_info(0).byte_offset
        assert first < path.stat().st_size < 50_000
        path.write_bytes(path.read_bytes()[:first])
        with open_remains(path) as cut:
            assert not any(good.any() for _, good in cut.intact())


def test_a_reader_need_not_open_too_many(photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_MOST", 3)
    found = extract(photos, tiny_model, file_size=1).path
    assert [len(open_features(each)) for each in files_of(found)] == [8, 8, 8]
    assert not extract(photos, tiny_model, name="one").path.with_suffix(".rows").exists()


def test_a_reader_keeps_the_old_data_while_new_files_are_published(made: Path, photos: Path, tiny_model: Path) -> None:
    before = rows_of(made)
    with open_features(made) as file:
        write_image(photos / "blue" / "more.png", 77, 0)
        assert extract(photos, tiny_model, file_size=FIVE).rows == 25
        assert file.split(*SPLITS).features.tobytes() == before[4]
    assert rows_of(made) != before


def test_other_columns_are_kept(photos: Path, tiny_model: Path) -> None:
    rows = [
        f"{path.relative_to(photos)},{path.parent.name},{number}"
        for number, path in enumerate(sorted(photos.rglob("*.png")))
    ]
    table = photos.parent / "list.csv"
    table.write_text("\n".join(["path,label,age", *rows]))
    found = extract(table, tiny_model, images=photos, file_size=1000).path
    with open_features(found) as file:
        assert file.columns == ("age",)
        assert sorted(file.column("age").tolist()) == list(range(24))
    assert verify(found)[0].sound
