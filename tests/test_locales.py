"""Names and output under any locale: one name is one name, nothing is lost, and nothing ends in a traceback."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fakes import write_photos

from tlcache.cache.feature_file import open_features
from tlcache.display import plain_console
from tlcache.errors import DamagedError
from tlcache.extraction.extract import extract
from tlcache.inventory.checks import verify
from tlcache.inventory.leftovers import find_leftovers
from tlcache.keys import canonical_json, hash_json, native, portable, slug
from tlcache.probing.fit import fit_heads
from tlcache.report.plain import plain_table

WORK = """
import json, sys, tlcache
photos, model = sys.argv[1:]
state = [check.sound for check in tlcache.verify()], tlcache.find_leftovers(), tlcache.extract(photos, model).up_to_date
(run,) = tlcache.fit_heads(heads=["ridge"])
print(json.dumps([*state, run.path.name, tlcache.audit()[0].images, len(tlcache.write_report("again.html"))]))
"""

COMMANDS = """
import sys
from tlcache.cli import main
extraction = ["extract", "-m", sys.argv[1], "-d", sys.argv[2]]
for words in (extraction, ["fit-heads", "--heads", "ridge"], ["report"]):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as ended:
        assert not ended.code
"""

JOINED = """
import sys
from pathlib import Path
from tlcache.cache.joined import open_joined
with open_joined(list(map(Path, sys.argv[1:]))) as file:
    print(file.attrs["arguments"], file.attrs["key"])
"""


@pytest.fixture
def accents(tmp_path: Path) -> Path:
    """A dataset whose name and classes have accents."""
    folder = write_photos(tmp_path / "forêt")
    (folder / "blue").rename(folder / "chêne")
    (folder / "red").rename(folder / "été")
    return folder


@pytest.fixture(params=["iso8859-1", pytest.param("ascii", marks=pytest.mark.slow)])
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a process with another locale."""
    if request.param == "ascii":
        return {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    if not shutil.which("localedef"):
        pytest.skip("no localedef here")
    place = tmp_path / "locales" / "de_DE.ISO-8859-1"
    place.parent.mkdir()
    made = subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", place], capture_output=True, check=False)
    if not place.exists():
        pytest.skip(f"no such locale can be made here: {made.stderr!r}")
    return {"LC_ALL": place.name, "LOCPATH": str(place.parent)}


def told(command: list[str | Path], env: dict[str, str]) -> str:
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode("utf-8", "surrogateescape")


def test_another_locale_finds_what_is_there(accents: Path, tiny_model: Path, foreign: dict[str, str]) -> None:
    extract(accents, str(tiny_model))
    (run,) = fit_heads(heads=["ridge"])
    before = run.path.stat().st_mtime_ns
    found = json.loads(told([sys.executable, "-c", WORK, accents, tiny_model], foreign))
    assert found == [[True], [], True, run.path.name, 24, 3]
    assert run.path.stat().st_mtime_ns == before  # it was recorded


def test_joined_features_say_the_same_in_another_locale(
    accents: Path, tiny_model: Path, foreign: dict[str, str]
) -> None:
    files = [extract(accents, str(tiny_model), resize=size).path for size in (32, 40)]
    command: list[str | Path] = [sys.executable, "-c", JOINED, *files]
    here = told(command, {})
    assert "for\\u00eat" in here
    assert told(command, foreign) == here


def test_this_locale_finds_what_another_made(accents: Path, tiny_model: Path, foreign: dict[str, str]) -> None:
    told([sys.executable, "-c", COMMANDS, tiny_model, accents], foreign)
    assert "chêne" in Path("report.html").read_text("utf-8")
    assert find_leftovers() == []
    done = extract(accents, str(tiny_model))
    assert done.up_to_date
    with open_features(done.path) as file:
        assert file.classes == ("chêne", "green", "été")
    (run,) = fit_heads(heads=["ridge"])
    assert (run.classes, run.source) == (("chêne", "green", "été"), str(accents))


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1", "iso8859-15", "koi8-r", "gb18030"])
def test_a_header_of_an_early_version_under_any_locale_is_sound(encoding: str, accents: Path, tiny_model: Path) -> None:
    path = extract(accents, str(tiny_model)).path

    def as_read_there(value: Any) -> Any:
        text = value.item() if isinstance(value, np.generic) else value
        return text.decode(encoding, "surrogateescape") if isinstance(text, bytes) else text

    with h5py.File(path, "r+") as file:
        attrs = {name: as_read_there(value) for name, value in file.attrs.items() if name != "header_sha256"}
        classes = [as_read_there(name) for name in file["classes"][:]]
        header = {"attributes": attrs, "classes": classes, "quarantine": []}
        text = json.dumps(header, sort_keys=True, separators=(",", ":"))
        file.attrs["header_sha256"] = np.bytes_(hashlib.sha256(text.encode()).hexdigest())
    assert [check.sound for check in verify()] == [True]
    assert find_leftovers() == []
    with h5py.File(path, "r+") as file:
        file.attrs["weights"] = np.bytes_("others")
    with pytest.raises(DamagedError, match="its header is not what was written"):
        open_features(path)


def test_keys_of_names_are_those_of_utf_8() -> None:
    names = {"classes": ["chêne", "été\udcff"], "rows": [["chêne/1.png", 2, None]]}
    there = portable(names, "iso8859-1")
    assert there["classes"][0] == "chÃªne"
    assert portable(there, ours="iso8859-1") == names == native(portable(names))
    assert portable("→", ours="ascii") == "→"
    assert hash_json(names) == hashlib.sha256(canonical_json(names).encode()).hexdigest()
    assert slug("forêt d'été") == "forêt_d_été"


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("utf-16", marks=pytest.mark.slow)])
def test_output_of_any_encoding_ends_no_command(encoding: str, photos: Path, tiny_model: Path) -> None:
    for name, other in {"blue": "дуб", "green": "ель", "red": "ива"}.items():
        (photos / name).rename(photos / other)
    extract(photos, str(tiny_model))
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "tlcache", "fit-heads", "--heads", "ridge"]
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = "дуб" if encoding == "utf-16" else r"\u0434\u0443\u0431"
    assert f"Always answering '{shown}'" in done.stdout.decode(encoding)


@pytest.mark.parametrize("name", ["oak [red]", "yes [/no]", "[/]", ":dog:", "[link=x]a", r"a\[b]"])
def test_names_are_shown_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = plain_table("Label")
    table.add_row(name)
    plain_console(stderr=False).print(table)
    plain_console(stderr=False).print(name)
    assert capsys.readouterr().out.split("\n")[1:3] == [name.ljust(5), name]
