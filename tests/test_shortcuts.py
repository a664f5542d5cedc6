"""What columns of a table tell of the labels beside the images: measured, compared, and named."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tlcache.cli import app
from tlcache.errors import CacheError, HeadError, UnknownNameError
from tlcache.exchange.adopt import adopt
from tlcache.heads.lightgbm import LightGbm
from tlcache.heads.rows import View
from tlcache.heads.table import find_head
from tlcache.probing import columns
from tlcache.probing.fit import fit_columns
from tlcache.probing.tabular import Prepared
from tlcache.report.columns import shortcut
from tlcache.report.page import write_report
from tlcache.runs.folder import list_runs

N = 300


def write(folder: Path, **more: list[str]) -> Path:
    """Write a table of images of two classes, whose split is given, and embeddings of them that tell nothing."""
    random = np.random.default_rng(1)
    labels = [("cat", "dog")[row % 2] for row in range(N)]
    names = {"path": [f"{row:03d}.png" for row in range(N)], "label": labels}
    names["split"] = ["test" if row % 3 == 0 else "val" if row % 3 == 1 else "train" for row in range(N)]
    path = folder / "scans.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([[*names, *more], *zip(*names.values(), *more.values(), strict=True)])
    np.savez(folder / "noise.npz", features=random.normal(size=(N, 6)).astype(np.float32), path=names["path"])
    return adopt(folder / "noise.npz", "noise", data=path).path


def sites() -> list[str]:
    """Return sites, of which each has nine in ten images of one class."""
    return [("Ulm", "Jena")[row % 2 if row % 20 else 1 - row % 2] for row in range(N)]


def ages() -> list[str]:
    return ["" if row % 7 == 0 else str(20 + row // 2 * 13 % 50) for row in range(N)]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLCACHE_FEATURES", str(folder / "features"))
        return write(folder, site=sites(), age=ages())


@pytest.fixture
def made(once: Path, tmp_path: Path) -> Path:
    target = tmp_path / "features" / "scans" / once.name
    target.parent.mkdir(parents=True)
    return Path(shutil.copy(once, target))


@pytest.mark.parametrize("head", ["ridge", "logreg", "lightgbm"])
def test_a_column_that_tells_the_label_is_named(made: Path, head: str) -> None:
    (found,) = fit_columns([made], ["age", "site"], [head])
    right = np.mean([site == ("Ulm", "Jena")[row % 2] for row, site in enumerate(sites()) if row % 3 == 0])
    (of_site,) = fit_columns([made], ["site"], [head])
    assert of_site.alone.accuracy == right
    assert found.over_baseline["site"].difference == pytest.approx(right - 0.5)
    assert abs(found.over_baseline["age"].difference) < 0.2
    assert abs(found.image.accuracy - 0.5) < 0.15
    assert found.alone.accuracy > 0.85
    assert found.both.accuracy > 0.85
    assert found.both_over_image.low > 0.2
    assert (found.n, found.baseline.answer, found.baseline.accuracy) == (100, "cat", 0.5)
    line = shortcut([found])
    assert f"The columns alone reach {found.alone.accuracy:.3f} ({head}), always answering 'cat' 0.500" in line
    assert "): site predicts the label. That is more than the images alone" in line
    (run,) = list_runs()
    assert run.test.accuracy == found.image.accuracy
    assert Path(found.run) == run.path


def test_the_report_names_it(made: Path) -> None:
    fit_columns([made], ["age", "site"], ["ridge"])
    page, *_ = write_report("report.html")
    assert "site predicts the label" in page.read_text()


def test_what_tells_nothing_is_said_to(tmp_path: Path) -> None:
    (found,) = fit_columns([write(tmp_path, scanner=[f"s{row // 2 % 4}" for row in range(N)])], "scanner", ["ridge"])
    assert shortcut([found]).startswith("scanner alone tells nothing that can be shown: ")


def test_what_is_recorded_is_read_until_the_column_changes(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = fit_columns([made], ["site"], ["ridge"])
    with monkeypatch.context() as patch:
        patch.setattr(columns, "search", lambda *_: pytest.fail("it is fitted again"))
        assert fit_columns([made], ["site"], ["ridge"]) == [first]
    assert json.loads(first.record.read_text())["columns"] == first.columns
    write(made.parents[2], site=sites()[::-1], age=ages())
    (other,) = fit_columns([made], ["site"], ["ridge"])
    assert other.record == first.record
    assert other.columns != first.columns
    assert other.image == first.image


def test_a_column_is_measured_on_the_rows_that_are_fitted_on() -> None:
    fit = {"site": np.array([b"A", b"A", b"B", b"B"]), "mg": np.array([1.0, 3.0, np.nan, 2.5])}
    other = {"site": np.array([b"B", b"C"]), "mg": np.array([1e3, np.nan])}
    none = np.zeros((4, 0), np.float32)
    view = Prepared.of(find_head("ridge"), none, fit)(none[:2], other)
    A, B, rest, value, unknown = view.features[:, :5].T
    assert (A.tolist(), B.tolist(), rest.tolist()) == ([0, 0], [1, 0], [0, 1])
    known = [1.0, 3.0, 2.5]
    assert value == pytest.approx([(1e3 - np.mean(known)) / np.std(known), 0], rel=1e-6)
    assert unknown.tolist() == [0, 1]
    native = Prepared.of(find_head("lightgbm"), none, fit)
    assert dict(native.params) == {"columns": 3, "categories": 1}
    assert native(none[:2], other).features[:, 0].tolist() == [1, 2]


def test_trees_split_categories_by_what_they_are() -> None:
    numbers = np.arange(400) % 8
    labels = np.isin(numbers, [0, 3, 5]).astype(np.int64)
    X = numbers.astype(np.float32)[:, None]
    head = LightGbm(columns=1, categories=1, leaves=2, rounds=1).fit(View(X), labels)
    assert b"num_cat=1" in head.text_.tobytes()
    assert (head.predict(X) == labels).all()  # a single split of two leaves, which no threshold can do


def test_an_image_that_is_used_alone_needs_no_columns() -> None:
    X = np.random.default_rng(0).normal(size=(80, 5)).astype(np.float32)
    labels = (X[:, 0] > 0).astype(np.int64)
    plain = LightGbm().fit(X, labels)
    assert b"num_cat=1" not in plain.text_.tobytes()
    more = LightGbm(columns=1).fit(np.hstack([X, labels[:, None]]).astype(np.float32), labels)
    assert more.vectors_.tolist() == plain.vectors_.tolist()
    assert (more.predict(np.hstack([X, labels[:, None]]).astype(np.float32)) == labels).all()


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        ("sit", UnknownNameError, "Unknown column 'sit'. Did you mean 'site'? Known: site, age."),
        ("label", UnknownNameError, "Unknown column 'label'"),
    ],
)
def test_a_column_that_is_not_there_is_told(made: Path, names: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words.replace(".", r"\.").replace("?", r"\?")):
        fit_columns([made], names, ["ridge"])


def test_a_file_without_columns_says_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="has no columns beside its embeddings"):
        fit_columns([write(tmp_path)], "site", ["ridge"])


@pytest.mark.parametrize("more", [["--shots", "1"], ["--layers", "all"], ["--cv", "2x1"], ["--samples", "3"]])
def test_one_table_is_made_at_a_time(made: Path, more: list[str]) -> None:
    done = CliRunner().invoke(app, ["fit-heads", str(made), "--columns", "site", *more])
    assert done.exit_code == 2
    assert f"leave {more[0]} out" in " ".join(done.stderr.split())


def test_a_comparison_is_no_run_to_use(made: Path) -> None:
    (found,) = fit_columns([made], ["site"], ["ridge"])
    for words in (["predict", found.record, "scans.csv"], ["export", found.record, "--out", "model.onnx"]):
        done = CliRunner().invoke(app, list(map(str, words)))
        assert done.exit_code == 1
        told = "".join(done.stderr.split())
        assert "isnotarunrecord,butarecordoftheformattlcache-columns." in told
        assert f"besidetherun'{found.run}'" in told


def test_the_table_has_a_row_for_every_head(made: Path) -> None:
    done = CliRunner().invoke(app, ["fit-heads", str(made), "--columns", "site,age", "--heads", "ridge,knn"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "scans, noise, accuracy on 100 test images: site, age"
    assert sorted(line.split()[0] for line in lines[2:4]) == ["knn", "ridge"]
    assert max(map(len, lines)) <= 100


def test_a_head_that_cannot_be_fitted_is_told_and_others_go_on(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise HeadError("The ridge head could not be fitted.")

    told: list[str] = []
    monkeypatch.setattr(columns, "refit", fail)
    with pytest.raises(HeadError, match="None of the heads"):
        fit_columns([made], "site", ["ridge"], on_warning=told.append)
    assert told == ["The ridge head could not be fitted. (scans, with columns)"]


def test_a_budget_is_kept(made: Path) -> None:
    assert fit_columns([made], "site", ["ridge"], budget_s=5.0)[0].alone.accuracy > 0.8
