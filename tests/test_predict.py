"""Predictions for new images: the same answers as the record's, in order, at extraction's pace, whatever lies there."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import pytest
from click.testing import Result
from fakes import doom, make_run, tiny_network, write_image, write_photos
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import tlcache
from tlcache.backbones.engines import OnnxRuntimeNetwork
from tlcache.cache.find import features_folder
from tlcache.cli import app
from tlcache.deploying.best import best_run
from tlcache.deploying.inputs import list_images
from tlcache.deploying.judging import Judge, Judged
from tlcache.deploying.predict import predict
from tlcache.deploying.predicted import Predicted
from tlcache.deploying.rows import Columns, PredictedRow, open_writer
from tlcache.errors import DataError, HeadError, ModelError, OptionError, UnknownNameError
from tlcache.extraction import blocks
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune
from tlcache.heads.fitted import load_head
from tlcache.heads.table import HEADS
from tlcache.heads.uncertainty import Answers, Distances, Ranks, Uncertainty
from tlcache.probing.fit import fit_heads
from tlcache.report.predictions import predictions_table
from tlcache.runs.record import Run

ROWS = [
    PredictedRow("a,b.png", ["red", "blue"], [0.75, 0.2500004]),
    PredictedRow("none.png", error="empty file"),
]


def test_rows_are_written_in_order_in_every_form(tmp_path: Path) -> None:
    columns = Columns(top=2)
    for name in ("rows.csv", "rows.jsonl"):
        with open_writer(tmp_path / name, columns) as write:
            write(ROWS[:1])
            write(ROWS[1:])
    assert (tmp_path / "rows.csv").read_text().splitlines() == [
        "path,label,confidence,label_2,confidence_2,error",
        '"a,b.png",red,0.750000,blue,0.250000,',
        "none.png,,,,,empty file",
    ]
    first, second = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert first == dict(zip(columns.names, ["a,b.png", "red", 0.75, "blue", 0.25, None], strict=True))
    assert second == dict(zip(columns.names, ["none.png", None, None, None, None, "empty file"], strict=True))


def test_sets_and_p_values_have_columns_of_their_own() -> None:
    row = PredictedRow("a.png", ["red"], [0.5], set=["red", "blue"], unusual=0.25)
    stream = io.BytesIO()
    with open_writer(stream, Columns(sets=True, unusual=True)) as write:
        write([row])
    (found,) = csv.DictReader(io.StringIO(stream.getvalue().decode()))
    assert (found["set"], found["unusual"], found["error"]) == ("red;blue", "0.250000", "")
    assert Columns(sets=True, unusual=True).values(row)["set"] == ["red", "blue"]


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    out.write_text("path,label,confidence,error\n")

    def fail() -> None:
        with open_writer(out, Columns()) as write:
            write(ROWS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert out.read_text() == "path,label,confidence,error\n"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe, found = tmp_path / "rows.csv", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    with open_writer(pipe, Columns()) as write:
        write(ROWS[1:])
    reader.join(10)
    assert found == ["path,label,confidence,error\nnone.png,,,empty file\n"]
    assert pipe.is_fifo()


def test_files_of_no_known_kind_and_parquet_without_pyarrow_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name, message in (("rows.xlsx", r"Known: \.csv, \.jsonl, \.parquet"), ("rows.parquet", "pip install pyarrow")):
        with pytest.raises(OptionError, match=message):
            open_writer(tmp_path / name, Columns())
    assert not list(tmp_path.glob("rows*"))


def test_names_that_are_no_text_stay_the_bytes_they_are(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    with open_writer(tmp_path / "rows.csv", Columns()) as write:
        write([PredictedRow(name, error="empty file")])
    assert b"caf\xe9.png,,,empty file" in (tmp_path / "rows.csv").read_bytes()


@pytest.mark.parametrize("name", ["a\rb.png", "a\r\nb.png", "a\nb.png", 'a"b, c.png', "\r"])
def test_names_with_ends_of_lines_and_quotes_are_read_as_they_were_written(tmp_path: Path, name: str) -> None:
    with open_writer(tmp_path / "rows.csv", Columns()) as write:
        write([PredictedRow(name, error="empty file"), PredictedRow("last.png")])
    with (tmp_path / "rows.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, strict=True))
    assert [row["path"] for row in rows] == [name, "last.png"]


@pytest.mark.parametrize("names", [["a;b", "c"], ['the "one"', "c"], ["a,b"], ["a\nb;", "c"], ["a;"], []])
def test_the_names_of_a_set_are_read_as_they_were_written(tmp_path: Path, names: list[str]) -> None:
    for out in (tmp_path / "rows.csv", tmp_path / "rows.jsonl"):
        with open_writer(out, Columns(sets=True)) as write:
            write([PredictedRow("x.png", ["a"], [0.5], set=names), PredictedRow("y.png", ["a"], [0.5], set=["b", "c"])])
    with (tmp_path / "rows.csv").open(newline="") as stream:
        cells = [row["set"] for row in csv.DictReader(stream, strict=True)]
    assert [next(csv.reader(io.StringIO(cell, newline=""), delimiter=";"), []) for cell in cells] == [names, ["b", "c"]]
    assert cells[1] == "b;c"
    assert json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])["set"] == names


def test_rows_are_written_without_a_library() -> None:
    code = "import sys, tlcache.deploying.rows; print(*{name.partition('.')[0] for name in sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "torch", "h5py", "onnx", "sklearn", "platformdirs", "msgspec"} & set(found)


def test_an_answer_is_had_and_shown_without_what_fits_heads(ridge: Run) -> None:
    """Its second of loading is one that decoding has to wait for."""
    width = len(load_head(ridge.head_path).scaler.middle)
    code = (
        "import sys, numpy, tlcache.report.predictions, tlcache.deploying.predicted\n"
        "from tlcache.deploying.answers import find_answers\n"
        "answers = find_answers(sys.argv[1])\n"
        f"print(answers.answer(numpy.zeros((2, {width}), 'f4'))[0].shape)\n"
        "print(*{'sklearn', 'scipy', 'torch', 'lightgbm'} & set(sys.modules))"
    )
    words = [sys.executable, "-c", code, str(ridge.path)]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert found.splitlines() == ["(2, 3)", ""]


@pytest.fixture
def ridge(photos: Path, tiny_model: Path) -> Run:
    """A head on the tiny network's embeddings of the photos, which are cached."""
    return fit_heads([extract(photos, tiny_model).path], heads=["ridge"])[0]


def answers_of(run: Run) -> dict[str, str]:
    """The test images of a run and what its record says that they were taken for."""
    top = run.predictions().top()
    return {path: run.classes[label] for path, label in zip(top.paths, top.predicted.tolist(), strict=True)}


@pytest.mark.parametrize("head", HEADS)
def test_the_answers_are_those_of_the_record(photos: Path, tiny_model: Path, head: str, tmp_path: Path) -> None:
    (run,) = fit_heads([extract(photos, tiny_model).path], heads=[head])
    known = run.predictions().in_order()
    paths = [photos / os.fsdecode(path) for path in known.row.tolist()]
    for features in (None, tmp_path / "none"):  # cached, and embedded anew
        found = predict(run.path, paths, top=3, features=features)
        assert found.labels == list(answers_of(run).values())
        expected = np.take_along_axis(known.probabilities, found.ranked, axis=1)
        assert found.confidences == pytest.approx(expected, abs=1e-5)
        assert (np.diff(found.confidences, axis=1) <= 0).all()
        assert (found.embedded, found.reused) == ((0, 6) if features is None else (6, 0))
        assert np.mean([path.parent.name == label for path, label in zip(paths, found.labels, strict=True)]) == (
            run.test.accuracy
        )


def test_a_fine_tuned_network_answers_as_its_record_says(photos: Path, tinynet: None) -> None:
    del tinynet
    run = finetune(photos, "tinynet", "random", epochs=2, batch_size=8, precision="fp32", layout="contiguous")
    known = run.predictions().in_order()
    for given in (run, run.head_path):
        found = predict(given, [photos / os.fsdecode(path) for path in known.row.tolist()], top=3)
        expected = np.take_along_axis(known.probabilities, found.ranked, axis=1)
        assert found.confidences == pytest.approx(expected, abs=1e-5)
        assert found.labels == list(answers_of(run).values())
        assert found.embedded == 6  # by another network than what is cached


def test_blocks_of_any_size_give_the_same_in_order(
    ridge: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [*sorted(photos.rglob("*.png")), photos / "red" / "0.png", *sorted(photos.glob("blue/*"))]
    write_image(photos / "red" / "new.png", 7, 2)
    paths[3:3] = [photos / "red" / "new.png"] * 2
    whole = predict(ridge, paths)
    monkeypatch.setattr(blocks, "_FIRST", 2)
    monkeypatch.setattr(blocks, "_MOST", 5)
    monkeypatch.setattr("tlcache.extraction.local._LOOKED_AT", 1)
    for features in (None, tmp_path / "none"):
        parts = predict(ridge, paths, features=features)
        assert parts.labels == whole.labels
        assert parts.confidences == pytest.approx(whole.confidences, abs=1e-6)
        assert parts.paths == tuple(map(str, paths))


def test_nothing_is_kept_and_nothing_is_left(ridge: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = photos.parent / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    write_image(photos / "red" / "new.png", 7, 2)
    before = {path: path.stat().st_mtime_ns for path in features_folder().rglob("*")}
    for _ in range(2):
        found = predict(ridge, photos)
        assert (len(found), found.embedded, found.reused) == (25, 1, 24)
    assert {path: path.stat().st_mtime_ns for path in features_folder().rglob("*")} == before
    assert not list(temporary.iterdir())


def spoiled(folder: Path) -> Path:
    good = write_image(folder / "1.png", 901, 0).read_bytes()
    (folder / "0 cut.png").write_bytes(good[: len(good) // 2])
    (folder / "2 none").write_bytes(b"")
    (folder / "3 page.jpg").write_bytes(b"<html>404</html>")
    (folder / "4 gone.png").symlink_to(folder / "nowhere")
    write_image(folder / "5.png", 902, 2)
    (folder / "notes.txt").write_text("passed over")
    return folder


def test_unusable_images_are_rows_with_a_reason_in_their_place(ridge: Run, tmp_path: Path) -> None:
    folder = spoiled(tmp_path / "odd")
    found = predict(ridge, [folder, folder / "missing.png"])
    names = ["0 cut.png", "1.png", "2 none", "3 page.jpg", "4 gone.png", "5.png", "missing.png"]
    assert [Path(path).name for path in found.paths] == names
    assert [bool(label) for label in found.labels] == [False, True, False, False, False, True, False]
    assert sorted(found.errors) == [0, 2, 3, 4, 6]
    assert "truncated" in found.errors[0] or "damaged" in found.errors[0]
    assert found.errors[2] == "empty file"
    assert "not an image" in found.errors[3]
    assert "which is not there" in found.errors[4]
    assert found.errors[6] == "No such file or directory"
    assert np.isnan(found.confidences[[0, 2, 3, 4, 6]]).all()
    assert (found.embedded, found.reused) == (2, 0)


def test_an_image_whose_embedding_is_not_finite_is_a_row_with_a_reason(
    ridge: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(network: OnnxRuntimeNetwork, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.where(images.max(axis=(1, 2, 3))[:, None] == 0, np.float32("inf"), run(network, images))

    run = OnnxRuntimeNetwork._run
    monkeypatch.setattr(OnnxRuntimeNetwork, "_run", rows)
    Image.new("RGB", (20, 20)).save(photos / "black.png")
    found = predict(ridge, [photos / "black.png", write_image(photos / "a.png", 905, 1)])
    assert found.errors == {0: "the network gives numbers that are not finite"}
    assert found.labels[1]


def test_paths_come_from_standard_input(ridge: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = photos / os.fsdecode(b"line\nbreak \xe9.png")
    shutil.copy(photos / "red" / "0.png", odd)
    for data, names in (
        (b"photos/red/0.png\r\n\nphotos/blue/1.png\nphotos/gone", ["red/0.png", "blue/1.png", "gone"]),
        (b"photos/red/0.png\0" + os.fsencode(odd) + b"\0", ["red/0.png", odd.name]),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        found = predict(ridge, "-")
        assert [os.path.relpath(path, "photos") for path in map(os.path.relpath, found.paths)] == names
        assert [bool(label) for label in found.labels] == [name != "gone" for name in names]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("where,what", "no column is the path by its name: 'where', 'what'. Call the one with the paths"),
        ("image,file,kind", "several columns may be the path: 'image', 'file'. Call the one"),
    ],
)
def test_a_table_that_does_not_say_where_images_are_is_refused(tmp_path: Path, header: str, message: str) -> None:
    table = tmp_path / "list.csv"
    table.write_text(f"{header}\na.jpg,b.jpg{',c' * (header.count(',') - 1)}\n")
    with pytest.raises(DataError) as refused:
        list_images([table], ["red"])
    assert message in str(refused.value)
    assert "--path-column" not in str(refused.value)


def listed(*given: str | Path, classes: str = "blue green red") -> list[tuple[str, str]]:
    found = list_images(given, classes.split())
    return list(zip(found.paths, found.labels, strict=True))


@pytest.mark.parametrize(
    ("given", "images"),
    [
        (["photos/red/1.png", "photos/red/0.png"], [("photos/red/1.png", ""), ("photos/red/0.png", "")]),
        (["photos/*/0.png"], [(f"photos/{name}/0.png", "") for name in ("blue", "green", "red")]),
        (["photos/**/1.png"], [(f"photos/{name}/1.png", "") for name in ("blue", "green", "red")]),
        (["photos"], [(f"photos/{name}/{n}.png", name) for name in ("blue", "green", "red") for n in (0, 1)]),
        (["photos/red"], [("photos/red/0.png", "red"), ("photos/red/1.png", "red")]),
        (["photos/*"], [(f"photos/{name}/{n}.png", name) for name in ("blue", "green", "red") for n in (0, 1)]),
        (["photos/**"], [(f"photos/{name}/{n}.png", name) for name in ("blue", "green", "red") for n in (0, 1)]),
        (["paths.csv"], [("photos/red/1.png", "")]),
        (["labels.csv"], [("photos/red/1.png", "red"), ("photos/red/0.png", "")]),
        (["doubt.csv"], [("photos/red/1.png", ""), ("photos/gone.png", "")]),
        (["list.txt"], [("photos/red/1.png", ""), ("photos/blue/0.png", "")]),
        (["list.jsonl"], [("photos/red/1.png", "red")]),
        (["deep/below.csv"], [("deep/../photos/red/1.png", "")]),
    ],
)
def test_images_are_named_as_people_name_them(given: list[str], images: list[tuple[str, str]]) -> None:
    write_photos(Path("photos"), 2)
    Path("deep").mkdir()
    for name, text in (
        ("paths.csv", "path\nphotos/red/1.png\n"),
        ("labels.csv", "file;species\nphotos/red/1.png;red\nphotos/red/0.png;\n"),
        ("doubt.csv", "path,class,category\nphotos/red/1.png,a,b\nphotos/gone.png,a,b\n"),
        ("list.txt", "photos/red/1.png\nphotos/blue/0.png\n"),
        ("list.jsonl", '{"path": "photos/red/1.png", "label": "red"}\n'),
        ("deep/below.csv", "path\n../photos/red/1.png\n"),
    ):
        Path(name).write_text(text)
    assert listed(*given) == images


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "No images are given"),
        (["nothing"], "Nothing is at 'nothing'"),
        (["photos/*.bmp"], "Nothing matches"),
        (["empty"], "No images in 'empty'. It holds 1 .npy files, which are arrays"),
        (["gone.csv"], "Nothing is at"),
        (["lost.csv"], "no listed image is where the list says"),
        (["hollow.csv"], "lists no image"),
        (["blank.csv"], "'blank.csv' lists no image"),
    ],
)
def test_what_names_no_image_is_an_error(given: list[str], message: str) -> None:
    write_photos(Path("photos"), 1)
    Path("empty").mkdir()
    Path("empty/a.npy").write_bytes(b"")
    Path("lost.csv").write_text("path\nnowhere/1.png\n")
    Path("hollow.csv").write_text("path\n")
    Path("blank.csv").touch()
    with pytest.raises((OptionError, DataError), match=message):
        listed(*given)


def test_folders_label_images_only_where_their_names_are_classes_of_the_model(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_photos(tmp_path / "set" / split, 1)
    by_split = listed(tmp_path / "set")
    assert [label for _, label in by_split] == ["blue", "green", "red"] * 2
    assert {label for _, label in listed(tmp_path / "set" / "test", classes="cat dog")} == {""}
    assert [label for _, label in listed(tmp_path / "set" / "test", classes="cat red")] == ["blue", "green", "red"]
    (tmp_path / "set" / "metadata.csv").write_text("file_name,label\ntest/red/0.png,green\n")
    assert dict(listed(tmp_path / "set"))[str(tmp_path / "set" / "test" / "red" / "0.png")] == "green"


def archived(photos: Path, ending: str) -> Path:
    """Return an archive of the photos, with what systems leave beside them."""
    (photos / ".DS_Store").write_bytes(b"")
    return Path(shutil.make_archive(str(photos.parent / "packed"), ending, photos))


@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_images_in_an_archive_are_those_of_its_folder(ridge: Run, photos: Path, ending: str) -> None:
    (photos / "red" / "bad.png").write_bytes((photos / "red" / "0.png").read_bytes()[:40])
    packed = archived(photos, ending)
    inside, found = predict(ridge, photos, top=2), predict(ridge, [packed], top=2)
    assert [os.path.relpath(path, packed) for path in found.paths] == [
        os.path.relpath(path, photos) for path in inside.paths
    ]
    assert found.reused == 24
    assert np.array_equal(found.confidences, inside.confidences, equal_nan=True)
    assert [found.paths[number] for number in found.errors] == [f"{packed}/red/bad.png"]
    assert [*found.errors.values()] == [*inside.errors.values()]
    assert found.checked == inside.checked
    assert found.checked is not None
    assert found.checked.n == 24


def test_archives_are_listed_among_others_and_by_patterns(photos: Path, tmp_path: Path) -> None:
    packed = archived(photos / "red", "zip")
    own = [path for path, _ in listed(packed)]
    assert own == [f"{packed}/{path.name}" for path in sorted((photos / "red").glob("*.png"))]
    alone = str(photos / "red" / "0.png")
    assert [path for path, _ in listed(f"{packed.parent}/*.zip", alone)] == [*own, alone]
    (tmp_path / "broken.zip").write_bytes(b"PK no")
    with pytest.raises(DataError, match="broken.zip"):
        listed(tmp_path / "broken.zip")


def test_accuracy_is_told_of_labelled_images_and_unknown_names_are_counted(ridge: Run, photos: Path) -> None:
    (photos / "red").rename(photos / "crimson")
    found = predict(ridge, photos)
    assert found.checked is not None
    right = sum(Path(path).parent.name == label for path, label in zip(found.paths, found.labels, strict=True))
    assert (found.checked.n, found.checked.accuracy) == (16, right / 16)
    assert found.checked.unknown == {"crimson": 8}
    assert found.checked.low < found.checked.accuracy <= found.checked.high
    assert predict(ridge, photos / "crimson").checked is None


def test_another_network_than_the_run_was_fitted_on_is_refused(ridge: Run, photos: Path, tiny_model: Path) -> None:
    onnx.save(tiny_network(seed=1), tiny_model)
    with pytest.raises(ModelError, match=rf"key is {ridge.key[:12]}: tiny with weights .* now has"):
        predict(ridge, photos)
    tiny_model.unlink()
    with pytest.raises(ModelError, match="Cannot read the model"):
        predict(ridge, photos)


def test_what_fails_on_the_way_leaves_the_file_as_it_was(
    ridge: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        if not done:
            raise HeadError("no answer")
        return done.pop()  # type: ignore[return-value]

    out, done = tmp_path / "out.csv", [np.full((2, 3), 1 / 3, np.float32)]
    out.write_text("path,label,error")
    monkeypatch.setattr(blocks, "_FIRST", 2)
    monkeypatch.setattr("tlcache.heads.fitted.FittedHead.predict_proba", fail)
    with pytest.raises(HeadError):
        predict(ridge, photos, out=out)
    assert not done
    assert out.read_text() == "path,label,error"
    assert not list(tmp_path.glob(".out*"))


def test_what_is_stopped_says_how_far_it_was(
    ridge: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt("stopped at 1 of 4 images")
        done.append(len(arguments[0].dataset))
        return run(*arguments)

    run, done = blocks.run_workers, list[int]()
    monkeypatch.setattr(blocks, "_FIRST", 2)
    monkeypatch.setattr(blocks, "run_workers", stop)
    found = invoke(ridge.path, photos, "--out", tmp_path / "out.csv")
    assert found.exit_code == 130
    assert "stopped after 6 of 24 images; nothing of it is kept" in " ".join(found.stderr.split())
    assert done == [2, 4]
    assert not (tmp_path / "out.csv").exists()


def test_a_record_without_arguments_is_tried_by_its_backbone(ridge: Run, photos: Path, tiny_model: Path) -> None:
    fields = json.loads(ridge.path.read_text())
    del fields["extract_arguments"]
    ridge.path.write_text(json.dumps(fields))
    with pytest.raises(UnknownNameError, match="Unknown backbone 'tiny'"):
        predict(ridge.path, photos)
    ridge.path.unlink()
    with pytest.raises(UnknownNameError, match="Unknown backbone 'tiny'"):
        predict(ridge.head_path, photos)
    assert tiny_model.exists()


def test_the_best_run_is_the_most_accurate_and_of_equals_the_cheapest() -> None:
    wrong, right = np.zeros(40, bool), np.ones(40, bool)
    make_run("knn", wrong, extract_s=1.0)
    make_run("ridge", right, extract_s=60.0)
    cheap = make_run("logreg", right, extract_s=30.0)
    best, why = best_run("photos")
    assert best.run.path == cheap.path
    assert "of 2 that are the most accurate on the test images of 3 recorded, the cheapest to use" in why
    assert "1.000" in why
    make_run("knn", wrong, held_out=0.9, dataset="scans")
    make_run("ridge", right, held_out=0.8, dataset="scans")
    assert best_run("scans")[1].startswith("knn on tinynet: 0.000")
    assert "picked on validation, of 2 recorded" in best_run("scans")[1]
    make_run("ridge", right, dataset="flowers")
    with pytest.raises(OptionError, match=r"runs of flowers, photos, scans\. Say which .* with --data"):
        best_run()
    assert best_run("flowers")[1].endswith("the only one recorded.")


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_a_few_images_are_a_table_and_many_are_counted(ridge: Run, photos: Path) -> None:
    few = invoke(ridge.path, "photos/red/0.png", "photos/blue/1.png", "--top", "2")
    assert few.exit_code == 0, few.output
    table = few.stdout.splitlines()
    assert table[0].split() == ["Path", "Label", "Confidence", "Label", "2"]
    assert [line.split()[1] for line in table[1:3]] == predict(ridge, ["photos/red/0.png", "photos/blue/1.png"]).labels
    assert len(table) == 4
    many = invoke(ridge.path, photos, "--json", "found.json")
    assert "24 images by" in many.stdout
    assert "0 embedded, 24 from the cache" in many.stdout
    assert "Accuracy (95 %)" in many.stdout
    figures = json.loads(Path("found.json").read_text())
    assert figures["counts"] == predict(ridge, photos).counts
    assert len(figures["predictions"]) == figures["images"] == figures["checked"]["n"] == 24


def test_few_of_many_classes_are_shown() -> None:
    classes = tuple(f"class {number}" for number in range(500))
    found = Predicted.of("m", classes, ["a.png", "b.png"], 500, Judge(None))
    found.fill([0], np.linspace(0.0, 1.0, 500, dtype=np.float32)[None], Judged([""], None, None))
    found.errors[1] = "no image"
    console = Console(width=80, file=io.StringIO())
    console.print(predictions_table(found))
    head, first, bad, note = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert head.split() == ["Path", "Label", "Confidence", "Label", "2", "Label", "3", "Error"]
    assert first.split()[1:] == ["class", "499", "1.000", "class", "498", "0.998", "class", "497", "0.996"]
    assert bad.split() == ["b.png", "no", "image"]
    assert note == "Of the 500 likeliest classes 3 are shown; --out has all."


def test_rows_go_to_a_file_or_to_standard_output(ridge: Run, photos: Path) -> None:
    assert invoke(ridge.path, photos, "--out", "found.csv", "--quiet").exit_code == 0
    streamed = invoke(ridge.path, photos, "--out", "-")
    assert streamed.stdout == Path("found.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(streamed.stdout)))
    assert [row["label"] for row in rows] == predict(ridge, photos).labels
    both = invoke(ridge.path, photos, "--out", "-", "--json", "-")
    assert both.exit_code == 2
    assert "cannot both be standard output" in both.output


def test_the_best_run_is_chosen_and_said(ridge: Run, photos: Path) -> None:
    found = invoke("--best", "--data", "photos", photos / "red")
    assert found.exit_code == 0, found.output
    assert f"{ridge.path.stem}, ridge on tiny:" in " ".join(found.stderr.split())
    assert f"8 images by {ridge.path.stem}" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "No run is given"),
        (["RUN"], "No images are given"),
        (["--best"], "No images are given"),
        (["--best", "--data", "photos", "RUN", "photos"], "--best chooses the run, and '.*json' is one, too"),
        (["--best", "NAME", "photos"], "--best chooses the run, and 'tiny-ridge-.*' is one, too"),
        (["RUN", "photos", "--data", "photos"], "is of --best"),
        (["photos", "photos"], "no head or network of a run|is a folder|Unknown run"),
    ],
)
def test_what_is_missing_is_said(ridge: Run, arguments: list[str], message: str) -> None:
    names = {"RUN": str(ridge.path), "NAME": ridge.path.stem}
    found = invoke(*(names.get(each, each) for each in arguments))
    assert found.exit_code in (1, 2)
    assert re.search(message, " ".join(found.stderr.split()))
    assert "Traceback" not in found.output


def test_the_status_says_when_no_image_could_be_used(ridge: Run, tmp_path: Path) -> None:
    folder = spoiled(tmp_path / "odd")
    some = invoke(ridge.path, folder)
    assert some.exit_code == 0
    assert "4 of 6 images cannot be used" in some.stderr
    assert invoke(ridge.path, folder / "3 page.jpg").exit_code == 1


@pytest.mark.slow
@pytest.mark.worker
@pytest.mark.usefixtures("sabotaged")
def test_images_that_kill_their_decoder_are_rows_with_a_reason(ridge: Run, photos: Path) -> None:
    doom(photos / "green" / "crash.png", "crash")
    write_image(photos / "green" / "fresh.png", 8, 1)
    found = predict(ridge, photos)
    assert {Path(found.paths[number]).name: why for number, why in found.errors.items()} == {
        "crash.png": "its decoder dies of SIGSEGV"
    }
    assert len(found) == 26
    assert found.counts
    assert list(found.paths) == sorted(found.paths)


@pytest.mark.slow
@pytest.mark.worker
def test_whoever_reads_the_rows_may_stop(ridge: Run, photos: Path) -> None:
    command = [sys.executable, "-m", "tlcache", "predict", str(ridge.path), str(photos), "--out", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "error" not in process.stderr.read()
    assert process.returncode == 141


@pytest.fixture
def sure(photos: Path, tiny_model: Path) -> Run:
    """A head that keeps how sure it is of new images."""
    return fit_heads([extract(photos, tiny_model).path], heads=["ridge"], coverage=0.7)[0]


@pytest.mark.parametrize("exported", [False, True], ids=["run", "file"])
def test_sets_and_p_values_are_those_that_the_head_promises(
    sure: Run, photos: Path, tmp_path: Path, exported: bool
) -> None:
    model = tlcache.export(sure.path, out=tmp_path / "model.onnx").path if exported else sure.path
    found = predict(model, photos, sets=True, top=3)
    head = load_head(sure.head_path)
    with tlcache.open_features(sure.features) as file:
        everything = file.split("train", "val", "test")
    rows = dict(zip(everything.paths, everything.features, strict=True))
    embeddings = np.stack([rows[os.path.relpath(path, photos)] for path in found.paths])
    assert head.uncertainty is not None
    flags = head.uncertainty.sets(head.predict_proba(embeddings))
    assert found.sets is not None
    assert [sorted(each) for each in found.sets.values()] == [np.flatnonzero(each).tolist() for each in flags]
    assert found.p_values == pytest.approx(head.uncertainty.unusual(head.uncertainty.distances(embeddings)), abs=0.05)
    held = np.mean([row.set is not None and Path(row.path).parent.name in row.set for row in found.rows()])
    assert found.checked is not None
    assert found.checked.covered == held
    assert (found.embedded, found.reused) == (0, 24)


def far(embedding: float) -> Uncertainty:
    """A promise made by hand: three classes, distances of embeddings of one number from that of one training image."""
    ranks = Ranks(np.linspace(0.1, 1, 10, dtype=np.float32), 10)
    answers = Answers(np.array([0.6, 0.9], np.float32), np.array([0.8, 0.95], np.float32))
    rows = np.array([[embedding]], np.float32)
    return Uncertainty(0.9, ranks, (), answers, Distances(rows, 1, ranks))


def test_images_are_withheld_by_confidence_and_by_distance() -> None:
    probabilities = np.array([[0.95, 0.05, 0], [0.3, 0.7, 0], [0.95, 0.05, 0], [0.4, 0.35, 0.25]], np.float32)
    distances = np.array([0, 0, 2, 2], np.float32)
    judged = Judge(far(1), sets=True, right=0.9, reject=0.2).judge(probabilities, distances)
    assert judged.withheld == ["", "unsure", "unknown", "unknown"]
    assert judged.unusual == pytest.approx([1, 1, 1 / 11, 1 / 11])
    assert judged.sets == [[0], [1, 0], [0], [0, 1, 2]]
    assert Judge(far(1), right=0.99).answers_nothing
    assert Judge(far(1), right=0.99).judge(probabilities).withheld == ["unsure"] * 4
    named = ["ant", "unknown", "unsure"]  # and so classes of their own
    assert Judge(far(1)).ambiguous(named) == []
    assert Judge(far(1), right=0.9).ambiguous(named) == ["unsure"]
    assert Judge(far(1), right=0.9, reject=0.1).ambiguous(named) == ["unknown", "unsure"]


def test_what_is_withheld_is_said_and_counts_in_no_accuracy(
    sure: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = predict(sure, photos)
    middle = float(np.median(plain.confidences[:, 0]))
    monkeypatch.setattr("tlcache.heads.uncertainty.Answers.threshold", lambda *_: middle)
    found = predict(sure, photos, right=0.9)
    unsure = plain.confidences[:, 0] < middle
    assert 0 < unsure.sum() < 24
    assert [label == "unsure" for label in found.labels] == unsure.tolist()
    assert found.checked is not None
    assert found.checked.n == 24 - unsure.sum()
    text = invoke(sure.path, photos, "--right", "0.9").stdout
    assert f"Not answered: {unsure.sum()} unsure" in text
    assert f"on {24 - unsure.sum()} labelled images" in text


def test_a_rate_that_no_p_value_is_below_is_told(sure: Run, photos: Path) -> None:
    said = "With so few training images no p-value is below"
    assert said in " ".join(invoke(sure.path, photos, "--reject", "0.001").stderr.split())
    assert said not in " ".join(invoke(sure.path, photos, "--reject", "0.5").stderr.split())


@pytest.mark.parametrize("option", ["sets", "right", "reject"])
def test_a_run_that_does_not_know_how_sure_it_is_says_how_to_fit_one(ridge: Run, photos: Path, option: str) -> None:
    with pytest.raises(OptionError, match=rf"--{option} needs .* tlcache fit-heads --coverage 0.9"):
        predict(ridge, photos, **{option: True if option == "sets" else 0.5})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["frozen", "tuned"])
def test_a_file_of_a_run_answers_as_the_run_does(
    photos: Path, tiny_model: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "tuned":
        request.getfixturevalue("tinynet")
        run: Run = finetune(photos, "tinynet", "random", epochs=1, batch_size=8, precision="fp32", layout="contiguous")
    else:
        (run,) = fit_heads([extract(photos, tiny_model).path], heads=["dense"])
    model = tlcache.export(run.path, out=tmp_path / "model.onnx").path
    known, found = predict(run, photos, top=3), predict(model, photos, top=3)
    assert found.confidences == pytest.approx(known.confidences, abs=1e-5)
    assert found.labels == known.labels
    assert found.reused == (24 if kind == "frozen" else 0)


def test_a_network_without_classes_is_no_run(photos: Path, tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="gives embedding and is no file of a run"):
        predict(tiny_model, photos)


@pytest.mark.parametrize("name", ["images.csv", "images.jsonl", "images.parquet"])
@pytest.mark.parametrize("columns", [Columns(), Columns(top=2, sets=True), Columns(each=("low", "high"), exact=True)])
def test_predictions_replace_predictions_and_nothing_else(tmp_path: Path, name: str, columns: Columns) -> None:
    table = tmp_path / name
    table.write_text("path,label,split\na.png,red,train\n")
    with pytest.raises(OptionError, match="holds no predictions, which would replace it"):
        open_writer(table, columns)
    assert table.read_text().startswith("path,label,split")
    table.unlink()
    for path in ("a.png", "b.png"):
        with open_writer(table, columns) as write:
            write([PredictedRow(path, error="no image")])
    assert b"b.png" in table.read_bytes()
