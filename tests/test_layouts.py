"""How folders of images are understood, and the options that say it otherwise."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import write_photos
from scipy.io import savemat
from typer.testing import CliRunner

from tlcache.cache.feature_file import open_features
from tlcache.cli import app
from tlcache.datasets.dataset import Dataset, load_dataset
from tlcache.datasets.layout import Layout
from tlcache.datasets.overview import Overview
from tlcache.datasets.splits import check_splits
from tlcache.errors import DataError, ImageReadError, OptionError
from tlcache.extraction.extract import extract
from tlcache.inventory.checks import verify
from tlcache.options import parameters
from tlcache.probing.fit import fit_heads
from tlcache.report.reproduce import commands
from tlcache.report.tables import heading
from tlcache.runs.base import fields_of_features
from tlcache.runs.folder import list_runs


def sizes(found: Dataset) -> dict[str, int]:
    return dict(Counter(found.splits))


@pytest.fixture
def with_splits(tmp_path: Path) -> Path:
    """Three classes: 5 images each to train with, 3 to validate, 2 to test."""
    for split, count in (("train", 5), ("val", 3), ("test", 2)):
        write_photos(tmp_path / "set" / split, count)
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"train": 15, "val": 9, "test": 6}),
        ({"val": "test", "test": "val"}, {"train": 15, "val": 6, "test": 9}),
        ({"ignore": ["test"], "test": "val"}, {"train": 15, "test": 9}),
        ({"ignore": "t*t", "test": "val", "val": 0.4}, {"train": 15, "test": 9}),
        ({"ignore": ["0.png"]}, {"train": 12, "val": 6, "test": 3}),
        ({"ignore": ["red", "v?l"]}, {"train": 10, "test": 4}),
        ({"split_folders": {"val": "test", "test": "val"}}, {"train": 15, "val": 6, "test": 9}),
        ({"split_folders": {"val": "train"}}, {"train": 24, "test": 6}),
    ],
)
def test_which_split_is_which_is_what_the_options_say(
    with_splits: Path, options: dict[str, Any], expected: dict[str, int]
) -> None:
    assert sizes(load_dataset(with_splits, layout=Layout(**options))) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"test": "val"}, r"--test val: '.*' has a split test already. It has train \(15\) and val \(9\) and test"),
        ({"val": 0.3}, r"--val 0.3 draws a split val, but '.*' has one. .* Leave --val out to use it, or leave"),
        ({"ignore": "val", "test": "val"}, r"--test val: '.*' has no split val. It has train \(15\) and test \(6\)\."),
    ],
)
def test_what_given_splits_cannot_do_is_told(with_splits: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_dataset(with_splits, layout=Layout(**options))


@pytest.mark.parametrize(
    ("name", "words", "value"),
    [
        ("split_folders", ["a=train,b=test", "c = val"], {"a": "train", "b": "test", "c": "val"}),
        ("split_folders", ["odd=name=test"], {"odd=name": "test"}),
        ("split_folders", ["s, t=train,u = test,", "v,w=val"], {"s, t": "train", "u": "test", "v,w": "val"}),
        ("ignore", ["masks,*.gif", "b"], ["masks", "*.gif", "b"]),
        ("val", ["0.1"], 0.1),
        ("test", ["val"], "val"),
    ],
)
def test_options_are_read(name: str, words: list[str], value: object) -> None:
    assert parameters(Layout)[name].gather(words) == value


@pytest.mark.parametrize(
    ("name", "words", "takes"),
    [
        ("split_folders", ["train"], "--split-folders takes FOLDER=SPLIT like training_set=train,test_set=test"),
        ("split_folders", ["a=dev"], "a split being one of train, val, test; found 'a=dev'"),
        ("split_folders", ["a=train,b"], "a split being one of train, val, test; found 'a=train,b'"),
        ("split_folders", ["=train"], "a split being one of train, val, test; found '=train'"),
        ("val", ["20"], "--val takes a number above 0 to below 1, or test; found '20'"),
        ("test", ["test"], "--test takes a number above 0 to below 1, or val; found 'test'"),
        ("test", ["0"], "found '0'"),
    ],
)
def test_options_that_mean_nothing_are_refused(name: str, words: list[str], takes: str) -> None:
    with pytest.raises(OptionError) as refused:
        parameters(Layout)[name].gather(words)
    assert takes in str(refused.value)


def test_something_is_left_to_train_on() -> None:
    with pytest.raises(OptionError, match=r"--val 0\.5 and --test 0\.5 leave nothing to train on"):
        Layout(val=0.5, test=0.5)
    with pytest.raises(OptionError, match=r"--val None and --test 0\.8 leave nothing"):
        Layout(test=0.8)


def test_shares_are_drawn_and_remembered(tmp_path: Path, tiny_model: Path) -> None:
    photos = write_photos(tmp_path / "photos", 20)
    made = extract(photos, str(tiny_model), name="mine", val=0.1, test=0.3)
    with open_features(made.path) as file:
        assert [file.attrs[f"{name}_rows"] for name in ("train", "val", "test")] == [36, 6, 18]
        attrs, drawn = file.attrs, file.attrs["dataset_digest"]
    arguments = fields_of_features(attrs, ())["extract_arguments"]
    assert (arguments["val"], arguments["test"]) == (0.1, 0.3)
    assert extract("mine", str(tiny_model)).up_to_date
    assert not extract("mine", str(tiny_model), val=0.2).up_to_date  # what is asked now comes first
    with open_features(made.path) as file:
        assert [file.attrs[f"{name}_rows"] for name in ("train", "val", "test")] == [30, 12, 18]
        assert file.attrs["dataset_digest"] != drawn


def test_what_is_made_again_is_understood_as_before(with_splits: Path, tiny_model: Path) -> None:
    options = {"split_folders": {"val": "test", "test": "val"}, "ignore": ["red"]}
    made = extract(with_splits, str(tiny_model), name="mine", **options)
    (run,) = fit_heads([made.path], ["ridge"])
    assert [run.rows.train, run.rows.val, run.rows.test] == [10, 4, 6]
    first, _ = commands(run)
    for option in ("--ignore red", "--split-folders val=test", "--split-folders test=val"):
        assert option in first
    made.path.write_bytes(made.path.read_bytes()[:-100])
    (check,) = verify([made.path], repair=True)
    assert check.repaired
    with open_features(made.path) as file:
        assert file.attrs["dataset_digest"] == run.dataset_digest


def test_by_default_nothing_is_remembered_and_splits_are_those_of_before(photos: Path, tiny_model: Path) -> None:
    with open_features(extract(photos, str(tiny_model)).path) as file:
        assert not {"split_folders", "ignore", "val", "test"} & json.loads(file.attrs["arguments"]).keys()
        assert file.attrs["dataset_digest"].startswith("a2de2e27e031fed5")


def test_built_in_sets_have_no_folders_to_name() -> None:
    with pytest.raises(OptionError, match="--split-folders is of folders; 'digits' is built in"):
        load_dataset("digits", layout=Layout(split_folders={"1": "train"}))


def plant(root: Path, files: dict[str, Any]) -> Path:
    """Make folders with so many files each, 0.png and so on, or with files of these names; nothing is in them."""
    for folder, wanted in files.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in [f"{number}.png" for number in range(wanted)] if isinstance(wanted, int) else wanted:
            (root / folder / name).touch()
    return root


def counts(found: Dataset) -> dict[str, dict[str, int]]:
    """Return split -> class -> images."""
    rows = Counter(zip(found.splits, (found.classes[label] for label in found.labels), strict=True))
    return {split: {name: rows[split, name] for own, name in sorted(rows) if own == split} for split, _ in rows}


TWO = {"ant": 3, "bee": 4}


def below(*folders: str) -> dict[str, int]:
    """Return what `TWO` is called below some folders."""
    return {f"{folder}/{name}": count for folder in folders for name, count in TWO.items()}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(TWO, ["train"], id="classes"),
        pytest.param(below("training_set/training_set", "test_set/test_set"), ["train", "test"], id="set_twice"),
        pytest.param(below("Training", "Testing"), ["train", "test"], id="training_testing"),
        pytest.param(below("train", "valid", "test"), ["train", "val", "test"], id="valid"),
        pytest.param(below("train", "dev", "eval"), ["train", "val", "test"], id="dev_eval"),
        pytest.param(below("seg_train/seg_train", "seg_test/seg_test"), ["train", "test"], id="seg"),
        pytest.param(below("X_train", "X_val", "holdout"), ["train", "val", "test"], id="x_train"),
        pytest.param(below("trainset", "TestSet 2"), ["train", "test"], id="trainset"),
        pytest.param(below("tRaIn", "tEsT"), ["train", "test"], id="odd_case"),
        pytest.param(below("TrAiNiNg", "vAlIdAtIoN_set", "testImages"), ["train", "val", "test"], id="odd_cases"),
        pytest.param(below("flowers-train", "flowers-test"), ["train", "test"], id="common_word"),
        pytest.param(below("archive/photos"), ["train"], id="one_folder_holds_all"),
        pytest.param(below("archive/data/train", "archive/data/test"), ["train", "test"], id="splits_one_down"),
        pytest.param(below("archive") | {"": ["cover.png"]}, ["train"], id="cover_beside_the_folder"),
        pytest.param(below("a/b") | {"": ["0.png"], "a": ["1.png"]}, ["train"], id="covers_on_two_levels"),
        pytest.param(
            below("archive/train", "archive/test") | {"": ["list.png", "map.jpg"]},
            ["train", "test"],
            id="cover_and_splits",
        ),
        pytest.param(
            below("train/images", "test/images") | {"train": ["all.png"]}, ["train", "test"], id="cover_in_a_split"
        ),
        pytest.param(
            below("train", "val") | {"train/ant/old": 0, "docs": ["a.txt"]}, ["train", "test"], id="docs_beside"
        ),
        pytest.param(
            {f"{name}/{split}": count for name, count in TWO.items() for split in ("train", "test")},
            ["train", "test"],
            id="splits_in_classes",
        ),
    ],
)
def test_splits_and_classes_are_told_by_their_names_and_places(
    tmp_path: Path, files: dict[str, Any], expected: list[str]
) -> None:
    assert counts(load_dataset(plant(tmp_path / "set", files))) == dict.fromkeys(expected, TWO)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({"bus": 2, "car": 2, "train": 2}, {"train": ["bus", "car", "train"]}, id="a_class_called_train"),
        pytest.param({"test": 2, "training": 2, "control": 1}, {"train": ["control", "test", "training"]}, id="tests"),
        pytest.param(
            {f"{split}/{name}": 2 for split in ("train", "test") for name in ("bus", "test", "train")},
            {"train": ["bus", "test", "train"], "test": ["bus", "test", "train"]},
            id="in_splits",
        ),
        pytest.param(
            {"locomotive_train": ["test 1.png"], "test_tube": ["a train.png"]},
            {"train": ["locomotive_train", "test_tube"]},
            id="words_in_names",
        ),
        pytest.param(
            {"steam train/old": 2, "test tube/new": 2}, {"train": ["steam train", "test tube"]}, id="words_and_folders"
        ),
        pytest.param(
            {**{f"train/{name}": 2 for name in ("0", "90", "180", "270")}, **{f"test/{n}": 1 for n in ("0", "90")}},
            {"train": ["0", "180", "270", "90"], "test": ["0", "90"]},
            id="classes_missing_in_test",
        ),
        pytest.param({"ant/2023": 2, "ant/2024": 1, "bee/2024": 2}, {"train": ["ant", "bee"]}, id="folders_in_classes"),
        pytest.param({"ant/images": 2, "bee/images": 2}, {"train": ["ant", "bee"]}, id="one_folder_in_each_class"),
        pytest.param(
            {"with_mask": 2, "mask": ["1_mask.png"]}, {"train": ["mask", "with_mask"]}, id="masks_are_the_task"
        ),
        pytest.param(
            {"mask": 2, "no_mask": 2, "hood": 2}, {"train": ["hood", "mask", "no_mask"]}, id="masks_and_others"
        ),
        pytest.param({"gas mask": 2, "hat": 2}, {"train": ["gas mask", "hat"]}, id="a_kind_of_mask"),
    ],
)
def test_what_holds_images_and_is_called_as_splits_are_is_a_class(
    tmp_path: Path, files: dict[str, Any], expected: dict[str, list[str]]
) -> None:
    found = counts(load_dataset(plant(tmp_path / "set", files)))
    assert {split: list(classes) for split, classes in found.items()} == expected


@pytest.mark.parametrize(
    ("files", "words"),
    [
        pytest.param(
            below("val", "test"), "has test and val, and no train .* --split-folders val=train", id="no_train"
        ),
        pytest.param(below("test"), "has test, and no train", id="test_alone"),
        pytest.param(
            below("train") | {"val": 9, "": ["val.txt"]},
            r"set/val' is a split by its name, and its 9 images lie in no folders of classes\. .* --ignore val",
            id="flat_val",
        ),
        pytest.param(
            below("train") | {"test/test": 5},
            r"in '.*/test' \(test\) are none of the classes in train \(ant, bee\)\. Give a table .* --ignore test, and",
            id="test_without_labels",
        ),
        pytest.param(
            below("seg_train", "seg_test") | {"seg_pred": 4},
            "others beside it that are no split: seg_pred. .*--ignore seg_pred",
            id="others",
        ),
        pytest.param(
            below("train", "test", "eval"),
            "has eval and test, which are all test by their names.*--ignore",
            id="two_tests",
        ),
        pytest.param(
            below("siteA", "siteB"),
            "siteA, siteB in .* hold the same folders, ant, bee: .*-level 2.*siteA=SPLIT,siteB=SPLIT.*--class-level 1",
            id="too_high",
        ),
        pytest.param(
            {f"train/{year}/{name}": 2 for year in (2023, 2024) for name in TWO} | below("test"),
            "2023, 2024 in '.*/train' hold the same folders",
            id="too_high_in_a_split",
        ),
        pytest.param(
            {"train": ["cat.0.jpg", "cat.1.jpg", "dog.0.jpg", "dog.1.jpg"] * 2 + ["dog.2.jpg"] * 4, "test1": 3},
            r"set/train' holds 5 images and no folders of classes\.",
            id="flat_splits",
        ),
        pytest.param(
            {f"{name}/{kind}": 3 for name in TWO for kind in ("images", "masks")},
            "Among the images in '.*/ant' are masks of them, by their names: masks. .* --ignore masks.* --class-level",
            id="masks_beside",
        ),
        pytest.param(
            {"ant": 3, "bee": 4, "bee/Ground Truth": 3},
            "in '.*/bee' are masks of them, by their names: Ground Truth. .* --ignore 'Ground Truth'",
            id="masks_below",
        ),
        pytest.param(
            {"ant": 3, "bee": ["a.png", "a_mask.png", "b.png", "b_mask.png"]},
            r"in '.*/bee' are masks of them, by their names: \*_mask\.\*\. .* --ignore '\*_mask\.\*'",
            id="a_mask_for_each",
        ),
        pytest.param(
            {f"{name}/{split}": ["a.png", "a_mask.png"] for name in TWO for split in ("train", "test")},
            r"in '.*/ant/test' are masks of them, by their names: \*_mask\.\*\. ",
            id="a_mask_for_each_in_splits_in_classes",
        ),
        pytest.param(
            TWO | {"masks": 4},
            r"In '.*/set' are folders of masks .*: masks\. Leave them out with --ignore masks\. .* --class-level 1\.",
            id="masks_beside_classes",
        ),
        pytest.param(
            {"ant": ["a1.jpg", "a2.jpg"], "bee": ["b1.jpg"], "Ground Truth": ["a1_gt.png", "a2_gt.png", "b1_gt.png"]},
            ": Ground Truth. Leave them out with --ignore 'Ground Truth'",
            id="truth_beside_classes",
        ),
        pytest.param(TWO | {"ant_mask": 3, "bee_mask": 4}, "--ignore ant_mask,bee_mask", id="masks_of_each_class"),
        pytest.param(
            below("train", "test") | {"train/segmentation": 3},
            r"In '.*/train' are .*: segmentation\. .* --class-level 2\.",
            id="segmentation_in_a_split",
        ),
        pytest.param(below("images", "masks"), "--ignore masks", id="masks_above_classes"),
        pytest.param(
            below("JPEGImages") | {"SegmentationClass/ant": ["x.png"], "SegmentationClass/bee": ["y.png"]},
            "--ignore SegmentationClass",
            id="masks_of_other_names_above_classes",
        ),
        pytest.param(
            below("images/train", "images/test", "labels/train", "labels/test"),
            "--ignore labels",
            id="masks_and_splits",
        ),
        pytest.param(
            below("train", "test") | {"train_masks": 7, "test_masks": 7},
            "--ignore test_masks,train_masks",
            id="masks_beside_splits",
        ),
        pytest.param(
            {"train": 3, "test": 3}, "If test, train are classes, say --class-level 1", id="images_in_train_and_test"
        ),
        pytest.param(
            {f"{split}/{year}/{name}": 2 for split in ("train", "test") for year in (2023, 2024) for name in TWO},
            "If they are, say --class-level 3. If 2023 and 2024 are classes, say --class-level 2",
            id="levels_in_splits",
        ),
        pytest.param(
            below("siteA/train", "siteA/test", "siteB/train", "siteB/test"),
            r"called as splits are: test, train\. Splits are known at the top alone\. Give a table",
            id="splits_below_sites",
        ),
        pytest.param(
            below("s, t", "u"),
            "'s, t', u in .*: --split-folders 's, t=SPLIT,u=SPLIT', .* train, val, test. If 's, t' and u are",
            id="names_with_commas",
        ),
        pytest.param(
            below("train") | {"x, y": 4},
            r"no split: 'x, y'\. Leave them out with --ignore 'x\? y',",
            id="odd_with_comma",
        ),
        pytest.param(
            {"": 8} | {f"old/{name}": 2 for name in TWO}, "has one class, 'old'", id="images_outnumber_a_folder"
        ),
        pytest.param(
            {"ant": ["1.npy", "2.npy"], "bee": ["1.npy"]}, "It holds 3 .npy files, which are arrays. Write", id="arrays"
        ),
        pytest.param(
            {"ant": ["1.nii"], "bee": ["1.nii"]}, "holds 2 .nii files, which are volumes. Write", id="volumes"
        ),
        pytest.param({"": ["photos.tar.gz"]}, "holds 1 .gz files, which are archives. Unpack", id="archive_in_folder"),
    ],
)
def test_what_has_no_meaning_or_several_is_told_with_the_way_out(
    tmp_path: Path, files: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        load_dataset(plant(tmp_path / "set", files))


@pytest.mark.parametrize(
    ("files", "options", "expected"),
    [
        pytest.param(
            below("A", "B"), {"split_folders": {"A": "train", "B": "test"}}, {"train": TWO, "test": TWO}, id="ab"
        ),
        pytest.param(
            below("A", "B"), {"class_level": 2}, {"train": {name: 2 * count for name, count in TWO.items()}}, id="below"
        ),
        pytest.param(below("A", "B"), {"class_level": 1}, {"train": {"A": 7, "B": 7}}, id="above"),
        pytest.param(
            below("train", "test"), {"class_level": 1}, {"train": {"test": 7, "train": 7}}, id="classes_train_and_test"
        ),
        pytest.param({"train": 3, "val": 2}, {"class_level": 1}, {"train": {"train": 3, "val": 2}}, id="flat_train"),
        pytest.param(
            below("train", "bus"), {"class_level": 1}, {"train": {"bus": 7, "train": 7}}, id="train_and_another"
        ),
        pytest.param(below("train", "test"), {"class_level": 2}, {"train": TWO, "test": TWO}, id="below_splits"),
        pytest.param(
            {
                f"{split}/{year}/{name}": count
                for split in ("train", "val")
                for year in "12"
                for name, count in TWO.items()
            },
            {"class_level": 3},
            {split: {name: 2 * count for name, count in TWO.items()} for split in ("train", "test")},
            id="two_below_splits",
        ),
        pytest.param(
            {f"{name}/{split}": count for name, count in TWO.items() for split in ("train", "test")},
            {"class_level": 1},
            {"train": TWO, "test": TWO},
            id="above_splits",
        ),
        pytest.param(
            below("s, t", "u"),
            {"split_folders": {"s, t": "train", "u": "test"}},
            {"train": TWO, "test": TWO},
            id="commas",
        ),
        pytest.param(TWO | {"x, y": 4}, {"ignore": "x? y"}, {"train": TWO}, id="without_a_comma"),
        pytest.param(TWO | {"x[1]": 4}, {"ignore": "x[1]"}, {"train": TWO}, id="brackets"),
        pytest.param(TWO | {"masks": 4}, {"ignore": "masks"}, {"train": TWO}, id="masks_beside"),
        pytest.param(TWO | {"masks": 4}, {"class_level": 1}, {"train": TWO | {"masks": 4}}, id="a_class_called_masks"),
        pytest.param(below("images", "masks"), {"ignore": "masks"}, {"train": TWO}, id="masks_above"),
        pytest.param(
            below("A/A", "B/B"), {"split_folders": {"A": "train", "B": "val"}}, {"train": TWO, "val": TWO}, id="aa"
        ),
        pytest.param(
            {"ant/tr": 3, "ant/te": 3, "bee/tr": 4, "bee/te": 4},
            {"split_folders": {"tr": "train", "te": "test"}},
            {"train": TWO, "test": TWO},
            id="splits_in_classes",
        ),
        pytest.param(below("train") | {"val": 9}, {"ignore": "val"}, {"train": TWO}, id="without_a_flat_val"),
        pytest.param(
            below("train", "extra"), {"split_folders": {"extra": "test"}}, {"train": TWO, "test": TWO}, id="extra"
        ),
        pytest.param(
            {f"{name}/{kind}": count for name, count in TWO.items() for kind in ("images", "masks")},
            {"ignore": ["masks"]},
            {"train": TWO},
            id="without_masks",
        ),
    ],
)
def test_the_way_out_leads_out(
    tmp_path: Path, files: dict[str, Any], options: dict[str, Any], expected: dict[str, dict[str, int]]
) -> None:
    found = load_dataset(plant(tmp_path / "set", files), layout=Layout(**options))
    assert counts(found) == expected
    assert all(line.startswith("There is a val (") for line in found.warnings)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"train", "test"}),
        ({"ignore": "masks"}, {"train", "test"}),
        ({"test": 0.3}, {"train", "val"}),
        ({"test": "val"}, {"train", "test"}),
        ({"split_folders": {"valid": "val"}}, {"train", "val"}),
        ({"ignore": "testing"}, {"train", "val"}),
    ],
)
def test_a_folder_called_val_is_the_test_where_there_is_none(
    tmp_path: Path, options: dict[str, Any], expected: set[str]
) -> None:
    place = plant(
        tmp_path / "set", below("train", "valid", *{"masks", "testing"}.intersection(map(str, options.values())))
    )
    found = load_dataset(place, layout=Layout(**options))
    assert set(found.splits) == expected
    said = any("no test: as in most tutorials it is the test" in line for line in found.warnings)
    assert said == (not options or options.get("ignore") == "masks")


@pytest.mark.parametrize("option", ["val", "test"])
def test_shares_of_images_without_labels_are_refused(tmp_path: Path, option: str) -> None:
    place = plant(tmp_path / "pool", {"": 6})
    assert load_dataset(place).classes == ()
    with pytest.raises(OptionError, match=rf"without labels, and --{option} is about splits of labelled images"):
        load_dataset(place, layout=Layout(**{option: 0.3}))


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        pytest.param(
            below("A", "B"), {"class_level": 3}, "3: '.*/set' .* like 'A/ant', are at level 2; give that", id="too_low"
        ),
        pytest.param(TWO, {"class_level": 2}, "level 2: '.*/set' .* like 'ant', are at level 1", id="classes"),
        pytest.param(
            below("train", "test"), {"class_level": 4}, "4: '.*/test' .* like 'ant', are at level 2", id="splits"
        ),
        pytest.param(
            below("A", "B"),
            {"class_level": 1, "split_folders": {"A": "train", "B": "val"}},
            "--class-level 1 says that .* and --split-folders A=train,B=val that they are splits. .* --class-level 2",
            id="classes_and_splits",
        ),
    ],
)
def test_a_level_that_cannot_be_is_told_with_those_that_can(
    tmp_path: Path, files: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        load_dataset(plant(tmp_path / "set", files), layout=Layout(**options))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        pytest.param({"masks": ["x.png"]}, "called as masks of other images are: masks. .* --ignore masks", id="masks"),
        pytest.param({"Overlay": ["x.png"]}, "are: Overlay. .* --ignore Overlay", id="overlay"),
        pytest.param({"nan": 3, "null": 1}, "not known, by their names: 'nan', 'null'. .* --ignore nan,null", id="nan"),
        pytest.param({"N/A": 3}, "Class N is all in 'N/A', .* not known. .* --ignore N", id="slash"),
        pytest.param({"n/a": 3, "?": 2}, "by their names: '[?]'. .* --ignore '.[?].'", id="question_mark"),
    ],
)
def test_names_of_classes_that_may_mean_something_else_are_told(
    tmp_path: Path, files: dict[str, Any], words: str
) -> None:
    found = load_dataset(plant(tmp_path / "set", TWO | files))
    assert any(re.search(words, line) for line in found.warnings), found.warnings
    assert len(found.classes) == 2 + len(files)


def test_folders_that_are_named_are_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--split-folders: '.*' has no folder training, tset. It has test, train\."):
        load_dataset(
            plant(tmp_path / "set", below("train", "test")),
            layout=Layout(split_folders={"training": "train", "tset": "test"}),
        )


@pytest.mark.parametrize(
    ("files", "passed_over"),
    [
        pytest.param({"ant/@eaDir/0.png": ["SYNOPHOTO_THUMB_M.jpg"], "@eaDir": 2}, {"@eaDir folder": 2}, id="synology"),
        pytest.param({"__MACOSX/ant": ["._0.png"]}, {"__MACOSX folder": 1}, id="mac"),
        pytest.param({"$RECYCLE.BIN": 3, "System Volume Information": ["x"]}, {"$RECYCLE.BIN folder": 1}, id="windows"),
        pytest.param(
            {"lost+found": 0, "ant/.ipynb_checkpoints": 2}, {"lost+found folder": 1, "hidden folder": 1}, id="unix"
        ),
        pytest.param({"ant/thumbnails": 3}, {"thumbnails folder": 1}, id="thumbnails"),
        pytest.param(
            {"ant": ["0.png:Zone.Identifier", "0.png:com.apple.quarantine", "a:b.png"]},
            {"attribute stream": 2},
            id="streams",
        ),
        pytest.param(
            {"bee": ["Thumbs.db", "x.txt", "y.txt", ".DS_Store"]}, {".db": 1, ".txt": 2, "hidden file": 1}, id="files"
        ),
        pytest.param({"": ["cover.png"]}, {"stray file": 1}, id="beside_the_classes"),
        pytest.param(
            {"features/set": ["tiny-1.h5"], "runs/set": ["a.json", "a.npz", "a.safetensors"], "": ["report.html"]},
            {"features folder": 1, "runs folder": 1, ".html": 1},
            id="our_own_output",
        ),
    ],
)
def test_what_is_no_data_is_passed_over_and_counted(
    tmp_path: Path, files: dict[str, Any], passed_over: dict[str, int]
) -> None:
    found = load_dataset(plant(plant(tmp_path / "set", TWO), files))
    extra = {"a:b.png"} & {Path(path).name for path in found.paths}
    assert len(found) == 7 + len(extra)
    assert passed_over.items() <= dict(found.passed_over).items()
    assert found.classes == ("ant", "bee")
    assert not found.warnings


def test_empty_splits_and_folders_and_links_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    root = plant(tmp_path / "set", below("train") | {"test/ant": [".gitkeep"], "val": 0, "train/old": ["a.npy"]})
    (root / "train" / "cow").symlink_to("/mnt/old-disk/cow")
    (root / "train" / "ant" / "gone.png").symlink_to("/mnt/old-disk/1.png")
    found = load_dataset(root)
    assert counts(found) == {"train": {"ant": 4, "bee": 4}}
    assert found.warnings == (
        "No images in test, val: what is given by that name is empty, and is drawn from train.",
        "No images in train/old; these are not classes here. It holds 1 .npy files, which are arrays. "
        "Write each image as a PNG, 16 bits deep if need be.",
        "Links to folders that are not there: train/cow. Mend them if they were classes.",
    )
    with pytest.raises(ImageReadError, match=r"gone\.png': a link to '/mnt/old-disk/1.png', which is not there"):
        found.images.read("train/ant/gone.png")


def test_links_between_folders_end(tmp_path: Path) -> None:
    root = plant(tmp_path / "set", {"ant": 3, "bee": 4})
    for here, there in (("ant", "bee"), ("bee", "ant"), ("ant", ".")):
        (root / here / f"to {there}").symlink_to(root / there)
    (root / "again").symlink_to(root / "ant")
    found = counts(load_dataset(root))["train"]
    assert found == {"again": 7, "ant": 7, "bee": 7}


def test_a_name_to_ignore_that_nothing_has_is_told(tmp_path: Path) -> None:
    root = plant(tmp_path / "set", TWO | {"ant/masks": 1})
    found = load_dataset(root, layout=Layout(ignore=["masks", "mask", "0.*"]))
    assert found.warnings == (f"Nothing in '{root}' is called as --ignore says: mask.",)
    assert found.passed_over == {"masks folder": 1, "0.* file": 2}


@pytest.mark.parametrize(
    ("name", "words"), [("a.tgz", "archives. Unpack"), ("a.npz", "arrays. Write"), ("a.nii", "volumes. Write")]
)
def test_a_file_of_another_kind_is_named_as_what_it_is(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=rf"is a file, but not .*{words}"):
        load_dataset(tmp_path / name)


def test_groups_that_cannot_be_drawn_from_are_told_before_the_work() -> None:
    labels, splits = np.repeat([0, 1], 5), ["train"] * 10
    with pytest.raises(DataError, match=r"needs 3 groups in a class, .* no class has more than 1\."):
        check_splits(labels, splits, ["ant", "bee"], ["a"] * 5 + ["b"] * 5)
    check_splits(labels, splits, ["ant", "bee"], ["a", "b", "c", "c", "c"] + ["d"] * 5)
    check_splits(labels, splits, ["ant", "bee"], [""] * 10)


@pytest.mark.parametrize(
    ("overview", "line"),
    [
        (
            Overview(
                {"train": 30, "val": 9, "test": 9},
                ("val", "test"),
                {"ant": 16, "bee": 32},
                {".txt": 4, "stray file": 2},
            ),
            "48 images: train 30, val 9 (drawn), test 9 (drawn); 2 classes (ant 16, bee 32); "
            "6 files passed over (4 .txt, 2 stray files)",
        ),
        (
            Overview(
                {"train": 1200, "val": 0, "test": 100}, ("val",), dict.fromkeys("abcdefghijklm", 100), {"x folder": 1}
            ),
            "1,300 images: train 1,200, test 100; 13 classes, 100 images each; 1 folder passed over (1 called x)",
        ),
        (
            Overview({"train": 2, "val": 1, "test": 1}, None, {"a\nb": 1, "c": 3}, None),
            "4 images: train 2, val 1, test 1; 2 classes (a\\nb 1, c 3)",
        ),
        (
            Overview({"train": 7, "val": 0, "test": 0}, (), dict.fromkeys(("a, b", "c", *"defgh"), 1), None),
            "7 images: train 7; 7 classes, 1 image each",
        ),
        (
            Overview({"train": 4, "val": 0, "test": 0}, (), {"fox": 1, "fox, red": 2, "fox ": 1}, None),
            "4 images: train 4; 3 classes (fox 1, 'fox, red' 2, 'fox ' 1)",
        ),
    ],
)
def test_what_was_understood_is_one_line(overview: Overview, line: str) -> None:
    assert str(overview) == line


@pytest.mark.parametrize(
    ("in_class", "in_group", "expected"),
    [
        pytest.param(1, 1, {"train": 2, "val": 0, "test": 0}, id="too_few"),
        pytest.param(3, 1, {"train": 2, "val": 2, "test": 2}, id="just_enough"),
        pytest.param(15, 1, {"train": 18, "val": 6, "test": 6}, id="no_groups"),
        pytest.param(15, 5, {"train": 10, "val": 10, "test": 10}, id="large_groups"),
        pytest.param(12, 3, {"train": 12, "val": 6, "test": 6}, id="groups"),
    ],
)
def test_what_will_be_drawn_is_known_before_the_images_are_read(
    tmp_path: Path, in_class: int, in_group: int, expected: dict[str, int]
) -> None:
    plant(tmp_path, dict.fromkeys(TWO, in_class))
    rows = [f"{name}/{n}.png,{name},{name}{n // in_group}" for name in TWO for n in range(in_class)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,group", *rows]))
    assert Overview.expected(load_dataset(tmp_path / "list.csv")).splits == expected


def test_it_says_what_it_understood(photos: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tlcache")
    (photos / "red" / "notes.txt").touch()
    understood = (
        "photos: 24 images: train 12, val 6 (drawn), test 6 (drawn); 3 classes (blue 8, green 8, red 8); "
        "1 file passed over (1 .txt)"
    )
    for _ in range(2):
        caplog.clear()
        made = extract(photos, str(tiny_model))
        assert caplog.messages == [understood]
        assert f"photos: {made.overview}" == understood
    assert made.up_to_date
    assert made.as_json()["overview"]["drawn"] == ("val", "test")
    caplog.clear()
    fit_heads([made.path, made.path], ["ridge"])
    assert caplog.messages == [understood]


def test_what_only_the_images_tell_is_said_in_the_end(
    photos: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tlcache")
    (photos / "red" / "broken.png").write_bytes(b"no image")
    made = extract(photos, str(tiny_model))
    first, last = caplog.messages
    assert first.startswith(
        "photos: 25 images: train 13, val 6 (drawn), test 6 (drawn); 3 classes (blue 8, green 8, red 9)"
    )
    assert last == f"photos: in the end {made.overview}"
    assert str(made.overview).startswith("24 images: train 12, val 6 (drawn)")


def test_a_drawn_split_is_called_drawn(photos: Path, tiny_model: Path, with_splits: Path) -> None:
    drawn, given = (extract(data, str(tiny_model)).path for data in (photos, with_splits))
    fit_heads([drawn, given], ["ridge"])
    by_name = {run.dataset: run for run in list_runs()}
    assert (by_name["photos"].drawn, by_name["photos"].test_split) == (("val", "test"), "drawn")
    assert (by_name["set"].drawn, by_name["set"].test_split) == ((), "given")
    assert heading([by_name["photos"]]).plain.startswith("photos: 6 test images (drawn), 3 classes")
    assert heading([by_name["set"]]).plain.startswith("set: 6 test images, 3 classes")
    audited = CliRunner().invoke(app, ["audit", "--group-regex", r"([0-9])\.png"]).stdout
    assert "photos: 24 images (12 train, 6 val (drawn), 6 test (drawn))" in audited
    assert "set: 30 images (15 train, 9 val, 6 test)" in audited
    fit_heads([drawn], ["ridge"], split="group")
    shown = CliRunner().invoke(app, ["compare", "--data", "photos"]).stdout
    assert "photos: 6 test images (drawn), 3 classes, drawn split" in shown
    assert "Drawn split" in shown


def test_feature_files_that_do_not_say_what_was_drawn_are_read_without_the_word(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Overview, "attributes", {})
    made = extract(photos, str(tiny_model))
    with open_features(made.path) as file:
        assert str(file.overview()) == "24 images: train 12, val 6, test 6; 3 classes (blue 8, green 8, red 8)"
    (run,) = fit_heads([made.path], ["ridge"])
    assert (run.drawn, run.test_split) == (None, "given")


@pytest.mark.parametrize(
    ("files", "classes", "left_out"),
    [
        ({"ant": 3, "ant/thumb": 3, "bee": 3, "bee/thumb": 2}, {"ant": 3, "bee": 3}, {"thumb folder": 2}),
        ({"ant": 3, "ant/_Thumbnails": 3, "bee": 3}, {"ant": 3, "bee": 3}, {"_Thumbnails folder": 1}),
        (
            {"ant": ["1.png", "2.png"], "ant/small": ["thumb_1.jpg", "2-tn.jpg"], "bee": 2},
            {"ant": 2, "bee": 2},
            {"small folder": 1},
        ),
        ({"ant": ["1.png"], "ant/thumb": ["7.png"], "bee": 1}, {"ant": 2, "bee": 1}, {}),  # not of images above
        ({"thumb": 3, "palm": 3}, {"palm": 3, "thumb": 3}, {}),
    ],
)
def test_smaller_copies_are_passed_over(
    tmp_path: Path, files: dict[str, Any], classes: dict[str, int], left_out: dict[str, int]
) -> None:
    found = load_dataset(plant(tmp_path / "set", files))
    assert Counter(found.classes[label] for label in found.labels) == classes
    assert found.passed_over == left_out


def test_a_folder_called_as_what_is_built_in_is_not_passed_by_in_silence(tmp_path: Path) -> None:
    words = "'digits' is the dataset that is built in; the folder of that name here is --data ./digits."
    assert words not in load_dataset("digits").warnings
    plant(tmp_path / "digits", {"ant": 2, "bee": 2})
    assert words in load_dataset("digits").warnings
    assert len(load_dataset("./digits")) == 4


def test_the_flowers_are_read_as_their_makers_publish_them(tmp_path: Path) -> None:
    root = plant(tmp_path / "flowers", {"jpg": [f"image_{number:05d}.jpg" for number in range(1, 7)]})
    savemat(root / "imagelabels.mat", {"labels": [[1, 1, 1, 2, 2, 2]]})
    savemat(root / "setid.mat", {"trnid": [[6, 1]], "valid": [[2, 5]], "tstid": [[3, 4]]})
    found = load_dataset(root)
    assert found.classes == ("001 pink primrose", "002 hard-leaved pocket orchid")
    assert found.paths == tuple(f"jpg/image_0000{number}.jpg" for number in (1, 6, 2, 5, 3, 4))
    assert found.splits == ("train", "train", "val", "val", "test", "test")
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 1]
    (root / "setid.mat").write_bytes(b"cut")
    with pytest.raises(DataError, match="are not those of Oxford 102 Flowers"):
        load_dataset(root)
