"""What to label next: each strategy on points whose answer is known, and whole lists from the command line."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from fakes import write_image, write_photos
from PIL import Image
from typer.testing import CliRunner

import tlcache
from tlcache.cli import app
from tlcache.errors import CacheError, DataError, OptionError
from tlcache.heads.cosines import unit_rows
from tlcache.suggesting.strategies import STRATEGIES, Pool, choose

BLOBS = np.repeat(np.arange(4), [12, 9, 6, 3])  # which of four clusters each row is of


def points(random: np.random.Generator) -> np.ndarray:
    """Return rows of length 1 in four clusters that are far apart; the first of each is its middle."""
    away = 0.05 * random.normal(size=(len(BLOBS), 8))
    away[np.flatnonzero(np.diff(BLOBS, prepend=-1))] = 0
    return unit_rows((np.eye(8)[2 * BLOBS] + away).astype(np.float32))


def pool(*labelled: int, doubt: np.ndarray | None = None, near: float = 2.0) -> Pool:
    rows = points(np.random.default_rng(0))

    def is_known(row: int, taken: list[int]) -> bool:
        return bool((rows[[*labelled, *taken]] @ rows[row] > near).any())

    return Pool(rows, rows[list(labelled)], is_known, doubt)


def test_typicality_takes_the_middle_of_each_cluster_the_largest_first() -> None:
    picks = choose(pool(), 4, "typicality")
    assert BLOBS[[pick.row for pick in picks]].tolist() == [0, 1, 2, 3]
    assert [pick.row for pick in picks][:2] == [0, 12]
    assert picks[0].why == "typical of 12 alike, none labelled"


@pytest.mark.parametrize("strategy", ["typicality", "k-centre"])
def test_clusters_with_labels_come_last(strategy: str) -> None:
    picks = choose(pool(1, 2, 13, doubt=np.ones(len(BLOBS), np.float32)), 2, strategy)
    assert set(BLOBS[[pick.row for pick in picks]]) == {2, 3}


def test_combined_spreads_over_what_the_model_is_unsure_of() -> None:
    doubt = np.where(BLOBS == 0, 0.8, 0).astype(np.float32)  # twelve alike, which margin would take
    doubt[[5, 14, 23, 29]] = 0.99, 0.7, 0.5, 0.1
    picks = choose(pool(28, doubt=doubt), 3, "combined")
    assert [pick.row for pick in picks] == [5, 14, 23]
    assert picks[0].score > picks[1].score > picks[2].score > 0
    assert set(BLOBS[[pick.row for pick in choose(pool(28, doubt=doubt), 3, "margin")]]) == {0}


def test_margin_takes_what_the_model_is_least_sure_of_wherever_it_is() -> None:
    doubt = np.linspace(0, 1, len(BLOBS), dtype=np.float32)
    assert [pick.row for pick in choose(pool(doubt=doubt), 3, "margin")] == [29, 28, 27]


def test_k_centre_spreads_over_all_clusters() -> None:
    assert sorted(BLOBS[[pick.row for pick in choose(pool(), 4, "k-centre")]]) == [0, 1, 2, 3]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_is_taken_twice_nor_what_is_nearly_known(strategy: str) -> None:
    doubt = np.random.default_rng(1).random(len(BLOBS)).astype(np.float32)
    everything = choose(pool(doubt=doubt), 99, strategy)
    assert sorted(pick.row for pick in everything) == list(range(len(BLOBS)))
    few = choose(pool(0, doubt=doubt, near=0.6), 99, strategy)
    assert sorted(BLOBS[[pick.row for pick in few]]) == [1, 2, 3]


@pytest.fixture
def unlabelled(tmp_path: Path, tiny_model: Path) -> Path:
    """Twelve images without labels, among them an image of photos, a resized one of its own, and an equal one."""
    folder = tmp_path / "pool"
    for number in range(9):
        write_image(folder / f"{number}.png", 40 + number, number % 3)
    (folder / "9.png").write_bytes((write_photos(tmp_path / "photos") / "red" / "3.png").read_bytes())
    (folder / "a.png").write_bytes((folder / "4.png").read_bytes())
    Image.open(folder / "7.png").resize((40, 40)).save(folder / "b.png")
    for data in ("pool", "photos"):
        tlcache.extract(tmp_path / data, tiny_model)
    return folder


def test_a_list_has_no_image_twice_and_none_that_is_labelled(unlabelled: Path) -> None:
    (run,) = tlcache.fit_heads(data="photos", heads=["ridge"])
    command = ["suggest", "--data", str(unlabelled), "--run", run.path.stem, "-n", "12", "--out", "next.csv"]
    Path("next.csv").write_text("path,label\na.png,red\n")
    refused = CliRunner().invoke(app, command)
    assert "is no such list, which would replace it" in " ".join(refused.stderr.split())
    Path("next.csv").unlink()
    done = CliRunner().invoke(app, [*command, "--page", "next.html", "--json", "next.json"])
    assert done.exit_code == 0, done.output
    with Path("next.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "rank", "score", "predicted", "why"]
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    paths = [row["path"] for row in rows]
    assert len(set(paths)) == len(paths)
    assert "9.png" not in paths  # it is labelled, in photos
    assert len({"4.png", "a.png"} & set(paths)) == 1  # equal bytes
    assert {row["predicted"] for row in rows} <= {"red", "green", "blue"}
    page = Path("next.html").read_text()
    assert page.count("data:image/jpeg;base64,") == len(rows)
    assert not re.search(r'(src|href)="(?!data:)', page)
    figures = json.loads(Path("next.json").read_text())
    assert (figures["strategy"], figures["images"]) == ("combined", 12)
    assert [row["path"] for row in figures["suggestions"]] == paths
    assert f"{len(rows)} images to label of 12 of pool, by combined on tiny and the doubts of" in done.output


@pytest.mark.parametrize("copies", [1, 9])
def test_altered_copies_are_told_without_labels_however_many_there_are(
    tmp_path: Path, tiny_model: Path, copies: int
) -> None:
    random, folder = np.random.default_rng(0), tmp_path / "pool"
    folder.mkdir()
    for number in range(40):
        blots = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        blots.resize((48, 48), Image.Resampling.BICUBIC).save(folder / f"{number:02d}.png")
    for number in range(copies):
        Image.open(folder / f"{number:02d}.png").resize((36, 36)).save(folder / f"{number:02d}.jpg", quality=80)
    tlcache.extract(folder, tiny_model)
    names = [Path(row.path).stem for row in tlcache.suggest("pool", n=99).rows]
    assert sorted(names) == [f"{number:02d}" for number in range(40)]


@pytest.mark.usefixtures("unlabelled")
def test_a_list_can_be_made_without_a_run() -> None:
    found = tlcache.suggest("pool", n=3)
    assert (found.strategy, found.run, len(found.rows)) == ("typicality", "", 3)
    assert {row.predicted for row in found.rows} == {""}


@pytest.mark.usefixtures("unlabelled")
def test_what_cannot_be_suggested_is_told(photos: Path) -> None:
    (run,) = tlcache.fit_heads(data="photos", heads=["ridge"])
    with pytest.raises(OptionError, match="margin goes by what a model is unsure of"):
        tlcache.suggest("pool", strategy="margin")
    with pytest.raises(DataError, match="no image that is not nearly one that the run was fitted on"):
        tlcache.suggest("photos", run.path)
    with pytest.raises(OptionError, match="is no .csv file"):
        tlcache.suggest("pool", out="list.txt")
    with pytest.raises(CacheError, match="No features of .*; there are some of: photos, pool"):
        tlcache.suggest(photos.parent)
    with pytest.raises(CacheError, match="is embedded by tiny, not by resnet50"):
        tlcache.suggest("pool", model="resnet50")
    Path(run.features).unlink()
    assert len(tlcache.suggest("pool", run.path, 2).rows) == 2  # with a warning, as labelled images are not known
