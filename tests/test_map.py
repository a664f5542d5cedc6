"""The map: the right points and columns, pictures within their room, and a page that works by mouse, keys and lasso."""

import base64
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import write_image
from PIL import Image
from sklearn.manifold import trustworthiness as expected_trust
from typer.testing import CliRunner

import tlcache
from benchmarks.browser import CHROMIUM, open_page
from tlcache.cli import app
from tlcache.datasets.dataset import reopen
from tlcache.errors import CacheError, OptionError
from tlcache.heads.cosines import unit_rows
from tlcache.pictures.projection import components, pca, trustworthiness, tsne
from tlcache.report.map import write_map
from tlcache.report.sheets import ACROSS, make_sheets


def blobs(n: int, random: np.random.Generator) -> np.ndarray:
    """Return n rows of length 1 in four clusters."""
    return unit_rows((3 * np.eye(4, 12)[np.arange(n) % 4] + random.normal(size=(n, 12))).astype(np.float32))


@pytest.mark.parametrize("n", [3, 16, 40, 1100])
def test_trustworthiness_is_that_of_others(n: int) -> None:
    random = np.random.default_rng(n)
    rows, points = blobs(n, random), random.normal(size=(n, 2)).astype(np.float32)
    k = min(15, (n - 1) // 2)
    within = 1e-6 if n <= 1000 else 0.01  # of more rows it is a sample
    assert trustworthiness(rows, points) == pytest.approx(expected_trust(rows, points, n_neighbors=k), abs=within)


def test_of_two_images_nothing_is_trusted() -> None:
    assert np.isnan(trustworthiness(blobs(2, np.random.default_rng(0)), np.zeros((2, 2), np.float32)))


def test_components_are_those_of_the_rows_of_length_1() -> None:
    rows = 7 * blobs(60, np.random.default_rng(0))
    unit, found, shares = components(rows)
    centred = unit - unit.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False)
    assert np.linalg.norm(found, axis=0) == pytest.approx(values, rel=1e-4)
    assert shares == pytest.approx(values**2 / (values**2).sum(), rel=1e-4)
    made = pca(unit, found, shares)
    assert made.points == pytest.approx(found[:, :2])
    assert made.note == f"{shares[:2].sum():.0%} of the variance"


@pytest.mark.parametrize(("rows", "rank"), [(np.full((20, 8), 0.3), 0), (np.eye(2, 8)[np.arange(20) % 2], 1)])
def test_equal_images_and_those_on_a_line_are_a_map_too(
    monkeypatch: pytest.MonkeyPatch, rows: np.ndarray, rank: int
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)  # which takes a second to load
    unit, found, shares = components(rows.astype(np.float32))
    assert found.shape == (20, rank)
    made = pca(unit, found, shares)
    assert made.note == f"{rank:.0%} of the variance"
    assert np.abs(made.points) == pytest.approx(np.tile([np.sqrt(0.5) * rank, 0], (20, 1)), abs=1e-6)
    assert tsne(unit, found) is None


def test_t_sne_keeps_clusters_together_and_is_the_same_again() -> None:
    pytest.importorskip("openTSNE")
    rows = blobs(80, np.random.default_rng(0))
    unit, found, shares = components(rows)
    made, again = tsne(unit, found), tsne(unit, found)
    assert made is not None
    assert again is not None
    assert made.trusted > pca(unit, found, shares).trusted - 0.05
    nearest = np.square(made.points[:, None] - made.points[None]).sum(axis=2) + np.diag(np.full(80, np.inf))
    assert (nearest.argmin(axis=1) % 4 == np.arange(80) % 4).mean() > 0.8
    assert made.points == pytest.approx(again.points)
    assert tsne(unit[:9], found[:9]) is None


@pytest.mark.parametrize(("room", "side"), [(10_000_000, 96), (120_000, 32)])
def test_pictures_are_as_large_as_there_is_room_for(photos: Path, room: int, side: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 60, 120, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(photos / f"{number:03}.bmp")
    names = [f"{number:03}.bmp" for number in range(300)]
    sheets = make_sheets(reopen(str(photos)), ["gone.bmp", *names], room)
    assert sheets.side <= side
    assert sum(map(len, sheets.addresses)) <= room
    if side == 96:
        assert sheets.rows.tolist() == list(range(301))
        assert sheets.sizes.tolist() == [[0, 0]] + 300 * [[96, 48]]
        assert len(sheets.addresses) == 2
        sheet = Path("sheet.jpg")
        sheet.write_bytes(base64.b64decode(sheets.addresses[1].partition(",")[2]))
        with Image.open(sheet) as image:
            assert image.size == (96 * ACROSS, 96 * 3)  # 45 pictures on the second
    else:
        assert 0 < len(sheets.rows) <= 301
        assert len(set(sheets.rows.tolist())) == len(sheets.rows)


def test_where_there_is_no_room_some_have_a_picture_and_without_images_none(photos: Path) -> None:
    names = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    few = make_sheets(reopen(str(photos)), names, 1500)
    assert len(few.rows) < len(names)
    assert sum(map(len, few.addresses)) <= 1500
    none = make_sheets(reopen("/nowhere"), names, 10**6)
    assert (len(none.rows), none.addresses) == (0, [])


@pytest.fixture
def cached(tmp_path: Path, tiny_model: Path) -> Path:
    """Images of three colours with a column for their site and one for their age, embedded: the feature file."""
    lines = ["path,label,split,site,age"]
    for split, count in (("train", 8), ("val", 3), ("test", 4)):
        for number, colour in enumerate(("red", "green", "blue")):
            for each in range(count):
                shown = (number + 1) % 3 if each == 0 and split == "test" else number
                write_image(tmp_path / "mixed" / f"{split}-{colour}{each}.png", each + 10 * number, shown)
                site = "east" if each % 2 else "" if each == 4 else "<west> & co"
                lines.append(f"{split}-{colour}{each}.png,{colour},{split},{site},{10 * each or ''}")
    (tmp_path / "mixed" / "table.csv").write_text("\n".join(lines))
    return tlcache.extract(tmp_path / "mixed" / "table.csv", tiny_model, name="mixed").path


def packed(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    found: dict[str, Any] = json.loads(text)
    return found


def column(found: dict[str, Any], name: str) -> list[Any]:
    (own,) = [each for each in found["columns"] if each["name"] == name]
    if "names" not in own:
        return np.frombuffer(base64.b64decode(own["numbers"]), "<f4").tolist()
    codes = np.frombuffer(base64.b64decode(own["codes"]), "<u2")
    assert np.bincount(codes).tolist() == own["counts"]
    return [own["names"][code] for code in codes]


def test_a_map_has_every_image_and_all_that_is_known_of_it(cached: Path) -> None:
    (run,) = tlcache.fit_heads([cached], heads=["ridge"])
    tlcache.audit([cached])
    made = write_map("mixed", "m.html", tsne=False)
    found = packed(Path("m.html").read_text())
    with tlcache.open_features(cached) as features:
        rows = features.split("train", "val", "test")
        labels = [features.classes[label] for label in rows.labels]
        ages = features.column("age")
    assert found["paths"] == list(rows.paths)
    assert column(found, "label") == labels
    assert column(found, "split") == [path.partition("-")[0] for path in rows.paths]
    top = run.predictions().top()
    said = dict(zip(top.paths, zip(top.predicted, top.right, top.confidence, strict=True), strict=True))
    for path, predicted, outcome, confidence in zip(
        rows.paths, *(column(found, name) for name in ("predicted", "mistake", "confidence")), strict=True
    ):
        if path in said:
            assert (predicted, outcome) == (run.classes[said[path][0]], "right" if said[path][1] else "mistake")
            assert confidence == pytest.approx(said[path][2])
        else:
            assert (predicted, outcome, np.isnan(confidence)) == ("", "", True)
    assert "mistake" in column(found, "mistake")
    assert set(column(found, "site")) == {"east", "<west> & co", ""}
    assert column(found, "age") == pytest.approx(ages.tolist(), nan_ok=True)
    points = np.frombuffer(base64.b64decode(found["projections"][0]["points"]), "<u2").reshape(-1, 2).astype(float)
    with tlcache.open_features(cached) as features:
        expected = pca(*components(features.split("train", "val", "test").features)).points
    apart, wanted = (np.linalg.norm(each[:, None] - each[None], axis=2) for each in (points, expected))
    assert apart / apart.max() == pytest.approx(wanted / wanted.max(), abs=1e-3)  # in their proportions
    assert (made.images, made.pictures, made.run) == (45, 45, run.path.stem)
    assert made.size == Path("m.html").stat().st_size
    assert made.as_json()["trusted"] == {"PCA": made.trusted["PCA"]}


@pytest.mark.parametrize(
    ("task", "label", "columns"),
    [
        ("regression", "age", {"label": [float(number) for number in range(12)]}),
        ("multilabel", "parts", {"label sky": 6 * ["no", "yes"], "label sea": 6 * ["yes", "no"]}),
    ],
)
def test_numbers_are_numbers_and_each_of_several_labels_is_a_column(
    tmp_path: Path, tiny_model: Path, task: str, label: str, columns: dict[str, list[Any]]
) -> None:
    lines = ["path,split,age,parts"]
    for number in range(12):
        write_image(tmp_path / "given" / f"{number}.png", number, number % 3)
        lines.append(f"{number}.png,train,{number},{'sky' if number % 2 else 'sea'}")
    (tmp_path / "given" / "table.csv").write_text("\n".join(lines))
    tlcache.extract(tmp_path / "given" / "table.csv", tiny_model, name="given", task=task, label_column=label)
    write_map("given", "m.html", tsne=False)
    found = packed(Path("m.html").read_text())
    rows = [int(path.removesuffix(".png")) for path in found["paths"]]
    for name, values in columns.items():
        assert column(found, name) == [values[row] for row in rows]


def test_the_command_writes_one_page_that_needs_nothing_else(cached: Path) -> None:
    del cached
    done = CliRunner().invoke(app, ["map", "--data", "mixed", "--no-tsne", "--json", "m.json"])
    assert done.exit_code == 0, done.output
    assert "map-mixed.html: 45 images of mixed by tiny, pictures of 96 pixels of all of them." in done.output
    page = Path("map-mixed.html").read_text()
    assert set(re.findall(r"(?:https?:)?//[a-z]+\.[a-z]+[^\s\"']*", page)) == set()
    assert "<west>" not in page
    assert json.loads(Path("m.json").read_text())["columns"][:2] == ["label", "split"]


def test_what_cannot_be_a_map_is_told(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del cached
    with pytest.raises(OptionError, match=r"A map is an \.html page; asked: 'm\.png'"):
        write_map("mixed", "m.png")
    Path("m.html").mkdir()
    with pytest.raises(CacheError, match="it is a folder. Give the name of a page with --out"):
        write_map("mixed", "m.html")
    with pytest.raises(OptionError, match="no run at 'ridge'"):
        write_map("mixed", "n.html", run="ridge")
    monkeypatch.setitem(__import__("sys").modules, "openTSNE", None)
    done = CliRunner().invoke(app, ["map", "--data", "mixed", "--out", "n.html"])
    assert done.exit_code == 0
    assert 'pip install "tlcache[map]"' in done.stderr
    assert [each["name"] for each in packed(Path("n.html").read_text())["projections"]] == ["PCA"]


def test_a_map_can_be_made_without_images_labels_or_runs(photos: Path, tiny_model: Path) -> None:
    tlcache.extract(photos, tiny_model, unlabelled=True)
    photos.rename("elsewhere")
    made = write_map("photos", "m.html", tsne=False)
    assert (made.pictures, made.columns, made.run) == (0, ("split",), "")
    assert "no pictures" in made.line


@pytest.mark.skipif(CHROMIUM is None or os.name != "posix", reason="no chromium here")
def test_a_browser_shows_it_by_mouse_and_by_keys(cached: Path) -> None:
    tlcache.fit_heads([cached], heads=["ridge"])
    write_map("mixed", "m.html", tsne=False)
    with open_page() as browser:
        for width, dark in ((1400, False), (400, True)):
            browser.open(Path("m.html"), width, 900, dark=dark)
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
        browser.open(Path("m.html"), 1400, 900)
        said = lambda name: browser.evaluate(f"document.getElementById('{name}').textContent")  # noqa: E731
        corner, far = (40, 190), (1020, 880)
        browser.evaluate("document.getElementById('lasso').click()")
        browser.drag(corner, (far[0], corner[1]), far, (corner[0], far[1]))
        assert said("chosen") == "Selected: 45"
        assert browser.evaluate("document.getElementById('paths').value").count("\n") == 44
        browser.evaluate("document.getElementById('clear').click()")
        assert said("chosen") == "Selected: none"
        browser.evaluate("const c = document.getElementById('colour'); c.value = 1; c.onchange()")
        assert said("legend") == "train24test12val9"
        browser.evaluate("document.querySelector('#legend button:nth-child(2)').click()")
        browser.evaluate("document.getElementById('map').focus()")
        browser.press("n", "s")
        (chosen,) = browser.evaluate("document.getElementById('paths').value").split()
        assert chosen in said("told")
        browser.press("+", "ArrowLeft", "0")
        browser.evaluate("document.getElementById('inview').click()")
        assert said("chosen") in (
            "Selected: 12",
            "Selected: 13",
        )  # the test images that are seen alone, and the one above
        assert browser.said == []
        assert [each for each in browser.asked if not each.startswith("file:")] == []
