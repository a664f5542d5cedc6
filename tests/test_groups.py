"""Groups of backbones: every name is one, its weights may be used, and images are of the size that is said."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from test_cli import stdout
from typer.testing import CliRunner

from tlcache.backbones.backbone import Checkpoint
from tlcache.backbones.groups import GROUPS, ungrouped
from tlcache.backbones.load import load_model
from tlcache.backbones.sources import find, list_models
from tlcache.backbones.torch_network import embedding, untrained
from tlcache.cli import app
from tlcache.errors import ModelError, OptionError, UnknownNameError
from tlcache.report.choices import models_table

SMALL = "timm/test_vit.r160_in1k"


def test_every_backbone_of_a_group_is_there_and_its_licence_is_permissive() -> None:
    pytest.importorskip("timm")
    for name in GROUPS:
        rows = list_models(name)
        assert [row.name for row in rows] == list(GROUPS[name])
        for row in rows:
            (licence,) = {each.licence for each in row.checkpoints.values()}
            assert licence.lower() in ("apache-2.0", "bsd-3-clause", "mit")
    modern = list_models("modern")
    assert {row.preprocess().crop for row in modern} == {224}
    assert modern[0].parameters < 5e6 < 8e7 < modern[-1].parameters
    assert ungrouped(["modern", "resnet18", "modern"]) == [*GROUPS["modern"], "resnet18"]


def test_a_group_is_listed_by_its_name() -> None:
    found = json.loads(stdout("models", "study", "--json", "-"))
    assert [row["name"] for row in found["models"]] == list(GROUPS["study"])


def test_a_network_of_timm_may_be_asked_for_at_another_size() -> None:
    pytest.importorskip("timm")
    row, own = find(f"{SMALL}@96"), find(SMALL)
    assert (row.name, row.builder) == (f"{SMALL}@96", own.builder)
    assert (row.preprocess().crop, own.preprocess().crop) == (96, 160)
    assert row.preprocess().resize / own.preprocess().resize == pytest.approx(96 / 160, abs=0.01)
    assert find(f"{SMALL}@160") is find(f"{SMALL}@160")
    assert find(f"{SMALL}@160").name == SMALL
    assert load_model(f"{SMALL}@96", "random").key != load_model(SMALL, "random").key
    network = embedding(row, untrained(row, seed=0), "model", row.preprocess())
    assert network(torch.zeros(2, 3, 96, 96, dtype=torch.uint8)).shape == (2, row.dim)


@pytest.mark.parametrize("name", [f"{SMALL}@", f"{SMALL}@big", f"{SMALL}@0", f"{SMALL}@-5"])
def test_what_is_no_size_is_refused(name: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(OptionError, match="is no side in pixels. Give one, as in @224"):
        find(name)


def test_a_size_that_the_network_does_not_take_is_refused() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ModelError, match="takes no images of 97 x 97"):
        load_model(f"{SMALL}@97", "random").onnx()


def test_a_group_is_extracted_by_its_name(photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlcache.backbones.groups.GROUPS", {"pair": (str(tiny_model), "resnet20_cifar")})
    found = json.loads(stdout("extract", "--data", photos, "--model", "pair", "--json", "-"))
    assert [Path(each["path"]).stem.partition("-")[0] for each in found["files"]] == ["tiny", "resnet20_cifar"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["xyz*"], "No backbone is called 'xyz*'. Patterns are as in"),
        (["--timm", "xyz*"], "No backbone is called 'timm/xyz*'."),
        (["resnet*", "--timm", "vit*"], "'resnet*' and --timm 'vit*' are of two lists. Give one of them."),
    ],
)
def test_a_list_of_nothing_is_an_error(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["models", *arguments])
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_a_name_of_timm_without_the_prefix_is_known() -> None:
    pytest.importorskip("timm")
    with pytest.raises(UnknownNameError, match=r"'test_vit'\. Did you mean 'timm/test_vit'\?"):
        find("test_vit")


def test_figures_are_whole_however_long_licences_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    row = replace(find("resnet18"), name="timm/vit_7b_patch16_dinov3.lvd1689m", dim=4096, parameters=6_716_000_000)
    others = [
        replace(row, checkpoints={"x": Checkpoint("x", "x", top1, licence=licence)})
        for top1, licence in ((None, "fair-noncommercial-research-license"), (None, "dinov3-license"), (80.5, "mit"))
    ]
    for rows in (others, others[:2]):
        console = Console(width=80, file=io.StringIO())
        console.print(models_table(rows))
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert "…" not in shown
        assert shown.count(" 4096 ") == len(rows)
        assert shown.count("6716.0 M") == len(rows)
    assert "Top-1" not in shown  # which is said of neither
