"""Nothing is sent, and nothing is kept for it: what an extraction and a fit leave in a fresh home folder."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tlcache.auditing.records import read_audits
from tlcache.auditing.run import audit
from tlcache.extraction.extract import extract
from tlcache.files import relative
from tlcache.probing.fit import fit_heads
from tlcache.report.page import write_report
from tlcache.runs.folder import read_runs

WORK = """
import sys, tlcache
done = tlcache.extract(*sys.argv[1:3], engine=sys.argv[3])
tlcache.fit_heads([done.path], heads=["ridge"])
"""
CACHES = (".cache/tlcache", ".cache/matplotlib", ".config/matplotlib")
DECIDING = (
    "ORT_DISABLE_TELEMETRY",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "TLCACHE_CACHE",
    "CI",
    "TF_BUILD",
    "JENKINS_URL",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh one, of a user who has decided nothing."""
    for name in DECIDING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.mark.parametrize("engine", [name for name in ("onnxruntime", "openvino") if find_spec(name)])
def test_a_fresh_home_holds_caches_and_no_telemetry(engine: str, home: Path, photos: Path, tiny_model: Path) -> None:
    subprocess.run([sys.executable, "-c", WORK, photos, tiny_model, engine], check=True, capture_output=True)
    left = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    assert [path for path in left if not path.startswith(CACHES)] == []


@pytest.mark.parametrize(("own", "kept"), [(None, "1"), ("0", "0"), ("", "")])
@pytest.mark.parametrize("package", ["tlcache", "exporters"])
def test_the_users_own_choice_stays(package: str, own: str | None, kept: str) -> None:
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    code = f"import os, {package}; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    chosen = {} if own is None else {"ORT_DISABLE_TELEMETRY": own}
    done = subprocess.run([sys.executable, "-c", code], env=env | chosen, check=True, capture_output=True, text=True)
    assert done.stdout == f"{kept}\n"


@pytest.fixture
def study(tmp_path: Path, photos: Path, tiny_model: Path) -> Path:
    """What is written of an audited and compared dataset that is given by its absolute path."""
    work, model = tmp_path / "work", tiny_model.rename(tmp_path / "own.onnx")
    made = [extract(photos, str(model), features=work / "features").path]
    found = fit_heads(made, heads=["ridge"], runs=work / "runs")
    audit(made, runs=work / "runs")
    write_report(work / "report.html", runs=work / "runs")
    assert found[0].source == str(photos)
    return work


def test_no_page_and_no_record_has_an_absolute_path(study: Path, tmp_path: Path) -> None:
    written = [path for path in study.rglob("*") if path.is_file() and path.suffix != ".h5"]
    assert {path.suffix for path in written} >= {".html", ".md", ".csv", ".json", ".safetensors"}
    assert [path.name for path in written if str(tmp_path).encode() in path.read_bytes()] == []


def test_what_moves_together_finds_its_images_and_its_network(study: Path, tmp_path: Path) -> None:
    there = tmp_path / "elsewhere"
    there.mkdir()
    for name in ("work", "photos", "own.onnx"):
        (tmp_path / name).rename(there / name)
    (run,), (found,) = read_runs(there / study.name / "runs"), read_audits(there / study.name / "runs")
    made = run.extract_arguments
    assert run.source == found.source == made["data"] == str(there / "photos")
    assert made["model"] == str(there / "own.onnx")
    assert Path(run.features).is_file()


def test_records_that_hold_absolute_paths_are_read_as_they_are(study: Path) -> None:
    (path,) = (study / "runs" / "photos").glob("*.json")
    fields = json.loads(path.read_text())
    fields |= {"source": "/old/photos", "features": "features/photos/own.h5"}
    path.write_text(json.dumps(fields))
    (run,) = read_runs(study / "runs")
    assert (run.source, run.features) == ("/old/photos", "features/photos/own.h5")


@pytest.mark.parametrize(
    ("path", "folder", "way"),
    [
        ("home/me/work/photos", "home/me/work/runs/photos", "../../photos"),
        ("home/me/work/photos", "home/me/work", "photos"),
        ("home/me/sets/a b", "disk/runs", "~/sets/a b"),
        ("disk/sets/photos", "home/me/work", "../../../disk/sets/photos"),
    ],
)
def test_a_path_is_told_without_what_is_above(
    path: str, folder: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    assert relative(tmp_path / path, tmp_path / folder) == way
