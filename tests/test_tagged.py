"""A source of backbones from outside the package: one object, which takes part in everything."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tagged import TAGS, Tagged, publish
from typer.testing import CliRunner

from tlcache import ImageEmbedder, open_features
from tlcache.backbones import sources
from tlcache.backbones.engines import open_network
from tlcache.backbones.load import load_model
from tlcache.backbones.sources import find
from tlcache.cli import app
from tlcache.errors import UnknownNameError, WeightsError
from tlcache.evaluation.compare import compare
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune
from tlcache.finetuning.saved import export_tuned
from tlcache.probing.fit import fit_heads
from tlcache.report.page import write_report
from tlcache.studying.study import study

QUICK = {"epochs": 1, "precision": "fp32", "layout": "contiguous"}


@pytest.fixture
def tagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a source of backbones that is unlike torchvision, for a while, with the weights of one tag."""
    monkeypatch.setattr(sources, "SOURCES", (*sources.SOURCES, Tagged()))
    publish("small")


def shown(*arguments: str) -> str:
    """Return what a command prints, in one line."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


@pytest.mark.usefixtures("tagged")
def test_a_source_of_backbones_is_found_and_listed() -> None:
    table = shown("models")
    assert re.search(r"own/net │? ?small .* 5 .* 16 ", table)
    assert "or own/NAME.TAG." in table
    assert "resnet50" in table
    assert re.findall(r"own/net\.\w+", shown("models", "own/*")) == ["own/net.small", "own/net.large"]
    with pytest.raises(UnknownNameError, match=r"'own/net\.smal'\. Did you mean 'own/net\.small'"):
        load_model("own/net.smal")
    with pytest.raises(UnknownNameError, match=r"Known: mobilenetv3_small, .*, own/net\. Or give .* own/NAME"):
        load_model("resnet51")
    with pytest.raises(WeightsError, match=r"There is nothing at hub/large\.bin"):
        load_model("own/net.large")


@pytest.mark.usefixtures("tagged")
def test_the_source_is_part_of_the_key_of_later_sources() -> None:
    network = load_model("own/net.small").identity["backbone"]
    assert {name: network[name] for name in ("source", "builder", "layer")} == {
        "source": "own",
        "builder": "net",
        "layer": "stage2",
    }
    assert load_model("own/net").key == load_model("own/net.small").key == load_model("own/net", "small").key
    publish("large")
    keys = {load_model(f"own/net.{tag}", crop=crop).key for tag in ("small", "large") for crop in (16, 24)}
    assert len(keys) == 4
    for first in ("resnet20_cifar", "squeezenet1_1"):
        assert "source" not in load_model(first, "random").identity["backbone"]


@pytest.mark.usefixtures("tagged")
def test_a_backbone_of_another_source_has_preprocessing_and_pooling_of_its_own(tmp_path: Path) -> None:
    publish("large")
    assert load_model("own/net.large").preprocess == load_model("own/net", "large").preprocess == TAGS["large"]
    small, large = (find("own/net").checkpoints[tag].licence for tag in TAGS)
    assert (small, large) == ("small-1.0", "large-1.0")
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 24, 24), dtype=np.uint8)
    shown("export", "-m", "own/net.small", "-o", str(tmp_path / "small.onnx"))
    with pytest.raises(UnknownNameError, match="Unknown pooling for own/net 'avg'. Known: own, flatten"):
        load_model("own/net", pool="avg")
    for name, model in {
        "as published": load_model(str(tmp_path / "small.onnx")),
        "larger": load_model("own/net.small", crop=24),
        "flat": load_model("own/net.large", pool="flatten"),
    }.items():
        side = model.preprocess.crop
        rows = open_network(model.onnx(), "cpu").embed(images[:, :, :side, :side])
        assert rows.shape == (3, {"as published": 5, "larger": 5, "flat": 6 * 6 * 6}[name])


@pytest.mark.usefixtures("tagged")
def test_a_backbone_of_another_source_is_embedded_tuned_compared_and_reported(photos: Path) -> None:
    done = extract(photos, "own/net.small")
    assert done.backbone == "own/net.small"
    with open_features(done.path) as file:
        assert json.loads(file.attrs["arguments"])["weights"] == "small"
        rows, paths = file.split("test").features, file.split("test").paths
    assert np.array_equal(ImageEmbedder("own/net.small").transform([photos / path for path in paths]), rows)
    fit_heads([done.path], ["ridge"])
    for settings in ({"unfreeze": "all"}, {"unfreeze": "stage:2", "cached_prefix": True, "augment": "none"}):
        tuned = finetune(photos, "own/net.small", **settings, **QUICK)
        assert export_tuned(tuned.head_path)
    again = extract(photos, "own/net.small", str(tuned.head_path), name="tuned")
    assert again.embedded == 24
    (found,) = [each for each in compare() if each.dataset == "photos"]
    assert {entry.parameters for entry in found.entries} == {400}
    assert "own/net.small" in write_report(Path("report.html"))[0].read_text()
    steps = study([photos], ["own/net.large"], heads=["ridge"], plan=True, **QUICK)
    assert [step.state for step in steps[:3]] == ["to do"] * 3
    assert all(step.seconds > 0 for step in steps[:3])


@pytest.mark.slow
@pytest.mark.worker
@pytest.mark.usefixtures("tagged")
def test_a_source_of_backbones_reaches_the_worker(photos: Path) -> None:
    assert extract(photos, "own/net.small").embedded == 24
