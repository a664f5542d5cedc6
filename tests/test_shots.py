"""Accuracy against labelled images per class."""

import json
from pathlib import Path

import numpy as np
import pytest
from fakes import FailingHead, failing_row, write_photos
from typer.testing import CliRunner

from tlcache.cli import app
from tlcache.errors import OptionError
from tlcache.extraction.extract import extract
from tlcache.heads.table import HEADS
from tlcache.probing.fit import fit_curves
from tlcache.probing.shots import read_curves
from tlcache.report.curves import few_shot_curves
from tlcache.report.plots import check_format, save_figure
from tlcache.runs.folder import read_runs, runs_folder


@pytest.fixture
def made(tmp_path: Path, tiny_model: Path) -> Path:
    return extract(write_photos(tmp_path / "photos", 20), str(tiny_model)).path


def test_more_images_help_and_all_is_all(tiny_model: Path) -> None:
    made = extract("digits", str(tiny_model)).path
    curves = fit_curves([made], [None, 1, 4], ["ridge", "knn"], samples=4)
    assert [curve.head for curve in curves] == ["ridge", "knn"]
    for curve in curves:
        assert [point.shots for point in curve.points] == [1, 4, None]
        assert [len(point.accuracy) for point in curve.points] == [4, 4, 1]
        assert [point.images_per_class for point in curve.points][:2] == [1, 4]
        assert curve.points[2].images_per_class == pytest.approx(0.8 * 179.7, rel=0.02)
        assert curve.points[0].mean + 0.1 < curve.points[-1].mean
        assert curve.points[0].std > 0
        record = json.loads(curve.record.read_text())
        assert record["format"] == "tlcache-shots"
        assert record["points"][0]["accuracy_mean"] == pytest.approx(np.mean(curve.points[0].accuracy))
    again = fit_curves([made], [4], ["ridge"], samples=4)
    assert again[0].points[0] == curves[0].points[1]
    assert read_runs(runs_folder()) == []  # curves are no runs


def test_a_sample_knows_no_labels_but_its_own(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlcache.probing import shots

    sizes = []

    def spy(row: object, settings: object, folds: list, *rest: object) -> list:
        sizes.append([len(fold.y) + len(fold.y_val) for fold in folds])
        return search(row, settings, folds, *rest)  # type: ignore[arg-type]

    search = shots.search
    monkeypatch.setattr(shots, "search", spy)
    fit_curves([made], [1, 3], ["ridge"], samples=1)
    assert sizes == [[9, 9, 9]]  # with one image per class there is nothing to choose by


def test_the_command_prints_a_table_and_draws(made: Path, tmp_path: Path) -> None:
    picture, figures = tmp_path / "shots.png", tmp_path / "shots.json"
    words = [
        "--heads",
        "ridge,knn",
        "--shots",
        "1,2,all",
        "--samples",
        "2",
        "--plot",
        str(picture),
        "--json",
        str(figures),
    ]
    result = CliRunner().invoke(app, ["fit-heads", str(made), *words])
    assert result.exit_code == 0, result.output
    assert "test accuracy by labelled images per class" in result.output
    assert "+-" in result.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [point["shots"] for point in json.loads(figures.read_text())["curves"][0]["points"]] == [1, 2, None]


def test_pictures_are_the_same_bytes_again(made: Path, tmp_path: Path) -> None:
    curves = fit_curves([made], [1, 2], ["ridge"], samples=2)
    for name in ("a.svg", "b.svg"):
        save_figure(few_shot_curves(curves), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_bad_words_are_refused_before_any_work(made: Path) -> None:
    with pytest.raises(OptionError, match="numbers of images per class"):
        fit_curves([made], [0])
    with pytest.raises(OptionError, match=r"written as \.png, \.svg, \.pdf; asked: 'x\.bmp'"):
        check_format(Path("x.bmp"))
    for words in (["--shots", "1,some"], ["--plot", "x.png"]):
        result = CliRunner().invoke(app, ["fit-heads", str(made), *words])
        assert result.exit_code == 2


def test_curves_are_read_as_they_were_recorded_and_damage_is_named_and_left_out(made: Path) -> None:
    curves = fit_curves([made], [1, None], ["ridge"], samples=2)
    assert read_curves(runs_folder()) == curves
    for text in ("{", '{"format": "other"}', "[]"):
        curves[0].record.write_text(text)
        told: list[str] = []
        assert read_curves(runs_folder(), told.append) == []
        assert "is not the record of a few-shot curve" in told[0]


def test_a_point_that_cannot_be_fitted_is_told_and_the_others_are_shown(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HEADS, "failing", failing_row())
    monkeypatch.setattr(FailingHead, "least", 20)
    result = CliRunner().invoke(app, ["fit-heads", str(made), "--heads", "failing,ridge", "--shots", "1,4,all"])
    assert result.exit_code == 1
    assert "could not be fitted: RuntimeError: out of leaves (photos, all images per class)" in result.stderr
    failing, ridge = sorted(read_curves(runs_folder()), key=lambda curve: curve.head)
    assert [point.shots for point in failing.points] == [1, 4]
    assert [point.shots for point in ridge.points] == [1, 4, None]
    assert failing.points == ridge.points[:2]
    assert few_shot_curves([failing, ridge]).axes
