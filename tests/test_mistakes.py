"""Mistakes and findings as pictures: beside each the right images of training, everything listed, within its room."""

import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from fakes import write_image
from test_cli import invoke

import tlcache
from tlcache.auditing.neighbours import fit_space
from tlcache.auditing.records import read_audits
from tlcache.pictures.reasons import Reasons, near_in
from tlcache.runs.folder import runs_folder


@pytest.fixture
def cached(tmp_path: Path, tiny_model: Path) -> Path:
    """Three colours with wrong labels among them and a copy across splits, embedded: the feature file."""
    for split, count in (("train", 8), ("val", 3), ("test", 5)):
        for number, colour in enumerate(("red", "green", "blue")):
            for each in range(count):
                shown = (number + 1) % 3 if each == 0 and split == "test" else number
                write_image(tmp_path / "mixed" / split / colour / f"{split}{each}.png", each + 10 * number, shown)
    copy = tmp_path / "mixed" / "test" / "red" / "copy & <b>.png"
    shutil.copy(tmp_path / "mixed" / "train" / "red" / "train1.png", copy)
    return tlcache.extract(tmp_path / "mixed", tiny_model).path


def listed(page: str) -> list[tuple[list[str], str]]:
    """Return each listed row, and its part of the page."""
    found = re.findall(r"<li data-row='(.*?)'.*?</li>", page, re.DOTALL)
    parts = re.findall(r"<li data-row='.*?</li>", page, re.DOTALL)
    return [(json.loads(row), part) for row, part in zip(found, parts, strict=True)]


def test_beside_a_mistake_are_the_nearest_images_of_training_of_both_classes(cached: Path) -> None:
    (run,) = tlcache.fit_heads([cached], heads=["ridge"])
    page = tlcache.write_report("r.html")[0].read_text()
    with tlcache.open_features(cached) as features:
        rows = features.split("train", "val", "test")
        classes = np.array(features.classes)[rows.labels]
    space, trained = fit_space(rows.features)(rows.features), np.array([path[:4] != "test" for path in rows.paths])
    mistakes = [each for each in listed(page) if len(each[0]) == 4]
    top = run.predictions().top()
    wrong = {top.paths[at]: run.classes[top.predicted[at]] for at in np.flatnonzero(~top.right)}
    assert {row[0]: row[2] for row, _ in mistakes} == wrong
    assert len(wrong) >= 3
    for (path, true, predicted, confidence), part in mistakes:
        assert f"{true} taken for {predicted} ({confidence})" in part
        for label in (true, predicted):
            among = np.flatnonzero((classes == label) & trained)
            cosines = space[among] @ space[rows.paths.index(path)]
            best = rows.paths[among[cosines.argmax()]]
            assert f"nearest {label} of training ({cosines.max():.2f})" in part
            assert f'alt="nearest {label} of training ({cosines.max():.2f}): {best}"' in part
        assert part.count("data:image/jpeg;base64,") == 3


def test_of_a_cross_validation_an_image_is_not_its_own_reason(cached: Path) -> None:
    reasons = Reasons(cached)
    with tlcache.open_features(cached) as features:
        paths = features.paths()
    found = near_in(reasons, paths)("train/red/train2.png", "red")
    assert found is not None
    assert found.path != "train/red/train2.png"
    assert near_in(reasons)("train/red/train2.png", "violet") is None
    assert near_in(reasons)("elsewhere.png", "red") is None
    assert near_in(Reasons.of([str(cached.with_name("gone.h5"))]))("train/red/train2.png", "red") is None


def test_everything_that_an_audit_lists_is_on_the_page(cached: Path) -> None:
    tlcache.fit_heads([cached], heads=["ridge"])
    tlcache.audit([cached])
    (audit,) = read_audits(runs_folder())
    page = tlcache.write_report("r.html")[0].read_text()
    rows = [row for row, _ in listed(page) if len(row) == 8]
    pairs = {(pair.first, pair.second) for pair in (*audit.exact, *audit.near, *audit.alike)}
    assert ("train/red/train1.png", "test/red/copy & <b>.png") in pairs
    assert {(row[1], row[2]) for row in rows if row[0] in ("exact", "near")} == pairs
    assert {row[1] for row in rows if row[0] == "label"} == {each.path for each in audit.label_issues}
    assert {row[1] for row in rows if row[0] == "outlier"} == set(audit.outliers)
    assert {row[1] for row in rows if row[0] == "odd"} == {each.path for each in audit.odd or ()}
    assert html.escape("test/red/copy & <b>.png") in page
    assert "copy & <b>" not in page


def test_the_page_shows_where_the_images_lie_and_how_to_look_at_them(cached: Path) -> None:
    (run,) = tlcache.fit_heads([cached], heads=["ridge"])
    page = tlcache.write_report("r.html")[0].read_text()
    wrong = int((~run.predictions().top().right).sum())
    assert f"{wrong} of 49 images are classified wrongly by ridge on tiny" in page
    assert "PCA of the embeddings of tiny: " in page
    (line,) = re.findall(r"<code>(tlcache map .*?)</code>", page)
    invoke(*line.split()[1:], "--no-tsne", "--out", "m.html")
    assert f"Predictions are those of {run.path.stem}." in Path("m.html").read_text()


@pytest.mark.parametrize("room", [0, 4000])
def test_pictures_stay_within_their_room(cached: Path, room: int) -> None:
    tlcache.fit_heads([cached], heads=["ridge"])
    whole = tlcache.write_report("r.html")[0].read_text()
    page = tlcache.write_report("r.html", thumbnails=room)[0].read_text()
    pictures = re.findall(r'src="(data:image/[^"]+)"', page)
    assert sum(map(len, pictures)) <= room
    assert bool(pictures) == bool(room)
    lacking = whole.count("data:image/jpeg") - len(pictures)
    assert lacking > 0
    assert f"{lacking} pictures had no room on this page" in page
    assert page.count("no room on this page</span>") == lacking


def test_a_page_is_made_where_embeddings_and_images_are_gone(cached: Path, tmp_path: Path) -> None:
    tlcache.fit_heads([cached], heads=["ridge"])
    cached.unlink()
    (tmp_path / "mixed").rename(tmp_path / "elsewhere")
    page = tlcache.write_report("r.html")[0].read_text()
    assert "not there any more" in page
    assert "nearest red of training" not in page
    assert "taken for" in page
