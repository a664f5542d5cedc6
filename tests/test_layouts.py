"""How folders of images are understood, and the options that say it otherwise."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fakes import write_photos

from tlcache.cache.feature_file import open_features
from tlcache.datasets.dataset import Dataset, load_dataset
from tlcache.datasets.layout import Layout
from tlcache.errors import DataError, OptionError
from tlcache.extraction.extract import extract
from tlcache.inventory import verify
from tlcache.options import parameters
from tlcache.probing.fit import fit_heads
from tlcache.report.reproduce import commands
from tlcache.runs.base import fields_of_features


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
