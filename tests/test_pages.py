"""The Python of every page runs, on small images and a small network, and says what the page says."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import TinySource
from PIL import Image
from test_docs import PAGES, ROOT, python_blocks

from tlcache.backbones import sources
from tlcache.deploying.export import export
from tlcache.extraction.extract import extract
from tlcache.probing.fit import fit_heads

ELSEWHERE = {"features/README.md", "docs/python.md", "docs/checkpoints.md"}  # tests/test_docs.py
PREPARED = {  # what a page takes for granted, by the words that stand for it
    "docs/deploy.md": {"photos.onnx": "bundle", "new/1.jpg": "image"},
    "docs/heads.md": {"runs/photos/resnet50-ncm-0123456789ab.safetensors": "head"},
    "docs/predict.md": {"new/": "new"},
    "docs/uncertainty.md": {"features/photos": "features"},
    "tlcache/runs/README.md": {"runs/digits/resnet20_cifar-knn-802efce9e5ca.npz": "predictions"},
    "tlcache/backbones/README.md": {},
}


def check_deploy(names: dict[str, Any]) -> None:
    assert len(names["row"].labels) == 3
    assert not names["row"].error
    assert list(names["model"].classes) == ["blue", "green", "red"]


def check_heads(names: dict[str, Any]) -> None:
    assert [*names["more"].classes] == ["blue", "green", "red", "tulip"]
    assert (names["more"].predict(names["embeddings"]) == "tulip").all()


def check_predict(names: dict[str, Any]) -> None:
    assert names["found"].ranked.shape == (3, 3)
    assert [*names["found"].labels] == ["blue", "green", "red"]


def check_uncertainty(names: dict[str, Any]) -> None:
    assert names["sets"].shape == names["probabilities"].shape
    assert ((names["unusual"] >= 0) & (names["unusual"] <= 1)).all()


def check_runs(names: dict[str, Any]) -> None:
    assert set(names["predicted"]) <= {"blue", "green", "red"}


def check_backbones(names: dict[str, Any]) -> None:
    assert sources.find("tinynet").source is names["sources"].SOURCES[-1]


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "docs/deploy.md": check_deploy,
    "docs/heads.md": check_heads,
    "docs/predict.md": check_predict,
    "docs/uncertainty.md": check_uncertainty,
    "tlcache/runs/README.md": check_runs,
    "tlcache/backbones/README.md": check_backbones,
}


def test_the_python_of_every_page_is_run_here_or_with_what_the_page_is_about() -> None:
    pages = {*PAGES, *(ROOT / "tlcache").rglob("README.md"), ROOT / "benchmarks" / "README.md"}
    having = {page.relative_to(ROOT).as_posix() for page in pages if python_blocks(page)}
    assert having == ELSEWHERE | CHECKS.keys()


@pytest.mark.parametrize("page", sorted(CHECKS))
def test_the_python_of_a_page_runs(
    page: str, photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SOURCES", sources.SOURCES)  # a page adds to them
    made = extract(photos, str(tiny_model)).path
    run, near = fit_heads([made], ["ridge", "ncm"], coverage=0.8)
    for number, label in enumerate(("blue", "green", "red")):
        (tmp_path / "new").mkdir(exist_ok=True)
        shutil.copy(photos / label / "0.png", tmp_path / "new" / f"{number + 1}.png")
    picture = Image.open(tmp_path / "new" / "1.png")
    names: dict[str, Any] = {"run": run, "picture": picture, "pixels": np.asarray(picture), "MySource": TinySource}
    names["embeddings"] = np.random.default_rng(0).normal(50, 1, (20, 8)).astype(np.float32)
    there = {"head": near.head_path, "new": tmp_path / "new", "features": made}
    there["image"] = tmp_path / "new" / "1.png"
    there["predictions"] = run.path.with_suffix(".npz")
    if page == "docs/deploy.md":
        there["bundle"] = export(run.path, out=tmp_path / "photos.onnx").path
    code = "\n".join(python_blocks(ROOT / page))
    for written, name in PREPARED[page].items():
        assert written in code
        code = code.replace(written, str(there[name]))
    exec(code, names)
    CHECKS[page](names)
