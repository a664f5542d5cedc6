"""What commands do not load, and what they keep from one start to the next."""

import subprocess
import sys
from pathlib import Path

from tlcache.extraction.extract import extract
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
