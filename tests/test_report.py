"""The page, as a reader and a browser get it."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from fakes import make_run
from test_cli import invoke
from typer.testing import CliRunner

from tlcache.auditing.run import audit
from tlcache.cli import app
from tlcache.deploying.best import best_run
from tlcache.errors import CacheError, OptionError
from tlcache.evaluation.compare import compare
from tlcache.evaluation.comparison import pareto
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune
from tlcache.probing.fit import fit_curves, fit_heads
from tlcache.report.figures import confusion_figure
from tlcache.report.inline import inline_svg
from tlcache.report.page import write_report
from tlcache.report.reproduce import commands, uses
from tlcache.runs.folder import read_runs, runs_folder

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
BETTER = {"precision": "fp32", "layout": "contiguous", "batch_norm": "eval", "lr": 1e-3}
VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """What is on a page; elements that are not closed in order are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = dict(attrs)
        self.ids += [str(fields["id"])] if "id" in fields else []
        self.addresses += [str(fields[name]) for name in ("src", "href", "xlink:href") if name in fields]
        if tag == "img":
            assert fields["alt"]
        if tag == "svg":
            assert fields["role"] == "img"
            assert fields["aria-label"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += f" {data.strip()}"


@pytest.fixture
def recorded(tinynet: None, val_chooses: None, photos: Path) -> Path:
    """Heads, a fine-tuning and a few-shot curve on one dataset, and many classes on another."""
    del tinynet, val_chooses
    file = extract(photos, "tinynet", "random", resize=16, crop=16).path
    fit_heads([file], ["ridge", "knn"])
    finetune(photos, "tinynet", "random", resize=16, crop=16, epochs=2, **BETTER)
    fit_curves([file], [1, None], ["ridge"], samples=2)
    many = photos.parent / "many"
    for number in range(15):
        shutil.copytree(photos / "red", many / f"class{number:02} & <b>")
    fit_heads([extract(many, "tinynet", "random", resize=16, crop=16).path], ["ridge"])
    return photos


def test_the_page_is_whole_and_needs_nothing_else(recorded: Path, tmp_path: Path) -> None:
    del recorded
    paths = write_report(tmp_path / "out" / "answer.html")
    assert [path.name for path in paths] == ["answer.html", "answer.md", "answer.csv"]
    text = paths[0].read_text()
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert set(re.findall(r"https?://[^\"' <)]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    for title in ("Accuracy against cost", "All runs", "Learning curves", "How many labelled images are enough?"):
        assert title in page.text
    assert "Fine-tuning tinynet" in page.text
    assert "class00 & <b>" in page.text  # and so was escaped
    assert "tlcache finetune --data" in page.text


def test_the_answer_comes_first(recorded: Path, tmp_path: Path) -> None:
    del recorded
    text = write_report(tmp_path / "r.html")[0].read_text()
    assert text.index('class="answer"') < text.index("<svg") < text.index("<table")


def test_the_other_two_files_hold_the_same_figures(tmp_path: Path) -> None:
    for head, wrong in (("svm", 20), ("a|b", 60)):
        make_run(
            head=head,
            right=np.arange(400) >= wrong,
        )
    page, markdown, table = write_report(tmp_path / "r.html")
    with table.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["head"], float(row["accuracy"])) for row in rows] == [("svm", 0.95), ("a|b", 0.85)]
    text = markdown.read_text()
    assert "|\\*|tinynet|svm|0.950" in text
    assert "a\\|b" in text
    assert rows[0]["dataset"] == "photos"
    assert "not there any more" in page.read_text()  # the images of these runs never were


def test_what_cannot_be_the_page_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"asked: '.*r\.pdf'"):
        write_report(tmp_path / "r.pdf")
    (tmp_path / "r.html").mkdir()
    with pytest.raises(CacheError, match=r"r\.html': it is a folder\. Give the name of a page with --out"):
        write_report(tmp_path / "r.html")


def test_every_run_can_be_made_again_from_its_commands(recorded: Path, tmp_path: Path) -> None:
    photos = recorded
    del tmp_path
    audit(data="photos", group_regex=r"([0-9])\.png")
    fit_heads(heads=["ridge"], split="group", split_seed=3, data="photos")
    more = {"sweep": {"lr": [1e-3, 1e-2]}, "budget_s": 1e-6, "class_weight": "balanced", "seed": 3}
    finetune(photos, "tinynet", "random", epochs=1, **{**BETTER, **more})
    records = sorted(runs_folder().glob("photos/*.json"))
    runs = [run for run in read_runs(runs_folder()) if run.dataset == "photos"]
    before = {run.path: run.predictions().probabilities for run in runs}
    lines = dict.fromkeys(line for run in runs for line in commands(run))
    for path in records:
        path.unlink()
    for line in lines:
        assert line.startswith("tlcache ")
        invoke(*shlex.split(line)[1:])
    assert sorted(runs_folder().glob("photos/*.json")) == records
    for run in read_runs(runs_folder()):
        if run.path in before:
            assert np.allclose(run.predictions().probabilities, before[run.path], atol=1e-5)
            assert json.loads(run.path.read_text())["test"]


def test_the_best_run_is_used_by_the_commands_of_the_page(recorded: Path, tmp_path: Path) -> None:
    page, markdown, _ = (path.read_text() for path in write_report(tmp_path / "r.html"))
    best = best_run("photos")[0]
    accuracy = f"{best.name}: accuracy {best.accuracy:.3f} ({best.low:.3f}-{best.high:.3f}) on 6 test images"
    assert f"{accuracy}; {best.images_per_s:,.0f} images" in " ".join(Page(page).text.split())
    predict, export, bundle = uses(best.run)
    assert (page.count(predict), page.count(export), page.count(bundle)) == (1, 1, 1)
    assert "\n".join((predict, export, bundle)) in markdown
    invoke(*shlex.split(predict.replace("photos/", f"{recorded}/"))[1:])
    with Path("predictions.csv").open() as lines:
        assert len(list(csv.DictReader(lines))) == 24


def test_the_front_has_the_runs_that_nothing_beats() -> None:
    for head, wrong, seconds in (("a", 40, 1.0), ("b", 20, 2.0), ("c", 30, 3.0), ("d", 10, 9.0), ("e", 10, 20.0)):
        make_run(head=head, right=np.arange(400) >= wrong, fit_s=seconds)
    (found,) = compare()
    assert [entry.head for entry in pareto(found.entries)] == ["a", "b", "d"]


@pytest.mark.usefixtures("tinynet")
def test_a_study_does_a_damaged_run_again_and_tells_of_one_that_it_cannot(photos: Path, tmp_path: Path) -> None:
    settings = ("--model", "tinynet", "--weights", "random", "--heads", "ridge", "--no-finetune")
    study = ["study", "--data", str(photos), *settings, "--out", str(tmp_path / "r.html")]
    assert CliRunner().invoke(app, study).exit_code == 0
    (record,) = runs_folder().glob("photos/*.json")
    record.write_bytes(record.read_bytes()[:99])
    assert CliRunner().invoke(app, study).exit_code == 0
    assert json.loads(record.read_text())["head"] == "ridge"
    record.with_name("foreign.json").write_text("{")
    result = CliRunner().invoke(app, study)
    assert result.exit_code == 1
    assert "photos: One run: ridge on tinynet" in result.stdout
    assert result.stderr.count("foreign.json") == 1


def tiles(page: Path) -> list[tuple[str, str]]:
    return re.findall(r'<dt>(.*?)</dt><dd class="value">(.*?)</dd>', page.read_text())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (20, "gains 3.5"),
        (30, "no difference shown 1.0"),
        (34, "no difference shown 0.0"),
        (44, "loses 2.5"),
        (37, "no difference shown -0.8"),
    ],
)
def test_the_first_figures_say_gains_and_loses_and_what_to_hold_them_against(
    tmp_path: Path, wrong: int, told: str
) -> None:
    change, size = told.rsplit(maxsplit=1)
    make_run(head="svm", right=np.arange(400) >= 34, fit_s=10.0)
    make_run(head="linear", right=np.arange(400) >= wrong, strategy="finetune", train_s=2_000.0)
    assert tiles(write_report(tmp_path / "r.html")[0])[2:] == [
        (f"Fine-tuning{':' if 'shown' in change else ''} {change}", f"{size} points"),
        ("and takes", "41 x"),
        ("Always the same answer", "50.0 %"),
    ]


def test_the_page_has_what_is_reached_on_each_class(tmp_path: Path) -> None:
    make_run(head="svm", right=np.arange(400) >= 100)
    page, _, table = write_report(tmp_path / "r.html")
    rows = re.findall(
        r"<tr><td class=\"text\">(cat|dog)</td><td>200</td><td>(.*?)</td><td>(.*?)</td>", page.read_text()
    )
    assert rows == [(name, "0.750 (0.686-0.805)", "0.750 (0.686-0.805)") for name in ("cat", "dog")]
    assert "per_class" not in table.read_text()


def test_the_page_takes_no_fine_tuning_of_no_epoch_for_one(tmp_path: Path) -> None:
    make_run(head="svm", right=np.arange(400) >= 60)
    make_run(head="linear", right=np.arange(400) >= 10, strategy="finetune", val=(0.9, 0.8))
    page, markdown, _ = write_report(tmp_path / "r.html")
    assert [label for label, _ in tiles(page)] == ["Best frozen head", "Fine-tuning", "Always the same answer"]
    assert "Always answering 'cat', the largest class of the test images: 0.500." in markdown.read_text()


LONG = {"layer_decay": 0.7, "label_smoothing": 0.1, "batch_norm": "eval", "unfreeze": "stage:5", "cached_prefix": True}


def test_long_names_leave_room_for_what_is_drawn(tmp_path: Path) -> None:
    """Where they leave none, matplotlib warns, which is an error here."""
    make_run(head="svm", right=np.arange(400) >= 20)
    for lr in (1e-3, 1e-4):
        make_run(head="linear", right=np.arange(400) >= 20, strategy="finetune", lr=lr, **(LONG if lr > 5e-4 else {}))
    text = write_report(tmp_path / "r.html")[0].read_text()
    for figure in re.findall(r"<svg.*?</svg>", text):
        if "Share" in figure:
            assert "Best fine-tuning" in figure
            assert "label-smoothing" not in Page(figure).text


def test_classes_are_named_in_both_kinds_of_confusion_matrix(tmp_path: Path) -> None:
    make_run(head="svm", right=np.arange(400) >= 20, classes=["VeryMildDemented", "not_so<b>"])
    text = write_report(tmp_path / "r.html")[0].read_text()
    assert '<th scope="col">Very<wbr>Mild<wbr>Demented</th><th scope="col">not_<wbr>so&lt;b&gt;</th>' in text
    many = [f"class {number}" for number in range(30)]
    counts = np.diag(np.full(30, 5))
    counts[3, 7] = 2
    figure, hints = confusion_figure(counts, many)
    assert list(hints.values()) == ["class 3 taken for class 7: 2 of 7"]
    svg = inline_svg(figure, "matrix", "A matrix", hints)
    assert "<title>class 3 taken for class 7: 2 of 7</title>" in svg
    assert {"class 0", "class 29"} <= set(re.findall(r"class \d+", Page(svg).text))


def test_figures_take_the_colours_of_the_page_and_hint_at_their_parts() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2], [3, 4], color="#0072b2", gid="line")
    one, two = inline_svg(figure, "one", "A line", {"line": "this & that"}), inline_svg(figure, "two", "A line")
    root = ElementTree.fromstring(one)
    assert root.get("aria-label") == "A line"
    assert "var(--hue0)" in one
    assert "<title>this &amp; that</title>" in one
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in (one, two)]
    assert ids[0]
    assert ids[0].isdisjoint(ids[1])


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_the_page_without_complaint(recorded: Path, tmp_path: Path, width: int) -> None:
    del recorded
    for settings in (LONG, {"lr": 1e-5}):
        where = {"backbone": "mobilenetv3_small", "dataset": "many", "train_s": 12_345.0}
        make_run(head="linear", right=np.arange(400) >= 20, strategy="finetune", **where, **settings)
    write_report(tmp_path / "r.html")
    outer = tmp_path / "outer.html"
    outer.write_text(
        f"<iframe id=f src=r.html width={width} height=900 style='border:0'></iframe><pre id=o></pre><script>"
        "f.onload = () => { const d = f.contentDocument, t = [...d.querySelectorAll('table.runs')].at(-1);"
        "const heads = () => [...t.tBodies[0].rows].map(row => row.cells[2].textContent.trim()).join();"
        "t.querySelectorAll('th button')[1].click(); const down = heads();"
        "t.querySelectorAll('th button')[1].click(); const up = heads();"
        "const cut = [...d.querySelectorAll('.runs')].filter(e => e.scrollWidth > e.parentNode.clientWidth).length;"
        "o.textContent = JSON.stringify({width: d.documentElement.scrollWidth, down, up, cut,"
        " sorted: t.querySelectorAll('[aria-sort=ascending]').length}); }</script>"
    )
    found = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
        + ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=5000"]
        + ["--dump-dom", outer.as_uri()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "CONSOLE" not in found.stderr
    (told,) = re.findall(r'<pre id="o">({.*?})</pre>', found.stdout)
    figures = json.loads(told)
    assert figures["width"] <= width  # nothing sticks out to the side
    assert not (figures["cut"] and width == 1400)
    assert (figures["down"], figures["up"]) == ("ridge,knn,fine-tuned", "fine-tuned,knn,ridge")
    assert figures["sorted"] == 1


def test_fine_tunings_that_gave_nothing_are_a_page_too(tmp_path: Path) -> None:
    make_run("linear", np.arange(40) % 4 > 0, strategy="finetune", val=(0.8, 0.7))
    page = write_report(tmp_path / "report.html")[0].read_text()
    assert "gave nothing" in page
