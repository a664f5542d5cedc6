"""Manifests as people have them: each is read right, or what is wrong with it is said."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tlcache.datasets.dataset import Dataset, load_dataset
from tlcache.datasets.labels import notes_on
from tlcache.datasets.layout import Layout
from tlcache.errors import DataError, OptionError
from tlcache.extraction.extract import extract
from tlcache.probing.fit import fit_heads
from tlcache.report.reproduce import commands

NAMES = ("img/0.png", "img/1.png", "img/2.png")
EXPECTED = dict(zip(NAMES, ("ant", "bee", "cow"), strict=True))


@pytest.fixture(autouse=True)
def images() -> None:
    """Three files; none is opened."""
    for name in NAMES:
        touch(name)


def touch(name: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).touch()


def load(text: str | bytes, name: str = "list.csv", **options: Any) -> Dataset:
    touch(name)
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
    return load_dataset(name, layout=Layout(**options))


def labels(found: Dataset) -> dict[str, str]:
    return {path: found.classes[label] for path, label in zip(found.paths, found.labels, strict=True)}


def told(found: Dataset, words: str) -> bool:
    return any(words in line for line in found.warnings)


ROWS = "img/0.png,ant\nimg/1.png,bee\nimg/2.png,cow\n"
PLAIN = f"path,label\n{ROWS}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", PLAIN),
        ("excel.csv", PLAIN.replace(",", ";").encode("utf-8-sig")),
        ("bars.csv", PLAIN.replace(",", " | ")),
        ("unicode.csv", PLAIN.replace(",", "\t").encode("utf-16")),
        ("mac.csv", PLAIN.replace("\n", "\r")),
        ("windows.csv", PLAIN.replace("\n", "\r\n")),
        ("list.tsv", PLAIN.replace(",", "\t")),
        ("sep.csv", f"sep=;\n{PLAIN.replace(',', ';')}"),
        ("tabs.csv", PLAIN.replace(",", "\t")),
        ("table.txt", PLAIN),
        ("caffe.txt", ROWS.replace(",", " ")),
        ("blanks.txt", PLAIN.replace(",", "   ")),
        ("headless.csv", ROWS),
        ("headless.tsv", ROWS.replace(",", "\t")),
        ("trailing.csv", PLAIN.replace("\n", ",\n")),
        ("empty cells.csv", PLAIN.replace("img/1.png,bee", "img/1.png,bee,,")),
        ("quoted.csv", '"path", "label"\n' + ROWS.replace("bee", '"bee"')),
        ("remarks.csv", f"# made by hand\n\n{PLAIN}# img/3.png,dog\n"),
        ("lines.jsonl", "\n".join(json.dumps({"label": b, "more": [1], "path": a}) for a, b in EXPECTED.items())),
    ],
)
def test_a_table_of_every_form_is_one_dataset(name: str, text: str | bytes) -> None:
    found = load(text, name)
    assert labels(found) == EXPECTED
    headless = name.startswith(("headless", "caffe"))
    assert found.warnings == (
        ("The table has no header; its first column is taken as the path, its second as the label.",)
        if headless
        else ()
    )


def test_quotation_marks_hold_what_would_part_cells() -> None:
    touch("img/x, 1.png")
    found = load('path,label\n"img/x, 1.png","say ""hi"""\nimg/0.png,"two\nlines"\n')
    assert labels(found) == {"img/x, 1.png": 'say "hi"', "img/0.png": "two\nlines"}


@pytest.mark.parametrize(
    ("header", "note"),
    [
        ("filename,class", "'filename' is the path and 'class' is the label"),
        ("file_name,label", "'file_name' is the path"),
        ("Image Path,Target", "'Image Path' is the path and 'Target' is the label"),
        ("filepath,category", "'filepath' is the path and 'category' is the label"),
        ("image_id,dx", "'image_id' is the path and 'dx' is the label"),
    ],
)
def test_columns_are_known_by_their_usual_names(header: str, note: str) -> None:
    found = load(f"{header}\n{ROWS}")
    assert labels(found) == EXPECTED
    assert found.warnings == (f"Of the columns, {note}.",)


def test_the_surest_name_of_a_column_wins() -> None:
    text = "id,target,label,path,set\n7,0,ant,img/0.png,valid\n8,1,bee,img/1.png,test\n9,2,cow,img/2.png,train\n"
    found = load(text)
    assert labels(found) == EXPECTED
    assert dict(zip(found.paths, found.splits, strict=True)) == dict(zip(NAMES, ("val", "test", "train"), strict=True))
    assert found.warnings == (
        "Of the columns, 'path' is the path (not 'id') and 'label' is the label (not 'target') and 'set' is the split. "
        "Name another with --path-column or --label-column.",
    )


@pytest.mark.parametrize(
    ("text", "role", "note"),
    [
        ("Path,image,label\nimg/0.png,x,ant\nimg/1.png,y,bee\n", "path", "'Path' is the path (not 'image')."),
        ("id,image,label\n7,img/0.png,ant\n8,img/1.png,bee\n", "path", "'image' is the path (not 'id')."),
        ("path,label,class\nimg/0.png,ant,x\nimg/1.png,bee,y\n", "label", "'label' is the label (not 'class')."),
        ("path,y,species\nimg/0.png,0,ant\nimg/1.png,1,bee\n", "label", "'species' is the label (not 'y')."),
        (
            "path,label,split,set\nimg/0.png,ant,train,test\nimg/1.png,bee,train,train\n",
            "split",
            "'split' is the split (not 'set').",
        ),
        ("path,label,group,patient\nimg/0.png,ant,,p\nimg/1.png,bee,,p\n", "group", "is the group (not 'patient')."),
    ],
)
def test_the_surest_column_of_every_role_is_taken_and_the_others_told(text: str, role: str, note: str) -> None:
    found = load(text)
    assert labels(found) == {"img/0.png": "ant", "img/1.png": "bee"}
    assert (set(found.splits), set(found.groups)) == ({"train"}, {""})
    (line,) = found.warnings
    assert f"{note} Name another with --{role}-column." in line
    assert load(text, **{f"{role}_column": note.split("'")[1] if note[0] == "'" else role}).warnings == ()


@pytest.mark.parametrize(
    ("header", "role"),
    [
        ("path,label,class,label", "label"),
        ("path,species,breed", "label"),
        ("file,img,label", "path"),
        ("path,label,set,phase", "split"),
        ("path,label,patient,subject", "group"),
    ],
)
def test_columns_that_may_equally_be_of_a_role_are_refused(header: str, role: str) -> None:
    with pytest.raises(DataError, match=rf":1: several columns may be the {role}: .* with --{role}-column"):
        load(f"{header}\nimg/0.png,ant,train,test\n".replace(",test" if header.count(",") == 2 else "\0", ""))


def test_a_column_that_is_named_is_nothing_else() -> None:
    found = load("path,patient,label\nimg/0.png,ant,x\nimg/1.png,bee,x\n", label_column="patient")
    assert (found.classes, set(found.groups), found.warnings) == (("ant", "bee"), {""}, ())


def test_a_column_for_every_class_is_a_label() -> None:
    found = load("image,ant,bee,cow,age\nimg/0.png,1.0,0.0,0,7\nimg/1.png,0,1,0,8\nimg/2.png,0,0,1,9\n")
    assert labels(found) == EXPECTED
    assert found.warnings[1:] == ("Each of these columns is a class, 1 in its images: 'ant', 'bee', 'cow'.",)
    assert load("id,ant,bee\n0,1,0\n1,0,1\n").classes == ("ant", "bee")  # an id of 0 and 1 is none


@pytest.mark.parametrize(("row", "count"), [("1,1,0", "2"), ("1,1.0,1", "3"), ("0,0,0", "none")])
def test_rows_of_several_classes_or_of_none_are_refused(row: str, count: str) -> None:
    text = f"path,ant,bee,cow,age\nimg/0.png,1,0,0,7\nimg/1.png,{row},8\nimg/2.png,0,0,1,9\n"
    with pytest.raises(
        DataError,
        match=rf":3: no column is the label .* \('ant', 'bee', 'cow'\) {count} are 1\. An image has one label",
    ):
        load(text)
    assert load(text, label_column="age").classes == ("7", "8", "9")


@pytest.mark.parametrize("column", ["patient_id", "Subject", "group"])
def test_a_patient_is_a_group_and_nan_is_none(column: str) -> None:
    found = load(f"path,label,{column}\nimg/0.png,ant,p1\nimg/1.png,bee,nan\nimg/2.png,cow,\n")
    assert found.groups == ("p1", "", "")
    assert told(found, f"'{column}' is the group") == (column != "group")


@pytest.mark.parametrize("column", ["grp", "fold", "pateint_id", "splt", "is_train"])
def test_a_column_that_may_be_a_group_or_a_split_is_told(column: str) -> None:
    found = load(f"path,label,{column},note\nimg/0.png,ant,1,a\nimg/1.png,bee,2,b\n")
    assert set(found.groups) == {""}
    assert [line.partition(".")[0] for line in found.warnings] == [f"Columns that are not used: '{column}'"]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (r"img\1.png", "img/1.png"),
        ("./img/1.png", "img/1.png"),
        ("img/../img/1.png", "img/1.png"),
        ("{here}/img/1.png", "img/1.png"),
        ("img/1", "img/1.png"),
        (r".\img\1", "img/1.png"),
        ("img/1.PNG", "img/1.png"),
    ],
)
def test_paths_as_people_write_them(given: str, path: str) -> None:
    found = load(f"path,label\nimg/0.png,ant\n{given.format(here=Path.cwd())},bee\n")
    assert found.paths == ("img/0.png", path)
    assert told(found, f"'{given}' is '{path}'") == given.endswith(("1", "\\1.png", "PNG"))


def test_a_folder_above_all_images_is_found() -> None:
    assert labels(load("id,breed\n0,ant\n1,bee\n2,cow\n")) == EXPECTED
    found = load("path,label\n0.png,ant\n1.png,bee\n2.png,cow\n")
    assert labels(found) == EXPECTED
    assert found.warnings == ("Of the list's paths, 3 are read like this: '0.png' is 'img/0.png'.",)


@pytest.mark.parametrize("start", ["/home/ann/set/", "C:\\Users\\ann\\", "../input/", "data/"])
def test_leading_folders_of_another_machine_are_left_out(start: str) -> None:
    rows = [f"{start}{name},{label}" for name, label in EXPECTED.items()]
    if start.startswith(".."):  # may be there, beside the list's folder
        with pytest.raises(DataError, match="leads out of"):
            load("\n".join(["path,label", *rows]))
    else:
        found = load("\n".join(["path,label", *rows]))
        assert labels(found) == EXPECTED
        assert told(found, f"'{start}img/0.png' is 'img/0.png'")


def test_images_of_another_folder_are_not_those_of_the_list() -> None:
    with pytest.raises(DataError, match=r"Looked for '/.*/img/old/0\.png'\. There is: '0\.png'"):
        load(PLAIN.replace("img/", "old/"), images="img")


def test_images_that_lie_in_several_folders_are_found_by_their_names() -> None:
    for part in range(3):
        touch(f"part_{part}/deep/ISIC_{part}.jpg")
    found = load("image_id,dx\nISIC_0,nv\nISIC_1,mel\nISIC_2,nv\n")
    assert labels(found) == {f"part_{n}/deep/ISIC_{n}.jpg": "mel" if n == 1 else "nv" for n in range(3)}


def test_a_folder_that_is_a_link_is_found_and_thumbnails_are_not() -> None:
    Path("img").rename("store")
    Path("set/@eaDir").mkdir(parents=True)
    Path("set/photos").symlink_to(Path("store").absolute())
    for number in range(3):
        touch(f"set/@eaDir/{number}.png")
    found = load("id,label\n0,ant\n1,bee\n2,cow\n", "set/list.csv")
    assert found.paths == ("photos/0.png", "photos/1.png", "photos/2.png")


def test_the_same_names_in_two_folders_are_not_guessed() -> None:
    for number in range(3):
        touch(f"masks/{number}.png")
    text = "path,label\n0.png,ant\n1.png,bee\n2.png,cow\n"
    with pytest.raises(DataError, match=r"no listed image is where the list says.* There is: 'img/', 'masks/'\."):
        load(text)
    assert labels(load(text, ignore="masks")) == EXPECTED


def test_a_single_image_that_is_missing_is_for_its_reader_to_find() -> None:
    assert load(f"{PLAIN}img/3.png,cow\n").paths[-1] == "img/3.png"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label,label\na,b,c\n", ":1: several columns may be the label: 'label', 'label'"),
        (
            "file,image,label\na,b,c\n",
            ":1: several columns may be the path: 'file', 'image'. Say which with --path-column",
        ),
        (
            "a,b\nimg/0.png,ant\n",
            "no column is the path or the label by its name; there are 'a', 'b'. Say .* --path-column NAME and",
        ),
        ('path,label\nimg/0.png,"ant\nimg/1.png,bee\n', "unexpected end of data. Is a quotation mark left open"),
        ("path,label\nhttps://host/0.png,ant\n", ":2: 'https://host/0.png' is an address; images are not downloaded"),
        ("path,label\ns3://bucket/0.png,ant\n", "is an address"),
        ("path,label\n/etc/passwd,ant\n", ":2: '/etc/passwd' leads out of"),
        ("path,label\nimg/0.png,ant\n/elsewhere/0.png,bee\n", ":3: '/elsewhere/0.png' leads out of"),
        ("path,label\nC:\\old\\0.png,ant\n", r"Looked for '.*/C:/old/0.png'. There is: 'img/0.png'"),
        (
            "path,label\nimg/7.png,ant\n",
            r"no listed image is .* Looked for '/.*/img/7.png'. There is: 'img/0.png'. Give",
        ),
        (
            f"{PLAIN}./img/0.png,bee\n",
            r":5: './img/0.png' is 'img/0.png', which is .* line 2, with another label \('ant', and 'b",
        ),
        (f"{PLAIN}img/0.png,ant\n", ":5: 'img/0.png' is listed already, on line 2, with the same label. Keep one of"),
        ("path,label\nimg/0.png,nan\n", "no row has a label"),
        ("path,label\nimg/0.png,ant\n,bee\n", ":3: the row has no path"),
        ("path,label\nimg/0.png,ant\nnan,bee\n", ":3: the row has no path"),
        ("path,is_train,is_test\nimg/0.png,0,1\nimg/1.png,1,0\n", "no column is the label by its name; there"),
        (b"path,label\nimg/0.png,\0\n", "null bytes"),
        (
            "path,label,split\nimg/0.png,ant,0\nimg/1.png,bee,1\n",
            "unknown split '0'.* has 0, 1: .*folders 0=SPLIT,1=SPLIT",
        ),
        (
            "path,label,split\nimg/0.png,ant,a b\n",
            "--split-folders 'a b=SPLIT', a SPLIT being one of train, val, test, or leave rows out with --ignore 'a b'",
        ),
        ("\n ,\n", "has no header. Its first line names the columns"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_line(text: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(text)


@pytest.mark.parametrize("text", ["[1, 2]", "{", '"word"', "7"])
def test_lines_that_are_no_objects_are_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"list\.jsonl:2: no object of JSON"):
        load(f'{{"path": "img/0.png", "label": 0}}\n{text}\n', "list.jsonl")


@pytest.mark.parametrize("text", ["img\\u0000/1.png", "img/\\ud800.png"])
def test_what_json_escapes_and_is_no_text_is_refused(text: str) -> None:
    for row in (f'{{"path": "{text}", "label": 1}}', f'{{"path": "img/1.png", "label": "{text}"}}'):
        with pytest.raises(DataError, match=r"list\.jsonl:2: a null byte, or half of a character"):
            load(f'{{"path": "img/0.png", "label": 0}}\n{row}\n', "list.jsonl")
    assert load(
        '{"path": "img/0.png", "label": 0}\n{"path": "img/1.png", "label": "\\ud83d\\udc1c"}', "a.jsonl"
    ).classes


def test_rows_without_a_label_are_left_out_and_told() -> None:
    found = load(f"{PLAIN}img/3.png,nan\nimg/4.png,\nimg/5.png,NULL\n")
    assert labels(found) == EXPECTED
    assert found.warnings == ("3 of 6 rows left out, as they have no label (empty or 'NULL' or 'nan'): line 5, 6, 7.",)


@pytest.mark.parametrize("word", ["#N/A", "<NA>", "-nan", "NaT", "1.#QNAN", "Null"])
def test_what_can_only_mean_that_there_is_no_label_is_none(word: str) -> None:
    assert labels(load(f"{PLAIN}img/3.png,{word}\n")) == EXPECTED


@pytest.mark.parametrize("word", ["N/A", "NA", "n/a", "None", "unknown", "?", "Not Available"])
def test_classes_that_may_mean_no_label_are_told_and_can_be_ignored(word: str) -> None:
    text = f"{PLAIN}img/3.png,{word}\n"
    found = load(text)
    assert (labels(found)["img/3.png"], len(found)) == (word, 4)
    (note,) = found.warnings
    assert f"Classes that may mean that the label is not known, by their names: '{word}'. If so, leave" in note
    given = shlex.split(note.rpartition("--ignore ")[2].rstrip("."))
    less = load(text, ignore=given)
    assert (labels(less), less.warnings, sum(less.passed_over.values())) == (EXPECTED, (), 1)


def test_numbers_beside_missing_labels_are_measurements_too() -> None:
    with pytest.raises(DataError, match="To learn numbers: --task regression"):
        load("\n".join(["path,label", *(f"img/{n % 3}{'.' * n}.png,{0.37 * n:g}" for n in range(30)), "img/2.png,N/A"]))


def test_groups_that_may_mean_no_group_are_told() -> None:
    rows = "img/0.png,ant,unknown\nimg/1.png,bee,unknown\nimg/2.png,cow,NA\n"
    found = load(f"path,label,group\n{rows}")
    assert found.groups == ("unknown", "unknown", "NA")
    assert found.warnings == (
        "Groups that may mean that the group is not known: 'unknown' (2 images). If so, leave these cells empty.",
    )


@pytest.mark.parametrize(
    ("ignore", "left", "counted"),
    [
        ("cow", "img/0.png img/1.png img/3.png", {"cow file": 1}),
        (["b*", "*3.png"], "img/0.png img/2.png", {"b* file": 1, "*3.png file": 1}),
        ("1.png", "img/0.png img/2.png img/3.png", {"1.png file": 1}),
        ("holdout", "img/0.png img/1.png img/2.png", {"holdout file": 1}),
        (["dev", "ant"], "img/2.png img/3.png", {"dev file": 1, "ant file": 1}),
    ],
)
def test_what_is_ignored_of_a_manifest_is_counted(ignore: Any, left: str, counted: dict[str, int]) -> None:
    touch("img/3.png")
    found = load(
        "path,label,split\nimg/0.png,ant,train\nimg/1.png,bee,dev\nimg/2.png,cow,train\nimg/3.png,bee,holdout\n",
        ignore=ignore,
    )
    assert (set(found.paths), found.passed_over, found.warnings) == (set(left.split()), counted, ())


def test_what_is_ignored_and_not_there_is_told_of_every_source() -> None:
    here = Path.cwd()
    assert load(PLAIN, ignore=["cow", "horse"]).warnings == (
        f"Nothing in '{here}/list.csv' is called as --ignore says: horse.",
    )
    assert load_dataset("digits", layout=Layout(ignore=["3", "ten"])).warnings == (
        "Nothing in 'digits' is called as --ignore says: ten.",
    )
    with pytest.raises(DataError, match=r"list\.csv: --ignore leaves no row of 3"):
        load(PLAIN, ignore="*")


@pytest.mark.parametrize(("listed", "ignored"), [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")])
def test_accents_of_what_is_ignored_may_be_written_otherwise(listed: str, ignored: str) -> None:
    assert labels(load(f"{PLAIN}img/3.png,{listed}\n", ignore=ignored)) == EXPECTED
    for name in ("red", "blue", listed):
        touch(f"set/{name}/1.png")
    found = load_dataset("set", layout=Layout(ignore=ignored))
    assert (found.classes, found.warnings) == (("blue", "red"), ())


def test_a_label_to_ignore_is_a_number_in_one_form_and_may_be_of_an_image_that_is_listed_twice() -> None:
    text = "path,label\nimg/0.png,0\nimg/1.png,1\nimg/2.png,2.0\nimg/1.png,2\n"
    with pytest.raises(DataError, match=r"listed already, on line 3, with another label \('1', and '2' here\)"):
        load(text)
    assert labels(load(text, ignore="2")) == {"img/0.png": "0", "img/1.png": "1"}


@pytest.mark.parametrize(
    ("given", "classes", "note"),
    [
        ("0 1.0 0.0", "0 1", "'0' and '0.0' are one class, as other numbers are"),
        ("10 2.00 10.0", "10 2", "'10' and '10.0' are one class"),
        ("1.0 2.0 3.0", "1.0 2.0 3.0", ""),
        ("1 1.0 x", "1 1.0 x", "differ only in case, blanks or zeros: '1' and '1.0'"),
        ("1 01 2", "01 1 2", "'01' and '1'. Is each of them one class?"),
        ("Ant ant bee", "Ant ant bee", "'Ant' and 'ant'"),
        ("sea_lion Sea_Lion bee", "Sea_Lion bee sea_lion", "'Sea_Lion' and 'sea_lion'"),
        ("caf\u00e9 cafe\u0301 bee", "bee caf\u00e9", "how Unicode writes accents are one class: caf\u00e9"),
        ("x|y x y", "x x|y y", "seem to be several in one: 'x|y'"),
        ("x;y x;z y;z", "x;y x;z y;z", "seem to be several in one: 'x;y', 'x;z', 'y;z'"),
        ("tench,tinca crane,bird crane", "crane crane,bird tench,tinca", ""),
    ],
)
def test_labels_that_are_nearly_one_or_several_are_told(given: str, classes: str, note: str) -> None:
    cells = [f'{name},"{label}"' for name, label in zip(NAMES, given.split(), strict=True)]
    found = load("\n".join(["path,label", *cells]))
    assert found.classes == tuple(classes.split())
    assert found.warnings == () if not note else len(found.warnings) == 1 and told(found, note)


@pytest.mark.parametrize("number", [0.37, 1, 2.5e-7])
def test_measurements_are_no_classes(number: float) -> None:
    for row in range(30):
        touch(f"img/{row}.png")
    with pytest.raises(DataError, match="30 different ones in 30 rows. To learn numbers: --task regression"):
        load("\n".join(["path,label", *(f"img/{row}.png,{row * number:g}" for row in range(30))]))


def test_grades_with_fractions_are_classes_and_told_where_they_are_many() -> None:
    for row in range(90):
        touch(f"img/{row}.png")
    rows = [f"img/{row}.png,{row % 30 / 4}" for row in range(90)]
    assert told(load("\n".join(["path,label", *rows])), "The 30 labels are numbers with fractions")
    assert load("\n".join(["path,label", *(f"img/{row}.png,{row % 3 / 2}" for row in range(90))])).warnings == ()


@pytest.mark.parametrize(
    ("given", "uses"),
    [
        ("TRAINING Validation test", {}),
        ("train_set dev holdout", {}),
        ("0 1 2", {"0": "train", "1": "val", "2": "test"}),
        ("rest valid keep", {"rest": "train", "keep": "test"}),
    ],
)
def test_splits_by_their_usual_names_or_as_the_option_says(given: str, uses: dict[str, str]) -> None:
    rows = [f"{name},{name[4]},{split}" for name, split in zip(NAMES, given.split(), strict=True)]
    found = load("\n".join(["path,label,split", *rows]), split_folders=uses or None)
    assert found.splits == ("train", "val", "test")
    assert found.warnings == ()


def test_rows_without_a_split_train_and_are_told() -> None:
    found = load("path,label,split\nimg/0.png,ant,test\nimg/1.png,bee,\nimg/2.png,cow,nan\n")
    assert Counter(found.splits) == {"train": 2, "test": 1}
    assert found.warnings == ("2 of 3 rows have no split and are taken as train.",)


COLUMNS = "image,dx,who,part,label\nimg/0.png,ant,p,1,x\nimg/1.png,bee,p,2,y\nimg/2.png,cow,,1,x\n"


def test_columns_are_those_that_are_named() -> None:
    options = {"path_column": "image", "label_column": "dx", "group_column": "who", "split_column": "part"}
    found = load(COLUMNS, **options, split_folders={"1": "train", "2": "test"})
    assert labels(found) == EXPECTED
    assert (found.groups, found.splits) == (("p", "", "p"), ("train", "train", "test"))
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"label_column": "DX"},
            r"no column 'DX' \(--label-column\); there are 'image', 'dx', 'who', 'part', 'label'\.",
        ),
        ({"group_column": "grp"}, r"no column 'grp' \(--group-column\); there are 'image'"),
        ({"split_column": "part"}, "unknown split '1'"),
        (
            {"split_column": "part", "split_folders": {"1": "train", "3": "test"}},
            "no image has the split 3.* are: 1, 2",
        ),
        ({"split_folders": {"1": "train"}, "label_column": "dx"}, "no image has the split 1. The splits are: none"),
        ({"split_column": "part", "split_folders": {"1": "val", "2": "test"}}, "no images to train on. .* val=train"),
        ({"images": "nowhere"}, "--images nowhere: there is no such folder or archive"),
    ],
)
def test_what_is_named_and_not_there_is_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(COLUMNS, **options)


def test_a_list_without_a_header_may_begin_with_labels_and_has_no_names() -> None:
    found = load("ant img/0.png\nbee img/1.png\ncow img/2.png\n", "list.txt")
    assert labels(found) == EXPECTED
    assert told(found, "its first column is taken as the label, its second as the path")
    with pytest.raises(DataError, match=r"no column 'dx' \(--label-column\); the table has no header, so add one"):
        load(ROWS, label_column="dx")
    with pytest.raises(DataError, match=r":1: no header, but img/0.png, ant, train. Add a line like path,label"):
        load("img/0.png,ant,train\nimg/1.png,bee,test\n")


@pytest.mark.parametrize("given", ["../img/{}.png", "img/{}.png", "{here}/img/{}.png"])
def test_paths_start_from_the_folder_that_is_named_or_from_the_lists_own(given: str) -> None:
    here = Path.cwd()
    text = "\n".join(["path,label", *(f"{given.format(n, here=here)},{'ab'[n % 2]}" for n in range(3))])
    found = load(text, "lists/list.csv", images=".")
    assert (found.source, found.paths) == (str(here.resolve()), NAMES)
    assert load(text, "lists/list.csv", images="img").paths == ("0.png", "1.png", "2.png")


def test_the_folder_that_is_named_tells_which_of_several_is_meant() -> None:
    for number in range(3):
        touch(f"masks/{number}.png")
    found = load("id,label\n0,a\n1,b\n2,a\n", images="masks")
    assert found.source.endswith("/masks")
    assert found.paths == ("0.png", "1.png", "2.png")


def test_letters_of_other_case_are_found_above_all_images_too() -> None:
    for number in range(3):
        touch(f"deep/IMG/A{number}.JPG")
    assert load("id,label\nimg/a0,x\nimg/a1,y\nimg/a2,x\n").paths == tuple(f"deep/IMG/A{n}.JPG" for n in range(3))


def test_patients_that_are_numbers_have_one_form() -> None:
    found = load("path,label,patient\nimg/0.png,a,12\nimg/1.png,b,12.0\nimg/2.png,b,\n")
    assert found.groups == ("12", "12", "")
    assert told(found, "'12' and '12.0' are one group")


def test_accents_of_a_file_name_may_be_written_otherwise() -> None:
    touch("img/cafe\u0301.png")
    found = load("path,label\nimg/0.png,a\nimg/caf\u00e9.png,b\n")
    assert found.paths == ("img/0.png", "img/cafe\u0301.png")


@pytest.mark.parametrize("data", ["photos", "digits"])
def test_options_of_manifests_are_for_manifests(photos: Path, data: str) -> None:
    del photos
    for options in ({"images": "."}, {"label_column": "label"}):
        with pytest.raises(OptionError, match=f"is for manifests, and '{data}' is none"):
            load_dataset(data, layout=Layout(**options))
    with pytest.raises(OptionError, match=r"--class-level is for folders of classes, and 'list\.csv' is none"):
        load(PLAIN, class_level=1)


def test_what_is_said_of_a_manifest_is_remembered(photos: Path, tiny_model: Path) -> None:
    names = [path.relative_to(photos).as_posix() for path in photos.rglob("*.png")]
    touch("lists/mine.csv")
    Path("lists/mine.csv").write_text("\n".join(["a,b", *(f"{name},{name.split('/')[0]}" for name in names)]))
    options = {"images": Path("photos"), "path_column": "a", "label_column": "b"}
    made = extract("lists/mine.csv", str(tiny_model), **options)
    (run,) = fit_heads([made.path], ["ridge"])
    assert run.extract_arguments["images"] == str(photos.resolve())
    assert f'"{photos}' not in run.path.read_text()  # relative to it
    command, _ = commands(run)
    for option in ("--images photos", "--path-column a", "--label-column b"):
        assert option in command
    assert extract("mine", str(tiny_model)).up_to_date  # by its name, as it was


METADATA = "file_name,label\n0.png,ant\n1.png,bee\n"


def test_metadata_in_folders_of_splits_labels_the_images_beside_it() -> None:
    for split in ("train", "validation", "test"):
        touch(f"set/{split}/0.png")
        touch(f"set/{split}/1.png")
        touch(f"set/{split}/metadata.csv")
        Path(f"set/{split}/metadata.csv").write_text(METADATA)
    found = load_dataset("set")
    assert (found.name, found.source) == ("set", str(Path("set").resolve()))
    assert labels(found) == {
        f"{split}/{n}.png": ("ant", "bee")[n] for split in ("train", "validation", "test") for n in (0, 1)
    }
    assert found.splits == ("train", "train", "val", "val", "test", "test")
    assert found.warnings[1:] == ("Of the columns, 'file_name' is the path.",)
    assert told(found, "Labels are those of the metadata in the folder")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "file_name,label\na/0.png,ant\nb/1.png,bee\n"),
        ("metadata.jsonl", '{"file_name": "a/0.png", "label": "ant"}\n{"file_name": "b/1.png", "label": "bee"}\n'),
    ],
)
def test_metadata_above_folders_says_the_classes(name: str, text: str) -> None:
    for path in ("a/0.png", "b/1.png", "b/2.png", "b/.hidden.png", "old/3.png"):
        touch(f"set/{path}")
    Path("set", name).write_text(text)
    found = load_dataset("set", layout=Layout(ignore="old"))
    assert labels(found) == {"a/0.png": "ant", "b/1.png": "bee"}
    assert told(found, "1 image that the metadata does not list left out: b/2.png.")
    assert load_dataset("set", layout=Layout(ignore=["metadata.*", "old"])).classes == ("a", "b")
    touch("set/b/4.png")
    Path("set", name).write_text(text + text.splitlines()[-1].replace("1.png", "4.png").replace("bee", "cow") + "\n")
    less = load_dataset("set", layout=Layout(ignore=["cow", "old"]))
    assert labels(less) == {"a/0.png": "ant", "b/1.png": "bee"}
    with pytest.raises(DataError, match=r"has one class, 'ant'; .* needs 2 classes or more\. .* --unlabelled\.$"):
        load_dataset("set", layout=Layout(ignore=["cow", "bee"]))  # and no advice to read the table
    assert (less.passed_over["cow file"], less.passed_over["old folder"]) == (1, 1)
    assert told(less, "1 image that the metadata does not list left out: b/2.png.")  # and not what is ignored


def test_metadata_in_a_folder_that_holds_everything_is_found() -> None:
    for path in ("0.png", "1.png", "metadata.csv"):
        touch(f"archive/data/train/{path}")
    Path("archive/data/train/metadata.csv").write_text(METADATA)
    found = load_dataset("archive")
    assert (found.name, found.data) == ("archive", str(Path("archive").absolute()))
    assert labels(found) == {"train/0.png": "ant", "train/1.png": "bee"}
    assert found.read(0) == b""


def test_metadata_above_folders_of_splits_has_their_splits() -> None:
    for path in ("train/0.png", "train/1.png", "test/2.png"):
        touch(f"set/{path}")
    Path("set/metadata.csv").write_text("file_name,label\ntrain/0.png,a\ntrain/1.png,b\ntest/2.png,a\n")
    assert load_dataset("set").splits == ("train", "train", "test")


def test_metadata_without_labels_is_not_used_and_told() -> None:
    for path in ("cat/0.png", "dog/1.png"):
        touch(f"set/{path}")
    Path("set/metadata.csv").write_text("file_name,text\ncat/0.png,a cat\n")
    found = load_dataset("set")
    assert found.classes == ("cat", "dog")
    assert told(found, "metadata.csv:1: no column is the label by its name; there are 'file_name', 'text'. Say which")
    with pytest.raises(OptionError, match="--path-column is for manifests"):
        load_dataset("set", layout=Layout(path_column="file_name"))
    touch("flat/0.png")
    Path("flat/metadata.csv").write_text("file_name,text\n0.png,a cat\n")
    flat = load_dataset("flat")
    assert flat.classes == ()
    assert told(flat, "'text'. Say which it is with --label-column NAME. This table is not used.")


def test_metadata_of_a_test_set_without_labels_is_left_out_and_told() -> None:
    for path in ("train/0.png", "train/1.png", "test/2.png"):
        touch(f"set/{path}")
    Path("set/train/metadata.csv").write_text(METADATA)
    Path("set/test/metadata.csv").write_text("file_name\n2.png\n")
    found = load_dataset("set")
    assert found.paths == ("train/0.png", "train/1.png")
    assert told(found, "test/metadata.csv:1: no column is the label")
    assert told(found, "1 image that the metadata does not list left out: test/2.png.")


def test_folders_of_metadata_of_which_some_are_splits_are_refused() -> None:
    for folder in ("train", "more"):
        for number in (0, 1):
            touch(f"set/{folder}/{number}.png")
        Path(f"set/{folder}/metadata.csv").write_text(METADATA)
    with pytest.raises(
        DataError, match=r"and others: more\. Say which split each is with --split-folders more=SPLIT, a SPLIT being"
    ):
        load_dataset("set")
    assert set(load_dataset("set", layout=Layout(split_folders={"more": "test"})).splits) == {"train", "test"}


def test_tables_in_a_folder_without_classes_are_told() -> None:
    touch("flat/0.png")
    touch("flat/train.csv")
    with pytest.raises(DataError, match=r"There are tables in it; .* --data flat/train\.csv$"):
        load_dataset("flat")


def test_folders_that_differ_only_in_how_accents_are_written_are_one_class() -> None:
    for folder in ("train/caf\u00e9", "train/th\u00e9", "test/cafe\u0301", "test/the\u0301"):
        touch(f"set/{folder}/1.png")
    found = load_dataset("set")
    assert labels(found) == {
        "train/caf\u00e9/1.png": "caf\u00e9",
        "train/th\u00e9/1.png": "th\u00e9",
        "test/cafe\u0301/1.png": "caf\u00e9",
        "test/the\u0301/1.png": "th\u00e9",
    }


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["['ant']", "['bee']"], "written as lists, each of which is a class by its whole text: "),
        (['["ant", "bee"]', "cow"], "written as lists"),
        (["{'ant': 1}", "{'bee': 1}"], "written as lists"),
        (["('ant', 'bee')", "cow"], "written as lists"),
        (["0.5", "1", "2", "3", "4", "5.25"], "The 6 labels are numbers with fractions (0.5 to 5.25); each is a class"),
        (["0.5", "1", "1.5"], ""),  # grades
        (["1.5 mm", "2.5 mm", "4.0 mm"], "numbers with fractions (1.5 to 4 mm)"),
        ([str(age) for age in range(18, 24)], "The 6 labels are whole numbers (18 to 23)"),
        (["-3", "-2", "-1", "0", "1", "2"], "whole numbers (-3 to 2)"),
        ([str(number) for number in range(8)], ""),
        ([str(number) for number in range(1, 9)], ""),
        (["003", "007", "011", "019", "020", "044"], ""),
        (["3", "5", "8"], ""),
        (["grade 2", "grade 3", "grade 5"], ""),
        (["bee (red)", "ant [old]"], ""),
        ([], ""),
    ],
)
def test_labels_that_only_look_like_classes_are_pointed_out(classes: list[str], words: str) -> None:
    found = [line for line in notes_on(classes) if "written as lists" in line or "none is near" in line]
    assert len(found) == bool(words)
    assert not words or words in found[0]


def test_a_val_without_a_test_is_pointed_out() -> None:
    text = PLAIN.replace("label\n", "label,split\n").replace("ant\n", "ant,train\n").replace("bee\n", "bee,valid\n")
    text = text.replace("cow\n", "ant,train\n")
    words = "There is a val (1) and no test, which is drawn from train. If results"
    assert told(load(text), words)
    assert not told(load(text, test="val"), words)
    assert not told(load(text.replace("valid", "test")), words)
