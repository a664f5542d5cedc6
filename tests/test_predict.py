"""Predictions for new images: the same answers as the record's, in order, at extraction's pace, whatever lies there."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tlcache.deploying.rows import Columns, PredictedRow, open_writer
from tlcache.errors import OptionError

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
    out.write_text("what was there\n")

    def fail() -> None:
        with open_writer(out, Columns()) as write:
            write(ROWS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert out.read_text() == "what was there\n"
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


def test_rows_are_written_without_a_library() -> None:
    code = "import sys, tlcache.deploying.rows; print(*{name.partition('.')[0] for name in sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "torch", "h5py", "onnx", "sklearn", "platformdirs", "msgspec"} & set(found)
