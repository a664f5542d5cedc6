"""What commands do not load, and what they keep from one start to the next."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tlcache.extraction.extract import extract
from tlcache.images import by_torch, kernel_for
from tlcache.probing.fit import fit_heads

READING = """
import sys
from tlcache.cli import app
heavy = {"torch", "onnx", "onnxruntime", "lightgbm", "scipy", "sklearn"}
for words in ("ls", "runs", "verify", "compare --pairs", "compare --margin 2", "report --out page.html"):
    app(words.split(), standalone_mode=False)
    drawn = {"scipy", "sklearn"} if words.startswith("report") else set()  # for its map
    print(words, (heavy - drawn) & set(sys.modules), file=sys.stderr)
"""


def test_who_reads_what_is_there_loads_nothing_that_computes(photos: Path, tiny_model: Path) -> None:
    fit_heads([extract(photos, str(tiny_model)).path], ["ridge", "knn"])
    done = subprocess.run([sys.executable, "-c", READING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.rpartition(" ")[2] for line in done.stderr.splitlines() if "set()" in line] == 6 * ["set()"]
    assert "tiny" in Path("page.html").read_text()


def test_few_images_are_embedded_without_torch(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "none" / "torch").mkdir(parents=True)
    (tmp_path / "none" / "torch" / "__init__.py").write_text("raise SystemError('torch is loaded')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "none"), prepend=os.pathsep)
    assert extract(photos, str(tiny_model)).embedded == 24
    assert kernel_for(100_000) is by_torch
