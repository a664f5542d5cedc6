"""The audit of several labels of an image, or of a number."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import write_image
from numpy.typing import NDArray

from tlcache.auditing.labels import label_issues, out_of_fold
from tlcache.auditing.run import audit
from tlcache.cache.feature_file import Split
from tlcache.datasets.tasks import Targets
from tlcache.extraction.extract import extract
from tlcache.probing.fit import fit_heads
from tlcache.report import audits
from tlcache.tasks import joined_label

N = 500


def rows_of(features: NDArray[Any], texts: list[str], task: str) -> Split:
    classes = sorted(set(texts))
    labels = np.array([classes.index(text) for text in texts])
    paths = tuple(map(str, range(len(texts))))
    return Split(features.astype(np.float32), labels, paths, ("",) * len(texts), targets=Targets.of(task, classes))


def judged(rows: Split) -> tuple[Any, float]:
    answers, _ = out_of_fold(rows, rows.wanted.shape[1])
    return label_issues(rows, answers)


@pytest.mark.parametrize("seed", range(2))
def test_labels_that_are_wrong_are_found_one_by_one(seed: int) -> None:
    random, names = np.random.default_rng(seed), np.array(["cat", "dog", "owl"])
    has = random.random((N, 3)) < [0.5, 0.3, 0.1]
    features = 3 * has @ random.normal(size=(3, 16)) + random.normal(size=(N, 16))
    given, changed = has.copy(), random.choice(N, 12, replace=False)
    which = random.integers(0, 2, 12)  # of the rare one too few are right to tell a wrong one
    given[changed, which] ^= True
    found, right = judged(rows_of(features, [joined_label(names[row]) for row in given], "multilabel"))
    listed = {each.row: each for each in found.rows}
    hit = [row for row in changed.tolist() if row in listed]
    assert len(hit) >= 8
    assert len(listed) <= 2 * len(hit)
    assert right > 0.8
    assert sum(listed[row].predicted == joined_label(names[has[row]]) for row in hit) >= len(hit) - 1
    assert [each.confidence for each in found.rows] == sorted((each.confidence for each in found.rows), reverse=True)


def test_numbers_that_are_wrong_are_found_and_how_far_away_they_are() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(N, 12))
    numbers = 1900 + 10 * (features @ random.normal(size=12)) + random.normal(size=N)
    given, changed = numbers.copy(), random.choice(N, 12, replace=False)
    given[changed] += 40 * random.choice([-1, 1], 12)
    found, explained = judged(rows_of(features, [repr(float(value)) for value in given], "regression"))
    first = found.rows[:12]
    assert {each.row for each in first} == set(changed.tolist())
    assert explained > 0.85
    assert all(abs(float(each.predicted) - numbers[each.row]) < 6 for each in first)
    assert first[0].confidence > first[-1].confidence > 15


def test_where_nothing_can_be_told_of_labels_nothing_is_listed() -> None:
    random = np.random.default_rng(0)
    texts = [repr(value) for value in random.normal(size=200).tolist()]
    found, explained = judged(rows_of(random.normal(size=(200, 12)), texts, "regression"))
    assert (found.rows, explained < 0.2) == ((), True)
    sets = [["a;b", "a", "b", ";"][number] for number in random.integers(0, 4, 200)]
    found, _ = judged(rows_of(random.normal(size=(200, 12)), sets, "multilabel"))
    assert found.rows == ()


@pytest.mark.parametrize(
    ("task", "others", "conflicts"),
    [("multilabel", ("a;b", "b;a", "a", ";"), 2), ("regression", ("10", "10.5", "10", "90"), 1)],
)
def test_copies_whose_labels_differ_are_conflicts_and_a_leak_is_one_whatever_labels_say(
    tiny_model: Path, task: str, others: tuple[str, ...], conflicts: int
) -> None:
    lines = ["path,label,split"]
    for number in range(40):
        name = f"{number:02}.png"
        write_image(Path(name), number, number % 3)
        label = str(10 + 2 * (number % 40)) if task == "regression" else ("a;b", "a", "b", ";")[number % 4]
        split = ("train", "val", "test")[0 if number < 24 else 1 + number % 2]
        lines.append(f"{name},{others[0] if not number else label},{split}")
    for number, label in enumerate(others[1:]):
        shutil.copy("00.png", f"copy{number}.png")
        lines.append(f"copy{number}.png,{label},test")
    Path("photos.csv").write_text("\n".join(lines))
    done = extract("photos.csv", tiny_model, task=task)
    fit_heads([done.path], ["ridge"])
    (found,) = audit([done.path])
    assert len(found.exact) == 3
    assert sum(pair.conflict for pair in found.exact) == conflicts
    assert found.leak.duplicated >= 3
    assert (found.task, found.neighbour_gap, found.as_json()["task"]) == (task, None, task)
    assert "Figures on this split are better for that than on new images" in found.verdict
    words = dict(audits._RIGHT)[task].split("{")[0]
    shown = {name: text for name, _, text in audits.audit_counts(found)}
    assert words in shown["Label issues"]
