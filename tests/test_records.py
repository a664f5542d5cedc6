"""JSON records: what is written is read, and what is no record is refused with the reason."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tlcache.errors import CacheError
from tlcache.records import Form, as_json, renamed


@dataclass(frozen=True)
class Leg:
    to: Path
    km: float


@dataclass(frozen=True)
class Walk:
    legs: tuple[Leg, ...]
    steps: int
    notes: Mapping[str, str]
    record: Path


WALKS: Form[Walk] = Form("walks", 3, "a walk", Walk)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "new" / "walk.json"
    legs = (Leg(Path("mill"), np.float32(1.5)), Leg(Path("home"), 2))
    WALKS.write(path, Walk(legs, np.int64(4_000), {"weather": "fine"}, path), weather_station=Path("roof"))
    return path


def test_what_is_written_is_read_from_wherever_it_is_now(written: Path) -> None:
    assert json.loads(written.read_text()) == {
        "format": "walks",
        "format_version": 3,
        "legs": [{"to": "mill", "km": 1.5}, {"to": "home", "km": 2}],
        "steps": 4_000,
        "notes": {"weather": "fine"},
        "record": "./walk.json",
        "weather_station": "roof",
    }
    moved = written.rename(written.with_name("moved.json"))
    assert WALKS.read(moved) == Walk((Leg(Path("mill"), 1.5), Leg(Path("home"), 2)), 4_000, {"weather": "fine"}, moved)


def test_a_number_that_json_does_not_know_is_never_written(written: Path) -> None:
    before = written.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        WALKS.write(written, Walk((Leg(Path("mill"), float("nan")),), 1, {}, written))
    assert written.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "runs"}, "is not a walk by this tlcache. Move it away."),
        ({"format_version": 2}, "is not a walk by this tlcache. Move it away."),
        ({"format_version": 4}, "of format version 4, by a newer tlcache; this one reads version 3. Upgrade tlcache."),
        (
            {"steps": "many"},
            "is not a walk by this tlcache (Expected `int`, got `str` - at `$.steps`). Move it away.",
        ),
        (
            {"legs": [{"to": "mill"}]},
            "(Object missing required field `km` - at `$.legs[0]`). Move it away.",
        ),
    ],
)
def test_what_is_no_record_is_told_and_left_out(written: Path, change: dict[str, object], words: str) -> None:
    good = written.with_name("good.json")
    good.write_bytes(written.read_bytes())
    written.write_text(json.dumps({**json.loads(written.read_text()), **change}))
    told: list[str] = []
    assert [walk.record for walk in WALKS.read_all([written, good], told.append)] == [good]
    (line,) = told
    assert line.startswith(f"'{written}' ")
    assert f"{words} Until then it is left out." in line


def test_what_cannot_be_read_says_so(written: Path) -> None:
    with pytest.raises(CacheError, match=r"missing\.json' cannot be read \(No such file or directory\)"):
        WALKS.read(written.with_name("missing.json"))
    written.write_bytes(b"{")
    with pytest.raises(CacheError, match=r"walk\.json' is not a walk \(Expecting property name.*\)\. Move it away\."):
        WALKS.read(written)


def test_numbers_of_numpy_are_numbers() -> None:
    assert as_json({"a": np.float32(0.5), "b": [np.int64(1)], "c": (None, True)}) == {
        "a": 0.5,
        "b": [1],
        "c": (None, True),
    }


def test_a_record_of_an_earlier_version_is_read_by_its_names(written: Path) -> None:
    later: Form[Walk] = Form("walks", 4, "a walk", Walk, earlier={3: renamed({"paces": "steps"})})
    found = WALKS.read(written)
    fields = json.loads(written.read_text())
    fields["paces"] = fields.pop("steps")
    written.write_text(json.dumps(fields))
    assert later.read(written) == found
    written.write_text(json.dumps({**fields, "format_version": 4}))
    with pytest.raises(CacheError, match="missing required field `steps`"):
        later.read(written)
