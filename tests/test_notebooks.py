"""The notebooks of the manual, run cell by cell in a folder of their own."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def cells(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the code of every cell, and what it printed when the notebook was written."""
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            printed = ["".join(each["text"]) for each in cell["outputs"] if each["output_type"] == "stream"]
            yield "".join(cell["source"]), "".join(printed)


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["grid_search", "leaking_set", "own_folder"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_what_it_shows(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for code, shown in cells(path):
        exec(code, names)
        printed = capsys.readouterr().out
        assert bool(printed) == bool(shown), code
        if not re.search(r"round\(|:\.3f|verdict\(", code):  # last digits and seconds differ by machine
            assert printed == shown
