"""Images that look odd among the others are found, and a set that is so by nature has none."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance
from test_cli import invoke

from tlcache.auditing.findings import OddImage
from tlcache.auditing.odd import find_odd, look
from tlcache.auditing.run import audit
from tlcache.extraction.extract import extract
from tlcache.probing.fit import fit_heads
from tlcache.report.page import write_report

Alter = Callable[[Image.Image], Image.Image]


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 92} if kind == "JPEG" else options))
    return buffer.getvalue()


def card(ground: str) -> Image.Image:
    """Draw what a site sends in place of an image that it has no more."""
    image = Image.new("RGB", (96, 96), ground)
    ImageDraw.Draw(image).text((4, 40), "not found", fill="grey")
    return image


def logo(image: Image.Image) -> Image.Image:
    drawn = Image.new("RGB", image.size, "navy")
    ImageDraw.Draw(drawn).rectangle((32, 32, 63, 63), fill="orange")
    return drawn


@pytest.fixture(scope="module")
def usual() -> list[Image.Image]:
    """Pictures with as much detail as photographs."""
    coarse = (np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8) for seed in range(40))
    return [Image.fromarray(each).resize((96, 96), Image.Resampling.BICUBIC) for each in coarse]


ODD: dict[str, tuple[Alter, set[str]]] = {
    "a grey card": (lambda _: card("darkgrey"), {"few colours"}),
    "a white card": (lambda _: card("white"), {"few colours", "bright"}),
    "a logo": (logo, {"few colours"}),
    "black": (lambda image: Image.new("RGB", image.size), {"few colours", "dark"}),
    "underexposed": (lambda image: ImageEnhance.Brightness(image).enhance(0.2), {"dark"}),
    "overexposed": (lambda image: Image.blend(image, Image.new("RGB", image.size, "white"), 0.88), {"bright"}),
    "out of focus": (lambda image: Image.radial_gradient("L").resize(image.size).convert("RGB"), {"blurred"}),
    "a thumbnail": (lambda image: image.resize((16, 16)), {"small"}),
    "a scan": (lambda image: image.resize((600, 600)).effect_spread(3), {"large"}),
    "a banner": (lambda image: image.crop((0, 0, 96, 24)), {"long"}),
    "a column": (lambda image: image.crop((0, 0, 24, 96)), {"long"}),
}


@pytest.mark.parametrize(("alter", "findings"), ODD.values(), ids=list(ODD))
def test_an_odd_image_is_found_among_usual_ones(alter: Alter, findings: set[str], usual: list[Image.Image]) -> None:
    looks = [look(encoded(image)) for image in usual]
    assert find_odd(looks) == {}
    (row, found), *others = find_odd([*looks, None, look(encoded(alter(usual[0])))]).items()
    assert (row, others) == (len(usual) + 1, [])
    assert findings <= set(found) <= findings | {"few colours", "few bytes for its size"}


@pytest.mark.parametrize(
    "name", ["a white card", "underexposed", "overexposed", "out of focus", "a thumbnail", "a column"]
)
def test_what_most_images_are_is_not_odd(name: str, usual: list[Image.Image]) -> None:
    alter, _ = ODD[name]
    assert find_odd([look(encoded(alter(image))) for image in usual]) == {}


def test_a_rare_format_is_odd_and_two_usual_ones_are_not(usual: list[Image.Image]) -> None:
    looks = [look(encoded(image)) for image in 2 * usual]
    drawn = look(encoded(usual[0], "PNG"))
    moving = look(encoded(usual[0], "GIF", save_all=True, append_images=[usual[1]]))
    assert {word for words in find_odd([*looks, drawn]).values() for word in words} >= {"PNG among JPEG"}
    assert {word for words in find_odd([*looks, moving]).values() for word in words} >= {"animated GIF among JPEG"}
    both = find_odd([*looks, *[drawn] * 20])
    assert not any("among" in word for words in both.values() for word in words)


def test_of_a_few_images_nothing_is_usual(usual: list[Image.Image]) -> None:
    assert find_odd([look(encoded(image)) for image in (*usual[:10], card("white"))]) == {}


def test_an_audit_shows_and_records_a_placeholder(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    card("lightgrey").resize((20, 20)).save(photos / "blue" / "[missing].png")
    extract(photos, str(tiny_model))
    told = " ".join(invoke("audit", "--json", tmp_path / "audit.json").split())
    (found,) = audit()
    assert found.odd is not None
    (odd,) = found.odd
    assert (odd.path, odd.label, odd.findings) == ("blue/[missing].png", "blue", ("few colours",))
    assert "Odd images 1 1 few colours" in told
    assert f"few colours {odd.split} blue blue/[missing].png" in told
    (told_json,) = json.loads((tmp_path / "audit.json").read_text())["datasets"]
    assert told_json["odd_images"][0]["path"] == odd.path
    with found.record.with_suffix(".csv").open() as stream:
        (line,) = [line for line in csv.DictReader(stream) if line["finding"] == "odd"]
    assert (line["path"], line["value"], line["split"], line["label"]) == (odd.path, "few colours", odd.split, "blue")
    fit_heads(heads=["ridge"])
    assert f'alt="{odd.split}, blue: blue/[missing].png"' in write_report("report.html")[0].read_text()
    photos.rename(photos.with_name("elsewhere"))
    (gone,) = audit()
    assert gone.odd is None
    assert isinstance(odd, OddImage)
