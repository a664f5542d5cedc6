"""The quick size of `make torture`: real kills, full disks, flipped bits and mutated images, none of which may win."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="forks")
def test_no_fault_loses_or_changes_a_row(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, str(Path(__file__).with_name("torture.py")), "--quick", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert report.exists(), done.stderr[-3000:]
    figures = json.loads(report.read_text())
    for stage in figures["stages"]:
        harm = {name: stage[name] for name in ("lost", "unreadable", "wrong", "died")}
        assert not any(harm.values()), (figures["seed"], stage)
        assert stage["tried"] > 0 or "no C compiler: not tried" in stage["notes"], stage
    assert done.returncode == 0
