"""Duplicates, leaks and label issues in cached embeddings."""

import csv
import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import tiny_network, write_image, write_photos
from matplotlib.axes import Axes
from PIL import Image
from planted import KINDS, plant, write_scene
from test_cli import invoke
from typer.testing import CliRunner

from tlcache.auditing import choice, neighbours, records
from tlcache.auditing.calibration import Calibration, impostor_bound, read_calibration
from tlcache.auditing.findings import Audit, DuplicatePair
from tlcache.auditing.groups import connected, matched
from tlcache.auditing.labels import FOUND, LabelIssues, NeighbourGap, find_label_issues, find_outliers, out_of_fold
from tlcache.auditing.leak import Leak
from tlcache.auditing.leakage import LeakageGap, leakage_gaps
from tlcache.auditing.neighbours import Pairs, find_pairs, fit_space, nearest_impostors
from tlcache.auditing.pixels import agreement, thumbnail
from tlcache.auditing.records import read_audits
from tlcache.auditing.run import audit
from tlcache.auditing.verdict import alarm, verdict
from tlcache.cache.feature_file import Split, open_features
from tlcache.cache.find import find_features
from tlcache.cli import app
from tlcache.datasets.folder import open_folder
from tlcache.datasets.splits import SPLITS
from tlcache.errors import CacheError, DataError, OptionError, UnknownNameError
from tlcache.evaluation.compare import compare
from tlcache.extraction.extract import extract, extract_layers
from tlcache.probing.fit import fit_heads
from tlcache.report import audits
from tlcache.report.page import write_report
from tlcache.runs.folder import runs_folder


def unit(n: int, dim: int = 12, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [7, 4096])
def test_the_search_finds_what_brute_force_finds(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    rows, splits = unit(60), np.repeat(np.arange(3, dtype=np.uint8), 20)
    found = find_pairs(rows, 0.5, splits)
    cosines = rows @ rows.T - 3 * np.eye(60, dtype=np.float32)
    expected = {(a, b) for a, b in np.argwhere(cosines > 0.5).tolist() if a < b}
    assert expected
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == expected
    assert found.count == len(expected)
    assert np.allclose(found.cosine, cosines[found.first, found.second], atol=1e-6)
    assert (np.diff(found.cosine) <= 0).all()
    assert np.allclose(found.nearest, cosines.max(axis=1), atol=1e-6)
    close = np.stack([(cosines[:, splits == split] > 0.5).any(axis=1) for split in range(3)], axis=1)
    assert np.array_equal(found.close, close)


def test_too_many_pairs_keep_what_holds_groups_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, splits = np.repeat(unit(5, 40), 12, axis=0), np.zeros(60, np.uint8)
    paths = [f"{row}" for row in range(60)]
    monkeypatch.setattr(neighbours, "_BLOCK", 16)
    whole = find_pairs(rows, 0.9, splits)
    monkeypatch.setattr(neighbours, "_MOST_PAIRS", 50)
    some = find_pairs(rows, 0.9, splits)
    assert len(whole.first) == whole.count == some.count == 5 * 66
    assert len(some.first) < 120
    assert connected(paths, some) == connected(paths, whole)
    assert len(set(connected(paths, some))) == 5


@pytest.mark.parametrize("block", [7, 1000])
def test_impostors_are_of_another_label(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("tlcache.heads.cosines._ASKED", block)
    monkeypatch.setattr("tlcache.heads.cosines._KNOWN", block + 4)
    rows, labels = unit(50), np.arange(50) % 3
    expected = np.where(labels[:, None] == labels, -1, rows @ rows.T).max(axis=1)
    found = nearest_impostors(rows, labels)
    assert np.allclose(found.cosines, expected, atol=1e-6)
    assert np.allclose((rows[found.rows] * rows[found.nearest]).sum(axis=1), expected, atol=1e-6)
    assert (labels[found.rows] != labels[found.nearest]).all()
    assert (nearest_impostors(rows, np.zeros(50, int)).cosines == -1).all()


def test_the_bound_of_impostors_does_not_mind_wrong_labels() -> None:
    random = np.random.default_rng(0)
    cosines = random.gumbel(0.3, 0.03, 20_000).astype(np.float32)
    bound = impostor_bound(cosines)
    assert np.mean(cosines > bound) == pytest.approx(0.001, abs=0.0007)
    cosines[:400] = 1  # one in fifty is a duplicate under another label
    assert impostor_bound(cosines) == pytest.approx(bound, abs=0.04)


def test_whitening_tells_apart_what_all_points_one_way() -> None:
    random = np.random.default_rng(0)
    X = (10 + random.normal(size=(400, 64)) * np.geomspace(2, 0.05, 64)).astype(np.float32)
    raw = X / np.linalg.norm(X, axis=1, keepdims=True)
    assert (raw @ raw.T).min() > 0.8
    rows = fit_space(X)(X)
    assert rows.shape == (400, 32)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert np.quantile(rows @ rows.T, 0.99) < 0.6


def judged(apart: float, wrong: float, seed: int) -> tuple[np.ndarray, LabelIssues]:
    """Return which of 600 rows of four classes, so far apart, have a wrong label, and what is found."""
    random = np.random.default_rng(seed)
    labels = np.arange(600) % 4
    features = apart * np.eye(4)[labels] @ random.normal(size=(4, 16)) + random.normal(size=(600, 16))
    some = random.choice(600, round(600 * wrong), replace=False)
    given = labels.copy()
    given[some] = (given[some] + random.integers(1, 4, len(some))) % 4
    rows = Split(features.astype(np.float32), given, tuple(map(str, range(600))), ("",) * 600)
    probabilities, _ = out_of_fold(rows, 4)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    found = find_label_issues(given, probabilities)
    assert all(each.predicted != given[each.row] for each in found.rows)
    return some, found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("wrong", "least"), [(0, 1), (0.02, 0.75), (0.05, 0.85), (0.1, 0.6)])
def test_planted_wrong_labels_are_found_where_classes_can_be_told_apart(wrong: float, least: float, seed: int) -> None:
    planted, issues = judged(2.5, wrong, seed)
    found = {each.row for each in issues.rows}
    hit = len(found & set(planted.tolist()))
    assert hit >= least * len(planted)
    assert hit >= 0.9 * len(found)
    assert len(planted) < 20 or issues.found == pytest.approx(hit / len(planted), abs=0.15)


@pytest.mark.parametrize("wrong", [0, 0.05])
def test_where_classes_cannot_be_told_apart_no_label_is_called_doubtful(wrong: float) -> None:
    _, issues = judged(0.25, wrong, 0)
    assert issues.rows == ()
    assert issues.found < FOUND


def test_a_class_that_the_head_did_not_see_is_not_judged() -> None:
    """The fourth class has one group, so that no head saw it when its rows were held out."""
    labels = np.repeat(np.arange(4), 50)
    probabilities = np.full((200, 4), 0.01, np.float32)
    probabilities[np.arange(200), labels] = 0.97
    probabilities[150:] = [0.98, 0.01, 0.01, 0]
    assert find_label_issues(labels, probabilities).rows == ()
    labels[7] = 2
    assert [(each.row, each.predicted) for each in find_label_issues(labels, probabilities).rows] == [(7, 0)]


def test_no_row_is_judged_by_its_own_group() -> None:
    """Labels that are pure chance, every image there five times: only a torn group could know them."""
    random = np.random.default_rng(2)
    features = np.repeat(random.normal(size=(80, 64)).astype(np.float32), 5, axis=0)
    labels = np.repeat(random.integers(0, 2, 80), 5)
    groups = tuple(f"g{row // 5}" for row in range(400))
    jitter = 1e-3 * random.normal(size=features.shape).astype(np.float32)
    rows = Split(features + jitter, labels, tuple(map(str, range(400))), groups)
    probabilities, _ = out_of_fold(rows, 2)
    assert np.mean(probabilities.argmax(axis=1) == labels) < 0.65


def test_outliers_are_far_from_everything() -> None:
    nearest = np.random.default_rng(0).normal(0.6, 0.03, 500).astype(np.float32)
    nearest[[7, 9]] = 0.1, 0.05
    assert find_outliers(nearest).tolist() == [9, 7]


def test_groups_by_pattern_and_by_links() -> None:
    with pytest.raises(OptionError, match="no bracket"):
        matched(["a.png"], "a")
    with pytest.raises(OptionError, match="no regular expression"):
        matched(["a.png"], "(")
    with pytest.raises(OptionError, match=r"matches no path; the first one is 'a\.png'"):
        matched(["a.png"], "(b)")
    links = Pairs(*(np.array(rows) for rows in ([0, 1], [1, 4], [1.0, 1.0])), np.ones(5), 2, np.zeros((5, 3), bool))
    assert connected(list("abcde"), links) == ["a", "a", "c", "d", "a"]


def test_the_verdict_says_how_much_and_what_to_do() -> None:
    fair, command = NeighbourGap(0.8, 0.9, 0.01), "tlcache fit-heads features/photos --split group"
    assert verdict(Leak(50, 0, 0), fair, command) == "No test image has a near-duplicate in train or val."
    unseen = verdict(Leak(50, 0, 0), NeighbourGap(0.9, 0.8, 0.01), command)
    assert "by 10 points" in unseen
    assert unseen.endswith("say so with --group-regex.")
    assert "Nothing can be said of near-duplicates" in verdict(Leak(50, 0, 0), fair, command, judged=False)
    assert "that is a guess" in verdict(Leak(50, 0, 0), fair, command, guessed=True)
    grouped = verdict(Leak(50, 0, 0, known=1.0), fair, command, judged=False)
    assert grouped.startswith("No test image is in a group with images in train or val. Nothing can be said of near-")
    assert grouped.endswith("Try another backbone.")
    assert "no test split" in verdict(Leak(0, 0, 0), None, command)
    little = verdict(Leak(1000, 1, 4), fair, command)
    assert little.startswith("1 of 1,000 test images (0.1 %) has a duplicate or near-duplicate in train or val, and 4")
    advice = f"To measure it on a split that tears no group apart: {command}"
    assert little.endswith(
        f"images there. That makes accuracy on this split at most about 0.4 points too high. {advice}"
    )
    much = verdict(Leak(1279, 330, 1272), fair, command)
    assert "330 of 1,279 test images (26 %) have" in much
    assert "1,272 (99 %) are in a group" in much
    assert much.endswith(f"at most about 99 points too high. {advice}")
    fitted = verdict(Leak(240, 26, 30, right=27), fair, command)
    assert fitted.endswith(f"at most about 11 points too high (a linear head is right on 27 of these 30). {advice}")


def gap_of(middle: float, half: float, head: str = "svm") -> LeakageGap:
    given, group = (0.8 + middle, 0.7, 0.9), (0.8, 0.7, 0.9)
    return LeakageGap("photos", "tiny", head, given, group, (middle, middle - half, middle + half), "digest")


@pytest.mark.parametrize(
    ("gaps", "words"),
    [
        (
            [gap_of(-0.009, 0.05), gap_of(0.02, 0.06), gap_of(-0.029, 0.04)],
            "Measured with 3 heads, the given split scores -2.9 to +2.0 points against one that tears no group apart "
            "(95 % intervals from -6.9 to +8.0): the leak is not shown to matter.",
        ),
        (
            [gap_of(0.25, 0.1), gap_of(0.08, 0.1)],
            "Measured with 2 heads, the given split scores +8.0 to +25.0 points against one that tears no group apart: "
            "the leak is shown to matter for 1 of them. Quote the accuracy under the group split.",
        ),
        (
            [gap_of(0.11, 0.1)],
            "Measured with svm on tiny, the given split scores +11.0 points against one that tears no group apart: "
            "the leak is shown to matter. Quote the accuracy under the group split.",
        ),
        ([gap_of(0.11, 0.1)] * 5, "(95 % intervals from +1.0 to +21.0): the leak is not shown to matter."),  # of five
    ],
)
def test_what_was_measured_takes_the_place_of_a_bound(gaps: list[LeakageGap], words: str) -> None:
    found = verdict(Leak(240, 26, 30, right=27), None, "tlcache", measured=gaps)
    assert found.startswith("26 of 240 test images (11 %) have a duplicate or near-duplicate in train or val, and 30")
    assert found.endswith(words)


@pytest.mark.parametrize(
    ("leak", "words"),
    [
        (Leak(1, 1, 1), "1 of 1 test image (100 %) has a duplicate or near-duplicate in train or val."),
        (Leak(40, 0, 0), "No test image has a near-duplicate in train or val."),
        (
            Leak(40, 1, 2),
            "1 of 40 test images (2.5 %) has a duplicate or near-duplicate in train or val, and 2 (5.0 %) are",
        ),
        (
            Leak(40, 2, 3),
            "2 of 40 test images (5.0 %) have a duplicate or near-duplicate in train or val, and 3 (7.5 %) are",
        ),
        (Leak(40, 0, 3), "No test image has a near-duplicate in train or val."),
        (
            Leak(40, 0, 1, right=1, either=1, known=1.0),
            "1 of 40 test images (2.5 %) is in a group with images in train or val. That makes accuracy on this split "
            "at most about 2.5 points too high (a linear head is right on 1 of these 1).",
        ),
        (
            Leak(40, 4, 3, right=6, either=7, known=0.5),
            "4 of 40 test images (10 %) have a duplicate or near-duplicate in train or val, and 3 (7.5 %) are in a "
            "group with images there. That makes accuracy on this split at most about 15 points too high (a linear "
            "head is right on 6 of these 7).",
        ),
        (
            Leak(40, 0, 0, known=1.0),
            "No test image is in a group with images in train or val. No test image has a near-duplicate in train or",
        ),
        (Leak(40, 0, 0, known=0.25), "No test image is in a group with images in train or val; of 25 % the group is"),
    ],
)
def test_verdicts_count_one_and_two_as_people_do(leak: Leak, words: str) -> None:
    assert verdict(leak, None, "").startswith(words)


def write_scenes(root: Path, count: int) -> Path:
    for number in range(count):
        split, label = "test" if number % 4 == 0 else "train", "abc"[number % 3]
        write_scene(root / split / label / f"{number}.jpg", number)
    return root


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[Path, Path]]]:
    """270 images of three classes, and copies of 30 train images planted in test."""
    root = write_scenes(tmp_path_factory.mktemp("data") / "scenes", 270)
    some = sorted((root / "train").rglob("*.jpg"))[::6][:30]
    return root, plant(some, lambda path, kind: root / "test" / path.parent.name / f"{path.stem}-{kind}.jpg")


def test_planted_copies_are_found_and_strangers_are_not(scenes: tuple[Path, list[tuple[Path, Path]]]) -> None:
    """The network of 32 x 32 images is not blind to mirrors, as those trained on ImageNet are: it is said so."""
    root, planted = scenes
    extract(root, "resnet20_cifar")
    (found,) = audit()
    names = [{path.relative_to(root).as_posix() for path in pair} for pair in planted]
    pairs = [{pair.first, pair.second} for pair in found.near]
    kinds = {kind: [pair in pairs for pair in names if any(kind in path for path in pair)] for kind in KINDS}
    assert all(all(hits) for kind, hits in kinds.items() if kind != "flipped")
    assert found.calibration.copies["flipped"] < 0.9
    assert "flipped copies would be missed" in found.calibration.note
    others = set().union(*(pair for pair in pairs if pair not in names))
    assert len(others) <= 0.01 * found.images
    assert found.leak.duplicated >= 24
    assert found.leak.right is not None
    bound = f"{100 * found.leak.right / found.leak.test:.0f} points"
    assert found.leak.right <= max(found.leak.duplicated, found.leak.grouped)
    why = f"(a linear head is right on {found.leak.right} of"
    assert f"at most about {bound} too high {why}" in found.verdict
    assert {pair.second_split for pair in found.near if {pair.first, pair.second} in names} <= {"test"}


def test_the_command_keeps_its_contract(tmp_path: Path, photos: Path, tiny_model: Path) -> None:
    root = tmp_path / "set"
    for split in ("train", "test"):
        write_photos(root / split, 12)
        for number, path in enumerate(sorted((root / split).rglob("*.png"))):
            write_image(path, 500 * (split == "test") + number, number // 12)
    shutil.copy(root / "train" / "red" / "1.png", root / "test" / "red" / "again.png")
    shutil.copy(root / "train" / "red" / "2.png", root / "train" / "green" / "other.png")
    extract(root, str(tiny_model))
    extract(photos, str(tiny_model))
    report, picture = tmp_path / "audit.json", tmp_path / "pairs.png"
    words = ["audit", "--data", str(root), "--json", str(report), "--plot", str(picture)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    (figures,) = json.loads(report.read_text())["datasets"]
    assert {"dataset", "exact", "near", "label_conflicts", "label_suspects", "verdict"} <= set(figures)
    assert sorted(figures["exact"]["pairs"]) == [
        ["train/green/other.png", "train/red/2.png"],
        ["train/red/1.png", "test/red/again.png"],
    ]
    assert figures["exact"]["across_splits"] == 1
    assert {"pairs", "across_splits", "threshold"} <= set(figures["near"])
    assert ["train/green/other.png", "train/red/2.png"] in figures["label_conflicts"]
    assert figures["verdict"] in " ".join(result.output.split())
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert CliRunner().invoke(app, ["audit", "--data", "set", "--strict"]).exit_code == 1
    extract(write_scenes(tmp_path / "fair", 180), "resnet20_cifar")
    fair = CliRunner().invoke(app, ["audit", "--data", "fair", "--strict"])
    assert fair.exit_code == 0
    assert "No test image has a near-duplicate in train or val." in fair.output
    both = CliRunner().invoke(app, ["audit", "--plot", str(picture)])
    assert both.exit_code == 2
    assert "--plot draws the pairs of one dataset" in " ".join(both.output.split())


def write_groups_table(photos: Path, groups: Sequence[str]) -> Path:
    """Write a manifest of the photos: of every four, one is in test and one in val; their groups come in turn."""
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    lines = [
        f"{name},{name.split('/')[0]},{('test', 'val', 'train', 'train')[number % 4]},{groups[number % len(groups)]}"
        for number, name in enumerate(names)
    ]
    table = photos / "list.csv"
    table.write_text("\n".join(["path,label,split,patient", *lines]))
    return table


@pytest.mark.parametrize(
    ("groups", "torn", "known", "words"),
    [
        (["p", "q", "r", "s"], (), 1.0, "No test image is in a group with images in train or val. No test image has"),
        (["p", "q"], ("p", "q"), 1.0, "6 of 6 test images (100 %) are in a group with images in train or val."),
        (["", "", "p", "p"], (), 0.0, "No test image has a near-duplicate in train or val."),
        (["p", "", "", "", "", "p", "q", "r"], ("p",), 0.5, "3 of 6 test images (50 %) are in a group with"),
    ],
)
def test_groups_torn_apart_by_given_splits_leak(
    photos: Path, tiny_model: Path, groups: list[str], torn: tuple[str, ...], known: float, words: str
) -> None:
    table = write_groups_table(photos, groups)
    extract(table, str(tiny_model))
    (found,) = audit()
    assert (found.group_by, found.torn, found.leak.known) == ("column", torn, known)
    assert (found.leaks, found.leak.duplicated) == (bool(torn), 0)
    assert found.verdict.startswith(words)
    shown = " ".join(invoke("audit").split())
    assert (f"in several splits: {', '.join(torn)}" in shown) == bool(torn)
    assert CliRunner().invoke(app, ["audit", "--strict"]).exit_code == bool(torn)
    (by_path,) = audit(group_regex="(.*)/")  # a pattern tells groups as well
    assert (by_path.leaks, by_path.leak.known, by_path.torn) == (True, 1.0, ("blue", "green", "red"))
    assert read_audits(runs_folder()) == [by_path]


@pytest.mark.parametrize(
    ("leak", "calibration", "judged"),
    [
        (Leak(40, 0, 0), {}, True),
        (Leak(0, 0, 0), {}, False),
        (Leak(0, 0, 0, known=1.0), {}, False),
        (Leak(40, 0, 0), {"copies": {"resized": 0.4}}, False),
        (Leak(40, 0, 0), {"images": 0, "copies": {}}, False),
        (Leak(40, 0, 0, known=1.0), {"copies": {"resized": 0.4}}, True),
        (Leak(40, 0, 0, known=0.9), {"copies": {"resized": 0.4}}, False),
        (Leak(40, 0, 0, known=1.0), {"images": 0, "copies": {}}, True),
    ],
)
def test_strict_lets_nothing_pass_that_was_not_judged(
    leak: Leak,
    calibration: dict[str, Any],
    judged: bool,
    photos: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extract(photos, str(tiny_model))
    (found,) = audit()
    line = replace(found.calibration, **{"images": 24, "copies": {"resized": 0.99}, **calibration})
    found = replace(found, leak=leak, calibration=line)
    assert (found.judged, found.as_json()["judged"], found.leaks) == (judged, judged, False)
    monkeypatch.setattr("tlcache.auditing.run.audit", lambda *_, **__: [found])
    assert invoke("audit")
    strict = CliRunner().invoke(app, ["audit", "--strict"])
    assert strict.exit_code == (0 if judged else 1)
    told = "leaks could not be told, which --strict does not let pass" in " ".join(strict.output.split())
    assert told != judged


@pytest.fixture
def leaking(tmp_path: Path) -> Path:
    """Copies beside their originals in the folder `train`, from which val is drawn, and in `test`."""
    root = write_scenes(tmp_path / "data" / "scenes", 120)
    some = sorted((root / "train").rglob("*.jpg"))[::2]
    plant(some, lambda path, kind: path.with_name(f"{path.stem}-{kind}.jpg"))
    plant(some[:20], lambda path, kind: root / "test" / path.parent.name / f"{path.stem}-{kind}-again.jpg")
    extract(root, "resnet20_cifar")
    return root


def test_text_table_picture_and_page_name_the_same_splits(
    leaking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the folder `train` is in val when val was drawn from there."""
    del leaking
    (path,) = find_features()
    with open_features(path) as file:
        splits = {name: split for split in SPLITS for name in file.split(split).paths}
    (found,) = audit()
    assert found.splits == Counter(splits.values())
    drawn = [pair for pair in found.near if "train/" in pair.first and "val" in (pair.first_split, pair.second_split)]
    assert drawn
    for pair in (*found.near, *found.exact):
        assert [end.split for end in pair.ends] == [splits[end.path] for end in pair.ends]
    with found.record.with_suffix(".csv").open() as stream:
        lines = [line for line in csv.DictReader(stream) if line["finding"] == "near"]
    assert all((line["split"], line["other_split"]) == (splits[line["path"]], splits[line["other"]]) for line in lines)

    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda *args, **_: titles.append(args[1]))
    audits.plot_pairs(found, tmp_path / "pairs.png")
    drawn_as = re.findall(r"(\w+), \w: (\S+\.jpg)", "\n".join(titles))
    assert len(drawn_as) == 2 * len(titles) == 24
    by_file = {Path(name).name: split for name, split in splits.items()}
    assert all(by_file[name] == split for split, name in drawn_as)

    shown = [line.split() for line in invoke("audit").splitlines() if line.rstrip().endswith(".jpg")]
    assert len(shown) == 10
    assert all(splits[line[-1]] == line[-3] for line in shown)

    fit_heads(heads=["ridge"])
    page = write_report(tmp_path / "page.html", data="scenes")[0].read_text()
    named = re.findall(r"(\w+), \w: ((?:train|test)/[^<\"]+\.jpg)", page)
    assert len(named) >= 16
    assert all(splits[path] == split for split, path in named)


def test_a_leak_says_what_to_run_and_which_figure_to_quote(leaking: Path) -> None:
    del leaking
    (found,), (path,) = audit(), find_features()
    assert found.leaks
    advice = "To measure it on a split that tears no group apart: tlcache "
    words = shlex.split(found.verdict.partition(advice)[2])
    assert words == ["fit-heads", str(path.parent.relative_to(Path.cwd())), "--split", "group"]
    invoke("fit-heads", "--heads", "ridge")
    before = " ".join(invoke("compare").split())
    assert f"The split leaks. {found.verdict}" in before
    assert "Quote the accuracy under the group split" not in before
    assert "Quote the accuracy under the group split" in " ".join(invoke(*words, "--heads", "ridge").split())
    after = " ".join(invoke("compare").split())
    assert f"given split {found.dataset_digest[:8]}" in after
    (again,), (gap,) = audit(), leakage_gaps(compare())
    line, matters = alarm(found, [gap])
    assert again.verdict == line.removeprefix("The split leaks. ")
    assert f"scores {100 * gap.difference[0]:+.1f} points against one that tears no group apart" in line
    assert matters == (gap.difference[1] > 0) == line.startswith("The split leaks. ")
    assert (after.count(line), after.count("at most about")) == (1, 0)
    page, markdown, _ = (path.read_text() for path in write_report("page.html"))
    assert markdown.count(f"**{line}**" if matters else line) == 1
    assert "at most about" not in page
    assert again.verdict in page
    assert f"given split {found.dataset_digest[:8]}" in markdown


def test_a_clean_set_has_nothing_to_draw_and_that_is_no_error(photos: Path, tiny_model: Path) -> None:
    extract(photos, str(tiny_model))
    assert "There are no pairs to draw: 'pairs.png' is not written." in invoke("audit", "--plot", "pairs.png")
    assert not Path("pairs.png").exists()


def test_where_copies_do_not_stand_out_near_duplicates_are_not_judged(few_digits: None) -> None:
    del few_digits
    extract("digits", "resnet20_cifar")
    text = " ".join(invoke("audit", "--data", "digits").split())
    (found,) = audit()
    assert found.calibration.copies["resized"] < 0.5
    assert not found.calibration.judges
    assert not found.leaks
    assert "Near-duplicates - cannot be judged" in text
    assert found.verdict.startswith("Nothing can be said of near-duplicates")
    assert found.groups == found.images


def test_the_two_of_a_pair_are_drawn_at_one_height_and_with_little_between(tmp_path: Path) -> None:
    for name, size in (("wide.png", (40, 20)), ("tall.png", (10, 20))):
        Image.new("RGB", size, "black").save(tmp_path / name)
    pair = DuplicatePair("wide.png", "tall.png", 0.9, False, "train", "test", "a", "b")
    both = audits._side_by_side(open_folder(tmp_path), pair)
    assert both.shape == (256, 512 + 6 + 128, 3)
    assert np.flatnonzero(both.any(axis=(0, 2))).tolist() == list(range(512, 518))


def test_records_are_read_without_features(tmp_path: Path, photos: Path, tiny_model: Path) -> None:
    shutil.copy(photos / "red" / "1.png", photos / "red" / "copy.png")
    extract(photos, str(tiny_model))
    (found,) = audit()
    shutil.rmtree(tmp_path / "features")
    (read,) = read_audits(runs_folder())
    assert isinstance(read, Audit)
    assert read == found
    assert read.source == str(photos)
    with found.record.with_suffix(".csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [line["finding"] for line in lines].count("exact") == 1
    assert [line["finding"] for line in lines].count("near") == found.near_count
    assert [line["finding"] for line in lines].count("alike") == len(found.alike)
    found.record.write_text("{}")
    told: list[str] = []
    assert read_audits(runs_folder(), told.append) == []
    assert "is not the record of an audit" in told[0]


def test_audits_and_calibrations_of_the_last_versions_are_read(photos: Path, tiny_model: Path) -> None:
    extract(photos, str(tiny_model))
    (found,) = audit()
    kept = next(Path("runs").glob("*/audit/calibration/*.json"))
    calibration = read_calibration(kept)
    first = {"impostors": "strangers", "pixel_impostors": "pixel_strangers"}
    names = {**first, "neighbour_gap": "telltale", "label_issues": "doubts"}

    def renamed(fields: dict[str, Any]) -> dict[str, Any]:
        inner = {name: renamed(value) if name == "calibration" else value for name, value in fields.items()}
        return {names.get(name, name): value for name, value in inner.items()}

    for path, version in ((found.record, 3), (kept, 1)):
        fields = renamed(json.loads(path.read_text()))
        path.write_text(json.dumps({**fields, "format_version": version}))
    assert read_audits(runs_folder(), pytest.fail) == [found]
    assert read_calibration(kept) == calibration


def test_without_the_images_the_threshold_is_a_guess_and_says_so(photos: Path, tiny_model: Path) -> None:
    extract(photos, str(tiny_model))
    with_images = audit()[0].calibration
    assert with_images.images == 24
    assert set(with_images.copies) == set(KINDS)
    assert with_images.note.startswith("With 24 images the threshold is rough.")
    photos.rename(photos.with_name("elsewhere"))
    (kept,) = audit()
    assert replace(kept.calibration, note=with_images.note) == with_images
    assert kept.alike == ()
    assert all(pair.cosine > with_images.alike for pair in kept.near)
    assert not kept.near_count or "compared by cosine alone" in kept.calibration.note
    guess = audit(runs="other")[0].calibration
    assert (guess.images, dict(guess.copies), guess.pixels, guess.margin) == (0, {}, None, None)
    assert guess.threshold == guess.alike == pytest.approx((1 + guess.impostors) / 2)
    assert guess.note.startswith("No copies could be made")


def test_both_cosine_and_pixels_must_be_close_and_one_closer_than_impostors() -> None:
    line = Calibration(0.3, 0.7, 0.5, 0.9, 0.95, {}, 1.0, 120, "")
    cosines = np.array([0.9, 0.6, 0.4, 0.4, 0.2, 0.9, 0.8, 0.6], np.float32)
    pixels = np.array([0.92, 0.92, 0.96, 0.92, 0.99, 0.5, np.nan, np.nan], np.float32)
    assert line.near(cosines, pixels).tolist() == [True, True, True, False, False, False, True, False]
    guess = replace(line, pixels=None, pixel_impostors=None)
    assert guess.near(cosines, pixels).tolist() == (cosines > 0.7).tolist()


def test_pixels_agree_on_copies_and_on_nothing_else(tmp_path: Path) -> None:
    scenes = [write_scene(tmp_path / f"{number}.jpg", number) for number in range(40)]
    planted = plant(scenes, lambda path, kind: tmp_path / "copies" / f"{path.stem}-{kind}.jpg")
    seen = np.stack([thumbnail(path.read_bytes()) for path in [*scenes, *(copy for _, copy in planted)]])
    assert seen.shape == (80, 32, 32)
    first, second = (each.ravel() for each in np.meshgrid(np.arange(40), np.arange(40, 80), indexing="ij"))
    found = agreement(seen, first, second).reshape(40, 40)
    assert np.diag(found).min() > 0.97
    assert (found - np.eye(40)).max() < 0.9
    assert np.allclose(agreement(seen, second, first).reshape(40, 40), found, atol=1e-5)
    flat = np.stack([np.full((32, 32), 90), np.full((32, 32), 200), seen[0]]).astype(np.uint8)
    one, other = agreement(flat, np.array([0, 0]), np.array([1, 2]))
    assert one == pytest.approx(1)
    assert other < 0.2


def test_pairs_that_are_too_many_are_compared_by_cosine_alone(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        shutil.copy(photos / "red" / "1.png", photos / "red" / f"again{number}.png")
    extract(photos, str(tiny_model))
    monkeypatch.setattr(neighbours, "_MOST_PAIRS", 10)
    (found,) = audit()
    assert "compared by cosine alone" in found.calibration.note
    assert len(found.exact) == 12
    assert found.alike == ()


def test_of_several_backbones_the_one_that_tells_copies_best_is_taken(tmp_path: Path) -> None:
    """The tiny network, here the first by name, sees little but averages of colour."""
    root, tiny = write_scenes(tmp_path / "set", 90), tiny_network()
    next(each for each in tiny.metadata_props if each.key == "backbone").value = "average"
    (tmp_path / "average.onnx").write_bytes(tiny.SerializeToString())
    extract(root, str(tmp_path / "average.onnx"))
    extract(root, "resnet20_cifar")
    (found,) = audit()
    margins = {path.name: json.loads(path.read_text())["margin"] for path in runs_folder().rglob("calibration/*.json")}
    assert len(margins) == 2
    assert found.backbone == "resnet20_cifar"
    assert max(margins, key=lambda name: margins[name]).startswith("resnet20_cifar")
    assert found.why.startswith("which tells altered copies of an image from other images best (")
    shown = CliRunner().invoke(app, ["audit"])
    assert f"Compared by resnet20_cifar, {found.why}." in " ".join(shown.output.split())
    assert audit(model="average")[0].why == ""
    shutil.rmtree(root)
    assert audit()[0].backbone == "resnet20_cifar"
    for path in runs_folder().rglob("calibration/*.json"):
        path.write_text("{")
    (guessed,) = audit()
    assert (guessed.backbone, guessed.why[:17]) == ("average", "the first by name")


def test_layers_of_a_backbone_are_told_apart(photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [each.path for each in extract_layers(photos, "resnet20_cifar", ["stage:1", "last"], ["avg"])]
    margins = dict(zip(made, (0.25, 0.5), strict=True))
    monkeypatch.setattr(choice, "_margin", lambda path, _: margins[path])
    (found,) = choice.choose_files(made, "resnet20_cifar", runs_folder())
    assert found.path == made[1]
    assert found.why.endswith("best (avg 0.50; resnet20_cifar stage:1 avg 0.25)")
    (one,) = choice.choose_files(made, made[0].stem, runs_folder())  # named as --join names it
    assert (one.path, one.why) == (made[0], "")
    first, second = (extract(photos, str(tiny_model), crop_borders=crop).path for crop in (False, True))
    margins |= {first: 0.1, second: 0.2}
    (alike,) = choice.choose_files([first, second], None, runs_folder())
    assert alike.why.endswith(f"({second.stem} 0.20; {first.stem} 0.10)")


def test_one_file_per_dataset_is_chosen(photos: Path, tiny_model: Path) -> None:
    made = [extract(photos, str(tiny_model), crop_borders=crop).path for crop in (False, True)]
    assert len(audit()) == 1
    assert len(audit([made[1]])) == 1
    with pytest.raises(UnknownNameError, match=r"Unknown dataset 'nowhere'\. Known: photos\."):
        audit(data="nowhere")
    with pytest.raises(CacheError, match="No features of 'photos' by 'resnet50'; there are some by: tiny"):
        audit(model="resnet50")
    with pytest.raises(UnknownNameError, match="Unknown grouping 'colour'"):
        audit(group_by="colour")
    with pytest.raises(DataError, match="no groups of its own"):
        audit(group_by="column")
    with pytest.raises(OptionError, match="--group-regex takes the pattern"):
        audit(group_by="regex")


def test_a_record_lists_the_closest_pairs_and_all_under_two_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LISTED", 2)
    close = ((0.7, "cat"), (0.6, "dog"), (0.9, "cat"), (0.8, "cat"))
    near = [DuplicatePair("a", "b", cosine, False, "train", "test", "cat", label) for cosine, label in close]
    assert [pair.cosine for pair in records._listed(near)] == [0.9, 0.8, 0.6]
