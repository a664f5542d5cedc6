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

from tlcache.comparison import compare
from tlcache.errors import UnknownNameError
from tlcache.extraction import extract
from tlcache.finetuning.run import finetune
from tlcache.fit import fit_heads
from tlcache.report.figures import pareto
from tlcache.report.inline import inline_svg
from tlcache.report.page import write_report
from tlcache.reproduce import commands
from tlcache.runs import read_runs, runs_folder
from tlcache.shots import fit_curves

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
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
def recorded(tinynet: None, photos: Path) -> Path:
    """Heads, a fine-tuning and a few-shot curve on one dataset, and many classes on another."""
    del tinynet
    file = extract(photos, "tinynet", "random", resize=16, crop=16).path
    fit_heads([file], ["ridge", "knn"])
    finetune(photos, "tinynet", "random", resize=16, crop=16, epochs=2, precision="fp32", layout="contiguous")
    fit_curves([file], [1, None], ["ridge"], repeats=2)
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


def test_an_ending_that_is_no_page_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"asked: '.*r\.pdf'"):
        write_report(tmp_path / "r.pdf")


def test_every_run_can_be_made_again_from_its_commands(recorded: Path, tmp_path: Path) -> None:
    del recorded, tmp_path
    records = sorted(runs_folder().glob("photos/*.json"))
    runs = [run for run in read_runs(runs_folder()) if run.fields["dataset"] == "photos"]
    before = {run.path: run.predictions()["probabilities"] for run in runs}
    lines = dict.fromkeys(line for run in runs for line in commands(run))
    for path in records:
        path.unlink()
    for line in lines:
        assert line.startswith("tlcache ")
        invoke(*shlex.split(line)[1:])
    assert sorted(runs_folder().glob("photos/*.json")) == records
    for run in read_runs(runs_folder()):
        if run.path in before:
            assert np.allclose(run.predictions()["probabilities"], before[run.path], atol=1e-5)
            assert json.loads(run.path.read_text())["test"]


def test_the_front_has_the_runs_that_nothing_beats() -> None:
    for head, wrong, seconds in (("a", 40, 1.0), ("b", 20, 2.0), ("c", 30, 3.0), ("d", 10, 9.0), ("e", 10, 20.0)):
        make_run(head=head, right=np.arange(400) >= wrong, fit_s=seconds)
    (found,) = compare()
    assert [entry.head for entry in pareto(found.entries)] == ["a", "b", "d"]


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
    write_report(tmp_path / "r.html")
    outer = tmp_path / "outer.html"
    outer.write_text(
        f"<iframe id=f src=r.html width={width} height=900 style='border:0'></iframe><pre id=o></pre><script>"
        "f.onload = () => { const d = f.contentDocument, t = [...d.querySelectorAll('table.runs')].at(-1);"
        "const heads = () => [...t.tBodies[0].rows].map(row => row.cells[2].textContent.trim()).join();"
        "t.querySelectorAll('th button')[1].click(); const down = heads();"
        "t.querySelectorAll('th button')[1].click(); const up = heads();"
        "o.textContent = JSON.stringify({width: d.documentElement.scrollWidth, down, up,"
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
    assert (figures["down"], figures["up"]) == ("ridge,knn,fine-tuned", "fine-tuned,knn,ridge")
    assert figures["sorted"] == 1
