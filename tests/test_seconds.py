"""What records say of the time and the energy that heads and fine-tunings took."""

import json
from pathlib import Path

import pytest

from tlcache import machine
from tlcache.finetuning.finetune import finetune
from tlcache.machine import Energy
from tlcache.probing.fit import fit_heads
from tlcache.runs.record import RUNS


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two processors, one of them with a part that is counted by itself too."""
    for name in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"):
        count(tmp_path, name, 1_000_000)
        (tmp_path / name / "max_energy_range_uj").write_text("99999999999\n")
    monkeypatch.setattr(machine, "_POWERCAP", tmp_path)
    return tmp_path


def count(place: Path, name: str, value: int) -> None:
    (place / name).mkdir(exist_ok=True)
    (place / name / "energy_uj").write_text(f"{value}\n")


def test_the_energy_of_all_processors_is_told(counters: Path) -> None:
    energy = Energy()
    count(counters, "intel-rapl:0", 3_500_000)
    count(counters, "intel-rapl:0:0", 9_000_000)
    count(counters, "intel-rapl:1", 2_000_000)
    assert energy.joules() == pytest.approx(3.5)


def test_a_counter_may_go_round_once(counters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    energy = Energy()
    count(counters, "intel-rapl:0", 500_000)
    assert energy.joules() == pytest.approx(100_000 - 0.5, abs=1e-3)
    now = machine.time.monotonic()
    monkeypatch.setattr(machine.time, "monotonic", lambda: now + 1_000)
    assert energy.joules() is None  # or several times


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj"])
def test_what_may_not_be_read_is_not_told(counters: Path, file: str) -> None:
    for name in ("intel-rapl:0", "intel-rapl:1"):
        (counters / name / file).unlink()
    assert Energy().joules() is None


def test_a_processor_that_is_not_told_of_any_more_ends_it(counters: Path) -> None:
    energy = Energy()
    (counters / "intel-rapl:1" / "energy_uj").unlink()
    assert energy.joules() is None


@pytest.mark.usefixtures("tinynet", "val_chooses")
def test_seconds_and_energy_are_counted_alike_whatever_was_there_already(photos: Path, counters: Path) -> None:
    fixed = {"precision": "fp32", "layout": "contiguous", "epochs": 1}
    first, again = (finetune(photos, "tinynet", "random", **fixed, lr=rate) for rate in (1e-3, 1e-4))
    assert first.decode_s == again.decode_s > 0  # which the second found in the cache
    for run in (first, again):
        assert run.train_s == pytest.approx(run.decode_s + run.search_s + run.refit_s)
        assert run.search_s >= sum(each.train_s for each in run.candidates)
        assert 0 < sum(epoch.train_s for epoch in run.refit_history) < run.refit_s
    (head,) = fit_heads(heads=["ridge"])
    for run in (first, head):
        assert json.loads(run.path.read_text())["energy_j"] == run.energy_j == 0
        assert RUNS.read(run.path) == run
    for name in ("intel-rapl:0", "intel-rapl:1"):
        (counters / name / "energy_uj").unlink()
    (head,) = fit_heads(heads=["ridge"], force=True)
    assert "energy_j" not in json.loads(head.path.read_text())
