"""`python -m benchmarks.pages`: how smoothly maps move, how large they are, and what axe-core has against pages.

Frames are those of headless Chromium without a GPU, 1,400 x 900, while a map of 1,000, 10,000 and 100,000 points is
moved and zoomed in every frame. With `--axe axe.min.js` (`npm pack axe-core`) each page that is given, and the map of
1,000 points, is checked at 1,400 and 400 pixels, light and dark. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.browser import Browser, open_page
from tlcache.datasets.dataset import reopen
from tlcache.pictures.atlas import Atlas, Column
from tlcache.pictures.projection import Projection
from tlcache.report.map import page_of
from tlcache.report.sheets import Sheets

__all__ = ["complaints", "frames_per_s", "made_map"]

_FRAMES = """new Promise(done => {
  const canvas = document.getElementById("map"), times = [];
  const frame = now => {
    times.push(now);
    if (now - times[0] > 4000) {
      const gaps = times.slice(1).map((time, i) => time - times[i]).sort((a, b) => a - b);
      const rate = 1000 * gaps.length / (now - times[0]);
      done({ frames_per_s: rate, slowest_20th_ms: gaps[Math.floor(0.95 * gaps.length)] });
      return;
    }
    const turn = times.length, where = { clientX: 500 + 40 * Math.sin(turn / 9), clientY: 400 };
    canvas.dispatchEvent(new WheelEvent("wheel", { ...where, deltaY: 60 * Math.sin(turn / 25), cancelable: true }));
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key: turn % 40 < 20 ? "ArrowLeft" : "ArrowRight" }));
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
})"""


def made_map(path: Path, n: int) -> Path:
    """Write a map of n points in 30 clusters, without pictures."""
    random = np.random.default_rng(0)
    cluster = random.integers(0, 30, n)
    points = (random.normal(size=(30, 2))[cluster] + 0.2 * random.normal(size=(n, 2))).astype(np.float32)
    paths = [f"train/class{each:02}/image_{row:06}.jpg" for row, each in enumerate(cluster.tolist())]
    columns = [
        Column("label", [f"class{each:02}" for each in cluster.tolist()]),
        Column("confidence", random.random(n)),
    ]
    places = [Projection("PCA", points, 0.9, "made")]
    atlas = Atlas("made", "none", paths, [""] * n, reopen("/nowhere"), places, columns, "")
    path.write_text(page_of(atlas, Sheets(16, np.zeros(0, np.int64), np.zeros((0, 2), np.uint8), [])))
    return path


def frames_per_s(browser: Browser, page: Path) -> dict[str, float]:
    """Return frames per second while a map moves in every frame, and the length of one that only 1 in 20 exceeds."""
    browser.open(page, 1400, 900)
    found: dict[str, float] = browser.evaluate(_FRAMES)
    return found


def complaints(browser: Browser, page: Path, axe: str) -> list[str]:
    """Return what axe-core (its source) has against a page, and what that said or asked for, in four windows."""
    found = []
    for width, dark in ((1400, False), (1400, True), (400, False), (400, True)):
        browser.open(page, width, 900, dark=dark)
        browser.evaluate(axe)
        broken = browser.evaluate(
            "axe.run({ preload: false }).then(r => r.violations.map(v => `${v.id}: ${v.nodes[0].html.slice(0, 120)}`))"
        )
        outside = [address for address in browser.asked if not address.startswith("file:")]
        found += [
            f"{page.name} {width} {'dark' if dark else 'light'}: {each}" for each in [*broken, *browser.said, *outside]
        ]
    return found


def _page(name: str) -> Path:
    """Return a page that is there: of one that is not, a browser would show one of its own."""
    if not Path(name).is_file():
        raise argparse.ArgumentTypeError(f"there is no page '{name}'")
    return Path(name).resolve()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("--axe", type=Path, help="axe.min.js of the npm package axe-core")
    parser.add_argument("pages", nargs="*", type=_page, help="pages to check as well")
    options, figures = parser.parse_args(), dict[str, Any]()
    with tempfile.TemporaryDirectory(prefix="tlcache-bench-") as folder, open_page() as browser:
        for n in (1_000, 10_000, 100_000):
            page = made_map(Path(folder) / f"{n}.html", n)
            figures[f"map_{n}"] = {**frames_per_s(browser, page), "page_bytes": page.stat().st_size}
            print(f"{n:>9,} points:", figures[f"map_{n}"])
        if options.axe:
            pages = [Path(folder) / "1000.html", *options.pages]
            figures["complaints"] = [
                line for page in pages for line in complaints(browser, page, options.axe.read_text())
            ]
            print(*figures["complaints"], sep="\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
