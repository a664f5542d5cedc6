"""What commands do not load, and what they keep from one start to the next."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tlcache.deploying.export import export
from tlcache.deploying.predict import predict
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune
from tlcache.images import by_torch, kernel_for
from tlcache.probing.fit import fit_heads

READING = """
import sys
from tlcache.cli import app
heavy = {"torch", "onnx", "onnxruntime", "lightgbm", "scipy", "sklearn"}
for words in ("ls", "runs", "verify", "compare --pairs", "compare --margin 2", "report --out page.html"):
    app(words.split(), standalone_mode=False)
    drawn = {"scipy", "sklearn"} if words.startswith("report") else set()  # for its map
    print("loaded by", words, (heavy - drawn) & set(sys.modules))
"""


def test_who_reads_what_is_there_loads_nothing_that_computes(photos: Path, tiny_model: Path) -> None:
    fit_heads([extract(photos, str(tiny_model)).path], ["ridge", "knn"])
    loaded = [line for line in done("-c", READING).splitlines() if line.startswith("loaded ")]
    assert [line.rpartition(" ")[2] for line in loaded] == 6 * ["set()"], loaded
    assert "tiny" in Path("page.html").read_text()


@pytest.fixture
def no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that are started fail if they load torch."""
    (tmp_path / "none" / "torch").mkdir(parents=True)
    (tmp_path / "none" / "torch" / "__init__.py").write_text("raise SystemError('torch is loaded')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "none"), prepend=os.pathsep)


def done(*words: str | Path) -> str:
    """Return what Python says with these words, in a process of its own."""
    found = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.usefixtures("no_torch")
def test_few_images_are_embedded_without_torch(photos: Path, tiny_model: Path) -> None:
    assert "24 images embedded" in done("-m", "tlcache", "extract", "--data", photos, "--model", tiny_model)
    assert kernel_for(100_000) is by_torch


@pytest.mark.usefixtures("no_torch")
def test_a_transformer_embeds_few_images_without_torch(photos: Path, tiny_model: Path) -> None:
    code = "import sys, tlcache; print(tlcache.ImageEmbedder(sys.argv[1]).transform([sys.argv[2]]).shape)"
    assert done("-c", code, tiny_model, photos / "red" / "0.png") == "(1, 8)\n"


@pytest.mark.parametrize("kind", ["frozen", "exported", "tuned"])
def test_a_run_answers_without_torch_once_its_network_is_kept(
    kind: str, photos: Path, tiny_model: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "tuned":
        model: Path = finetune(photos, "resnet20_cifar", epochs=1, head="dense", batch_size=8).path
    else:
        model = fit_heads([extract(photos, str(tiny_model)).path], ["ridge"])[0].path
    if kind == "exported":
        export(model, out=tmp_path / "run.onnx")
        model = tmp_path / "run.onnx"
    expected = predict(model, photos, features=tmp_path / "other")
    request.getfixturevalue("no_torch")
    done("-m", "tlcache", "predict", model, photos, "--out", "found.csv", "--features", tmp_path / "another")
    with Path("found.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["label"] for row in found] == list(expected.labels)
    assert np.allclose([float(row["confidence"]) for row in found], expected.confidences[:, 0], atol=1e-5)
