"""Images without labels: what takes them so, what they are good for, and what refuses them."""

import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import write_image, write_photos
from typer.testing import CliRunner

import tlcache
from tlcache.cli import app
from tlcache.datasets.dataset import load_dataset
from tlcache.datasets.labels import notes_on
from tlcache.datasets.layout import Layout
from tlcache.errors import DataError, OptionError

SIX = tuple(f"{number}.png" for number in range(6))


def flat(folder: Path) -> Path:
    """Write six images, of which the last two are equal."""
    for number, name in enumerate(SIX):
        write_image(folder / name, min(number, 4), min(number, 4))
    return folder


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as file:
        for path in sorted(folder.iterdir()):
            file.write(path, path.name)
    return folder.with_suffix(".zip")


def tarred(folder: Path) -> Path:
    with tarfile.open(folder.with_suffix(".tar"), "w") as file:
        for path in sorted(folder.iterdir()):
            file.add(path, path.name)
    return folder.with_suffix(".tar")


def listed(folder: Path, text: str) -> Path:
    (folder.parent / "list.csv").write_text(text)
    return folder.parent / "list.csv"


def rows(cells: str) -> str:
    return "".join(f"pool/{name}{cells}\n" for name in SIX)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        pytest.param(lambda pool: pool, "pool' holds 6 images and no folders of classes", id="folder"),
        pytest.param(zipped, "pool.zip' holds 6 images and no folders", id="zip"),
        pytest.param(tarred, "pool.tar' holds 6 images and no folders", id="tar"),
    ],
)
def test_where_no_folder_of_classes_is_images_have_no_labels(
    tmp_path: Path, make: Callable[[Path], Path], why: str
) -> None:
    data = load_dataset(make(flat(tmp_path / "set" / "pool")))
    assert [Path(path).name for path in data.paths] == list(SIX)
    assert (data.classes, data.labels.tolist(), set(data.splits)) == ((), [-1] * 6, {"train"})
    assert why in data.unlabelled == data.warnings[0]
    with pytest.raises(DataError, match=r"no folders of classes\. .*Training needs labels\."):
        data.check_labelled()


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda pool: write_photos(pool.parent / "photos", 2), id="classes"),
        pytest.param(lambda pool: write_photos(pool.parent / "photos" / "train", 2).parent, id="splits"),
        pytest.param(lambda pool: write_photos(pool.parent / "a" / "val", 2).parent, id="no_train"),
        pytest.param(lambda pool: shutil.move(pool, pool.parent / "train") and pool.parent, id="flat_split"),
        pytest.param(lambda pool: listed(pool, "path\n" + rows("")), id="paths_alone"),
        pytest.param(lambda pool: listed(pool, "path,label,split\n" + rows(",,odd")), id="empty_labels"),
        pytest.param(lambda pool: listed(pool, "path,weight\n" + rows(",0.25")), id="other_columns"),
        pytest.param(lambda pool: listed(pool, "path,class\n" + rows(",cat")), id="one_class"),
        pytest.param(lambda pool: (listed(pool, "path\n").replace(pool / "a.csv"), pool)[1], id="table_in_it"),
        pytest.param(lambda _: "digits", id="built_in"),
    ],
)
def test_whatever_is_there_is_taken_without_labels_where_that_is_asked(
    tmp_path: Path, make: Callable[..., Any]
) -> None:
    data = load_dataset(make(flat(tmp_path / "pool")), layout=Layout(unlabelled=True))
    assert len(data) >= 6
    assert (data.classes, set(data.labels.tolist()), set(data.splits)) == ((), {-1}, {"train"})
    assert data.unlabelled.endswith("were taken without labels.")
    assert data.unlabelled not in data.warnings


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda pool: (pool / "labels.csv").write_text("x") and pool, "There are tables in it", id="table"),
        pytest.param(lambda pool: pool.rename(pool.parent / "train") and pool.parent, "--unlabelled", id="split"),
        pytest.param(lambda pool: listed(pool, "path\n" + rows("")), "no column is the label", id="manifest"),
        pytest.param(lambda pool: shutil.copytree(pool, pool / "odd") and pool, "'odd'; .* --unlabelled", id="one"),
    ],
)
def test_what_may_have_labels_is_not_taken_without(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_dataset(make(flat(tmp_path / "set" / "pool")))


@pytest.mark.parametrize("option", [{"val": 0.1}, {"label_column": "class"}, {"class_level": 2}], ids=str)
def test_options_of_labels_and_splits_do_not_go_with_none(option: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"--unlabelled .* --{next(iter(option)).replace('_', '-')} is about these"):
        Layout(unlabelled=True, **option)


def test_nothing_is_said_of_labels_where_there_are_none() -> None:
    assert notes_on(()) == ()


@pytest.fixture
def pool(tmp_path: Path, tiny_model: Path) -> Path:
    """The feature file of six images without labels."""
    return tlcache.extract(flat(tmp_path / "pool"), tiny_model).path


def test_a_feature_file_without_labels_has_all_else(pool: Path, tiny_model: Path) -> None:
    with tlcache.open_features(pool) as file:
        train = file.split("train")
        assert (file.classes, train.labels.tolist(), train.paths) == ((), [-1] * 6, SIX)
        assert str(file.overview()) == "6 images; no labels"
        assert file.attrs["drawn"] == ""
    assert tlcache.extract("pool", tiny_model, unlabelled=True).up_to_date
    assert [check.sound for check in tlcache.verify()] == [True]
    (entry,) = tlcache.list_cache()
    assert (entry.state, entry.rows, entry.detail[:9]) == ("complete", 6, "no labels")


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize(
    "train",
    [
        pytest.param(lambda: tlcache.fit_heads(data="pool"), id="fit_heads"),
        pytest.param(lambda: tlcache.fit_curves(None, [1, 2]), id="fit_curves"),
        pytest.param(lambda: tlcache.fit_heads(split="group"), id="group_split"),
        pytest.param(lambda: tlcache.finetune("pool", "squeezenet1_1", "random"), id="finetune"),
        pytest.param(lambda: tlcache.study("pool", ["squeezenet1_1"], "random"), id="study"),
    ],
)
def test_what_learns_from_labels_says_that_there_are_none(
    monkeypatch: pytest.MonkeyPatch, train: Callable[[], Any]
) -> None:
    monkeypatch.setattr("tlcache.extraction.steps.run_workers", lambda _: pytest.fail("an image was embedded"))
    with pytest.raises(DataError, match="Training needs labels.*tlcache suggest"):
        train()


@pytest.mark.usefixtures("pool")
def test_heads_are_fitted_on_what_has_labels(photos: Path, tiny_model: Path) -> None:
    tlcache.extract(photos, tiny_model)
    assert [run.dataset for run in tlcache.fit_heads(heads=["ridge"])] == ["photos"]


@pytest.mark.usefixtures("pool")
def test_predict_takes_the_embeddings_of_images_without_labels(photos: Path, tiny_model: Path) -> None:
    tlcache.extract(photos, tiny_model)
    (run,) = tlcache.fit_heads(data="photos", heads=["ridge"])
    found = tlcache.predict(run, "pool")
    assert (len(found), found.embedded, found.checked) == (6, 0, None)


@pytest.mark.usefixtures("pool")
def test_an_audit_finds_duplicates_without_labels() -> None:
    done = CliRunner().invoke(app, ["audit", "--data", "pool", "--json", "audit.json"])
    assert done.exit_code == 0, done.output
    (found,) = json.loads(Path("audit.json").read_text())["datasets"]
    assert found["exact"]["pairs"] == [["4.png", "5.png"]]
    assert (found["label_suspects"], found["labels_accuracy"], found["small_classes"]) == ([], None, [])
    assert "no classes" in done.output
    assert "Label issues" not in done.output
    (again,) = tlcache.audit(data="pool")
    assert np.isfinite(again.calibration.threshold)
