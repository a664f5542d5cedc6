"""One answer for each group of images: how it is joined, what is chosen on validation, and where it is told."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from fakes import write_photos
from test_cli import invoke

from tlcache.errors import DataError, OptionError
from tlcache.evaluation.compare import compare
from tlcache.evaluation.metrics import evaluate
from tlcache.evaluation.pergroup import RULES, Grouped, per_group
from tlcache.extraction.extract import extract
from tlcache.probing.fit import fit_curves, fit_heads
from tlcache.report.page import write_report
from tlcache.runs.folder import list_runs
from tlcache.runs.frozen import FrozenRun

# all of class 0: of group 1 one image is very sure of the other class, and the one of group 2 is wrong
SAID = np.array([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.6, 0.4], [0.6, 0.4], [0.05, 0.95], [0.3, 0.7]], np.float32)
UNITS = np.array([0, 0, 0, 1, 1, 1, 2])
ZEROS = np.zeros(7, np.int64)


def test_answers_are_joined_as_is_written() -> None:
    found = Grouped.of(ZEROS, SAID, UNITS)
    assert found.labels.tolist() == [0, 0, 0]
    assert found.probabilities["mean"][:, 0] == pytest.approx([0.7, 1.25 / 3, 0.3])
    assert found.probabilities["maximum"][:, 0] == pytest.approx([0.8 / 1.2, 0.6 / 1.55, 0.3])
    assert found.probabilities["vote"][:, 0] == pytest.approx([1, 2 / 3, 0], abs=1e-3)
    for said in found.probabilities.values():
        assert said.dtype == np.float32
        assert said.sum(axis=1) == pytest.approx(1)


def test_the_order_of_images_and_the_numbers_of_groups_do_not_matter() -> None:
    order = np.random.default_rng(0).permutation(7)
    found, shuffled = Grouped.of(ZEROS, SAID, UNITS), Grouped.of(ZEROS, SAID[order], UNITS[order])
    for name in RULES:
        assert shuffled.probabilities[name] == pytest.approx(found.probabilities[name])


def test_votes_that_are_even_are_decided_by_what_is_surer() -> None:
    said = np.array([[0.55, 0.45], [0.1, 0.9]], np.float32)
    assert Grouped.of(np.zeros(2, np.int64), said, np.zeros(2, np.int64)).probabilities["vote"].argmax() == 1


def test_groups_of_several_classes_have_no_answer_and_are_counted() -> None:
    found = Grouped.of(np.array([0, 0, 1, 0, 0, 0, 1]), SAID, UNITS)
    assert (found.labels.tolist(), found.mixed) == ([0, 1], 1)
    assert len(found.probabilities["mean"]) == 2
    assert per_group(Grouped.of(np.array([0, 1]), SAID[:2], np.zeros(2, np.int64)), None, "accuracy") is None


@pytest.mark.parametrize(("metric", "rule"), [("accuracy", "vote"), ("log_loss", "mean")])
def test_the_rule_is_what_validation_has_best(metric: str, rule: str) -> None:
    """By accuracy votes, which alone are right about group 1; by log-loss the mean: votes are sure of group 2."""
    found = Grouped.of(ZEROS, SAID, UNITS)
    chosen = per_group(found, found, metric)
    assert chosen is not None
    assert chosen.rule == rule
    assert chosen.test == evaluate(found.labels, found.probabilities[rule])
    assert chosen.test.n == 3
    assert set(chosen.validated) == set(RULES)
    untold = per_group(found, None, metric)
    assert untold is not None
    assert (untold.rule, untold.validated) == ("mean", {})


def grouped(folder: Path) -> Path:
    """A table of photos, pairs of which are one patient's."""
    write_photos(folder / "photos", 12)
    paths = sorted((folder / "photos").rglob("*.png"))
    lines = [
        f"{path.relative_to(folder)},{path.parent.name},{path.parent.name}{n // 2}" for n, path in enumerate(paths)
    ]
    table = folder / "patients.csv"
    table.write_text("\n".join(["path,label,group", *lines]))
    return table


def test_both_lines_are_in_the_record_the_tables_and_the_page(tmp_path: Path, tiny_model: Path) -> None:
    file = extract(grouped(tmp_path), str(tiny_model)).path
    told = invoke("fit-heads", str(file), "--heads", "ridge,knn", "--per", "group")
    assert told.count("per group, ") == 2
    runs = [run for run in list_runs() if isinstance(run, FrozenRun)]
    for run in runs:
        one, said = run.per_group, run.predictions()
        assert one is not None
        groups = {name: set(said.label[said.group == name]) for name in set(said.group.tolist())}
        assert one.test.n == len(groups) < run.test.n
        names, units = np.unique(said.group, return_inverse=True)
        assert len(names) == len(groups)
        expected = Grouped.of(said.label, said.probabilities, units)
        assert one.test == evaluate(expected.labels, expected.probabilities[one.rule])
        on_disk = json.loads(run.path.read_text())["per_group"]
        assert on_disk["test"]["accuracy"] == one.test.accuracy
        assert on_disk["test"]["auroc_low"] == one.test.others["auroc_low"]
        assert run.arguments["per"] == "group"
    assert f"Per group: one answer for each of {len(groups)} groups" in " ".join(told.split())
    assert "per group, " in invoke("compare")
    invoke("compare", "--json", "found.json")
    (listed,) = json.loads(Path("found.json").read_text())["datasets"]
    assert {each["per_group"]["rule"] for each in listed["runs"]} <= set(RULES)
    page, markdown, table = write_report(tmp_path / "report.html")
    rule = compare()[0].entries[0].per_group
    assert rule is not None
    assert f"per group, {rule.rule}</td>" in page.read_text()
    assert f"per group, {rule.rule}|" in markdown.read_text()
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert float(rows[0]["per_group_accuracy"]) == rule.test.accuracy
    assert "per_group" not in rows[0]


def test_folds_answer_for_each_group_in_every_repetition(tmp_path: Path, tiny_model: Path) -> None:
    file = extract(grouped(tmp_path), str(tiny_model)).path
    (run,) = fit_heads([file], ["ridge"], cv="3x2", per="group")
    one, said, again = run.per_group, run.predictions(), []
    assert one is not None
    for half in (slice(0, len(said.label) // 2), slice(len(said.label) // 2, None)):
        units = np.unique(said.group[half], return_inverse=True)[1]
        joined = Grouped.of(said.label[half], said.probabilities[half], units)
        again.append(evaluate(joined.labels, joined.probabilities[one.rule]))
    assert one.test.accuracy == pytest.approx(np.mean([each.accuracy for each in again]))
    assert one.test.n == again[0].n == len(set(said.group.tolist()))
    assert one.test.accuracy_high - one.test.accuracy_low > 0.8 * (again[0].accuracy_high - again[0].accuracy_low)
    assert set(one.validated) == set(RULES)
    assert "per group, " in invoke("compare")


def test_a_run_without_it_is_as_before(tmp_path: Path, tiny_model: Path) -> None:
    file = extract(grouped(tmp_path), str(tiny_model)).path
    (run,) = fit_heads([file], ["ridge"])
    record = json.loads(run.path.read_text())
    assert "per_group" not in record
    assert "per" not in record["arguments"]
    assert "per group" not in invoke("compare")


def test_images_without_groups_have_no_answer_for_each(tmp_path: Path, tiny_model: Path) -> None:
    file = extract(write_photos(tmp_path / "photos", 12), str(tiny_model)).path
    with pytest.raises(
        DataError, match=r"--per group .* 'photos' have no groups\. Give them to extract \(--group-column"
    ):
        fit_heads([file], ["ridge"], per="group")
    with pytest.raises(DataError, match="'photos' have no groups"):
        fit_heads([file], ["ridge"], per="group", cv="2x1")
    with pytest.raises(OptionError, match="--per is of the heads that are kept"):
        fit_curves([file], [1], ["ridge"], per="group")
