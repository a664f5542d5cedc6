"""Labels that are no classes: several of an image, or a number; how they are read, split and kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import write_image
from numpy.typing import NDArray

from tlcache.cache.feature_file import open_features
from tlcache.datasets.dataset import Dataset, load_dataset
from tlcache.datasets.layout import Layout
from tlcache.datasets.overview import Overview
from tlcache.datasets.splits import SPLITS, draw_splits
from tlcache.datasets.stratified import deal
from tlcache.errors import DataError, OptionError
from tlcache.extraction.extract import extract
from tlcache.probing.fit import fit_columns, fit_curves, fit_heads

SEVERAL = {"0.png": {"cat", "dog"}, "1.png": {"cat"}, "2.png": set(), "3.png": {"dog", "owl"}}


def load(text: str, **options: Any) -> Dataset:
    for number in range(4):
        Path(f"{number}.png").touch()
    Path("list.csv").write_text(text)
    return load_dataset("list.csv", layout=Layout(**options))


def sets_of(found: Dataset) -> dict[str, set[str]]:
    assert found.targets is not None
    names = np.array(found.targets.names)
    rows = zip(found.paths, found.targets.values[found.labels].astype(bool), strict=True)
    return {path: set(names[row].tolist()) for path, row in rows}


@pytest.mark.parametrize(
    "text",
    [
        "path,label\n0.png,cat;dog\n1.png,cat\n2.png,;\n3.png,owl; dog;dog\n",
        "path,labels\n0.png,dog|cat\n1.png,cat\n2.png,|\n3.png,dog |owl\n",
        'path,label\n0.png,"cat, dog"\n1.png,cat\n2.png,","\n3.png,"dog,owl"\n',
        'path,label\n0.png,"cat, dog"\n1.png,cat\n2.png,;\n3.png,"dog,owl"\n',
        "path,label\n0.png,cat|dog\n1.png,cat\n2.png, ; \n3.png,dog|owl\n",
        "path,label\n0.png,\"['cat', 'dog']\"\n1.png,['cat']\n2.png,[]\n3.png,\"['owl', 'dog']\"\n",
        "path,label\n0.png,dog\n1.png,cat\n3.png,owl\n0.png,cat\n2.png,;\n3.png,dog\n3.png,dog\n",
        "path,cat,dog,owl\n0.png,1,1,0\n1.png,1,0,0\n2.png,0,0,0\n3.png,0,1,1\n",
        "path,cat,dog,owl\n0.png,1.0,1.0,0.0\n1.png,1.0,0.0,0\n2.png,0,0,0\n3.png,0,1,1\n",
    ],
    ids=[
        "semicolons",
        "bars",
        "commas",
        "commas and none",
        "bars and none",
        "lists",
        "rows",
        "columns",
        "columns of floats",
    ],
)
def test_several_labels_are_read_in_each_form(text: str) -> None:
    assert sets_of(load(text, task="multilabel")) == SEVERAL


def test_separators_that_are_a_part_of_names_are_told() -> None:
    found = load("path,label\n0.png,a;b\n1.png,\"a,b\"\n2.png,a|b\n3.png,\"['a', 'b']\"\n", task="multilabel")
    assert [line for line in found.warnings if "part of the names" in line] == [
        f"';' separates the labels of an image, and '{other}' is a part of the names of 1 label, like 'a{other}b'; if "
        "that separates labels, too, write ';'."
        for other in "|,"
    ]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("path,label\n0.png,1\n1.png,1.0\n2.png,2.50\n3.png,-0\n", [1, 1, 2.5, 0]),
        ("path,age\n0.png,1e3\n1.png,-7\n2.png,.5\n3.png,+4\n", [1000, -7, 0.5, 4]),
        ("path,label\n0.png,1\n1.png,NA\n2.png,NaN\n3.png,4.\n", [1, 4]),
        ("path,label\n0.png,1\n1.png,unknown\n2.png,-\n3.png,1000000000.25\n", [1, 1000000000.25]),
    ],
)
def test_numbers_are_read(text: str, values: list[float]) -> None:
    found = load(text, task="regression", label_column="age" if "age" in text else None)
    assert found.targets is not None
    assert found.targets.values[found.labels][:, 0].tolist() == values


@pytest.mark.parametrize(
    ("text", "task", "words"),
    [
        ("path,label\n0.png,1\n1.png,tall\n", "regression", "the label of '1.png' is 'tall'. Write a number like 3.5"),
        ("path,label\n0.png,1\n1.png,inf\n", "regression", "'1.png' is 'inf'"),
        (
            'path,label\n0.png,1\n1.png,"3,5"\n2.png,"4,5"\n3.png,x\n',
            "regression",
            "'1.png' is '3,5'.*a point, no comma",
        ),
        ("path,label\n0.png,1\n1.png,1_000\n", "regression", "'1.png' is '1_000'"),
        ("path,label\n0.png,1\n1.png,\u0663\n", "regression", "the label of '1.png'"),
        ("path,label\n0.png,1\n1.png,1e400\n", "regression", "the label of '1.png'"),
        ("path,label\n0.png,1\n1.png,1.0\n", "regression", "have the label '1.0'; there is nothing to learn"),
        ("path,label\n0.png,a;b\n1.png,b;a\n", "multilabel", "have the label 'a;b'; there is nothing to learn"),
        ("path,label,split\n0.png,a,train\n0.png,b,test\n", "multilabel", r":3: '0.png' has the split 'test'.* line 2"),
        ("path,label\n0.png,a\n0.png,b\n", None, "has one label, or with --task multilabel several"),
        ("path,a,b\n0.png,1,1\n1.png,0,1\n", None, "or say --task multilabel"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, task: str | None, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(text, task=task)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a;b", "a", "b", "a;b"], "seem to be several in one: 'a;b'.* --task multilabel; if each is a class: --task"),
        (["['a','b']", "['a']", "b", "b"], "written as lists.* --task multilabel"),
        (["18", "19", "20", "21", "22", "23"], r"whole numbers \(18 to 23\).* --task regression"),
    ],
)
def test_classes_that_look_like_something_else_are_pointed_out_until_the_task_is_told(
    labels: list[str], words: str
) -> None:
    for number in range(6):
        Path(f"{number}.png").touch()
    text = "path,label\n" + "".join(f'{number}.png,"{label}"\n' for number, label in enumerate(labels))
    (line,) = [line for line in load(text).warnings if "each" in line.lower()]
    assert re.search(words, line)
    assert not [line for line in load(text, task="classify").warnings if "--task" in line]


def test_measurements_are_refused_as_classes_until_these_are_asked_for() -> None:
    for number in range(40):
        Path(f"{number}.png").touch()
    text = "path,label\n" + "".join(f"{number}.png,{0.37 * number:g}\n" for number in range(40))
    with pytest.raises(
        DataError, match="To learn numbers: --task regression. To take each as a class: --task classify"
    ):
        load(text)
    assert len(load(text, task="classify").classes) == 40
    assert str(Overview.expected(load(text, task="regression"))).endswith("numbers from 0 to 14.43, median 7.215")


def test_without_labels_there_is_no_task() -> None:
    with pytest.raises(OptionError, match="--task is about these"):
        Layout(unlabelled=True, task="regression")


def random_sets(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """Eight labels, of which the rarest has one image of fifty."""
    random = np.random.default_rng(seed)
    return (random.random((n, 8)) < np.geomspace(0.02, 0.5, 8)).astype(np.uint8)


def test_every_label_has_its_share_of_every_part() -> None:
    labels = random_sets(1000)
    parts = deal(labels, [[row] for row in range(1000)], [0.6, 0.2, 0.2])
    for part, share in enumerate((0.6, 0.2, 0.2)):
        own = labels[parts == part]
        assert abs(len(own) - share * 1000) <= 12
        np.testing.assert_allclose(own.sum(axis=0), share * labels.sum(axis=0), atol=1.5)


def test_groups_and_copies_are_dealt_whole_whatever_the_order_of_images() -> None:
    labels, groups = random_sets(200), [f"g{row // 4}" if row < 100 else "" for row in range(200)]
    sha256 = [f"{row // 2 * 2 if row >= 150 else row:064x}" for row in range(200)]
    splits = draw_splits(labels, ["train"] * 200, groups, sha256, 0)
    assert all(len(set(splits[start : start + 4])) == 1 for start in range(0, 100, 4))
    assert all(splits[start] == splits[start + 1] for start in range(150, 200, 2))
    assert {name: round(splits.count(name) / 200, 1) for name in SPLITS} == {"train": 0.6, "val": 0.2, "test": 0.2}
    order = np.random.default_rng(1).permutation(200)
    again = draw_splits(labels[order], ["train"] * 200, *([each[n] for n in order] for each in (groups, sha256)), 0)
    assert dict(zip(order.tolist(), again, strict=True)) == dict(enumerate(splits))
    assert splits != draw_splits(labels, ["train"] * 200, groups, sha256, 1)


def test_splits_of_numbers_have_the_whole_range() -> None:
    for number in range(100):
        Path(f"{number}.png").touch()
    found = load("path,label\n" + "".join(f"{n}.png,{n**2}\n" for n in range(100)), task="regression")
    splits = draw_splits(found.strata, found.splits, found.groups, found.paths, 0)
    assert found.targets is not None
    values = np.sqrt(found.targets.values[found.labels][:, 0])
    for name in SPLITS:
        own = values[[split == name for split in splits]]
        assert np.histogram(own, 5, (0, 100))[0].tolist() == [len(own) // 5] * 5


def listed(n: int, label: Any) -> str:
    """Make n photographs and a table of them."""
    for number in range(n):
        write_image(Path(f"{number:02}.png"), number, number % 3)
    rows = "".join(f"{number:02}.png,{label(number)}\n" for number in range(n))
    Path("photos.csv").write_text(f"path,label\n{rows}")
    return "photos.csv"


def test_a_feature_file_keeps_the_task_and_that_of_classes_does_not_name_it(tiny_model: Path) -> None:
    data = listed(12, lambda number: ("a;b", "a", ";")[number % 3])
    plain, several = extract(data, tiny_model), extract(data, tiny_model, task="multilabel")
    assert (several.embedded, several.overview.classes) == (0, {"a": 8, "b": 4})
    with open_features(several.path) as file:
        rows = file.split(*SPLITS)
        assert file.attrs["task"] == "multilabel"
        assert rows.targets is not None
        assert rows.targets.names == ("a", "b")
        expected = [([1, 1], [1, 0], [0, 0])[int(path[:2]) % 3] for path in rows.paths]
        assert rows.wanted.tolist() == rows.of(np.arange(12)).wanted.tolist() == expected
        digest = file.attrs["dataset_digest"]
    again = extract(data, tiny_model)
    with open_features(again.path) as file:
        assert "task" not in file.attrs
        assert "task" not in file.attrs["arguments"]
        assert file.attrs["dataset_digest"] != digest
        assert file.targets is None
    assert plain.overview == again.overview


def test_what_learns_classes_refuses_other_tasks(tiny_model: Path) -> None:
    done = extract(listed(12, lambda number: number**1.5), tiny_model, task="regression")
    for fit, asked in ((fit_curves, {"shots": [1]}), (fit_heads, {"cv": "2x1"}), (fit_columns, {"columns": "site"})):
        with pytest.raises(
            OptionError, match=f"--{next(iter(asked))} is of classes, and the labels are of --task regr"
        ):
            fit([done.path], heads=["ridge"], **asked)
