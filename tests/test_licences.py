"""The licence of weights goes with what is made of them: embeddings, runs, pages, files to deploy."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from tlcache.backbones.load import load_model
from tlcache.backbones.sources import find
from tlcache.cache.feature_file import FeatureFile
from tlcache.deploying.export import export
from tlcache.extraction.extract import extract
from tlcache.probing.fit import fit_heads
from tlcache.report.page import write_report
from tlcache.runs.licences import licences
from tlcache.runs.record import RUNS, Run

CIFAR = "Apache-2.0, trained on CIFAR-10"


@pytest.fixture
def ridge(photos: Path) -> Run:
    extract(photos, "resnet20_cifar")
    return fit_heads(heads=["ridge"])[0]


def stated(path: Path) -> str:
    return {each.key: each.value for each in onnx.load(path).metadata_props}["licence"]


def test_it_is_that_of_published_weights() -> None:
    assert find("resnet20_cifar").licence("embedded") == CIFAR
    assert find("resnet50").licence("imagenet") == "BSD-3-Clause, trained on ImageNet"
    assert find("resnet50").licence("file:mine.pth") == find("resnet50").licence("random") == "unknown"


def test_it_is_kept_with_embeddings_and_runs_and_shown(ridge: Run, tmp_path: Path) -> None:
    with FeatureFile(ridge.features) as file:
        assert file.attrs["licence"] == CIFAR
    assert ridge.licence == RUNS.read(ridge.path).licence == CIFAR
    page = write_report(tmp_path / "report.html")[0].read_text()
    assert f"resnet20_cifar embedded (licence: {CIFAR})" in " ".join(page.split())
    assert stated(export(ridge.path, out=tmp_path / "run.onnx").path) == CIFAR


def test_records_of_before_say_what_is_known_of_the_backbone(ridge: Run) -> None:
    fields = json.loads(ridge.path.read_text())
    assert fields.pop("licence") == CIFAR
    ridge.path.write_text(json.dumps(fields))
    old = RUNS.read(ridge.path)
    assert old.licence is None
    assert "licence" not in old.as_json()
    assert licences(old) == [CIFAR]


def test_of_joined_networks_each_is_said(ridge: Run, photos: Path, tiny_model: Path) -> None:
    assert licences(ridge) == [CIFAR]
    extract(photos, str(tiny_model))
    (joined,) = fit_heads(heads=["ridge"], join="resnet20_cifar+tiny")
    assert sorted(licences(joined)) == [CIFAR, "unknown"]


def test_a_network_alone_takes_it_along(tmp_path: Path) -> None:
    path = export(model="resnet20_cifar", out=tmp_path / "network.onnx").path
    assert stated(path) == CIFAR
    assert load_model(str(path)).licence == CIFAR
