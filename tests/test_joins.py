"""Heads on the joined embeddings of several backbones: rows that belong together, scaling, records, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from fakes import change_features, make_run, right_but, tiny_network, write_image
from typer.testing import CliRunner

from tlcache.auditing.run import audit
from tlcache.cache.feature_file import open_features
from tlcache.cache.joined import Joined, open_joined
from tlcache.cache.joins import find_joins
from tlcache.cli import app
from tlcache.deploying.unknown import unknown
from tlcache.errors import DataError, OptionError, TlcacheError
from tlcache.evaluation.compare import compare
from tlcache.evaluation.verdict import verdict
from tlcache.extraction.extract import extract
from tlcache.heads.fitted import load_head
from tlcache.heads.rows import Scaler, View
from tlcache.keys import slug
from tlcache.probing.fit import fit_curves, fit_heads
from tlcache.report.reproduce import commands
from tlcache.runs.folder import read_runs, runs_folder
from tlcache.runs.joined import JoinedRun


@pytest.fixture
def networks(tmp_path: Path) -> list[str]:
    """Three networks that differ, the last of which gives larger numbers."""
    places = []
    for seed, name in enumerate(("first", "second", "third")):
        model = tiny_network(seed)
        next(each for each in model.metadata_props if each.key == "backbone").value = name
        places.append(str(tmp_path / f"{name}.onnx"))
        onnx.save(model, places[-1])
    return places


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Two classes in splits that are given."""
    root = tmp_path / "shapes"
    for split, count in (("train", 12), ("val", 4), ("test", 6)):
        for number in range(count):
            for label in range(2):
                write_image(root / split / "ab"[label] / f"p{number:02}.png", 1000 * len(split) + 10 * number, label)
    return root


@pytest.fixture
def made(given: Path, networks: list[str]) -> list[Path]:
    return [extract(given, network).path for network in networks]


def test_a_row_is_the_embeddings_of_one_image_by_each_backbone(made: list[Path]) -> None:
    with open_joined(made[:2]) as joined, open_features(made[0]) as first, open_features(made[1]) as second:
        assert isinstance(joined, Joined)
        assert joined.left_out == ""
        for names in (("train",), ("test",), ("val", "test")):
            rows, each = joined.split(*names), [file.split(*names) for file in (first, second)]
            assert np.array_equal(rows.features, np.concatenate([part.features for part in each], axis=1))
            assert (rows.paths, rows.groups) == (each[0].paths, each[0].groups)
            assert np.array_equal(rows.labels, each[0].labels)
            assert rows.widths == (8, 8)
        attrs = joined.attrs
        assert attrs["backbone"] == "first+second"
        assert attrs["dataset_digest"] == first.attrs["dataset_digest"]
        assert attrs["wall_s"] == first.attrs["wall_s"] + second.attrs["wall_s"]
        assert attrs["key"] not in (first.attrs["key"], second.attrs["key"])
        assert str(joined.overview()) == str(first.overview())
        assert np.array_equal(joined.hashes(), first.hashes())


def test_images_that_one_file_lacks_are_left_out_and_said(given: Path, networks: list[str]) -> None:
    spoiled, other = given / "train" / "a" / "p03.png", given / "test" / "b" / "p01.png"
    whole = spoiled.read_bytes()
    spoiled.write_bytes(b"no image")
    first = extract(given, networks[0], max_bad=0.5).path
    spoiled.write_bytes(whole)
    write_image(other, 77, 1)  # of the same path, and another image
    second = extract(given, networks[1]).path
    with open_joined([first, second]) as joined, open_features(second) as file:
        assert isinstance(joined, Joined)
        rows, known = joined.split("train", "val", "test"), file.split("train", "val", "test")
        assert {*known.paths} - {*rows.paths} == {"train/a/p03.png", "test/b/p01.png"}
        for path, features in zip(rows.paths, rows.features, strict=True):
            assert np.array_equal(features[8:], known.features[known.paths.index(path)])
        assert (joined.attrs["train_rows"], joined.attrs["test_rows"]) == (23, 11)
        assert joined.attrs["dataset_digest"] not in (file.attrs["dataset_digest"],)
        assert joined.left_out.startswith("3 images of 45 left out")  # the exchanged one is another in each
        assert "(first lacks 2, second lacks 1)" in joined.left_out
    result = CliRunner().invoke(app, ["fit-heads", "--join", "first+second", "--heads", "ridge"])
    assert result.exit_code == 0
    assert "3 images of 45 left out" in " ".join(result.output.split())


def reseeded(given: Path, networks: list[str]) -> str:
    for path in [*(given / "val").rglob("*.png"), *(given / "test").rglob("*.png")]:
        place = given / "train" / path.parent.name / f"{path.parents[1].name}_{path.name}"
        path.rename(place)
    shutil.rmtree(given / "val"), shutil.rmtree(given / "test")
    for network, seed in zip(networks, (0, 1), strict=False):
        extract(given, network, split_seed=seed)
    return "first+second"


def relabelled(given: Path, networks: list[str]) -> str:
    for network in networks[:2]:
        path = extract(given, network).path
    change_features(path, swap_labels)
    return "first+second"


def swap_labels(file: h5py.File) -> None:
    file["labels"][:] = 1 - file["labels"][:]


def reclassed(given: Path, networks: list[str]) -> str:
    extract(given, networks[0])
    write_image(given / "train" / "c" / "p.png", 5, 2)
    write_image(given / "test" / "c" / "p.png", 6, 2)
    extract(given, networks[1])
    return "first+second"


def twice(given: Path, networks: list[str]) -> str:
    for resize in (16, 20):
        extract(given, networks[0], resize=resize)
    extract(given, networks[1])
    return "first+second"


def named(join: str) -> Callable[[Path, list[str]], str]:
    def prepare(given: Path, networks: list[str]) -> str:
        for network in networks[:2]:
            extract(given, network)
        return join

    return prepare


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (named("first"), r"--join takes two or more backbones with \+ between them, each once; found 'first'"),
        (named("first+first"), r"each once; found 'first\+first'"),
        (named("+"), "takes two or more"),
        (named("first+secnd"), "Unknown backbone .*'secnd'. Did you mean 'second'.*tlcache extract --data shapes"),
        (named("first+resnet50"), "Unknown backbone .*'resnet50'.*Known: first, second"),
        (
            twice,
            r"shapes has 2 feature files by 'first': first-[0-9a-f]{12} \(first avg\), .*Give the first word",
        ),
        (reseeded, "have images in other splits: .*tlcache extract --data shapes --model second"),
        (relabelled, "have images under other labels: .*Extract again"),
        (reclassed, "have other classes"),
    ],
)
def test_what_cannot_be_joined_is_refused_with_the_way_out(
    given: Path, networks: list[str], prepare: Callable[[Path, list[str]], str], words: str
) -> None:
    join = prepare(given, networks)
    with pytest.raises((OptionError, DataError), match=words):
        fit_heads(join=join, heads=["ridge"])
    result = CliRunner().invoke(app, ["fit-heads", "--join", join, "--heads", "ridge"])
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output


def test_files_are_found_by_backbone_or_name_in_any_order(made: list[Path]) -> None:
    first, second, third = made
    assert find_joins(made, "second+first") == [(first, second)]
    assert find_joins(made, [f"{third.stem}+second", "first + second + third"]) == [(second, third), tuple(made)]


def test_two_datasets_are_joined_each_by_itself(made: list[Path], photos: Path, networks: list[str]) -> None:
    other = [extract(photos, network).path for network in networks[:2]]
    assert find_joins([*made, *other], "first+second") == [tuple(made[:2]), tuple(other)]
    with pytest.raises(DataError, match="are of two datasets"), open_joined([made[0], other[1]]):
        pass
    with pytest.raises(TlcacheError, match="among the features of photos"):
        fit_heads(join="first+third")


@pytest.mark.parametrize("widths", [(3, 50), (1, 2, 40), (20, 20)])
def test_no_backbone_drowns_another(widths: tuple[int, ...]) -> None:
    X = np.random.default_rng(0).normal(3, 10, (400, sum(widths))).astype(np.float32)
    X[:, 0] = 7  # tells nothing, and has no part in it
    scaled = Scaler.of(View(X, widths=widths))(X)
    ends = np.cumsum(widths)[:-1]
    lengths = [np.square(block).sum(axis=1).mean() for block in np.split(scaled, ends, axis=1) if np.any(block)]
    assert np.allclose(lengths, lengths[0], rtol=1e-4)
    assert sum(lengths) == pytest.approx(sum(widths) - 1, rel=1e-4) or widths[0] == 1  # as of one backbone
    assert np.array_equal(Scaler.of(X).scale, Scaler.of(View(X, widths=(sum(widths),))).scale)


def test_the_record_says_its_parts_and_is_found_again(made: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    runs = fit_heads(join="third+first", heads=["ridge", "knn", "svm"])
    for run in runs:
        assert isinstance(run, JoinedRun)
        assert [part.backbone for part in run.parts] == ["first", "third"]
        record = json.loads(run.path.read_text())
        assert (record["strategy"], record["backbone"]) == ("joined", "first+third")
        assert all(part["features"].startswith(("./", "~/")) for part in record["parts"])
        assert [part["features"] for part in record["parts"]] != [str(each) for each in (made[0], made[2])]
        assert run.feature_files == (str(made[0]), str(made[2]))
        with open_joined([made[0], made[2]]) as joined:
            test = joined.split("test")
            head = load_head(run.head_path)
            assert np.array_equal(
                head.predict_proba(test.features, joined.attrs["key"]), run.predictions().probabilities
            )
        assert head.scaler.widths == (8, 8)
        assert np.array_equal(head.refitted(*refit_rows(made)).scaler.scale, head.scaler.scale)
    assert read_runs(runs_folder()) == sorted(runs, key=lambda run: run.path)
    monkeypatch.setattr("tlcache.probing.run._fit_one", lambda *_: pytest.fail("this is recorded"))
    assert fit_heads(join="first+third", heads=["ridge", "knn", "svm"]) == runs


def refit_rows(made: list[Path]) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    with open_joined([made[0], made[2]]) as joined:
        rows = joined.split("train", "val")
    return rows.features, rows.labels


@pytest.mark.usefixtures("made")
def test_what_parts_cost_is_added_up() -> None:
    fit_heads(heads=["ridge"])
    fit_heads(join="first+second", heads=["ridge"])
    (found,) = compare()
    cost = {entry.backbone: entry.extract_s for entry in found.entries}
    assert cost["first+second"] == pytest.approx(cost["first"] + cost["second"])
    (joined,) = (entry for entry in found.entries if entry.backbone == "first+second")
    assert joined.images_per_s == pytest.approx(44 / cost["first+second"])
    assert joined.run.strategy == joined.as_json()["strategy"] == "joined"


@pytest.mark.usefixtures("made")
def test_the_commands_in_the_report_make_it_again() -> None:
    (run,) = fit_heads(join="first+second", heads=["knn"])
    extract_first, extract_second, fit = commands(run)
    assert "first.onnx" in extract_first
    assert "second.onnx" in extract_second
    before = run.path.read_bytes()
    result = CliRunner().invoke(app, [*fit.split()[1:], "--force"])
    assert result.exit_code == 0, result.output
    assert read_runs(runs_folder())[0].test == run.test
    assert run.path.read_bytes() != before  # its seconds


def test_a_join_has_curves_a_group_split_and_unknown_images(
    made: list[Path], photos: Path, networks: list[str]
) -> None:
    (curve,) = fit_curves(None, [2, None], ["ridge"], join="first+second", samples=2)
    assert (curve.backbone, [point.shots for point in curve.points]) == ("first+second", [2, None])
    (nested,) = fit_heads(join="first+second", heads=["ridge"], cv="2x1")
    assert isinstance(nested, JoinedRun)
    audit([made[0]], group_regex=r"/(p\d+)")
    (run,) = fit_heads(join="first+second", heads=["ridge"], split="group")
    assert isinstance(run, JoinedRun)
    assert (run.split, run.rows.total) == ("group", 44)
    extract(photos, networks[0])
    with pytest.raises(TlcacheError, match="--model first,second"):
        unknown(run.path, against="photos")
    extract(photos, networks[1])
    (found,) = unknown(run.path, against="photos").images
    assert (found.name, found.kind, found.n) == ("photos", "dataset", 24)


def test_joining_is_a_strategy_of_its_own_in_the_verdict() -> None:
    make_run("svm", right_but(60))
    make_run("svm", right_but(20), backbone="tinynet+other", strategy="joined", extract_s=80.0)
    (found,) = compare()
    text = verdict(found)
    assert "Joining tinynet+other (svm) gains 10.0 points" in text
    assert "over the best head on one backbone (svm on tinynet), for 2.0 x its time" in text
    make_run("linear", right_but(19), strategy="finetune")
    text = verdict(compare()[0])
    assert "Fine-tuning tinynet is not shown to differ from the best frozen head (svm on tinynet+other)" in text
    assert "Joining tinynet+other (svm) gains 10.0 points" in text


def test_a_join_that_loses_says_so_and_one_alone_says_nothing() -> None:
    make_run("svm", right_but(60), backbone="tinynet+other", strategy="joined")
    assert "Joining" not in verdict(compare()[0])
    make_run("svm", right_but(20))
    assert "Joining tinynet+other (svm) loses 10.0 points" in verdict(compare()[0])


def test_a_long_name_keeps_its_ending() -> None:
    assert slug("a+" * 60, "-knn-123456789abc.json") == f"{'a_' * 29}-knn-123456789abc.json"
