"""What an audit found as a manifest: images that are left out, splits drawn anew, and nothing embedded again."""

import csv
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fakes import write_image, write_photos
from test_cli import invoke
from test_containers import stored
from typer.testing import CliRunner

from tlcache.auditing.clean import write_clean
from tlcache.auditing.dropping import ListedImage, choose_dropped
from tlcache.auditing.findings import Audit, DuplicatePair, LabelIssue, OddImage
from tlcache.auditing.run import audit
from tlcache.cli import app
from tlcache.errors import DataError, OptionError
from tlcache.extraction.extract import extract

IMAGES = [  # path, label, split, group, bytes
    ListedImage(*words.split(","))
    for words in (
        "test/a,cat,test,p1,A",
        "test/b,cat,test,,B",
        "test/c,cat,test,,B",
        "train/a,cat,train,p1,D",
        "train/b,cat,train,,B",
        "train/e,dog,train,,E",
        "train/f,cat,train,,E",
        "train/g,cat,train,,G",
        "train/h,cat,train,,H",
        "val/b,cat,val,,B",
        "val/g,cat,val,,I",
    )
]
SPLIT_OF = {image.path: image.split for image in IMAGES}
LABEL_OF = {image.path: image.label for image in IMAGES}


def pair(one: str, other: str) -> DuplicatePair:
    ends = (SPLIT_OF[one], SPLIT_OF[other], LABEL_OF[one], LABEL_OF[other])
    return DuplicatePair(one, other, 0.9, False, *ends)


def issue(path: str) -> LabelIssue:
    return LabelIssue(path, SPLIT_OF[path], "cat", "dog", 0.1)


FOUND = SimpleNamespace(
    near=(pair("train/g", "val/g"), pair("train/g", "train/h"), pair("test/a", "train/e")),
    label_issues=(issue("train/h"), issue("test/a"), issue("val/g")),
    odd=(OddImage("test/b", "test", "cat", ("dark", "blurred")),),
)


@pytest.mark.parametrize(
    ("kinds", "known", "expected"),
    [
        ((), True, {}),
        (
            ["leaks"],
            False,
            {
                "val/b": ("leaks", "test/b", "equal bytes in test"),
                "train/b": ("leaks", "test/b", "equal bytes in test"),
                "train/e": ("leaks", "test/a", "cosine 0.900 in test, labelled cat"),
                "train/g": ("leaks", "val/g", "cosine 0.900 in val"),
            },
        ),
        (["leaks"], True, {**dict.fromkeys(("val/b", "train/b", "train/e", "train/g")), "train/a": ()}),
        (
            ["duplicates"],
            True,
            {
                "test/c": ("duplicates", "test/b", "equal bytes in test"),
                "val/b": ("duplicates", "test/b", "equal bytes in test"),
                "train/b": ("duplicates", "test/b", "equal bytes in test"),
                "train/e": ("duplicates", "test/a", "cosine 0.900 in test, labelled cat"),
                "train/g": ("duplicates", "val/g", "cosine 0.900 in val"),
            },
        ),
        (
            ["conflicts"],
            False,
            {
                "train/e": ("conflicts", "train/f", "equal bytes, and labelled cat"),
                "train/f": ("conflicts", "train/e", "equal bytes, and labelled dog"),
                "test/a": ("conflicts", "train/e", "cosine 0.900, and labelled dog"),
            },
        ),
        (["label-issues"], False, {"train/h": ("label-issues", "", "looks like dog"), "val/g": ()}),
        (["odd"], False, {"test/b": ("odd", "", "dark; blurred")}),
        (  # what is wrong by itself is nobody's copy to keep
            ["label-issues", "leaks", "duplicates"],
            False,
            {**dict.fromkeys(("train/h", "val/g", "test/c", "val/b", "train/b", "train/e"))},
        ),
    ],
)
def test_what_is_left_out_and_why(kinds: list[str], known: bool, expected: dict[str, Any]) -> None:
    found = choose_dropped(IMAGES, cast(Audit, FOUND), kinds, groups_are_known=known)
    assert found.keys() == expected.keys()
    assert all(found[path] == why for path, why in expected.items() if why)
    assert found == choose_dropped(IMAGES[::-1], cast(Audit, FOUND), kinds, groups_are_known=known)


@pytest.fixture
def doubled(tmp_path: Path) -> Path:
    """36 images of given splits, of which two of train are in test as well, one in val, and one twice in train."""
    root = tmp_path / "set"
    for number, split in enumerate(("train", "val", "test")):
        write_photos(root / split, 4)
        for seed, path in enumerate(sorted((root / split).rglob("*.png"))):
            write_image(path, 100 * number + seed, seed % 3)
    for name, copy in (("red/0", "test/red/x"), ("red/1", "test/red/y"), ("red/2", "val/red/x"), ("red/3", "train/z")):
        (root / f"{copy}.png").parent.mkdir(exist_ok=True)
        shutil.copy(root / "train" / f"{name}.png", root / f"{copy}.png")
    shutil.move(root / "train" / "z.png", root / "train" / "red" / "again.png")
    return root


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_leak_is_gone_and_the_test_images_are_the_same(doubled: Path, tiny_model: Path, tmp_path: Path) -> None:
    extract(doubled, str(tiny_model))
    shown = invoke("audit", "--data", "set", "--write", "clean.csv", "--drop", "leaks,duplicates")
    assert "clean.csv: 36 images (train 9, val 13, test 14)" in shown
    assert "clean.dropped.csv: 4 left out (leaks 3, duplicates 1)" in shown
    kept = rows(tmp_path / "clean.csv")
    before = {path.relative_to(tmp_path).as_posix() for path in doubled.rglob("*.png")}
    dropped = rows(tmp_path / "clean.dropped.csv")
    assert {row["path"] for row in kept} == before - {f"set/{row['path']}" for row in dropped}
    assert [(row["path"], row["other"], row["why"]) for row in dropped] == [
        ("train/red/0.png", "test/red/x.png", "equal bytes in test"),
        ("train/red/1.png", "test/red/y.png", "equal bytes in test"),
        ("train/red/2.png", "val/red/x.png", "equal bytes in val"),
        ("train/red/again.png", "train/red/3.png", "equal bytes in train"),
    ]
    result = extract("clean.csv", str(tiny_model))
    assert (result.embedded, result.reused) == (0, 36)
    (found,) = audit(data="clean")
    assert (found.leak.duplicated, found.exact, found.splits["test"]) == (0, (), 14)
    assert f"Next, with nothing to embed: tlcache extract --data clean.csv --model {tiny_model.name}" in shown


def test_groups_of_a_new_split_are_whole(doubled: Path, tiny_model: Path, tmp_path: Path) -> None:
    extract(doubled, str(tiny_model))
    invoke("audit", "--data", "set", "--write", "grouped.csv", "--regroup", "--drop", "odd")
    splits: dict[str, set[str]] = {}
    for row in rows(tmp_path / "grouped.csv"):
        splits.setdefault(row["group"], set()).add(row["split"])
    del splits[""]  # images that are alone
    assert len(splits) >= 4
    assert all(len(each) == 1 for each in splits.values())
    assert extract("grouped.csv", str(tiny_model)).embedded == 0
    (found,) = audit(data="grouped")
    assert (found.group_by, found.torn, found.leaks) == ("column", (), False)


@pytest.mark.parametrize("given", ["folder", "zip"])
def test_images_elsewhere_are_found_again(given: str, doubled: Path, tiny_model: Path, tmp_path: Path) -> None:
    data = stored(doubled) if given == "zip" else doubled
    extract(data, str(tiny_model))
    out = tmp_path / "lists" / "clean.csv"
    (found,) = audit()
    cleaned = write_clean(found, out, drop=["leaks"])
    assert sum(cleaned.splits.values()) == 37
    result = extract(out, str(tiny_model), images=cleaned.arguments.get("images"))
    assert (result.embedded, result.reused) == (0, 37)
    assert rows(out)[0]["path"] == (f"{doubled}/train/blue/0.png" if given == "folder" else "train/blue/0.png")
    again = extract("clean", str(tiny_model))  # by the name of what is cached
    assert (again.embedded, again.rows) == (0, 37)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--drop", "leaks"], "--drop is of the manifest of --write; give both"),
        (["--regroup"], "--regroup is of the manifest of --write"),
        (["--write", "new.csv"], "leave images out with --drop leaks, or --regroup"),
        (["--write", "new.csv", "--drop", "leaks", "--regroup"], "--regroup draws splits in which nothing leaks"),
        (["--write", "new.json", "--drop", "leaks"], "a manifest is a .csv file"),
        (
            ["--write", "there.csv", "--drop", "leaks"],
            "'there.csv' is there already. Give another name, or --overwrite",
        ),
        (["--write", "half.csv", "--drop", "leaks"], "'half.dropped.csv' is there already"),
        (["--write", "new.csv", "--drop", "leak"], "Did you mean 'leaks'?"),
    ],
)
def test_nothing_is_replaced_or_guessed(words: list[str], says: str, tmp_path: Path) -> None:
    for name in ("there.csv", "half.dropped.csv"):
        (tmp_path / name).write_text("mine")
    result = CliRunner().invoke(app, ["audit", *words])
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())
    assert [path.read_text() for path in sorted(tmp_path.glob("*.csv"))] == ["mine", "mine"]


def test_what_is_asked_for_is_replaced_and_one_dataset_is_written(doubled: Path, tiny_model: Path) -> None:
    extract(doubled, str(tiny_model))
    (found,) = audit()
    write_clean(found, "clean.csv", drop=["odd"])
    with pytest.raises(OptionError, match="there already"):
        write_clean(found, "clean.csv", drop=["leaks"])
    assert write_clean(found, "clean.csv", drop=["leaks"], overwrite=True).dropped == {"leaks": 3}
    extract("clean.csv", str(tiny_model))
    both = CliRunner().invoke(app, ["audit", "--write", "both.csv", "--drop", "leaks"])
    assert both.exit_code == 2
    assert "--write writes the manifest of one dataset" in " ".join(both.output.split())


def test_images_that_could_not_be_used_are_listed(doubled: Path, tiny_model: Path) -> None:
    (doubled / "train" / "red" / "torn.png").write_bytes(b"\x89PNG")
    extract(doubled, str(tiny_model))
    (found,) = audit()
    assert write_clean(found, "clean.csv", drop=["odd"]).dropped == {"unusable": 1}
    (row,) = rows(Path("clean.dropped.csv"))
    assert (row["path"], row["finding"]) == ("train/red/torn.png", "unusable")
    assert "PNG" in row["why"]


@pytest.mark.parametrize(
    ("name", "label", "says"),
    [
        ("7.png ", "red", r"7\.png ' \(red\) would be read as another name"),
        (os.fsdecode(b"\xff.png"), "red", "not UTF-8"),
        ("7.png", "nan", "no label|another name"),
    ],
)
def test_names_that_a_table_cannot_hold_are_refused(
    name: str, label: str, says: str, photos: Path, tiny_model: Path
) -> None:
    for number in range(5):
        write_image(photos / label / f"{number}.png", 900 + number, 0)
        shutil.move(photos / label / f"{number}.png", photos / label / f"{number}-{name}")
    extract(photos, str(tiny_model))
    (found,) = audit()
    with pytest.raises(DataError, match=says):
        write_clean(found, "clean.csv", drop=["odd"])
    assert not list(Path().glob("*.csv"))


def test_a_class_is_not_lost_without_a_word(tiny_model: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_photos(tmp_path / "set" / split, 6)
    extract("set", str(tiny_model))
    (found,) = audit()
    with pytest.raises(DataError, match=r"--drop leaves no train image of class blue, green, red\. Drop less"):
        write_clean(found, "clean.csv", drop=["leaks"])
    assert not Path("clean.csv").exists()


def test_images_without_labels_stay_without(doubled: Path, tiny_model: Path) -> None:
    extract(doubled, str(tiny_model), unlabelled=True)
    (found,) = audit()
    cleaned = write_clean(found, "clean.csv", drop=["duplicates"])
    assert Path("clean.csv").read_text().splitlines()[:2] == ["path", "set/test/blue/0.png"]
    result = extract("clean.csv", str(tiny_model), unlabelled=cleaned.arguments["unlabelled"])
    assert (result.embedded, result.reused) == (0, 36)
