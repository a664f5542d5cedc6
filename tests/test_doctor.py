"""`tlcache doctor`: what works on a machine, and what does not, is what it says."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tlcache.doctor
from tlcache.cli import app
from tlcache.doctor import Finding, run_doctor

WELL = Finding("trial", "ok", "not tried here")


def states(found: list[Finding]) -> dict[str, str]:
    return {each.what: each.state for each in found}


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tlcache.doctor, "_trial", lambda: WELL)


@pytest.mark.usefixtures("untried")
def test_a_machine_without_gpu_has_no_problem_and_says_why_cuda_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlcache.backbones.engines._has_gpu", lambda: False)
    monkeypatch.setattr("tlcache.backbones.engines._openvino_abilities", lambda: ["FP32"])
    monkeypatch.setattr("tlcache.backbones.engines.has_vnni", lambda: False)
    found = run_doctor()
    assert states(found) == dict.fromkeys(states(found), "ok") | {"onnxruntime on cuda": "no"}
    said = {each.what: each.found for each in found}
    assert "asked" not in said["onnxruntime on cuda"]
    assert said["onnxruntime on cuda"]
    assert said["onnxruntime on cpu"].startswith("fp32; int8: this processor has no products of 8-bit integers")
    assert said["openvino on cpu"].startswith("fp32; bf16: this processor has no bf16 arithmetic")
    assert "h5py" in said["packages"]


@pytest.mark.usefixtures("untried")
def test_a_folder_that_is_a_file_is_a_problem_and_ends_with_status_1(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"x")
    done = CliRunner().invoke(app, ["doctor", "--runs", str(tmp_path / "taken" / "runs"), "--json", "-"])
    assert done.exit_code == 1
    (problem,) = [each for each in json.loads(done.stdout)["findings"] if each["state"] == "problem"]
    assert problem["what"] == "--runs"
    assert "is no folder. Give another folder with --runs." in problem["found"]


@pytest.mark.usefixtures("untried")
def test_two_builds_of_the_runtime_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        def __init__(self, name: str) -> None:
            self.name = name

    monkeypatch.setattr(tlcache.doctor, "distributions", lambda: map(Package, ["onnxruntime", "onnxruntime-gpu"]))
    assert states(run_doctor())["ONNX Runtime"] == "problem"


@pytest.mark.usefixtures("untried")
def test_little_room_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tlcache.doctor, "_SCARCE", 10**18)
    assert states(run_doctor())["--features"] == "problem"


def test_the_trial_embeds_classifies_and_reads_again_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tlcache")
    found = tlcache.doctor._trial()
    assert (found.state, found.found.partition(",")[0]) == ("ok", "48 images embedded")
    assert not [each for each in caplog.records if each.name == "tlcache"]


def test_a_trial_that_fails_is_a_problem_with_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlcache.probing.fit.fit_heads", lambda *_, **__: 1 / 0)
    found = tlcache.doctor._trial()
    assert (found.state, found.found) == ("problem", "ZeroDivisionError: division by zero")
