"""The manual as a site: built without a warning, and read in a browser without a network."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.browser import CHROMIUM, Browser, open_page

pytestmark = pytest.mark.slow
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")

ROOT = Path(__file__).parents[1]
SCROLLED = """[...document.querySelectorAll("body *")].filter(each => each.scrollWidth > each.clientWidth + 1
  && getComputedStyle(each).overflowX === "auto")"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manual") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_page() as opened:
        yield opened


def test_no_page_asks_for_a_script_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert '<script src="http' not in page.read_text(), page


def test_public_names_have_the_parameters_that_options_describe(site: Path) -> None:
    page = (site / "api.html").read_text()
    assert "Feature files, or folders of them." in page
    assert "Annotated" not in page


@in_a_browser
@pytest.mark.parametrize("page", ["tutorial", "finetuning", "speed", "api"])
def test_what_is_wide_has_the_width_of_the_window_and_is_reached_by_keys(
    site: Path, browser: Browser, page: str
) -> None:
    browser.open(site / f"{page}.html", 1400, 900)
    assert browser.evaluate(f"{SCROLLED}.map(each => each.textContent.slice(0, 60))") == []
    browser.open(site / f"{page}.html", 400, 900)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 400
    assert browser.evaluate(f"{SCROLLED}.length")
    assert browser.evaluate(f"{SCROLLED}.every(each => each.tabIndex === 0)")


@in_a_browser
def test_it_is_as_dark_as_the_system_each_time(site: Path, browser: Browser) -> None:
    shown = []
    for dark in (False, True, False):
        browser.open(site / "index.html", 1400, 900, dark=dark)
        shown.append(browser.evaluate("document.body.dataset.mdColorScheme"))
    assert shown == ["default", "slate", "default"]


@in_a_browser
def test_its_search_needs_no_network(site: Path, browser: Browser) -> None:
    browser.open(site / "index.html", 1400, 900)
    browser.evaluate("document.querySelector('input.md-search__input').focus()")
    browser.press(*"duplicate")
    found = "[...document.querySelectorAll('.md-search-result__link')].map(each => each.href)"
    until = time.monotonic() + 60
    while not (links := browser.evaluate(found)) and time.monotonic() < until:
        time.sleep(0.1)
    assert any("/audit.html" in link for link in links)
    assert browser.said == []
    assert [each for each in browser.asked if not each.startswith("file:")] == []
