"""Screening: what is sampled, how backbones are ranked, how sure that is, and what a study then does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import TinySource, write_photos

from tlcache.backbones.onnx_file import ONNX_FILE
from tlcache.cache.feature_file import FeatureFile
from tlcache.datasets.dataset import load_dataset
from tlcache.errors import DataError
from tlcache.evaluation.screening import Judged, Screening, read_screening, read_screenings
from tlcache.extraction.extract import extract
from tlcache.report.page import write_report
from tlcache.studying import screen as screening
from tlcache.studying.screen import sample
from tlcache.studying.study import study


def right(share: float, n: int = 200, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(seed).permutation(n) < share * n


def rank(dataset: str, right: dict[str, Any], units: Any, keep: int) -> Screening:
    told = tuple(Judged(name, "w", name, "".join("01"[int(each)] for each in own)) for name, own in right.items())
    return Screening(dataset, "d", "ridge", None if units is None else tuple(units.tolist()), told, keep)


def test_the_ranking_says_how_sure_it_is() -> None:
    clear = rank("photos", {"weak": right(0.5), "good": right(0.9, seed=1)}, None, 1)
    assert [(each.model, each.accuracy, each.kept) for each in clear.found] == [
        ("good", 0.9, True),
        ("weak", 0.5, False),
    ]
    assert clear.sure > 0.99
    assert clear.kept == ("good",)
    close = rank("photos", {"a": right(0.80), "b": right(0.79, seed=1), "c": right(0.3, seed=2)}, None, 1)
    assert 0.3 < close.sure < 0.8
    both = rank("photos", {"a": right(0.80), "b": right(0.79, seed=1), "c": right(0.3, seed=2)}, None, 2)
    assert both.sure > 0.99
    assert sum(each.first for each in close.found) == pytest.approx(1)
    assert close.found[0].low < 0.8 < close.found[0].high
    assert "In 100% of resamples of the images the best of all is kept." in str(both)
    assert str(both).count("* ") == 2 + 1  # and the line that says what it means


def test_images_of_a_group_are_drawn_together() -> None:
    a, b = np.ones(200, bool), np.ones(200, bool)
    a[:20], b[20:36] = False, False  # a is wrong about one patient, b about 16 images of the next
    each = rank("scans", {"a": a, "b": b}, None, 1)
    grouped = rank("scans", {"a": a, "b": b}, np.arange(200) // 20, 1)
    assert each.sure > grouped.sure
    wide = [found.high - found.low for found in grouped.found]
    assert min(wide) > max(found.high - found.low for found in each.found)


def test_the_sample_has_every_class_and_no_test_image(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screening, "_IMAGES", 30)
    data = write_photos(tmp_path / "photos", 40)
    dataset = load_dataset(str(data))
    rows = sample(dataset)
    assert Counter(dataset.labels[rows].tolist()) == {0: 10, 1: 10, 2: 10}
    with FeatureFile(extract(data, str(tiny_model)).path) as file:
        tested = {*file.split("test").paths}
    assert not tested & {dataset.paths[row] for row in rows}
    assert np.array_equal(rows, sample(dataset))
    monkeypatch.setattr(screening, "_IMAGES", 1)
    assert Counter(dataset.labels[sample(dataset)].tolist()) == {0: 6, 1: 6, 2: 6}


@pytest.fixture
def two_networks(tinynet: None, monkeypatch: pytest.MonkeyPatch) -> None:
    del tinynet
    both = TinySource({"parameters": 20_000_000}, {"name": "tinier", "parameters": 3_000})
    monkeypatch.setattr("tlcache.backbones.sources.SOURCES", (both, ONNX_FILE))


@pytest.mark.usefixtures("two_networks")
def test_a_study_goes_on_with_the_best_and_what_is_left_out_is_not_extracted(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def known(cell, *_):  # type: ignore[no-untyped-def]
        return str(int(cell.backbone.name == "tinier")) * 18

    monkeypatch.setattr(screening, "_right", known)
    asked = {"weights": "random", "heads": ["ridge"], "finetune": False}
    steps = study([photos], ["tinynet", "tinier"], screen=1, joins="tinier+tinynet", **asked)
    assert [(step.kind, step.model) for step in steps] == [
        ("extract", "tinier"),
        ("fit-heads", "tinier"),
        ("report", ""),
    ]
    assert [path.stem.partition("-")[0] for path in Path("features").rglob("*.h5")] == ["tinier"]


@pytest.mark.usefixtures("two_networks")
def test_a_backbone_that_fails_is_told_and_the_others_are_ranked(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = screening.embed

    def failing(paths, request, *rest, **how):  # type: ignore[no-untyped-def]
        if request["model"] == "tinynet" or how["device"] == "none":
            raise DataError("no room")
        return whole(paths, request, *rest, **how)

    told: list[str] = []
    monkeypatch.setattr(screening, "embed", failing)
    monkeypatch.setattr(screening, "warn", told.append)
    asked = {"weights": "random", "heads": ["ridge"], "finetune": False}
    steps = study([photos], ["tinynet", "tinier"], screen=2, **asked)
    assert {step.model for step in steps} == {"tinier", ""}
    assert told == ["tinynet is left out of photos: no room"]
    with pytest.raises(DataError, match="No backbone could embed the sample of photos"):
        study([photos], ["tinynet"], screen=1, **asked)


@pytest.mark.usefixtures("two_networks")
def test_what_is_recorded_of_a_sample_is_not_done_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, embedded = screening.embed, list[str]()

    def counted(paths, request, *rest, **how):  # type: ignore[no-untyped-def]
        embedded.append(request["model"])
        return whole(paths, request, *rest, **how)

    monkeypatch.setattr(screening, "embed", counted)
    asked = {"weights": "random", "heads": ["ridge"], "finetune": False}
    study([photos], ["tinier"], screen=1, **asked)
    (first,) = read_screenings(Path("runs"))
    study([photos], ["tinynet", "tinier"], screen=1, **asked)
    study([photos], ["tinynet", "tinier"], screen=2, **asked)
    assert embedded == ["tinier", "tinynet"]
    (found,) = read_screenings(Path("runs"))
    assert {each.model for each in found.found} == {"tinynet", "tinier"}
    assert found.kept == tuple(each.model for each in found.found)
    assert (first.digest, first.kept) == (found.digest, ("tinier",))
    study([photos], ["tinier"], screen=1, **asked)
    (alone,) = read_screenings(Path("runs"))
    assert [each.model for each in alone.found] == ["tinier"]
    assert len(alone.judged) == 2  # what is known of the other stays
    page, markdown, _ = write_report("report.html")
    line = f"{alone.found[0].accuracy:.3f} ({alone.found[0].low:.3f}-{alone.found[0].high:.3f})"
    assert line in page.read_text()
    assert f"* tinier {line}" in markdown.read_text()
    assert "In 100% of" in " ".join(page.read_text().split())
    write_photos(photos, 9)  # other images in the sample
    study([photos], ["tinier"], screen=1, **asked)
    assert embedded == ["tinier", "tinynet", "tinier"]


@pytest.mark.usefixtures("two_networks")
def test_a_damaged_record_is_made_anew(photos: Path) -> None:
    asked = {"weights": "random", "heads": ["ridge"], "finetune": False}
    study([photos], ["tinier"], screen=1, **asked)
    (path,) = Path("runs").glob("photos/screening/*.json")
    (first,) = read_screenings(Path("runs"))
    path.write_bytes(path.read_bytes()[:50])
    assert read_screening(Path("runs"), "photos", first.digest) is None
    study([photos], ["tinier"], screen=1, **asked)
    assert read_screenings(Path("runs"))[0].judged == first.judged


def test_where_test_images_are_given_only_the_sample_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screening, "_IMAGES", 1)
    data = write_photos(tmp_path / "photos" / "train", 20).parent
    write_photos(data / "test", 10)
    dataset, read = load_dataset(str(data)), list[int]()
    whole = type(dataset).read
    monkeypatch.setattr(type(dataset), "read", lambda own, row: read.append(row) or whole(own, row))  # type: ignore[func-returns-value]
    rows = sample(dataset)
    assert len(rows) == 18
    assert {dataset.splits[row] for row in rows} == {"train"}
    assert not read
