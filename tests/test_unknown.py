"""Classes left out and other datasets: what is said of them is what is there."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from fakes import tiny_network, write_image
from typer.testing import CliRunner

from tlcache.cache.feature_file import Split, open_features
from tlcache.cli import app
from tlcache.deploying.unknown import Detection, unknown
from tlcache.errors import CacheError, DataError, OptionError, UnknownNameError
from tlcache.extraction.extract import extract
from tlcache.heads.fitted import FittedHead, load_head
from tlcache.heads.ridge import Ridge
from tlcache.heads.rows import Scaler
from tlcache.probing.fit import fit_heads
from tlcache.probing.heldout import distances_of
from tlcache.runs.frozen import FrozenRun


@pytest.mark.parametrize("seed", range(3))
def test_a_detection_is_what_counting_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    usual, strange = rng.integers(0, 30, 41) / 4, rng.integers(10, 40, 23) / 4  # with ties
    pairs = [(a < b) + 0.5 * (a == b) for a in usual for b in strange]
    allowed = max(bound for bound in usual if (usual >= bound).mean() > 0.05)
    assert (usual > allowed).mean() <= 0.05
    assert Detection.of(usual, strange) == Detection(pytest.approx(np.mean(pairs)), (strange > allowed).mean())


def write_classes(folder: Path, *names: str) -> Path:
    """Write six images of each class."""
    for number in range(6 * len(names)):
        write_image(folder / names[number % len(names)] / f"{number}.png", 500 + number, number % len(names) % 3)
    return folder


@pytest.fixture
def run(made: Path) -> FrozenRun:
    return fit_heads([made], ["ridge"])[0]


def without(head: FittedHead, rows: Split, label: int) -> FittedHead:
    """Return the head as it is fitted without a class."""
    kept = rows.labels != label
    scaler = Scaler.of(rows.features[kept])
    fitted = Ridge(**head.head.get_params()).fit(scaler(rows.features[kept]), rows.labels[kept])
    return replace(head, head=fitted, scaler=scaler)


def test_each_class_is_left_out_in_turn(made: Path, run: FrozenRun) -> None:
    found = unknown(run.path)
    assert found == unknown(run.path.stem) == unknown(run.head_path)
    assert [(each.name, each.kind, each.n, each.n_test) for each in found.images] == [
        (name, "class", 2, 4) for name in ("blue", "green", "red")
    ]
    with open_features(made) as file:
        both, test = file.split("train", "val"), file.split("test")
    for label, each in enumerate(found.images):
        far = distances_of(both.of(np.flatnonzero(both.labels != label)))
        distances, left = far(test.features), test.labels == label
        assert each.distance == Detection.of(distances[~left], distances[left])
        assert each.unusual == (far.ranks.p_values(distances[left]) < 0.05).mean()
        assert each.false_alarms == (far.ranks.p_values(distances[~left]) < 0.05).mean()
        doubts = 1 - without(load_head(run.head_path), both, label).predict_proba(test.features).max(axis=1)
        assert each.confidence == Detection.of(doubts[~left], doubts[left])


def test_the_features_may_lie_in_another_folder(made: Path, run: FrozenRun, tmp_path: Path) -> None:
    known = unknown(run.path)
    made.parent.parent.rename(tmp_path / "moved")
    assert unknown(run.path, features=tmp_path / "moved") == known
    with pytest.raises(CacheError, match="features"):
        unknown(run.path)


def test_another_dataset_is_judged_by_the_head_as_it_is(
    made: Path, run: FrozenRun, tmp_path: Path, tiny_model: Path
) -> None:
    other = extract(write_classes(tmp_path / "others", "grey", "pink"), str(tiny_model)).path
    by_name, by_path = (unknown(run.path, against=each).images[-1] for each in ("others", other))
    assert by_name == by_path
    assert (by_name.name, by_name.kind, by_name.n, by_name.n_test) == ("others", "dataset", 12, 6)
    head = load_head(run.head_path)
    with open_features(made) as file, open_features(other) as strange:
        pair = [each.features for each in (file.split("test"), strange.split("train", "val", "test"))]
    assert by_name.confidence == Detection.of(*(1 - head.predict_proba(each).max(axis=1) for each in pair))


def test_of_many_classes_ten_are_drawn_by_the_seed(tmp_path: Path, tiny_model: Path) -> None:
    photos = write_classes(tmp_path / "many", *(f"c{number:02}" for number in range(13)))
    (run,) = fit_heads([extract(photos, str(tiny_model)).path], ["ridge"])
    drawn = [[each.name for each in unknown(run.path, seed=seed).images] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(set(names)) == 10 and names == sorted(names) for names in drawn)


def test_the_command_prints_the_mean_of_the_classes(run: FrozenRun, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["unknown", run.path.stem, "--json", str(tmp_path / "found.json")])
    assert done.exit_code == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == json.loads(json.dumps(unknown(run.path).as_json()))
    head = done.stdout.splitlines()[0]
    assert all(head.count(title) == 1 for title in ("Prob. AUROC", "Prob. found", "Dist. AUROC", "Dist. found"))
    mean = np.mean([each["distance"]["auroc"] for each in found["images"]])
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("3 classes, mean"))
    assert line.split()[6] == f"{mean:.3f}"


def test_what_cannot_be_measured_says_why(made: Path, run: FrozenRun, tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(UnknownNameError, match="Unknown run 'tiny-rigde'"):
        unknown("tiny-rigde")
    onnx.save(tiny_network(seed=1), tmp_path / "other.onnx")
    other = extract(write_classes(tmp_path / "elsewhere", "grey", "pink"), str(tmp_path / "other.onnx")).path
    with pytest.raises(CacheError, match=r"None of elsewhere has embeddings by the network of tiny-ridge"):
        unknown(run.path, against="elsewhere")
    with pytest.raises(CacheError, match=r"tlcache extract --data DATA --model tiny"):
        unknown(run.path, against=other)
    two = extract(write_classes(tmp_path / "two", "grey", "pink"), str(tiny_model)).path
    (pair,) = fit_heads([two], ["ridge"])
    with pytest.raises(DataError, match="two has 2 classes; to leave one out takes three. Give --against"):
        unknown(pair.path)
    assert [each.kind for each in unknown(pair.path, against="photos").images] == ["dataset"]
    with pytest.raises(OptionError, match="--against two: tiny-ridge.* was fitted on that dataset; give others"):
        unknown(pair.path, against="two")
    write_image(tmp_path / "photos" / "red" / "more.png", 7, 2)
    assert extract(tmp_path / "photos", str(tiny_model)).path == made
    with pytest.raises(CacheError, match="holds others than the features of tiny-ridge"):
        unknown(run.path)
    made.unlink()
    with pytest.raises(CacheError):
        unknown(run.path)


@pytest.mark.usefixtures("tinynet")
def test_a_fine_tuned_network_is_not_trained_again(photos: Path) -> None:
    from tlcache.finetuning.finetune import finetune

    settings = {"precision": "fp32", "layout": "contiguous", "epochs": 1, "batch_size": 8, "unfreeze": "last:1"}
    run = finetune(photos, "tinynet", "random", **settings)
    with pytest.raises(OptionError, match="would be trained again for each class. Give a run of fit-heads"):
        unknown(run.path)


def test_nothing_is_said_to_be_done_that_is_refused(run: FrozenRun) -> None:
    refused = CliRunner().invoke(app, ["unknown", "other"])
    assert refused.exit_code == 2
    assert "leaving out classes" not in refused.stderr
    assert "leaving out classes" in CliRunner().invoke(app, ["unknown", run.path.stem]).stderr
