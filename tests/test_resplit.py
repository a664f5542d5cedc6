"""The same rows under a split that tears no group apart, and the leakage gap beside it."""

import json
from pathlib import Path

import numpy as np
import pytest
from fakes import make_run, write_image
from test_cli import invoke
from typer.testing import CliRunner

from tlcache.auditing.leakage import leakage_gaps
from tlcache.auditing.run import audit
from tlcache.cache.feature_file import open_features
from tlcache.cache.groups import groups_path, read_groups, write_groups
from tlcache.cache.resplit import Resplit, apply_split
from tlcache.cli import app
from tlcache.errors import CacheError, DataError, UnknownNameError
from tlcache.evaluation.compare import compare
from tlcache.evaluation.significance import clustered_interval, unit_numbers
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune
from tlcache.probing.fit import fit_curves, fit_heads
from tlcache.report.page import write_report
from tlcache.runs.folder import read_runs, runs_folder


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """Twelve patients with six scans each, two classes, four patients' scans in both splits."""
    root = tmp_path / "scans"
    for patient in range(12):
        for scan in range(6):
            split = "test" if scan == 5 else "val" if scan == 4 else "train"
            write_image(
                root / split / "ab"[patient % 2] / f"p{patient:02}_{scan}.png", 10 * patient + scan, patient % 2
            )
    return root


@pytest.fixture
def made(patients: Path, tiny_model: Path) -> Path:
    return extract(patients, str(tiny_model)).path


def by_patient() -> None:
    audit(group_regex=r"/(p\d+)_")


def test_groups_stay_whole_and_shares_stay_about_the_same(made: Path) -> None:
    by_patient()
    with open_features(made) as file:
        given = file.split("train", "val", "test")
        hashes = dict(zip(given.paths, file.hashes(), strict=True))
        group = apply_split(file, "group", runs_folder())
        assert isinstance(group, Resplit)
        other = apply_split(file, "group", runs_folder(), seed=1)
        assert apply_split(file, "given", runs_folder()) is file
        parts = {name: group.split(name) for name in ("train", "val", "test")}
        whole = group.split("train", "val", "test")
        found = {name: {path[-8:-6] for path in part.paths} for name, part in parts.items()}
        assert sum(map(len, found.values())) == len(set().union(*found.values())) == 12
        assert {name: len(part) for name, part in parts.items()} == {"train": 48, "val": 12, "test": 12}
        assert all(set(part.labels) == {0, 1} for part in parts.values())
        assert sorted(whole.paths) == sorted(given.paths)
        for path, features, digest in zip(whole.paths, whole.features, group.hashes(), strict=True):
            row = given.paths.index(path)
            assert np.array_equal(features, given.features[row])
            assert digest == hashes[path]
        assert list(whole.groups) == [path[-9:-6] for path in whole.paths]
        assert group.attrs["given_digest"] == file.attrs["dataset_digest"] != group.attrs["dataset_digest"]
        assert other.attrs["dataset_digest"] != group.attrs["dataset_digest"]
        assert group.attrs["test_rows"] == 12


def test_groups_that_are_missing_foreign_or_too_large_are_errors(made: Path) -> None:
    with open_features(made) as file:
        with pytest.raises(CacheError, match="No groups are recorded for 'scans'.*tlcache audit --data scans"):
            apply_split(file, "group", runs_folder())
        with pytest.raises(UnknownNameError, match="Unknown split 'grop'. Did you mean 'group'"):
            apply_split(file, "grop", runs_folder())
        path, hashes = groups_path(runs_folder(), "scans"), [digest.decode() for digest in file.hashes()]
        write_groups(path, "scans", "column", "", dict.fromkeys(hashes[1:], "all"))
        with pytest.raises(CacheError, match="No group is recorded for 1 of 72 images of"):
            apply_split(file, "group", runs_folder())
        write_groups(path, "scans", "column", "", dict.fromkeys(hashes, "all"))
        with pytest.raises(DataError, match="none is left for test"):
            apply_split(file, "group", runs_folder())
        for text in ("{", "{}"):
            path.write_text(text)
            with pytest.raises(CacheError, match="tlcache audit --data scans"):
                read_groups(path, "scans")


def with_groups(patients: Path) -> Path:
    rows = [path.relative_to(patients).as_posix() for path in sorted(patients.rglob("*.png"))]
    lines = [f"{row},{row.split('/')[1]},{row.split('/')[0]},{row[-8:-6]}" for row in rows]
    manifest = patients / "scans.csv"
    manifest.write_text("\n".join(["path,label,split,group", *lines]))
    return manifest


def test_a_manifest_groups_by_its_column(patients: Path, tiny_model: Path) -> None:
    extract(with_groups(patients), str(tiny_model))
    (found,) = audit()
    assert (found.group_by, found.groups, found.largest) == ("column", 12, 6)
    assert (found.leak.grouped, found.leak.test) == (12, 12)
    assert audit(group_by="near-duplicates")[0].group_by == "near-duplicates"


def test_heads_under_both_splits_stand_side_by_side(made: Path, tmp_path: Path) -> None:
    by_patient()
    given = fit_heads([made], ["ridge", "knn"])
    report = tmp_path / "fit.json"
    words = ["fit-heads", str(made), "--heads", "ridge,knn", "--split", "group", "--json", str(report)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "Leakage gap on" in result.output
    group = [run for run in read_runs(runs_folder()) if run.split == "group"]
    assert len(group) == 2
    assert {run.split for run in given} == {"given"}
    assert {run.given_digest for run in group} == {given[0].dataset_digest}
    assert {len(set(run.predictions().group)) for run in group} == {2}
    found = leakage_gaps(compare())
    assert {each.head for each in found} == {"ridge", "knn"}
    for each in found:
        (one,) = [run for run in given if run.head == each.head]
        (other,) = [run for run in group if run.head == each.head]
        assert each.given[0] == one.test.accuracy
        assert each.group[0] == other.test.accuracy
        assert each.difference[0] == pytest.approx(each.given[0] - each.group[0])
        assert each.difference[1] < each.difference[0] < each.difference[2]
    assert len(compare()) == 2
    figures = tmp_path / "compare.json"
    shown = CliRunner().invoke(app, ["compare", "--json", str(figures)])
    assert "Leakage gap on" in shown.output
    assert "group split" in shown.output
    stated = json.loads(figures.read_text())["leakage_gaps"]
    assert [each["head"] for each in stated] == [each.head for each in found]
    for each, other in zip(found, stated, strict=True):
        assert (other["dataset"], other["backbone"]) == (each.dataset, each.backbone)
        assert tuple(other["given"].values()) == each.given
        assert tuple(other["group"].values()) == each.group
        assert (other["difference"], other["low"], other["high"]) == each.difference
    (curve,) = fit_curves([made], [2], ["ridge"], samples=1, split="group")
    assert json.loads(curve.record.read_text())["split"] == "group"


@pytest.mark.parametrize("by", ["column", "split"])
def test_every_interval_counts_the_groups_of_the_test_images(
    patients: Path, tiny_model: Path, tmp_path: Path, by: str
) -> None:
    """Twelve test images, in 12 groups by the manifest, in 2 under the group split."""
    made = extract(with_groups(patients) if by == "column" else patients, str(tiny_model)).path
    by_patient()
    split = "given" if by == "column" else "group"
    fit_heads([made], ["ridge", "knn"])
    report = tmp_path / "fit.json"
    output = invoke("fit-heads", made, "--heads", "ridge,knn", "--split", split, "--json", report)
    compared = invoke("compare", "--json", tmp_path / "compare.json")
    groups = 12 if by == "column" else 2
    said = f"Intervals and tests count the {groups} groups of the test images, not the images."
    assert said in " ".join(output.split())
    assert said in " ".join(compared.split())
    assert groups in [each["groups"] for each in json.loads((tmp_path / "compare.json").read_text())["datasets"]]
    runs = [run for run in read_runs(runs_folder()) if run.split == split]
    assert len(runs) == 2
    for run in runs:
        stored, test = run.predictions(), run.test
        right = stored.probabilities.argmax(axis=1) == stored.label
        units = np.unique(stored.group, return_inverse=True)[1]
        assert units.max() + 1 == groups
        assert (test.accuracy_low, test.accuracy_high) == clustered_interval(right, units)
        shown = f"{test.accuracy:.3f} ({test.accuracy_low:.3f}-{test.accuracy_high:.3f})"
        assert output.count(shown) >= (2 if split == "group" else 1)
        assert shown in compared


def test_runs_that_differ_in_more_than_the_split_are_not_paired() -> None:
    right = np.arange(40) % 4 > 0
    make_run("ridge", right, digest="d1", alpha=1)
    make_run("ridge", right, digest="d2", alpha=2)
    assert leakage_gaps(compare()) == []


@pytest.mark.usefixtures("tinynet")
def test_fine_tuning_under_the_group_split_uses_the_same_rows_as_heads(patients: Path) -> None:
    made = extract(patients, "tinynet", "random").path
    by_patient()
    settings = {"precision": "fp32", "layout": "contiguous", "epochs": 1, "batch_size": 8}
    tuned = finetune(patients, "tinynet", "random", split="group", **settings)
    (head,) = fit_heads([made], ["ridge"], split="group")
    assert tuned.split == "group"
    stored, test = tuned.predictions(), tuned.test
    right = stored.probabilities.argmax(axis=1) == stored.label
    assert (test.accuracy_low, test.accuracy_high) == clustered_interval(right, unit_numbers(stored.group))
    assert tuned.dataset_digest == head.dataset_digest != tuned.given_digest
    assert [*tuned.predictions().row] == [*head.predictions().row]
    assert np.array_equal(tuned.predictions().label, head.predictions().label)


def test_folds_that_tear_known_groups_apart_are_told_and_measured(made: Path) -> None:
    by_patient()
    fit_heads([made], ["ridge"], cv="2x2")
    said = " ".join(CliRunner().invoke(app, ["compare"]).output.split())
    torn = "These folds tear apart what belongs together: an audit found 12 groups of 72 images, the largest of 6."
    assert f"{torn} To keep them whole: tlcache fit-heads --cv ... --split group" in said
    fit_heads([made], ["ridge"], cv="2x2", split="group")
    (gap,) = leakage_gaps(compare())
    given, group = (next(run for run in read_runs(runs_folder()) if run.split == split) for split in ("given", "group"))
    assert (gap.given[0], gap.group[0]) == (given.test.accuracy, group.test.accuracy)
    output = " ".join(CliRunner().invoke(app, ["compare"]).output.split())
    assert output.count(torn) == 1
    assert f"{torn} Measured with ridge on" in output
    page, markdown, _ = (path.read_text() for path in write_report("page.html"))
    assert torn in page
    assert torn in markdown


def test_folds_keep_groups_of_the_dataset_itself_whole_and_say_nothing(patients: Path, tiny_model: Path) -> None:
    file = extract(with_groups(patients), str(tiny_model)).path
    audit()
    fit_heads([file], ["ridge"], cv="2x1")
    assert "tear apart" not in CliRunner().invoke(app, ["compare"]).output
