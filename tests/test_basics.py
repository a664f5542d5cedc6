"""Errors, keys and files."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcache.errors import closest, root_line
from tlcache.files import whole, write_whole
from tlcache.keys import canonical_json, hash_json, slug

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_canonical_json_keeps_every_value(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), st.integers()))
def test_the_order_of_keys_does_not_change_the_hash(value: dict[str, int]) -> None:
    assert hash_json(value) == hash_json(dict(reversed(value.items())))


@given(st.text())
def test_slugs_stay_in_their_folder(name: str) -> None:
    path = Path("/folder") / slug(name)
    assert path.parent == Path("/folder")
    assert path.name == slug(name)
    assert not path.name.startswith(".")


def test_closest_name() -> None:
    assert "Did you mean 'ridge'?" in closest("head", "rigde", ["ridge", "knn"])
    assert "Did you mean" not in closest("head", "zzz", ["ridge", "knn"])


def test_a_name_with_a_comma_is_one_in_a_list() -> None:
    assert closest("class", "truk", ["ship, big", "truck"]).endswith("Known: 'ship, big', truck.")


def test_of_many_names_the_nearest_are_told() -> None:
    names = [f"mobilenetv2-ridge-{number:06}" for number in range(500)]
    message = closest("run", "mobilenetv2-ridge-000041x", names)
    assert "Did you mean 'mobilenetv2-ridge-000041'? Known: mobilenetv2-ridge-000041, " in message
    assert message.endswith(" and 495 more.")
    assert message.count("mobilenetv2-ridge-") == 7


def test_the_reason_of_a_failure_is_its_root() -> None:
    error = RuntimeError("step 3 of 3")
    error.__cause__ = ValueError("\x1b[96mno such operator\x1b[0m\nsecond line")
    assert root_line(error) == "ValueError: no such operator"


def test_write_whole_keeps_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file"
    write_whole(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space") as full_disk:
        write_whole(path, b"new")
    assert full_disk.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_an_error_names_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    (tmp_path / "pairs.png").mkdir()
    with pytest.raises(IsADirectoryError) as taken:
        write_whole(tmp_path / "pairs.png", b"new")
    assert taken.value.filename == str(tmp_path / "pairs.png")
    with pytest.raises(FileNotFoundError, match="other"), whole(tmp_path / "new"):
        (tmp_path / "other").read_bytes()
    with pytest.raises(OSError, match="File name too long") as long:
        write_whole(tmp_path / ("n" * 300), b"new")
    assert long.value.filename == str(tmp_path / ("n" * 300))
    assert [entry.name for entry in tmp_path.iterdir()] == ["pairs.png"]
