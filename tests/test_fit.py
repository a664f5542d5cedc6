"""From feature files to run records."""

import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from fakes import FailingHead, change_features, failing_row, write_image, write_photos
from typer.testing import CliRunner

from tlcache.cache.feature_file import open_features
from tlcache.cli import app
from tlcache.errors import CacheError, DataError, HeadError, UnknownNameError
from tlcache.evaluation.compare import compare
from tlcache.evaluation.metrics import evaluate
from tlcache.extraction.extract import extract
from tlcache.heads.fitted import load_head
from tlcache.heads.table import HEADS
from tlcache.probing.fit import fit_heads
from tlcache.runs.folder import read_runs, runs_folder
from tlcache.runs.frozen import FrozenRun


def test_every_head_leaves_a_record_that_explains_itself(made: Path) -> None:
    runs = fit_heads()
    assert [run.head for run in runs] == list(HEADS)
    with open_features(made) as file:
        test, key = file.split("test"), file.attrs["key"]
    for run in runs:
        record = json.loads(run.path.read_text())
        assert record["format"] == "tlcache-run"
        assert record["record"] == f"./{run.path.name}"  # no absolute path
        assert (record["dataset"], record["backbone"], record["strategy"]) == ("photos", "tiny", "frozen")
        assert record["rows"] == {"train": 12, "val": 6, "test": 6}
        assert len(record["candidates"]) == len(HEADS[record["head"]].settings())
        assert set(HEADS[record["head"]].quick) <= set(record["chosen"])
        assert {"versions", "hardware", "created", "weights", "key", "dataset_digest", "arguments"} <= set(record)
        assert record["fit_s"] == pytest.approx(record["search_s"] + record["refit_s"])
        assert 0 <= record["test"]["accuracy_low"] <= record["test"]["accuracy"] <= record["test"]["accuracy_high"] <= 1
        stored = run.predictions()
        assert [row.decode() for row in stored.row] == list(test.paths)
        assert np.array_equal(stored.label, test.labels)
        assert [group.decode() for group in stored.group] == list(test.groups)
        assert record["classes"] == list(file.classes)
        assert run.source == file.attrs["source"]
        assert record["test"] == pytest.approx(evaluate(stored.label, stored.probabilities).as_json())
        head = load_head(run.head_path)
        assert np.array_equal(head.predict_proba(test.features, key), stored.probabilities)
    assert {run.head for run in runs if run.history} == {"linear", "dense"}
    colours = {run.head: run.test.accuracy for run in runs}
    assert max(colours.values()) > 0.8  # a brighter channel is easy


def test_the_same_run_again_replaces_its_record_and_another_seed_does_not(made: Path) -> None:
    first = fit_heads([made], ["ridge"])
    again = fit_heads([made], ["ridge"], force=True)
    other = fit_heads([made], ["ridge"], seed=1)
    assert first[0].path == again[0].path != other[0].path
    assert first[0].test == again[0].test
    assert [run.path for run in read_runs(runs_folder())] == sorted([first[0].path, other[0].path])


def test_what_is_recorded_is_read_and_only_the_rest_is_fitted(made: Path) -> None:
    (first,) = fit_heads([made], ["ridge", "ridge"])
    stamp = first.path.stat().st_mtime_ns
    both = fit_heads([made], ["knn", "ridge"])
    assert [run.head for run in both] == ["knn", "ridge"]
    assert both[1] == first
    assert first.path.stat().st_mtime_ns == stamp
    first.head_path.unlink()  # a record without its head is no whole run
    assert fit_heads([made], ["ridge"])[0].path.stat().st_mtime_ns > stamp
    assert first.head_path.exists()
    other = fit_heads([made], ["ridge"], metric="log_loss")
    assert other[0].path != first.path


def test_variants_of_a_backbone_are_told_apart(made: Path, photos: Path, tiny_model: Path) -> None:
    from rich.console import Console

    from tlcache.evaluation.compare import compare_runs
    from tlcache.report.tables import runs_tables

    other = extract(photos, str(tiny_model), crop_borders=True).path
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(runs_tables(compare_runs(fit_heads([made, other], ["ridge"]))))
    text = console.export_text()
    assert "tiny crop-borders  ridge" in text
    assert "tiny               ridge" in text


def test_the_test_split_has_no_say_in_what_is_chosen(tmp_path: Path, tiny_model: Path) -> None:
    """Other test images, same train and val: the same settings and the same fitted head."""
    heads = []
    for number in range(2):
        root = tmp_path / f"set{number}"
        for split, seed in (("train", 0), ("val", 50), ("test", 1000 * (number + 1))):
            for colour, name in enumerate(("blue", "green", "red")):
                for image in range(6):
                    write_image(root / split / name / f"{image}.png", seed + 7 * image + colour, colour)
        runs = fit_heads([extract(root, str(tiny_model)).path], ["logreg", "knn", "linear"])
        heads.append([(_scores(run), run.chosen, load_head(run.head_path)) for run in runs])
    features = np.random.default_rng(0).normal(size=(9, 8)).astype(np.float32)
    for (tried, chosen, head), (tried_too, chosen_too, head_too) in zip(*heads, strict=True):
        assert tried == tried_too
        assert chosen == chosen_too
        assert np.array_equal(head.predict_proba(features), head_too.predict_proba(features))


def test_classes_that_only_the_test_split_has(tmp_path: Path, tiny_model: Path) -> None:
    root = tmp_path / "set"
    for split in ("train", "val", "test"):
        write_photos(root / split, 4)
    for split in ("train", "val"):
        shutil.rmtree(root / split / "red")
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        write_image(path, number, ("blue", "green", "red").index(path.parent.name))
    for run in fit_heads([extract(root, str(tiny_model)).path]):
        probabilities = run.predictions().probabilities
        assert probabilities.shape == (12, 3)
        assert (probabilities[:, 2] == 0).all()
        assert np.isfinite(run.test.log_loss)


def test_what_cannot_be_fitted_says_why(made: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"No feature files under .*empty.*tlcache extract"):
        fit_heads([_folder(tmp_path / "empty")])
    with pytest.raises(UnknownNameError, match="Unknown head 'forest'"):
        fit_heads([made], ["forest"])
    broken = tmp_path / "broken.h5"
    shutil.copy(made, broken)
    change_features(broken, lambda file: file["features"].__setitem__((0, 0), np.nan))
    with pytest.raises(CacheError, match="not finite"):
        fit_heads([broken], ["ridge"])
    shutil.copy(made, broken)
    sizes = {"train_rows": 24, "val_rows": 0, "test_rows": 0}
    change_features(broken, lambda file: file.attrs.update(sizes))
    with pytest.raises(DataError, match="has no test images"):
        fit_heads([broken], ["ridge"])


@pytest.mark.parametrize(
    ("error", "least", "message"),
    [
        (RuntimeError("out of leaves\nat leaf 3"), 0, "RuntimeError: out of leaves"),
        (MemoryError(), 18, "MemoryError: MemoryError"),  # in the last fit of all, on train and val
        (ValueError("no such kernel"), 0, "no such kernel"),
        (ImportError("No module named 'forest'"), 0, "ImportError: No module named 'forest'"),
    ],
)
def test_a_head_that_fails_alone_is_told_and_the_others_are_fitted(
    made: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, least: int, message: str
) -> None:
    monkeypatch.setitem(HEADS, "failing", failing_row())
    monkeypatch.setattr(FailingHead, "error", error)
    monkeypatch.setattr(FailingHead, "least", least)
    told = list[str]()
    runs = fit_heads([made], ["failing", "ridge", "knn"], on_warning=told.append)
    assert [run.head for run in runs] == ["ridge", "knn"] == sorted(run.head for run in read_runs(runs_folder()))[::-1]
    assert told == [f"The failing head could not be fitted: {message} (photos, tiny)"]
    with pytest.raises(HeadError, match="None of the heads could be fitted"):
        fit_heads([made], ["failing"], on_warning=told.append)
    result = CliRunner().invoke(app, ["fit-heads", str(made), "--heads", "ridge,failing"])
    assert result.exit_code == 1
    assert "ridge" in result.stdout
    assert "The failing head could not be fitted" in result.stderr


def test_embeddings_that_are_all_equal_are_told(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As of a dead network; boosting finds nothing to split, and the others answer what is most frequent."""
    change_features(made, lambda file: file["features"].__setitem__(slice(None), 1.0))
    told = list[str]()
    runs = fit_heads([made], on_warning=told.append)
    assert [run.head for run in runs] == [name for name in HEADS if name != "lightgbm"]
    assert told == [
        "The lightgbm head could not be fitted: all rows are equal, and trees have nothing to split. (photos, tiny)"
    ]
    assert "are equal: no head can tell the classes apart" in caplog.text
    change_features(made, lambda file: file["features"].__setitem__((0, 0), 1.01))
    caplog.clear()
    fit_heads([made], ["ridge"])
    assert "are equal" not in caplog.text


@pytest.mark.parametrize(
    ("ending", "damage", "words"),
    [
        (".json", lambda _: b"", "is not a run record (Expecting value"),
        (".json", lambda _: b"[]", "is not a run record by this tlcache. Move it away"),
        (".json", lambda data: data.replace(b'"format_version": 2', b'"format_version": 9'), "Upgrade tlcache."),
        (".npz", None, "the predictions of a run, is missing. Give the command again"),
        (".npz", lambda data: data[:-9], "the predictions of a run, is damaged (File is not a zip file). Give the"),
        (".npz", lambda data: data[:200] + b"what" + data[204:], "the predictions of a run, is damaged ("),
    ],
)
def test_a_damaged_record_is_told_left_out_and_fitted_again(
    made: Path, tmp_path: Path, ending: str, damage: Callable[[bytes], bytes] | None, words: str
) -> None:
    ridge, knn = fit_heads([made], ["ridge", "knn"])
    broken = knn.path.with_suffix(ending)
    if damage:
        broken.write_bytes(damage(broken.read_bytes()))
    else:
        broken.unlink()
    for arguments in (["compare", "--json", str(tmp_path / "c.json")], ["report", "--out", str(tmp_path / "r.html")]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 1
        told = " ".join(result.stderr.split())
        assert f"warning: '{broken}'" in told
        assert words in told
        assert told.count("warning") == 1
    (found,) = json.loads((tmp_path / "c.json").read_text())["datasets"]
    assert [run["record"] for run in found["runs"]] == [str(ridge.path)]
    assert "ridge" in (tmp_path / "r.md").read_text()
    assert broken.exists() == bool(damage)
    if words.endswith("damaged ("):  # whole as a file: only who reads it knows
        knn.path.unlink()
    again = fit_heads([made], ["ridge", "knn"])
    assert again[0] == ridge
    assert again[1].created >= knn.created
    assert CliRunner().invoke(app, ["compare"]).exit_code == 0


def test_without_a_record_that_can_be_read_there_is_nothing_to_compare(made: Path) -> None:
    (run,) = fit_heads([made], ["ridge"])
    run.path.with_suffix(".npz").write_bytes(b"")
    with pytest.raises(CacheError, match="has predictions that can be read"):
        compare()


def test_the_command_does_what_is_not_recorded(made: Path) -> None:
    words = ["fit-heads", str(made), "--heads", "ridge"]
    assert CliRunner().invoke(app, words).exit_code == 0
    (record,) = runs_folder().glob("photos/*.json")
    stamp = record.stat().st_mtime_ns
    assert "ridge" in CliRunner().invoke(app, words).stdout
    assert record.stat().st_mtime_ns == stamp
    assert CliRunner().invoke(app, [*words, "--force"]).exit_code == 0
    assert record.stat().st_mtime_ns > stamp


@pytest.mark.usefixtures("made")
def test_heads_of_one_dataset_alone(tiny_model: Path, tmp_path: Path) -> None:
    others = write_photos(tmp_path / "others" / "photos two")
    extract(others, str(tiny_model), name="two")
    for asked in ("two", str(tmp_path / "elsewhere" / "two.csv")):
        assert [run.dataset for run in fit_heads(heads=["ridge"], data=asked)] == ["two"]
    result = CliRunner().invoke(app, ["fit-heads", "--heads", "ridge", "--data", "photos"])
    assert "photos: 6 test images" in result.stdout
    assert "two: " not in result.stdout
    with pytest.raises(UnknownNameError, match="Unknown dataset 'cats'. Known: photos, two"):
        fit_heads(heads=["ridge"], data="cats")
    with pytest.raises(UnknownNameError, match="Did you mean 'photos'"):
        fit_heads(heads=["ridge"], data="fotos")
    with pytest.raises(CacheError, match="No features of 'digits'; there are some of: photos, two"):
        fit_heads(heads=["ridge"], data="digits")
    both = fit_heads(heads=["ridge"], data=["two", "photos"])
    assert [run.dataset for run in both] == ["two", "photos"]
    shots = ["fit-heads", "--heads", "ridge", "--data", "two", "--shots", "1", "--samples", "1"]
    assert "photos" not in CliRunner().invoke(app, shots).stdout


def _scores(run: FrozenRun) -> list[tuple[Mapping[str, float], Mapping[str, float]]]:
    return [(tried.setting, tried.scores) for tried in run.candidates]


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.usefixtures("made")
def test_a_damaged_record_of_another_dataset_is_no_trouble() -> None:
    fit_heads(heads=["ridge"])
    stray = runs_folder() / "cats" / "stray.json"
    stray.parent.mkdir()
    stray.write_text("{}")
    assert CliRunner().invoke(app, ["compare"]).exit_code == 1
    result = CliRunner().invoke(app, ["compare", "--data", "photos"])
    assert (result.exit_code, result.stderr) == (0, "")
    with pytest.raises(UnknownNameError, match="Unknown dataset 'cats'. Known: photos"):
        compare(data="cats")
