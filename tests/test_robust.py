"""Runs on images that are made worse: the right figures, embedded once for all heads, and clear refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import doom, tiny_network, write_image
from test_cli import invoke
from test_joins import networks as networks

import tlcache
from tlcache.backbones.load import load_model
from tlcache.backbones.network import Network
from tlcache.errors import CacheError, DataError, ModelError, OptionError, UnknownNameError
from tlcache.evaluation.significance import clustered_interval, compare_paired
from tlcache.heads.fitted import load_head
from tlcache.images import prepare
from tlcache.robustness.records import read_robustness
from tlcache.runs.folder import runs_folder

WAYS = ["noise:5", "dark:5"]


def robust(**options: Any) -> Any:
    (found,) = tlcache.robust("photos", ["noise", "dark"], [5], **options)
    return found


def by_hand(run: Any, photos: Path, model: Path) -> np.ndarray:
    """Return whether each test image is classified rightly (corruptions, n), one after the other."""
    from tlcache.backbones.engines import open_network

    network: Network = open_network(load_model(str(model)).onnx(), "cpu")
    head, found = load_head(run.head_path), run.predictions().in_order()
    right = []
    for way in WAYS:
        worse = load_model(str(model)).corrupted(way).preprocess
        pixels = np.stack([prepare((photos / row.decode()).read_bytes(), worse)[0] for row in found.row])
        right.append(head.predict_proba(network.embed(pixels)).argmax(axis=1) == found.label)
    return np.array(right)


def test_every_run_is_judged_on_the_same_images_made_worse(made: Path, photos: Path, tiny_model: Path) -> None:
    runs = {run.path.stem: run for run in tlcache.fit_heads([made], heads=["ridge", "ncm"])}
    found = robust()
    assert (found.images, found.unusable, found.embedded, found.corruptions) == (6, 0, 12, tuple(WAYS))
    assert {each.run for each in found.runs} == runs.keys()
    for each in found.runs:
        right = by_hand(runs[each.run], photos, tiny_model)
        assert [one.accuracy for one in each.reached] == right.mean(axis=1).tolist()
        assert each.mean.accuracy == pytest.approx(right.mean())
        assert (each.reached[0].low, each.reached[0].high) == clustered_interval(right[0])
        assert each.clean.accuracy == runs[each.run].test.accuracy
        assert each.worst == min(each.reached, key=lambda one: one.accuracy)
    assert min(each.mean.accuracy for each in found.runs) < 1
    assert read_robustness(runs_folder()) == [found]


def test_what_is_embedded_is_kept_for_other_heads_and_other_kinds(made: Path) -> None:
    tlcache.fit_heads([made], heads=["ridge"])
    assert robust().embedded == 12
    tlcache.fit_heads([made], heads=["knn", "svm", "logreg"])
    assert robust().embedded == 0
    (more,) = tlcache.robust("photos", ["noise", "contrast"], [4, 5])
    assert more.embedded == 18
    assert {each.state for each in tlcache.list_cache()} == {"complete", "kept"}
    made_worse = {each.detail for each in tlcache.list_cache() if each.state == "kept"}
    assert made_worse == {"noise:4", "noise:5", "dark:5", "contrast:4", "contrast:5"}
    assert "kept, contrast:4" in " ".join(invoke("ls").split())
    for note in Path("features").rglob("made-worse.txt"):  # as where it cannot be written
        note.unlink()
        note.mkdir()
    assert robust().embedded == 0
    assert len(tlcache.fit_heads(heads=["ridge"])) == 1  # nothing that is made worse is fitted on


@pytest.mark.usefixtures("tinynet", "val_chooses")
def test_a_fine_tuning_is_compared_with_the_frozen_head_image_by_image(photos: Path) -> None:
    file = tlcache.extract(photos, "tinynet", "random").path
    (frozen,) = tlcache.fit_heads([file], heads=["ridge"])
    how = {"epochs": 2, "batch_size": 8, "lr": 0.01, "precision": "fp32", "layout": "contiguous"}
    tuned = tlcache.finetune(photos, "tinynet", "random", **how)
    assert not tuned.untuned
    found = robust()
    assert found.embedded == 24
    rights = {each.strategy: [one.accuracy for one in each.reached] for each in found.runs}
    (gains,) = found.tunings
    for gain, first, second in zip(gains.each, rights["finetune"], rights["frozen"], strict=True):
        assert gain.difference == pytest.approx(first - second)
        assert gain.low <= gain.difference <= gain.high
    assert gains.mean.difference == pytest.approx(np.mean(rights["finetune"]) - np.mean(rights["frozen"]))
    assert gains.frozen.startswith(frozen.head)
    assert robust().embedded == 0
    page = tlcache.write_report("r.html")[0].read_text()
    assert f"<h4>{gains.tuned} against {gains.frozen}</h4>" in page
    for gain in gains.each:
        points = f"{100 * gain.difference:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
        assert f'<td class="text">{gain.corruption}</td><td>{points}</td>' in page


def test_an_image_made_worse_in_many_ways_stays_one_image() -> None:
    from tlcache.robustness.judging import _tiled

    first, second = np.ones((5, 8), bool), np.repeat(np.arange(8) > 3, 5).reshape(8, 5).T
    once = compare_paired(first[0], second[0])
    all_ways = compare_paired(first.ravel(), second.ravel(), _tiled(first, None))
    assert all_ways.difference == once.difference == 0.5
    assert all_ways.p == pytest.approx(once.p)
    assert all_ways.low < 0.2


def test_joined_embeddings_are_judged_by_every_network(photos: Path, networks: list[str]) -> None:
    for network in networks:
        tlcache.extract(photos, network)
    (run,) = tlcache.fit_heads(join="first+second+third", heads=["ridge"])
    found = robust()
    assert found.embedded == 12
    assert [each.run for each in found.runs] == [run.path.stem]
    assert found.runs[0].mean.accuracy > 1 / 3


def test_an_image_that_is_gone_is_left_out_and_counted(made: Path, photos: Path) -> None:
    (run,) = tlcache.fit_heads([made], heads=["ridge"])
    gone, cut = (photos / row.decode() for row in run.predictions().row[:2])
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:60])
    found = robust()
    assert (found.images, found.unusable) == (4, 2)
    shutil.rmtree(photos)
    with pytest.raises(DataError, match="None of the 6 test images of 'photos' can be used"):
        robust()


def test_runs_that_cannot_be_judged_are_named_with_the_reason(made: Path) -> None:
    tlcache.fit_heads([made], heads=["ridge"], cv="2x1")
    said: list[str] = []
    with pytest.raises(CacheError, match="no run that could be judged"):
        robust(on_warning=said.append)
    with pytest.raises(CacheError, match="1 run left out") as told:
        robust()
    assert "tlcache fit-heads" not in str(told.value)
    assert len(said) == 1
    assert "a cross-validation leaves nothing that has not seen" in said[0]


def test_a_network_that_is_another_by_now_is_refused(made: Path, tiny_model: Path) -> None:
    import onnx

    tlcache.fit_heads([made], heads=["ridge"])
    onnx.save(tiny_network(seed=1), tiny_model)
    with pytest.raises(ModelError, match="another one than the run's"):
        robust()


@pytest.mark.slow
@pytest.mark.worker
@pytest.mark.usefixtures("sabotaged")
def test_an_image_that_kills_its_decoder_costs_itself_alone(made: Path, photos: Path) -> None:
    (run,) = tlcache.fit_heads([made], heads=["ridge"])
    doom(photos / run.predictions().row[0].decode(), "crash")
    found = robust()
    assert (found.images, found.unusable, found.embedded) == (5, 1, 10)


def test_the_command_shows_tables_and_writes_the_figures(made: Path, photos: Path) -> None:
    tlcache.fit_heads([made], heads=["ridge", "knn"])
    write_image(photos / "red" / "new.png", 5, 2)  # is of no run, and not looked at
    output = invoke("robust", "--data", "photos", "--kinds", "noise,dark", "--severity", "5", "--json", "r.json")
    assert "6 test images, each made worse in 2 ways. 12 embedded now." in output
    (dataset,) = json.loads(Path("r.json").read_text())["datasets"]
    assert dataset["corruptions"] == WAYS
    for run in dataset["runs"]:
        assert f"{run['mean']['accuracy']:.3f} ({run['mean']['low']:.3f}-{run['mean']['high']:.3f})" in output
    assert max(map(len, output.splitlines())) <= 80
    page = tlcache.write_report("r.html")[0].read_text()
    assert page.count("On images that are made worse") == 1
    assert "6 test images, each made worse in 2 ways." in page
    for run in dataset["runs"]:
        assert f"made worse {run['mean']['accuracy']:.3f}" in page or run != dataset["runs"][0]
        assert f"<td>{run['mean']['accuracy']:.3f} (" in page
    tlcache.fit_heads([made], heads=["ridge"], runs="others")
    assert "made worse" not in tlcache.write_report("r.html", runs="others")[0].read_text()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kinds": "fog"}, OptionError, "fog"),
        ({"kinds": []}, OptionError, "nothing"),
        ({"severity": [6]}, OptionError, "from 1 to 5"),
        ({"severity": [0]}, OptionError, "from 1 to 5"),
        ({"model": "resnet50"}, CacheError, "no run that could be judged on resnet50"),
        ({"model": "nosuch"}, UnknownNameError, "Unknown backbone of these runs 'nosuch'. Known: tiny"),
        ({"model": ["tiny", "tinyy"]}, UnknownNameError, "Did you mean 'tiny'"),
    ],
)
def test_what_cannot_be_asked_is_said(
    made: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    tlcache.fit_heads([made], heads=["ridge"])
    with pytest.raises(error, match=message):
        tlcache.robust("photos", **options)
